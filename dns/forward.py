"""Questions that others must answer: asked over UDP, over TCP where the answer is truncated.

Each query to a server has its own socket, so its own random port, and its own random id
(RFC 5452). Sockets are opened in the host's network namespace, so a server on the host's
loopback (systemd-resolved) is reached for every sandbox; but for servers that a sandbox was given,
in that sandbox's (see netlib.dns.within).
"""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

from netlib.dns import wire
from netlib.dns.loop import READ, WRITE, Loop, Timer
from netlib.dns.standing import Standing
from netlib.dns.upstream import (
    MOST_SERVERS,
    NEXT_SECONDS,
    PART_SECONDS,
    Server,
    attempts,
    connecting,
)
from netlib.dns.within import Open, Within
from netlib.values import dataclass, field

MOST_IN_FLIGHT = 1000
MOST_PER_ASKER = 250

_TRY_NEXT = frozenset((wire.SERVFAIL, wire.REFUSED, wire.NOTIMP, wire.FORMERR))

# Gets the answer without its OPT record, and its records; None: nobody answered.
Done = Callable[[bytes | None, list[wire.Record]], None]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of others. `dnssec` None: without EDNS, as the client asked.

    `within` names the sandbox from where `servers` are asked; empty: the host.
    """

    packed: bytes
    flags: int
    dnssec: bool | None
    servers: tuple[str, ...]
    within: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """Questions of one key have one answer."""
        name, wanted = self.packed[:-4].lower(), self.packed[-4:]
        return name + wanted, self.flags & wire.CD, bool(self.dnssec), self.servers, self.within

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

    One that was silent comes after the others, until it answers again: now and then a question
    goes to it as well, for whose answer nobody waits (see netlib.dns.standing).

    `is_ours` tells a server that would lead back to this resolver, `open_within` opens sockets
    in sandboxes.
    """

    def __init__(
        self, loop: Loop, is_ours: Callable[[Server | Within], bool], open_within: Open
    ) -> None:
        self.loop = loop
        self.is_ours = is_ours
        self.open_within = open_within
        self.sent = 0
        self.standing: Standing[Server | Within] = Standing()
        self._asked: dict[tuple[object, ...], _Inquiry] = {}
        self._by_asker: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._by_asker.total()

    def ask(self, question: Question, asker: str, done: Done) -> bool:
        """Call `done` once, later. False: too many are in flight, it will not be called."""
        if len(self) >= MOST_IN_FLIGHT or self._by_asker[asker] >= MOST_PER_ASKER:
            return False
        self._by_asker[asker] += 1
        key = (question.flags, question.dnssec, *question.key)
        inquiry = self._asked.get(key)
        if inquiry is not None:
            inquiry.waiting.append((asker, done))
            return True
        usable = self.usable(question.servers, question.within)
        servers = self.standing.order(usable[:MOST_SERVERS])
        inquiry = _Inquiry(self, question, attempts(servers), lambda: self._asked.pop(key))
        inquiry.waiting.append((asker, done))
        self._asked[key] = inquiry
        # Not at once: `done` is never called before `ask` has returned.
        inquiry.timer = self.loop.later(0, inquiry.next)
        for server in servers[1:]:
            if self.standing.is_due(server):
                self.loop.later(0, _Inquiry(self, question, [(server, NEXT_SECONDS)]).next)
        return True

    def usable(self, servers: Iterable[str], within: str) -> list[Server | Within]:
        """Those of the servers that would not lead back to us."""
        return [server for server in _parsed(servers, within) if not self.is_ours(server)]

    def settle(self, asker: str) -> None:
        """One question less in flight."""
        self._by_asker[asker] -= 1
        if not self._by_asker[asker]:
            del self._by_asker[asker]


def _parsed(servers: Iterable[str], within: str) -> Iterator[Server | Within]:
    for text in servers:
        server = Within(within, text) if within else Server.parse(text)
        if server is not None:
            yield server


