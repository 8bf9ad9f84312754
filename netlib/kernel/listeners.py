"""Which process of the host listens on a port (sock_diag(7))."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from netlib.kernel import netlink
from netlib.kernel.errnos import Refusal
from netlib.kernel.netlink import Request, attributes, number
from netlib.kernel.netns import Namespaces
from netlib.model import Family, IPAddress, Protocol

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20
_ONLY_IPV6 = 11  # INET_DIAG_SKV6ONLY
_MARK = 15  # INET_DIAG_MARK
# On sockets by which a daemon of ours holds published ports: those are nobody's use of them.
# They send nothing, so no packet ever has it. "nlhp" in ASCII.
HELD_MARK = 0x6E6C6870
_REQUEST = struct.Struct("=BBBxI2s46x")  # struct inet_diag_req_v2
_ANSWER = struct.Struct("=BBBB2s2s16s16sI8sIIIII")  # struct inet_diag_msg
_NUMBERS: dict[Protocol, int] = {"tcp": 6, "udp": 17, "sctp": 132}
# Sockets that take anybody's packets: TCP's LISTEN; unconnected UDP counts as CLOSE.
_STATES: dict[Protocol, int] = {"tcp": 1 << 10, "udp": 1 << 7, "sctp": 1 << 10}

_BOUND = 1 << 13  # TCP's bound sockets that do not listen, TCP_BOUND_INACTIVE
_FAMILIES: dict[Family, int] = {4: socket.AF_INET, 6: socket.AF_INET6}

_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 section 2.5.5.2


class _Socket(NamedTuple):
    family: int
    address: bytes
    port: int
    only_ipv6: bool
    uid: int
    inode: int
    mark: int


def port_user(
    namespaces: Namespaces, protocol: Protocol, address: IPAddress | None, port: int, count: int
) -> str | None:
    """Who listens on one of these ports, in words."""
    with namespaces.host_socket(_SOCK_DIAG) as diag:
        for listener in _listeners(diag, protocol, port if count == 1 else 0):
            if port <= listener.port < port + count and _meets(listener, address):
                return _words(listener, protocol)
    return None


def is_held(
    namespaces: Namespaces, protocol: Protocol, family: Family, port: int, count: int
) -> bool:
    """Whether a daemon of ours holds one of these ports at some address of a family.

    Of TCP it is not known before Linux 6.8.
    """
    shape, states = _FAMILIES[family], _STATES[protocol] | _BOUND
    with namespaces.host_socket(_SOCK_DIAG) as diag:
        return any(
            one.mark == HELD_MARK and port <= one.port < port + count
            for one in _sockets(diag, shape, protocol, port if count == 1 else 0, states)
        )


def _listeners(diag: netlink.Socket, protocol: Protocol, port: int) -> Iterator[_Socket]:
    for family in _FAMILIES.values():
        for one in _sockets(diag, family, protocol, port, _STATES[protocol]):
            if one.mark != HELD_MARK:
                yield one


def _sockets(
    diag: netlink.Socket, family: int, protocol: Protocol, port: int, states: int
) -> Iterator[_Socket]:
    """Of one port, or of all (0): the kernel leaves out those of others by itself."""
    body = _REQUEST.pack(family, _NUMBERS[protocol], 0, states, port.to_bytes(2, "big"))
    answers = diag.try_to_ask(Request(_BY_FAMILY, netlink.DUMP, body))
    if isinstance(answers, Refusal):
        return  # ENOENT: the kernel has no such protocol, so nobody listens
    for answer in answers:
        found = _ANSWER.unpack_from(answer)
        more = attributes(answer, _ANSWER.size)
        yield _Socket(
            family=family,
            address=found[6][: 4 if family == socket.AF_INET else 16],
            port=int.from_bytes(found[4], "big"),
            only_ipv6=bool(number(more.get(_ONLY_IPV6))),
            uid=found[13],
            inode=found[14],
            mark=number(more.get(_MARK)),
        )


def _meets(listener: _Socket, address: IPAddress | None) -> bool:
    if address is None:
        return True
    meant = listener.address
    if listener.family == socket.AF_INET6 and meant.startswith(_MAPPED):
        meant = meant[len(_MAPPED) :]  # it takes IPv4 packets and nothing else (ipv6(7))
    if not any(meant):
        # A socket of [::] takes IPv4 packets too, unless told otherwise (IPV6_V6ONLY).
        both = listener.family == socket.AF_INET6 and not listener.only_ipv6
        return both or len(meant) == len(address.packed)
    # An unspecified address stands for all of its family.
    return len(meant) == len(address.packed) and (address.is_unspecified or meant == address.packed)


def _words(listener: _Socket, protocol: Protocol) -> str:
    where = f"{protocol} port {listener.port}"
    for pid, name in _processes():
        with suppress(OSError):  # ended meanwhile, or not ours to look into
            for fd in os.scandir(f"/proc/{pid}/fd"):
                with suppress(OSError):
                    if os.readlink(fd.path) == f"socket:[{listener.inode}]":
                        return f"{name} (pid {pid}) on {where}"
    return f"a process of user {listener.uid} on {where}"


def _processes() -> Iterator[tuple[str, str]]:
    for pid in os.listdir("/proc"):
        if pid.isdigit():
            with suppress(OSError), open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                yield pid, file.read().strip()
