"""What one relay is to do, read from the JSON form of a Relay noun."""

from __future__ import annotations

import socket
from typing import Any

Key = tuple[str, str, int]
# A socket can't get all addresses later, when it listens: so whether it has them is part of which
# one it is.
Slot = tuple[str, str, int, bool]
SockAddr = tuple[Any, ...]


class Spec:
    """`count` ports of `host` from `port` on lead to those of `target` from `target_port` on."""

    __slots__ = (
        "_sources",
        "_target",
        "count",
        "document",
        "family",
        "holds_all",
        "host",
        "key",
        "port",
        "protocol",
        "target_family",
        "target_port",
    )

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.protocol: str = document["protocol"]
        if self.protocol not in ("tcp", "udp"):
            raise ValueError(f"there is no relay for {self.protocol}")
        self.port: int = document["port"]
        self.count: int = document["count"]
        self.target_port: int = document["target_port"]
        self.family, self.host = _socket_address(document["host"])
        self.target_family, self._target = _socket_address(document["target"])
        self._sources = [_prefix(text) for text in document["sources"]]
        self.holds_all: bool = document.get("holds_all", False)  # older callers know no such thing
        self.key: Key = (self.protocol, document["host"], self.port)

    @property
    def slots(self) -> list[Slot]:
        """One for each port: a listening socket stands for each."""
        return [
            (self.protocol, self.key[1], self.port + n, self.holds_all) for n in range(self.count)
        ]

    def listening(self, port: int) -> SockAddr:
        """The address to listen on for one of the ports."""
        return (self.host[0], port, *self.host[2:])

    def target(self, port: int) -> SockAddr:
        """Where one of the ports leads to."""
        return (self._target[0], self.target_port + port - self.port, *self._target[2:])

    def leads_as(self, other: Spec, port: int) -> bool:
        """Whether a flow through `port` may stay when `other` takes this one's place."""
        return (
            self.target(port) == other.target(port)
            and self.document["sources"] == other.document["sources"]
        )

    def admits(self, client: str) -> bool:
        """Whether a client, by its numeric address, may use it."""
        if not self._sources:
            return True
        number = int.from_bytes(socket.inet_pton(self.family, client.partition("%")[0]))
        return any(number & mask == prefix for prefix, mask in self._sources)


def slot_text(slot: Slot | Key) -> str:
    """A slot as a person reads it: `port 8080/tcp of ::1`."""
    protocol, host, port = slot[:3]
    return f"port {port}/{protocol} of {host}"


def _socket_address(text: str) -> tuple[int, SockAddr]:
    """The family and the socket address, port 0, of a numeric address, `%device` included."""
    # As bytes: for a str the codec for names is loaded, when no file can be opened any more.
    family, _, _, _, address = socket.getaddrinfo(
        text.encode(), 0, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )[0]
    return family, address


def _prefix(text: str) -> tuple[int, int]:
    """A prefix as a number and its mask."""
    address, _, length = text.partition("/")
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    bits = len(packed) * 8
    mask = ((1 << int(length)) - 1) << (bits - int(length))
    return int.from_bytes(packed) & mask, mask