@dataclass(slots=True)
class _Inquiry:
    """One question on its way through its servers. Late answers of earlier ones count too.

    Where nobody waits, it is asked to learn whether its server answers.
    """

    forwarder: Forwarder
    question: Question
    left: list[tuple[Server | Within, float]]
    forget: Callable[[], object] = lambda: None
    waiting: list[tuple[str, Done]] = field(default_factory=list)
    timer: Timer | None = None
    exchanges: list[_Exchange] = field(default_factory=list)
    refusal: tuple[bytes, list[wire.Record]] | None = None
    part: tuple[bytes, list[wire.Record]] | None = None  # of an answer that is too long for UDP
    impatience: Timer | None = None  # with only that part
    asked: tuple[Server | Within, float] | None = None  # who was asked last, and when

    def next(self) -> None:
        """Ask the next server, or give up: the last one has not answered, or will not."""
        if self.timer is not None:
            self.timer.cancel()
        if self.asked is not None:
            self.forwarder.standing.unheard(*self.asked)
        if not self.left:
            self.finish(*(self.part or self.refusal or (None, [])))
            return
        server, seconds = self.left.pop(0)
        self.asked = server, time.monotonic()
        self.timer = self.forwarder.loop.later(seconds, self.next)
        self.ask(server, edns=self.question.dnssec is not None)

    def ask(self, server: Server | Within, *, edns: bool) -> None:
        """Send the question over UDP."""
        self.forwarder.sent += 1
        self.start(_Udp(self, server, edns=edns))

    def start(self, exchange: _Exchange) -> None:
        """Wait for this one from now on."""
        self.exchanges.append(exchange)
        exchange.open()

    def failed(self, exchange: _Exchange) -> None:
        """A server can't be reached: the next one, at once if it is the one we wait for."""
        exchange.close()
        if exchange is self.exchanges[-1] or all(e.is_closed for e in self.exchanges):
            self.next()

    def heard(self, exchange: _Exchange, message: bytes) -> None:
        """An answer to our very query came in."""
        self.forwarder.standing.answered(exchange.server)
        if not self.waiting:
            self.finish(None, [])
            return
        is_part = isinstance(exchange, _Udp) and bool(message[2] & wire.TC >> 8)
        try:
            found = wire.records(message, wire.question_end(message))
            rcode = message[3] & 0xF | wire.extended_rcode(found)
            plain = wire.without_opt(message, found)
            found = [record for record in found if record.end <= len(plain)]
        except wire.Malformed:
            if is_part:
                self.ask_again_over_tcp(exchange)
            else:
                self.failed(exchange)
            return
        if is_part:
            self.part = plain, found
            if self.impatience is None:
                self.impatience = self.forwarder.loop.later(PART_SECONDS, self.tell_part)
            self.ask_again_over_tcp(exchange)
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

    def ask_again_over_tcp(self, exchange: _Exchange) -> None:
        """A truncated answer came: the whole one, or that part if its server can't be had so."""
        roads = (e for e in self.exchanges if isinstance(e, _Tcp) and e.server == exchange.server)
        over_tcp = next(roads, None)
        if over_tcp is None:
            exchange.close()
            self.start(_Tcp(self, exchange.server, edns=exchange.edns))
        elif over_tcp.has_asked and not over_tcp.is_closed:
            exchange.close()  # the server is far away, and was asked twice meanwhile
        elif self.part is not None:
            self.finish(*self.part)
        else:
            self.failed(exchange)

    def tell_part(self) -> None:
        """The whole has not come: who asked may want to try for it himself."""
        assert self.part is not None
        self.finish(*self.part)

    def finish(self, message: bytes | None, found: list[wire.Record]) -> None:
        """Tell all who wait."""
        self.forget()
        for timer in (self.timer, self.impatience):
            if timer is not None:
                timer.cancel()
        for exchange in self.exchanges:
            exchange.close()
        for asker, done in self.waiting:
            self.forwarder.settle(asker)
            done(message, found)


class _Exchange:
    """One query to one server, and its socket."""

    kind: ClassVar[socket.SocketKind]

    def __init__(self, inquiry: _Inquiry, server: Server | Within, *, edns: bool) -> None:
        self.inquiry = inquiry
        self.server = server
        self.edns = edns
        self.ident, self.query = inquiry.question.message(edns=edns)
        self.loop = inquiry.forwarder.loop
        self._sock: socket.socket | None = None
        self.is_closed = False

    def open(self) -> None:
        """Get a socket, and send the query as soon as it is there."""
        if isinstance(self.server, Within):
            request = self.server.sandbox, self.server.text, int(self.kind)
            self.inquiry.forwarder.open_within(request, self._opened)
            return
        try:
            sock = connecting(self.server, self.kind)
        except OSError:  # no route, no such interface
            self.inquiry.failed(self)
            return
        self._opened(sock)

    def _opened(self, sock: socket.socket | None) -> None:
        if self.is_closed:  # an answer came from elsewhere meanwhile, or nobody waits any more
            if sock is not None:
                sock.close()
            return
        self._sock = sock
        if sock is None:
            self.inquiry.failed(self)
            return
        try:
            self.begin(sock)
        except OSError:
            self.inquiry.failed(self)

    def begin(self, sock: socket.socket) -> None:
        """Use the socket, which is connected or about to be."""
        raise NotImplementedError

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
        self.is_closed = True
        if self._sock is not None:
            self.loop.forget(self._sock)
            self._sock.close()
            self._sock = None


class _Udp(_Exchange):
    kind = socket.SOCK_DGRAM

    def begin(self, sock: socket.socket) -> None:
        sock.send(self.query)
        self.loop.watch(sock, lambda _: self._ready(sock))

    def _ready(self, sock: socket.socket) -> None:
        try:
            message = sock.recv(wire.TCP_BYTES)
        except BlockingIOError:
            return
        except OSError:  # ICMP says that nobody listens there
            self.inquiry.failed(self)
            return
        if self.is_answer(message):
            self.inquiry.heard(self, message)


class _Tcp(_Exchange):
    kind = socket.SOCK_STREAM

    has_asked = False  # the server has taken the query

    def begin(self, sock: socket.socket) -> None:
        self._unsent = len(self.query).to_bytes(2) + self.query
        self._got = b""
        self.loop.watch(sock, lambda _: self._ready(sock), WRITE)

    def _ready(self, sock: socket.socket) -> None:
        try:
            if self._unsent:
                self._unsent = self._unsent[sock.send(self._unsent) :]
                if not self._unsent:
                    self.has_asked = True
                    self.loop.watch(sock, lambda _: self._ready(sock), READ)
                return
            chunk = sock.recv(wire.TCP_BYTES)
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
