"""TCP: each connection of a client gets one to the target, and bytes go both ways.

Sockets are registered edge-triggered once, and each side remembers whether it can be read
and written, so that moving bytes costs no system call but those that move them. Bytes are
copied through one buffer that all connections share. That was measured to be no slower than
splice(2), which needs two more files for each direction and moves 64 KiB at a time.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time

from netlib.relay.binding import claim, free_bind, hold
from netlib.relay.limits import Quota, client_of
from netlib.relay.loop import Loop
from netlib.relay.spec import Slot, Spec

_BUFFER = memoryview(bytearray(128 * 1024))
_MOVES_PER_TURN = 8
_ACCEPTS_PER_TURN = 32
_BACKLOG = 4096  # the kernel takes net.core.somaxconn where that is less
_CONNECT_SECONDS = 10.0
_RETRY_SECONDS = 0.1
_KEEPALIVE_SECONDS = 60
# Closing with a zero linger sends a reset instead of FIN (socket(7), SO_LINGER).
_RESET = struct.pack("ii", 1, 0)
_EDGE = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
# An accept that failed because of its connection, not of the listening socket (accept(2)).
_OF_THE_CONNECTION = {
    *(errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
    *(errno.ENONET, errno.ENETUNREACH, errno.EPERM, errno.EOPNOTSUPP, errno.ENOPROTOOPT),
}


class TcpGate:
    """All listening TCP sockets, behind one descriptor: accepting stops when there is no place."""

    def __init__(self, loop: Loop, quota: Quota, connect_seconds: float = _CONNECT_SECONDS) -> None:
        self.loop = loop
        self.quota = quota
        self._connect_seconds = connect_seconds
        self._epoll = select.epoll()
        self._listeners: dict[int, TcpListener] = {}
        self._paused_until: float | None = None
        self._connecting: dict[Connection, float] = {}  # until when; the earliest is first
        loop.add(self._epoll, self, select.EPOLLIN)
        loop.each_tick(self._tick)

    def add(self, listener: TcpListener) -> None:
        """Accept what comes to a listener."""
        self._epoll.register(listener.sock.fileno(), select.EPOLLIN)
        self._listeners[listener.sock.fileno()] = listener

    def remove(self, listener: TcpListener) -> None:
        """Accept no more."""
        del self._listeners[listener.sock.fileno()]
        self._epoll.unregister(listener.sock.fileno())

    def on_event(self, events: int) -> None:
        """Take connections from all listeners that have some."""
        for number, _ in self._epoll.poll(0, 128):
            listener = self._listeners.get(number)
            if listener is not None and not listener.accept():
                self.pause()
                return

    def failed(self) -> None:
        """Nothing of its own to give up."""

    def pause(self) -> None:
        """Leave connections to the kernel's queues until a place is free."""
        if self._paused_until is None:
            self.loop.pause(self._epoll)
        self._paused_until = time.monotonic() + _RETRY_SECONDS
        self.loop.need_ticks()

    def started(self, connection: Connection) -> None:
        """Give up a connection that is not there in time."""
        self._connecting[connection] = time.monotonic() + self._connect_seconds
        self.loop.need_ticks()

    def settled(self, connection: Connection) -> None:
        """It is there, or will not be."""
        self._connecting.pop(connection, None)

    def ended(self) -> None:
        """A place was given back."""
        if self._paused_until is not None and not self.quota.full:
            self._resume()

    def _resume(self) -> None:
        self._paused_until = None
        self.loop.resume(self._epoll, select.EPOLLIN)

    def _tick(self, now: float) -> bool:
        for connection in [c for c, deadline in self._connecting.items() if deadline <= now]:
            connection.abort()
        if self._paused_until is not None and now >= self._paused_until and not self.quota.full:
            self._resume()
        return bool(self._connecting) or self._paused_until is not None


class TcpListener:
    """One listening port of a relay, and the connections that came through it."""

    def __init__(self, gate: TcpGate, slot: Slot, spec: Spec) -> None:
        self.slot = slot
        self.spec = spec
        self.gate = gate
        self.connections: set[Connection] = set()
        self.sock = socket.socket(spec.family, socket.SOCK_STREAM)
        self.held: socket.socket | None = None
        try:
            # A port can be taken while connections of an earlier listener linger (socket(7)).
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free_bind(self.sock)
            _prepare(self.sock)  # accepted sockets inherit it
            self.sock.setblocking(False)
            if spec.holds_all:
                self.held = hold(self.sock, slot[2], gate.quota.holding)
            self.sock.bind(spec.listening(slot[2]))
            self.sock.listen(_BACKLOG)
            if self.held:
                claim(self.held)
            gate.add(self)
        except OSError:
            self._free()
            raise

    def accept(self) -> bool:
        """Take some of the waiting connections. False when there are no files or places left."""
        for _ in range(_ACCEPTS_PER_TURN):
            if self.gate.quota.full:
                return False
            try:
                client, address = self.sock.accept()
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno in _OF_THE_CONNECTION:
                    continue
                return False
            self._welcome(client, address[0])
        return True

    def _welcome(self, client: socket.socket, address: str) -> None:
        who = client_of(address)
        if not self.spec.admits(address) or not self.gate.quota.take(who):
            _reset(client)
            client.close()
            return
        client.setblocking(False)
        Connection(self, client, who)

    def close(self) -> None:
        """Listen no more, and end all connections."""
        self.gate.remove(self)
        self._free()  # at once: the port may be wanted for a successor in the same step
        self.cut()

    def _free(self) -> None:
        self.sock.close()
        if self.held:
            self.held.close()

    def cut(self) -> None:
        """End all connections: they lead where the port leads no more."""
        for connection in list(self.connections):
            connection.abort()


