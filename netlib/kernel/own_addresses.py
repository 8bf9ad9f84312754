"""The addresses of the host itself."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

from netlib.kernel import netlink
from netlib.kernel.rtnl_entries import addresses_of, read_address
from netlib.model import IPAddress, IPInterface


class OwnAddress(NamedTuple):
    """An address, and the device that has it."""

    device: str
    address: IPInterface


def is_own(address: IPAddress) -> bool:
    """Whether one is; or may be used as if it were, with ip_nonlocal_bind (ip-sysctl.rst).

    One question, however many addresses there are.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def own_addresses() -> tuple[OwnAddress, ...]:
    """All of the calling thread's network namespace, in the kernel's order."""
    rtnl = netlink.Socket()
    try:
        bodies = rtnl.ask(addresses_of(0), "the addresses of the host")
        found = [read_address(body) for body in bodies]
        return tuple(OwnAddress(rtnl.device(index), address) for index, address in found)
    finally:
        rtnl.close()
