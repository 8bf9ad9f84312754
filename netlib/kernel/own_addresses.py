"""The addresses of the host itself."""

from __future__ import annotations

from typing import NamedTuple

from netlib.kernel import netlink
from netlib.kernel.rtnl_entries import addresses_of, read_address
from netlib.model import IPInterface


class OwnAddress(NamedTuple):
    """An address, and the device that has it."""

    device: str
    address: IPInterface


def own_addresses() -> tuple[OwnAddress, ...]:
    """All of the calling thread's network namespace, in the kernel's order."""
    socket = netlink.Socket()
    try:
        bodies = socket.ask(addresses_of(0), "the addresses of the host")
        found = [read_address(body) for body in bodies]
        return tuple(OwnAddress(socket.device(index), address) for index, address in found)
    finally:
        socket.close()
