"""UDP: each client gets a socket of its own towards the target, and forgets to say goodbye."""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress

from netlib.relay.binding import claim, free_bind, hold
from netlib.relay.limits import Quota, client_of
from netlib.relay.loop import Loop
from netlib.relay.spec import Slot, SockAddr, Spec

_BUFFER = bytearray(65536)
_VIEW = memoryview(_BUFFER)
_DATAGRAMS_PER_TURN = 64
# As conntrack has it: nf_conntrack_udp_timeout and nf_conntrack_udp_timeout_stream
# (nf_conntrack-sysctl.rst).
_UNANSWERED_SECONDS = 30.0
_ANSWERED_SECONDS = 120.0
_IP_PKTINFO = 8  # linux/in.h; the socket module has a name for IPv6's only
_INFO_SPACE = socket.CMSG_SPACE(20)  # in6_pktinfo is the larger one

FlowKey = tuple[SockAddr, bytes]
Control = list[tuple[int, int, bytes]]


class UdpGate:
    """The flows of all UDP relays, for what concerns all of them: places and time."""

    def __init__(
        self,
        loop: Loop,
        quota: Quota,
        unanswered_seconds: float = _UNANSWERED_SECONDS,
        answered_seconds: float = _ANSWERED_SECONDS,
    ) -> None:
        self.loop = loop
        self.quota = quota
        self._lasts = (unanswered_seconds, answered_seconds)
        self.now = 0.0  # as of the last tick: precise enough, and asking is a system call less
        # In the order they began, so the first is the one to go when places are needed.
        self.unanswered: dict[Flow, None] = {}
        self.flows: set[Flow] = set()
        loop.each_tick(self._tick)

    def place(self, client: str) -> bool:
        """A place for a flow; the oldest unanswered one goes for it if there is no other."""
        if not self.flows:
            self.now = time.monotonic()
            self.loop.need_ticks()
        if self.quota.full and self.unanswered:
            next(iter(self.unanswered)).close()
        return self.quota.take(client)

    def until(self, *, answered: bool) -> float:
        """How long a flow lasts that is used now."""
        return self.now + self._lasts[answered]

    def _tick(self, now: float) -> bool:
        self.now = now
        for flow in [flow for flow in self.flows if flow.expires <= now]:
            flow.close()
        return bool(self.flows)


class UdpListener:
    """One listening port of a relay, and the flows that came through it."""

    def __init__(self, gate: UdpGate, slot: Slot, spec: Spec) -> None:
        self.slot = slot
        self.spec = spec
        self.gate = gate
        self.flows: dict[FlowKey, Flow] = {}
        self.sock = socket.socket(spec.family, socket.SOCK_DGRAM)
        self.held: socket.socket | None = None
        try:
            free_bind(self.sock)
            # A client takes an answer only from the address it asked, and the host has many.
            if spec.family == socket.AF_INET6:
                self.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            else:
                self.sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            self.sock.setblocking(False)
            if spec.holds_all:
                self.held = hold(self.sock, slot[2], gate.quota.holding)
            self.sock.bind(spec.listening(slot[2]))
            if self.held:
                claim(self.held)
            gate.loop.add(self.sock, self, select.EPOLLIN)
        except OSError:
            self._free()
            raise

    def on_event(self, events: int) -> None:
        """Pass datagrams of clients on."""
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                size, control, _, client = self.sock.recvmsg_into([_BUFFER], _INFO_SPACE)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error for an earlier answer (udp(7)); each is told once
            asked = _asked_address(control)
            flow = self.flows.get((client, asked)) or self._begin(client, asked)
            if flow is not None:
                flow.send(_VIEW[:size])

    def failed(self) -> None:
        """A datagram is lost, as datagrams are; the listener stays."""

    def _begin(self, client: SockAddr, asked: bytes) -> Flow | None:
        who = client_of(client[0])
        if not self.spec.admits(client[0]) or not self.gate.place(who):
            return None
        try:
            return Flow(self, client, asked, who)
        except OSError:  # no more files, or no way to the target now
            self.gate.quota.give_back(who)
            return None

    def close(self) -> None:
        """Listen no more, and forget all flows."""
        self.cut()
        self.gate.loop.release(self.sock)
        self._free()  # at once: the port may be wanted for a successor in the same step

    def _free(self) -> None:
        self.sock.close()
        if self.held:
            self.held.close()

    def cut(self) -> None:
        """Forget all flows: they lead where the port leads no more."""
        for flow in list(self.flows.values()):
            flow.close()


class Flow:
    """One client's datagrams and the target's answers to them."""

    __slots__ = (
        "_answered",
        "_client",
        "_control",
        "_key",
        "_listener",
        "_sock",
        "_who",
        "expires",
    )

    def __init__(self, listener: UdpListener, client: SockAddr, asked: bytes, who: str) -> None:
        gate = listener.gate
        self._listener = listener
        self._client = client
        self._key = (client, asked)
        self._control = _answering(listener.spec.family, asked)
        self._who = who
        self._answered = False
        self.expires = gate.until(answered=False)
        self._sock = socket.socket(listener.spec.target_family, socket.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            self._sock.connect(listener.spec.target(listener.slot[2]))
            gate.loop.add(self._sock, self, select.EPOLLIN)
        except OSError:
            self._sock.close()
            raise
        listener.flows[self._key] = self
        gate.flows.add(self)
        gate.unanswered[self] = None

    def send(self, data: memoryview) -> None:
        """Pass a client's datagram on."""
        self._touch()
        # Full, too long or refused: a datagram may be lost, and its sender is prepared for it.
        with suppress(OSError):
            self._sock.send(data)

    def on_event(self, events: int) -> None:
        """Pass answers of the target on."""
        listener = self._listener
        for _ in range(_DATAGRAMS_PER_TURN):
            try:
                size = self._sock.recv_into(_BUFFER)
            except BlockingIOError:
                return
            except OSError:
                return  # the target's port is closed (ICMP); it may be opened yet
            if not self._answered:
                self._answered = True
                listener.gate.unanswered.pop(self, None)
            self._touch()
            with suppress(OSError):  # likewise
                listener.sock.sendmsg([_VIEW[:size]], self._control, 0, self._client)

    def failed(self) -> None:
        """Give up."""
        self.close()

    def close(self) -> None:
        """Forget it."""
        gate = self._listener.gate
        if self in gate.flows:
            gate.flows.discard(self)
            gate.unanswered.pop(self, None)
            del self._listener.flows[self._key]
            gate.loop.close(self._sock)
            gate.quota.give_back(self._who)

    def _touch(self) -> None:
        self.expires = self._listener.gate.until(answered=self._answered)


def _asked_address(control: Control) -> bytes:
    """The host's address that a datagram came to, packed; empty when it is not told."""
    for level, kind, data in control:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return data[:16]  # struct in6_pktinfo: address, interface (RFC 3542 section 6.1)
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            return data[4:8]  # struct in_pktinfo: interface, local address, destination (ip(7))
    return b""


def _answering(family: int, asked: bytes) -> Control:
    """The control message that makes `asked` the source of a datagram, by any interface."""
    if not asked or (family == socket.AF_INET6 and asked[0] == 0xFF):
        return []  # a multicast address can be no source
    if family == socket.AF_INET6:
        return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, asked + bytes(4))]
    return [(socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + asked + bytes(4))]
