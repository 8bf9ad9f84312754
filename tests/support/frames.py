"""Frames as they are: heard on a device, and sent by one past the stack."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from support.host import Host, Place

if TYPE_CHECKING:
    from scapy.packet import Packet

_ALL = 3  # ETH_P_ALL, linux/if_ether.h
SILENCE = 0.2  # seconds


class Ear:
    """Hears what passes a device, both ways."""

    def __init__(self, place: Host | Place, device: str = "eth0") -> None:
        def work() -> socket.socket:
            ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
            ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            ear.bind((device, 0))
            return ear

        self.socket = place.call(work)

    def frames(self, enough: Callable[[Packet], bool], patience: float) -> Iterator[Packet]:
        """All frames until one is enough, or the time is over."""
        from scapy.all import Ether  # a second's import

        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self.socket], [], [], left)[0]:
                return
            frame = Ether(self.socket.recv(65535))
            yield frame
            if enough(frame):
                return

    def hears(self, wanted: Callable[[Packet], bool], patience: float = 5.0) -> bool:
        """Whether such a frame comes."""
        return any(wanted(frame) for frame in self.frames(wanted, patience))


@contextlib.contextmanager
def listening(place: Host | Place, device: str = "eth0") -> Iterator[Ear]:
    """An ear at a device, from now on."""
    ear = Ear(place, device)
    try:
        yield ear
    finally:
        ear.socket.close()


def send(place: Host | Place, frame: Packet | bytes, device: str = "eth0") -> None:
    """Put a frame on a device."""

    def work() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind((device, 0))
            sender.send(bytes(frame))

    place.call(work)


def says(text: str) -> Callable[[Packet], bool]:
    """Whether a frame holds a text anywhere."""
    return lambda frame: text.encode() in bytes(frame)
