"""Programs of the host that would have a port which somebody else has."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from itertools import combinations

from support.host import Host

_REUSE = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def bound(
    host: Host, protocol: str, address: str, port: int, options: Iterable[int] = ()
) -> socket.socket | None:
    """A socket that a program of the host has there; None where it gets EADDRINUSE."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = host.call(lambda: socket.socket(family, _KINDS[protocol]))
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    for option in options:
        sock.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    return sock


def free_at(host: Host, protocol: str, addresses: Iterable[str], port: int) -> set[str]:
    """At which of these addresses some set of options gets a program of the host the port."""
    found = set()
    for address in addresses:
        for number in range(len(_REUSE) + 1):
            for options in combinations(_REUSE, number):
                sock = bound(host, protocol, address, port, options)
                if sock is not None:
                    sock.close()
                    found.add(address)
    return found
