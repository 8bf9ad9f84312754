"""Which servers to ask, and in what order and for how long."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from netlib.dns.resolv import ResolvConf
from netlib.values import dataclass

# A stub gives up after 5 s (resolv.conf(5), RES_TIMEOUT): we answer before that, if only to
# say that nobody did.
PATIENCE_SECONDS = 4.5
# Then the next one is asked too, and whoever answers first is heard: what takes a server longer is
# rare, also where it must ask others itself.
NEXT_SECONDS = 1.0
# TCP takes two round trips more than the part of an answer that came over UDP: no server is so far
# away that they take longer than this. It is enough to ask all of three servers, too.
PART_SECONDS = 2.5
RECENT_SECONDS = 0.2
MOST_SERVERS = 3  # MAXNS of resolv.conf(5)
_ITSELF: tuple[str, ...] = ("127.0.0.1",)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a name server listens, as socket.connect takes it."""

    family: socket.AddressFamily
    address: tuple[str, int] | tuple[str, int, int, int]

    @classmethod
    def parse(cls, text: str) -> Server | None:
        """`192.0.2.53`, `2001:db8::53`, `fe80::1%eth0`, each also with `#5353`; else None.

        None too where the interface of a link-local address is not there.
        """
        host, _, port = text.partition("#")
        host, _, scope = host.partition("%")
        try:
            number = int(port) if port else 53
            if ":" not in host:
                socket.inet_pton(socket.AF_INET, host)
                return cls(socket.AF_INET, (host, number))
            packed = socket.inet_pton(socket.AF_INET6, host)
            index = (
                socket.if_nametoindex(scope) if scope and not scope.isdigit() else int(scope or 0)
            )
        except (OSError, ValueError):
            return None
        return cls(socket.AF_INET6, (socket.inet_ntop(socket.AF_INET6, packed), number, 0, index))

    @property
    def text(self) -> str:
        """As `parse` takes it."""
        host, port, *more = self.address
        scope = f"%{more[1]}" if more and more[1] else ""
        return f"{host}{scope}#{port}" if port != 53 else f"{host}{scope}"


def connecting(server: Server, kind: int) -> socket.socket:
    """A socket of a kind that never waits and is, or is being, connected. Raises OSError."""
    sock = socket.socket(server.family, kind | socket.SOCK_NONBLOCK)
    try:
        sock.connect(server.address)
    except BlockingIOError:
        pass  # TCP: it can be written to when it is
    except OSError:
        sock.close()
        raise
    return sock


class HostServers:
    """The servers of the host's resolv.conf, read again when the file changed.

    Where it names none, or is not there, a stub asks the host itself (resolv.conf(5)).
    """

    def __init__(
        self, path: str = "/etc/resolv.conf", changed: Callable[[], None] = lambda: None
    ) -> None:
        self._path = Path(path)
        self._changed = changed
        self._seen = -RECENT_SECONDS
        self._mark: tuple[int, int, int] | None = None
        self._servers = _ITSELF

    def recent(self) -> tuple[str, ...]:
        """The addresses as the file had them a moment ago."""
        if time.monotonic() - self._seen < RECENT_SECONDS:
            return self._servers
        return self()

    def __call__(self) -> tuple[str, ...]:
        """The addresses as the file has them."""
        self._seen = time.monotonic()
        # A stat costs a microsecond, only for what is forwarded: cheaper than a watch that
        # follows the symbolic links of systemd-resolved and NetworkManager.
        try:
            stat = os.stat(self._path)
            mark = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if mark != self._mark:
                found = ResolvConf.parse(self._path.read_text(errors="replace"))
                self._servers, self._mark = found.servers or _ITSELF, mark
                self._changed()
        except OSError:
            self._servers, self._mark = _ITSELF, None
        return self._servers


T = TypeVar("T")


def attempts(servers: list[T]) -> list[tuple[T, float]]:
    """Whom to ask, and how many seconds until the next: all of them once, one alone twice.

    >>> attempts(["a", "b", "c"]), attempts(["a"])
    ([('a', 1.0), ('b', 1.0), ('c', 2.5)], [('a', 1.0), ('a', 3.5)])
    """
    if len(servers) == 1:
        servers = servers * 2
    waits = [NEXT_SECONDS] * (len(servers) - 1)
    return list(zip(servers, (*waits, PATIENCE_SECONDS - sum(waits)), strict=False))
