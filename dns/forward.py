"""Questions that others must answer: asked over UDP, over TCP where the answer is truncated.

Each query to a server has its own socket, so its own random port, and its own random id
(RFC 5452). All sockets are opened in the host's network namespace, so a server on the host's
loopback (systemd-resolved) is reached for every sandbox.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from netlib.dns import wire
from netlib.dns.loop import READ, WRITE, Loop, Timer
from netlib.dns.upstream import Server, attempts

MOST_IN_FLIGHT = 1000
MOST_PER_ASKER = 250

_TRY_NEXT = frozenset((wire.SERVFAIL, wire.REFUSED, wire.NOTIMP, wire.FORMERR))

# Gets the answer without its OPT record, and its records; None: nobody answered.
Done = Callable[[bytes | None, list[wire.Record]], None]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of others. `dnssec` None: without EDNS, as the client asked."""

    packed: bytes
    flags: int
    dnssec: bool | None
    servers: tuple[str, ...]

    @property
    def key(self) -> tuple[object, ...]:
        """Questions of one key have one answer."""
        name, wanted = self.packed[:-4].lower(), self.packed[-4:]
        return name + wanted, self.flags & wire.CD, bool(self.dnssec), self.servers

    def message(self, *, edns: bool) -> tuple[bytes, bytes]:
        """A fresh random id, and the packed query with it."""
        ident = os.urandom(2)
        flags = self.flags & (wire.RD | wire.CD | wire.AD)
        extra = int(edns)
        head = ident + flags.to_bytes(2) + b"\0\1\0\0\0\0" + extra.to_bytes(2)
        opt = wire.opt_record(wire.UDP_PAYLOAD_BYTES, dnssec=bool(self.dnssec)) if edns else b""
        return ident, head + self.packed + opt


class Forwarder:
    """Asks other servers; equal questions in flight share one answer.

    `is_ours` tells a server that would lead back to this resolver.
    """

    def __init__(self, loop: Loop, is_ours: Callable[[Server], bool]) -> None:
        self.loop = loop
        self.is_ours = is_ours
        self.sent = 0
        self._asked: dict[tuple[object, ...], _Inquiry] = {}
        self._by_asker: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._by_asker.total()

    def ask(self, question: Question, asker: str, servers: Iterable[str], done: Done) -> bool:
        """Call `done` once, later. False: too many are in flight, it will not be called."""
        if len(self) >= MOST_IN_FLIGHT or self._by_asker[asker] >= MOST_PER_ASKER:
            return False
        self._by_asker[asker] += 1
        key = (question.flags, question.dnssec, *question.key)
        inquiry = self._asked.get(key)
        if inquiry is not None:
            inquiry.waiting.append((asker, done))
            return True
        found = (Server.parse(text) for text in servers)
        usable = [server for server in found if server is not None and not self.is_ours(server)]
        inquiry = _Inquiry(self, question, attempts(usable), lambda: self._asked.pop(key))
        inquiry.waiting.append((asker, done))
        self._asked[key] = inquiry
        # Not at once: `done` is never called before `ask` has returned.
        inquiry.timer = self.loop.later(0, inquiry.next)
        return True

    def settle(self, asker: str) -> None:
        """One question less in flight."""
        self._by_asker[asker] -= 1
        if not self._by_asker[asker]:
            del self._by_asker[asker]