class _Side:
    """One socket of a connection, and what is known of it."""

    __slots__ = ("connection", "readable", "sock", "writable")

    def __init__(self, connection: Connection, sock: socket.socket) -> None:
        self.connection = connection
        self.sock = sock
        self.readable = False
        self.writable = False

    def on_event(self, events: int) -> None:
        if events & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            self.readable = True
        if events & (select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR):
            self.writable = True
        self.connection.on_side(self, events)

    def failed(self) -> None:
        self.connection.abort()


class _Direction:
    """Bytes from one side to the other. What is read and not yet written waits in `rest`."""

    __slots__ = ("done", "ended", "rest", "sink", "source")

    def __init__(self, source: _Side, sink: _Side) -> None:
        self.source = source
        self.sink = sink
        self.rest = b""
        self.ended = False  # the source sends no more
        self.done = False  # and the sink has been told

    def move(self) -> bool:
        """Move bytes while it goes on; True when the turn was over first."""
        for _ in range(_MOVES_PER_TURN):
            if self.rest:
                if not self.sink.writable:
                    return False
                self._write(self.rest)
            elif self.ended:
                if not self.done:
                    self.done = True
                    self.sink.sock.shutdown(socket.SHUT_WR)
                return False
            elif self.source.readable:
                self._read()
            else:
                return False
        return True

    def _read(self) -> None:
        try:
            count = self.source.sock.recv_into(_BUFFER)
        except BlockingIOError:
            self.source.readable = False
            return
        if count:
            self._write(_BUFFER[:count])
        else:
            self.ended = True

    def _write(self, data: bytes | memoryview) -> None:
        try:
            count = self.sink.sock.send(data)
        except BlockingIOError:
            count = 0
        if count < len(data):
            self.sink.writable = False
            self.rest = bytes(data[count:])
        else:
            self.rest = b""


class Connection:
    """A client's connection and the one to the target, as one."""

    __slots__ = (
        "_client",
        "_directions",
        "_queued",
        "_target",
        "_who",
        "closed",
        "connected",
        "listener",
    )

    def __init__(self, listener: TcpListener, client: socket.socket, who: str) -> None:
        self.listener = listener
        self.connected = False
        self.closed = False
        self._who = who
        self._queued = False
        spec = listener.spec
        self._client = _Side(self, client)
        try:
            target = socket.socket(spec.target_family, socket.SOCK_STREAM)
        except OSError:  # no more files: the client is told, and accepting stops for a while
            listener.gate.quota.give_back(who)
            _reset(client)
            client.close()
            listener.gate.pause()
            return
        self._target = _Side(self, target)
        self._directions: tuple[_Direction, ...] = (
            _Direction(self._client, self._target),
            _Direction(self._target, self._client),
        )
        listener.connections.add(self)
        loop = listener.gate.loop
        loop.add(client, self._client, _EDGE)
        try:
            target.setblocking(False)
            _prepare(target)
            result = target.connect_ex(spec.target(listener.slot[2]))
        except OSError:
            self.abort()
            return
        if result not in (0, errno.EINPROGRESS):
            self.abort()
            return
        loop.add(target, self._target, _EDGE)
        if result == 0:  # a target on this host answers while connect(2) runs
            self._start()
        else:
            listener.gate.started(self)

    def on_side(self, side: _Side, events: int) -> None:
        """Something became possible on one of the sides."""
        if self.closed:
            return
        if not self.connected:
            if side is self._target:
                if events & (select.EPOLLERR | select.EPOLLHUP):
                    self.abort()
                elif events & select.EPOLLOUT:
                    self._start()
            elif events & (select.EPOLLERR | select.EPOLLHUP):
                self.abort()  # the client went away while it waited
            return
        if events & select.EPOLLERR and self._directions[side is self._target].ended:
            self.abort()  # nothing will be read from it that could tell
            return
        self.work()

    def _start(self) -> None:
        self.connected = True
        self.listener.gate.settled(self)
        self._client.writable = self._target.writable = True
        self._client.readable = True  # most clients speak first; reading finds out
        self.work()

    def work(self) -> None:
        """Move bytes both ways, as far as they go or this turn lasts."""
        if self.closed:
            return
        try:
            more = False
            for direction in self._directions:
                more |= direction.move()
        except OSError:  # reset by one side, which the other has to learn
            self.abort()
            return
        if self._directions[0].done and self._directions[1].done:
            self._close()
        elif more and not self._queued:
            self._queued = True
            self.listener.gate.loop.soon(self)

    def turn(self) -> None:
        """The next turn has come."""
        self._queued = False
        self.work()

    def failed(self) -> None:
        """Give up."""
        self.abort()

    def abort(self) -> None:
        """End it at once: both sides see a reset, as if they had been connected directly."""
        if not self.closed:
            _reset(self._client.sock)
            _reset(self._target.sock)
            self._close()

    def _close(self) -> None:
        self.closed = True
        gate = self.listener.gate
        gate.settled(self)
        gate.loop.close(self._client.sock)
        gate.loop.close(self._target.sock)
        self.listener.connections.discard(self)
        gate.quota.give_back(self._who)
        gate.ended()
        # Nobody asks for them any more. Without this, all would wait for the garbage collector
        # in a circle, and their bytes with them.
        self._directions = ()
        del self._client, self._target


def _prepare(sock: socket.socket) -> None:
    """Pass on small writes at once, and notice in minutes that a peer is no more (tcp(7))."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_SECONDS)


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
