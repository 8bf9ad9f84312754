"""Queries over TCP (RFC 7766): many on one connection, each answered as soon as it can be."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable

from netlib.dns import wire
from netlib.dns.loop import GONE, READ, WRITE, Loop

IDLE_SECONDS = 5.0  # without a query or an answer taken; bytes alone keep nobody alive
MOST_CONNECTIONS = 500
MOST_PER_CLIENT = 50
MOST_UNANSWERED = 100
TURN_BYTES = 1024  # what is read at once, some 30 queries: then others have their turn
MOST_UNREAD_BYTES = 256 * 1024  # answers that the client does not take

# The message, and what to call with the answer if it comes later.
Respond = Callable[[bytes, Callable[[bytes], None]], bytes | None]
# A packed source address → who connects from there, and what answers it.
Greet = Callable[[bytes], tuple[str, Respond]]


class TcpService:
    """Accepts connections on any number of listening sockets; the idlest makes room."""

    def __init__(self, loop: Loop, idle_seconds: float = IDLE_SECONDS) -> None:
        self.loop = loop
        self.idle_seconds = idle_seconds
        self.connections: set[Connection] = set()

    def accept(self, listener: socket.socket, greet: Greet) -> None:
        """Take a new connection, if there is one."""
        try:
            sock, peer = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room(list(self.connections))
            return  # the client went away, or comes again
        sock.setblocking(False)
        family = listener.family
        client, respond = greet(socket.inet_pton(family, peer[0].partition("%")[0]))
        same = [connection for connection in self.connections if connection.client == client]
        if len(same) >= MOST_PER_CLIENT:
            self._make_room(same)
        elif len(self.connections) >= MOST_CONNECTIONS:
            self._make_room(list(self.connections))
        self.connections.add(Connection(self, sock, client, respond))

    def _make_room(self, candidates: list[Connection]) -> None:
        if candidates:
            min(candidates, key=lambda connection: connection.last_use).close()


class Connection:
    """One client's connection."""

    def __init__(
        self, service: TcpService, sock: socket.socket, client: str, respond: Respond
    ) -> None:
        self.service = service
        self.client = client
        self.last_use = time.monotonic()
        self._sock = sock
        self._respond = respond
        self._read = bytearray()
        self._unsent = bytearray()
        self._unanswered = 0
        self._at_end = False
        service.loop.watch(sock, self._ready, READ)
        self._timer = service.loop.later(service.idle_seconds, self._check_idle)

    def close(self) -> None:
        """End the connection; what is answered later is thrown away."""
        if self._sock.fileno() >= 0:
            self._timer.cancel()
            self.service.connections.discard(self)
            self.service.loop.forget(self._sock)
            self._sock.close()

    def _check_idle(self) -> None:
        idle = time.monotonic() - self.last_use
        if idle >= self.service.idle_seconds:
            self.close()
        else:
            self._timer = self.service.loop.later(
                self.service.idle_seconds - idle, self._check_idle
            )

    def _ready(self, events: int) -> None:
        if events & GONE:  # both directions are shut: nobody is there to read an answer
            self.close()
            return
        try:
            if events & WRITE and self._unsent:
                self._send()
            if events & READ:
                self._receive()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._settle()

    def _receive(self) -> None:
        chunk = self._sock.recv(TURN_BYTES)
        if not chunk:
            self._at_end = True
        self._read += chunk
        self._serve()

    def _serve(self) -> None:
        """Answer the whole queries that came in, up to what one client may have open."""
        while len(self._read) >= 2 and not self._is_full():
            size = int.from_bytes(self._read[:2])
            if len(self._read) < size + 2:
                return
            message = bytes(self._read[2 : size + 2])
            del self._read[: size + 2]
            self.last_use = time.monotonic()
            self._unanswered += 1
            answer = self._respond(message, self._answer_later)
            if answer is not None:
                self._answer(answer)
            elif len(message) < wire.HEADER_BYTES or message[2] & 0x80:
                self._unanswered -= 1  # there will be no answer

    def _is_full(self) -> bool:
        return self._unanswered >= MOST_UNANSWERED or len(self._unsent) >= MOST_UNREAD_BYTES

    def _answer(self, answer: bytes) -> None:
        self._unanswered -= 1
        self._unsent += len(answer).to_bytes(2) + answer

    def _answer_later(self, answer: bytes) -> None:
        if self._sock.fileno() < 0:
            return
        self._answer(answer)
        self._settle()

    def _send(self) -> None:
        sent = self._sock.send(self._unsent)
        del self._unsent[:sent]
        self.last_use = time.monotonic()

    def _settle(self) -> None:
        """Send what can be sent, and wait for what is to come next."""
        try:
            while self._unsent:
                self._send()
                self._serve()
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._sock.fileno() < 0:
            return
        if self._at_end and not (self._unanswered or self._unsent):
            self.close()
            return
        reads = not (self._at_end or self._is_full())
        events = (READ if reads else 0) | (WRITE if self._unsent else 0)
        self.service.loop.watch(self._sock, self._ready, events)
