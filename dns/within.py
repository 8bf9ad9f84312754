"""Servers that a sandbox was given are asked from where it is: in its own network namespace.

`--dns 127.0.0.1` is the sandbox's own loopback then, and a server that only its networks lead to is
reached. The DNS server may not enter a namespace. So it asks the keeper for sockets that are
connected from in there, many at a time and one time after the other.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from netlib.dns.sockets import inside
from netlib.dns.upstream import Server, connecting
from netlib.errors import KernelError
from netlib.values import dataclass

_AT_ONCE = 32  # descriptors that one message brings, see netlib.dns.channel

# Sandbox, server as it was given, and socket.SOCK_DGRAM or SOCK_STREAM.
Request = tuple[str, str, int]
# Gets the socket; None: there is no way from there.
Opened = Callable[[socket.socket | None], None]
Open = Callable[[Request, Opened], None]


@dataclass(frozen=True, slots=True)
class Within:
    """A name server as a sandbox sees it."""

    sandbox: str
    text: str


class Opener:
    """The DNS server's end: `send` takes requests to the keeper, `opened` what it answers."""

    def __init__(self, send: Callable[[list[Request]], None]) -> None:
        self._send = send
        self._waiting: list[tuple[Request, Opened]] = []
        self._sent: list[Opened] = []

    def open(self, request: Request, done: Opened) -> None:
        """Have a socket opened. `done` is called once, later."""
        self._waiting.append((request, done))
        self._next()

    def opened(self, successes: Sequence[bool], numbers: Sequence[int]) -> None:
        """What came of the requests that were sent, and the descriptors of those that succeeded."""
        left = iter(numbers)
        sent, self._sent = self._sent, []
        for done, success in zip(sent, successes, strict=True):
            done(socket.socket(fileno=next(left)) if success else None)
        self._next()

    def _next(self) -> None:
        if self._waiting and not self._sent:
            now, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            self._sent = [done for _, done in now]
            self._send([request for request, _ in now])


def open_all(
    requests: Sequence[Request], namespace_of: Callable[[str], tuple[str, int] | None]
) -> list[socket.socket | None]:
    """The keeper's end: a socket for each request. `namespace_of` a sandbox: path and inode."""
    found: list[socket.socket | None] = [None] * len(requests)
    for sandbox in dict.fromkeys(sandbox for sandbox, _, _ in requests):
        namespace = namespace_of(sandbox)
        if namespace is None:
            continue
        own = [(at, text, kind) for at, (who, text, kind) in enumerate(requests) if who == sandbox]

        def work(own: list[tuple[int, str, int]] = own) -> None:
            for at, text, kind in own:
                found[at] = _opened(text, kind)

        path, inode = namespace
        try:
            inside(path, work, inode)
        except KernelError:  # the sandbox has just ended: it waits for nothing
            continue
    return found


def _opened(text: str, kind: int) -> socket.socket | None:
    server = Server.parse(text)
    if server is None:
        return None
    try:
        return connecting(server, kind)
    except OSError:  # no route
        return None
