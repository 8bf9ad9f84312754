"""Packets as they pass: our own packet sockets (packet(7)) at several places at once."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from netlib import throwaway
from netlib.labs.packets import Packet, Which, decode
from netlib.values import dataclass

T = TypeVar("T")

_EVERY_PROTOCOL = 0x0003  # ETH_P_ALL in linux/if_ether.h
_OUTGOING = 4  # PACKET_OUTGOING in linux/if_packet.h
# SO_TIMESTAMPNS (socket(7)), which Python has no name for; the same on all machines but a few.
_TIMESTAMP = 35
_STAMP = (socket.SOL_SOCKET, _TIMESTAMP)
_ROOM = 4 << 20  # bytes of a socket's queue: what a story sends while nobody reads


def call_in(netns: str, function: Callable[[], T]) -> T:
    """What `function` returns when a thread calls it in the network namespace at a path.

    Sockets that it makes stay there.
    """

    def work() -> T:
        with open(netns, "rb") as namespace:
            throwaway.join(namespace.fileno(), throwaway.NEW_NET)
        return function()

    return throwaway.in_a_thread(work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where to listen: a device in a network namespace. `name` is what readers call the place."""

    name: str
    netns: str
    device: str

    def __str__(self) -> str:
        return f"{self.name} {self.device}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """A packet seen at a point, when, and whether it left there (or came in)."""

    nanoseconds: int
    point: Point
    leaves: bool
    packet: Packet

    def columns(self) -> tuple[str, str, str, str]:
        """Where, which way, from where to where, and what."""
        what = f"{self.packet.kind} {self.packet.what}"
        if self.packet.inner:
            what += f"  [ {self.packet.inner} ]"
        return str(self.point), "out" if self.leaves else "in", self.packet.road, what.strip()


class Capture:
    """Listens at points from when it is made until it is closed."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._sockets: list[tuple[Point, socket.socket]] = []
        self._seen: list[Sighting] = []
        try:
            for point in points:
                self._sockets.append((point, call_in(point.netns, lambda p=point: _listen(p))))  # type: ignore[misc]
            _await_stamps()
            for _, listener in self._sockets:
                _forget(listener)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop listening; what was seen stays."""
        for _, listener in self._sockets:
            listener.close()
        self._sockets.clear()

    def seen(self) -> list[Sighting]:
        """All so far, in the order of their times."""
        for point, listener in self._sockets:
            self._seen.extend(_drain(point, listener))
        self._seen.sort(key=lambda sighting: sighting.nanoseconds)
        return list(self._seen)

    def wait(self, which: Which, least: int = 1, timeout: float = 3.0) -> list[Sighting]:
        """Those that `which` picks, as soon as there are `least`; fewer when time is over."""
        deadline = time.monotonic() + timeout
        while True:
            found = [sighting for sighting in self.seen() if which(sighting.packet)]
            if len(found) >= least or time.monotonic() > deadline or not self._sockets:
                return found
            time.sleep(0.01)


def _listen(point: Point) -> socket.socket:
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
    listener.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
    # Bound only now to a protocol: else it would hear every device for a moment.
    listener.bind((point.device, _EVERY_PROTOCOL))
    return listener


def _forget(listener: socket.socket) -> None:
    """Throw away what was heard before the times were right."""
    with contextlib.suppress(BlockingIOError):
        while True:
            listener.recv(1)


def _await_stamps() -> None:
    """Until the kernel notes when packets come: else their times are when they are read.

    It begins to some time after the first socket asks for it (net_enable_timestamp in
    net/core/dev.c), and does so for all of them until the last one has gone.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, _TIMESTAMP, 1)
        probe.bind(("127.0.0.1", 0))
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            probe.sendto(b"", probe.getsockname())
            time.sleep(0.001)
            read = time.time_ns()
            _, extra, _, _ = probe.recvmsg(16, 64)
            if _nanoseconds(extra) < read:
                return
    raise TimeoutError("the kernel does not note the times of packets")


def _nanoseconds(extra: Iterable[tuple[int, int, bytes]]) -> int:
    """The time that came with a packet, since the epoch."""
    (stamp,) = [data for level, kind, data in extra if (level, kind) == _STAMP]
    whole, nano = struct.unpack("@ll", stamp[: struct.calcsize("@ll")])
    return int(whole) * 10**9 + int(nano)


def _drain(point: Point, listener: socket.socket) -> Iterable[Sighting]:
    while True:
        try:
            frame, extra, _, address = listener.recvmsg(65535, 64)
        except BlockingIOError:
            return
        yield Sighting(
            nanoseconds=_nanoseconds(extra),
            point=point,
            leaves=address[2] == _OUTGOING,
            packet=decode(frame),
        )