@dataclass(slots=True)
class _Inquiry:
    """One question on its way through its servers. Late answers of earlier ones count too."""

    forwarder: Forwarder
    question: Question
    left: list[tuple[Server, float]]
    forget: Callable[[], object]
    waiting: list[tuple[str, Done]] = field(default_factory=list)
    timer: Timer | None = None
    exchanges: list[_Exchange] = field(default_factory=list)
    refusal: tuple[bytes, list[wire.Record]] | None = None

    def next(self) -> None:
        """Ask the next server, or give up."""
        if self.timer is not None:
            self.timer.cancel()
        if not self.left:
            self.finish(*(self.refusal or (None, [])))
            return
        server, seconds = self.left.pop(0)
        self.timer = self.forwarder.loop.later(seconds, self.next)
        self.ask(server, edns=self.question.dnssec is not None)

    def ask(self, server: Server, *, edns: bool) -> None:
        """Send the question over UDP."""
        self.forwarder.sent += 1
        try:
            self.exchanges.append(_Udp(self, server, edns=edns))
        except OSError:  # no route, no such interface
            self.failed(None)

    def failed(self, exchange: _Exchange | None) -> None:
        """A server can't be reached: the next one, at once if it is the one we wait for."""
        current = not self.exchanges or exchange in (None, self.exchanges[-1])
        if exchange is not None:
            exchange.close()
        if current:
            self.next()

    def heard(self, exchange: _Exchange, message: bytes) -> None:
        """An answer to our very query came in."""
        flags = int.from_bytes(message[2:4])
        rcode = flags & 0xF
        try:
            if flags & wire.TC and isinstance(exchange, _Udp):
                exchange.close()
                self.exchanges.append(_Tcp(self, exchange.server, edns=exchange.edns))
                return
            found = wire.records(message, wire.question_end(message))
            rcode |= wire.extended_rcode(found)
            plain = wire.without_opt(message, found)
            found = [record for record in found if record.end <= len(plain)]
        except OSError:
            self.failed(None)
            return
        except wire.Malformed:
            self.failed(exchange)
            return
        if rcode > 0xF:  # BADVERS and others: about our OPT record, not about the question
            self.failed(exchange)
        elif rcode in (wire.FORMERR, wire.NOTIMP) and exchange.edns:
            exchange.close()  # a server from before EDNS (RFC 6891 section 7)
            self.ask(exchange.server, edns=False)
        elif rcode in _TRY_NEXT:
            self.refusal = plain, found
            self.failed(exchange)
        else:
            self.finish(plain, found)

    def finish(self, message: bytes | None, found: list[wire.Record]) -> None:
        """Tell all who wait."""
        self.forget()
        if self.timer is not None:
            self.timer.cancel()
        for exchange in self.exchanges:
            exchange.close()
        for asker, done in self.waiting:
            self.forwarder.settle(asker)
            done(message, found)


class _Exchange:
    """One query to one server, and its socket."""

    def __init__(self, inquiry: _Inquiry, server: Server, kind: int, *, edns: bool) -> None:
        self.inquiry = inquiry
        self.server = server
        self.edns = edns
        self.ident, self.query = inquiry.question.message(edns=edns)
        self.loop = inquiry.forwarder.loop
        self.sock = socket.socket(server.family, kind | socket.SOCK_NONBLOCK)

    def is_answer(self, message: bytes) -> bool:
        """Whether it has our id and our question (RFC 5452 section 9.1)."""
        question = self.inquiry.question.packed
        return (
            message[:2] == self.ident
            and len(message) >= wire.HEADER_BYTES
            and message[2] & 0xF8 == 0x80  # a response to a standard query
            and (
                message[12 : 12 + len(question)].lower() == question.lower()
                if message[4:6] == b"\0\1"
                # A server that can't read a question may leave it out.
                else message[4:6] == b"\0\0" and message[3] & 0xF in _TRY_NEXT
            )
        )

    def close(self) -> None:
        """Give back the socket; also twice."""
        if self.sock.fileno() >= 0:
            self.loop.forget(self.sock)
            self.sock.close()


class _Udp(_Exchange):
    def __init__(self, inquiry: _Inquiry, server: Server, *, edns: bool) -> None:
        super().__init__(inquiry, server, socket.SOCK_DGRAM, edns=edns)
        try:
            self.sock.connect(server.address)
            self.sock.send(self.query)
        except OSError:
            self.sock.close()
            raise
        self.loop.watch(self.sock, self._ready)

    def _ready(self, _events: int) -> None:
        try:
            message = self.sock.recv(wire.TCP_BYTES)
        except BlockingIOError:
            return
        except OSError:  # ICMP says that nobody listens there
            self.inquiry.failed(self)
            return
        if self.is_answer(message):
            self.inquiry.heard(self, message)


class _Tcp(_Exchange):
    def __init__(self, inquiry: _Inquiry, server: Server, *, edns: bool) -> None:
        super().__init__(inquiry, server, socket.SOCK_STREAM, edns=edns)
        self._unsent = len(self.query).to_bytes(2) + self.query
        self._got = b""
        try:
            self.sock.connect(server.address)
        except BlockingIOError:
            pass
        except OSError:
            self.sock.close()
            raise
        self.loop.watch(self.sock, self._ready, WRITE)

    def _ready(self, _events: int) -> None:
        try:
            if self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent) :]
                if not self._unsent:
                    self.loop.watch(self.sock, self._ready, READ)
                return
            chunk = self.sock.recv(wire.TCP_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.inquiry.failed(self)
            return
        self._got += chunk
        size = int.from_bytes(self._got[:2])
        if len(self._got) >= 2 and len(self._got) >= size + 2:
            message = self._got[2 : size + 2]
            if self.is_answer(message):
                self.inquiry.heard(self, message)
                return
        elif chunk:
            return
        self.inquiry.failed(self)
