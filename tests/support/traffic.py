"""Real packets: small servers in a place of the test's network, and clients that ask them.

Sockets are made by a thread inside the place and used from the test's process, so a question
costs no process. Every server answers with its name and the client's address as it saw it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, Protocol, TypeVar

T = TypeVar("T")
Kind = Literal["tcp", "udp", "http"]

# On a busy machine a packet may be late or lost: who expects an answer asks again.
_TRIES = 8
PATIENCE = 0.5  # seconds: packets here take microseconds, so silence this long means dropped


class Somewhere(Protocol):
    """A place in the network: host, sandbox, outsider."""

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns when a thread calls it there."""


@dataclass(frozen=True)
class Answer:
    """Who answered, and from where the question seemed to come."""

    server: str
    source: str
    source_port: int
    body: bytes = b""


@contextlib.contextmanager
def serve(
    where: Somewhere, port: int, kind: Kind = "tcp", *, name: str = "", address: str = "::"
) -> Iterator[list[str]]:
    """A server at `port` until the block ends; yields the addresses of its clients so far.

    `address` `::` is every address of both families (UDP then answers from the address that
    its route prefers: name one where that matters). http serves a page that says `name`.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    transport = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM

    def listen() -> socket.socket:
        server = socket.socket(family, transport)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((address, port))
        if kind != "udp":
            server.listen(128)
        return server

    server = where.call(listen)
    name = name or getattr(where, "name", "server")
    seen: list[str] = []
    loop = _answer_datagrams if kind == "udp" else _answer_streams
    thread = threading.Thread(target=loop, args=(server, name, seen, kind), daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        # It wakes accept() and recvfrom(); close() would not.
        with contextlib.suppress(OSError):  # datagram sockets are not connected, but woken
            server.shutdown(socket.SHUT_RDWR)
        thread.join(2)
        server.close()


def ask(
    where: Somewhere,
    address: str,
    port: int,
    kind: Kind = "tcp",
    *,
    source: tuple[str, int] | None = None,
    timeout: float = PATIENCE,
) -> Answer | None:
    """What the server at an address says to a client in `where`; None when none answers.

    Refusal and silence are both None; `source` binds the client first.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    transport = socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM
    try:
        client = where.call(lambda: socket.socket(family, transport))
    except OSError:
        return None
    with client:
        try:
            client.settimeout(timeout)
            if source is not None:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind(source)
            client.connect((address, port))
            if kind == "udp":
                client.send(b"?")
                return _read(client.recv(65535))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n" if kind == "http" else b"?\n")
            received = b"".join(iter(lambda: client.recv(65535), b""))
        except OSError:
            return None
        return _read_page(received) if kind == "http" else _read(received)


def reachable(where: Somewhere, address: str, port: int, kind: Kind = "tcp") -> bool:
    """Whether a client in `where` gets an answer, be it after some tries: see `unreachable`."""
    return answered(where, address, port, kind) is not None


def answered(
    where: Somewhere,
    address: str,
    port: int,
    kind: Kind = "tcp",
    *,
    source: tuple[str, int] | None = None,
) -> Answer | None:
    """What a server that is reachable says, be it after some tries."""
    said = (ask(where, address, port, kind, source=source) for _ in range(_TRIES))
    return next((one for one in said if one is not None), None)


def unreachable(where: Somewhere, address: str, port: int, kind: Kind = "tcp") -> bool:
    """Whether a client in `where` gets no answer, in as long as a healthy one takes."""
    return ask(where, address, port, kind) is None


def udp_ask(where: Somewhere, address: str, port: int) -> Answer | None:
    """`ask` by UDP."""
    return ask(where, address, port, "udp")


def fetch(where: Somewhere, address: str, port: int) -> bytes:
    """The page that a web server gives to a client in `where`; OSError where none does."""
    tries = (ask(where, address, port, "http") for _ in range(_TRIES))
    answer = next((one for one in tries if one is not None), None)
    if answer is None:
        raise OSError(f"no page at {address} port {port}")
    return answer.body


def _answer_streams(server: socket.socket, name: str, seen: list[str], kind: Kind) -> None:
    while True:
        try:
            client, peer = server.accept()
        except OSError:  # shut down
            return
        with client, contextlib.suppress(OSError):  # a client may leave early
            client.settimeout(2)
            client.recv(65535)
            said = _say(name, peer, seen)
            page = b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\nX-Seen: %s\r\n\r\n%s"
            body = name.encode()
            client.sendall(page % (len(body), said, body) if kind == "http" else said)


def _answer_datagrams(server: socket.socket, name: str, seen: list[str], _kind: Kind) -> None:
    while True:
        _, peer = server.recvfrom(65535)
        if peer is None:  # shut down
            return
        with contextlib.suppress(OSError):  # the way back may be closed
            server.sendto(_say(name, peer, seen), peer)


def _say(name: str, peer: tuple[object, ...], seen: list[str]) -> bytes:
    address = ip_address(str(peer[0]).partition("%")[0])
    source = str(getattr(address, "ipv4_mapped", None) or address)
    seen.append(source)
    return json.dumps([name, source, peer[1]]).encode()


def _read(said: bytes) -> Answer | None:
    return Answer(*json.loads(said)) if said else None


def _read_page(received: bytes) -> Answer | None:
    head, _, body = received.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.startswith(b"X-Seen: "):
            name, source, port = json.loads(line.removeprefix(b"X-Seen: "))
            return Answer(name, source, port, body)
    return None
