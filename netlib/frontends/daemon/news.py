"""What the kernel tells of changes to links, forwarding and rules (rtnetlink(7), nfnetlink)."""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from netlib.kernel.netlink import DUMP, NETFILTER, ROUTE, attributes, number, string
from netlib.model import Family
from netlib.names import ID_DIGITS, MARK

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_GROUP_NFTABLES = 7  # NFNLGRP_NFTABLES
_GROUPS_LINKS = (1, 5, 9)  # RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR
_GROUPS_FORWARDING = (24, 25)  # RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF
_NEW_LINK, _DELETE_LINK, _GET_LINK, _DELETE_ADDRESS = 16, 17, 18, 21
_LINK_UP = 1  # IFF_UP
_FAMILY_BRIDGE = 7  # AF_BRIDGE: a port leaves its bridge, and the device stays
_MAC, _MTU, _MASTER, _ALIAS = 1, 4, 10, 20  # IFLA_*
_FORWARDING = 2  # NETCONFA_FORWARDING
_FAMILIES: dict[int, Family] = {socket.AF_INET: 4, socket.AF_INET6: 6}
_SUBSYSTEM_NFTABLES = 10
# Deletions of tables, chains, rules, sets and elements (linux/netfilter/nf_tables.h).
_DELETIONS = frozenset({2, 5, 8, 11, 14})
_OUR_TABLE, _CHAIN_PREFIX = "netlib", "NETLIB-"
_HEADER = struct.Struct("=IHHII")
_REQUEST = 1  # NLM_F_REQUEST
# The beginnings of ifinfomsg and ifaddrmsg (rtnetlink(7)).
_LINK, _ADDRESS = struct.Struct("=BxHiI4x"), struct.Struct("=BBBBi")
_BUFFER_BYTES = 4 << 20
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_INSTRUCTION, _PROGRAM = struct.Struct("=HBBI"), struct.Struct("@HP")
# Classic BPF (filter.rst): load the first attribute of a netconfmsg, which is the device; accept
# what is of all of them (-1), and drop the rest, for each device that comes is told of.
_OF_ALL_DEVICES = (
    (0x20, 0, 0, _HEADER.size + 8),
    (0x15, 0, 1, 0xFFFFFFFF),
    (0x06, 0, 0, 0xFFFFFFFF),
    (0x06, 0, 0, 0),
)
_MARK = MARK.encode()


class Links(NamedTuple):
    """What happened to the host's links.

    `marks`: of ours that are gone; `damaged`: those that are down, or lost or changed
    something; `missed`: so much happened that the kernel could not tell all of it.
    """

    marks: set[str]
    damaged: set[int]
    missed: bool


class LinkNews:
    """Tells of links that went, went down or changed."""

    def __init__(self) -> None:
        self.sock = _subscribed(ROUTE, _GROUPS_LINKS)
        # MTU, MAC and bridge of the links that are whole networks', as last told.
        self._known: dict[int, tuple[int, bytes, int]] = {}
        # How they are by now comes like the news of later.
        head = _HEADER.pack(_HEADER.size + _LINK.size, _GET_LINK, _REQUEST | DUMP, 1, 0)
        self.sock.send(head + _LINK.pack(0, 0, 0, 0))

    def read(self) -> Links:
        """All that is told by now.

        Links come and go all the time: more than the beginning is read only of those that are
        gone, and of networks' own.
        """
        marks: set[str] = set()
        gone: set[int] = set()
        damaged: set[int] = set()
        is_up: dict[int, bool] = {}
        missed = False
        for kind, body, _ in _messages(self.sock):
            if kind == 0:
                missed = True
            elif kind == _DELETE_LINK:
                family, _, index, _ = _LINK.unpack_from(body)
                if family == _FAMILY_BRIDGE:
                    damaged.add(index)
                    continue
                gone.add(index)
                self._known.pop(index, None)
                mark = string(attributes(body, _LINK.size).get(_ALIAS))
                if mark.startswith(MARK):
                    marks.add(mark)
            elif kind == _NEW_LINK:
                family, _, index, flags = _LINK.unpack_from(body)
                if family:
                    continue
                is_up[index] = bool(flags & _LINK_UP)
                if _is_of_network(body) and self._differs(index, body):
                    damaged.add(index)
            elif kind == _DELETE_ADDRESS:
                damaged.add(_ADDRESS.unpack_from(body)[4])
        damaged.update(index for index, up in is_up.items() if not up)
        return Links(marks, damaged - gone, missed)

    def _differs(self, index: int, body: bytes) -> bool:
        """Whether it is another than when it was last told of."""
        parts = attributes(body, _LINK.size)
        now = number(parts.get(_MTU)), parts.get(_MAC, b""), number(parts.get(_MASTER))
        was = self._known.get(index, now)
        self._known[index] = now
        return was != now


def _is_of_network(link: bytes) -> bool:
    """Whether a link has the mark of a network, not of an endpoint: a look at all is too dear."""
    at = link.find(_MARK) + len(_MARK) + ID_DIGITS
    return at >= len(_MARK) + ID_DIGITS and link[at : at + 1] == b"\0"


class ForwardingNews:
    """Tells of forwarding that is switched off."""

    def __init__(self) -> None:
        self.sock = _subscribed(ROUTE, _GROUPS_FORWARDING, only=_OF_ALL_DEVICES)

    def read(self) -> set[Family]:
        """The families that may not be forwarded any more."""
        off: set[Family] = set()
        for kind, body, _ in _messages(self.sock):
            if kind == 0:
                off.update(_FAMILIES.values())
            elif body[0] in _FAMILIES:
                is_on = number(attributes(body, 4).get(_FORWARDING), 1)
                (off.discard if is_on else off.add)(_FAMILIES[body[0]])
        return off


class RuleNews:
    """Tells of rules of ours that others take; of legacy iptables nothing is told."""

    def __init__(self) -> None:
        self.sock = _subscribed(NETFILTER, (_GROUP_NFTABLES,))

    def read(self, tables: frozenset[str], own: frozenset[int]) -> bool:
        """Whether something was deleted: in our table, or in our chains of iptables' `tables`.

        By others: what came from one of our `own` ports was meant, and reading all that is there
        takes longer the more there is.
        """
        found = False
        for kind, body, port in _messages(self.sock):
            if kind == 0:
                found = True
            elif port in own:
                continue
            elif kind >> 8 == _SUBSYSTEM_NFTABLES and kind & 0xFF in _DELETIONS and not found:
                names = attributes(body, 4)
                table, chain = string(names.get(1)), string(names.get(2))
                found = chain.startswith(_CHAIN_PREFIX) if table in tables else table == _OUR_TABLE
        return found


def _subscribed(
    protocol: int, groups: Sequence[int], only: Sequence[tuple[int, int, int, int]] = ()
) -> socket.socket:
    """A socket that hears what these groups are told, and of that what a filter accepts."""
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol
    )
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    except PermissionError:  # root of a user namespace: as much as anybody may have
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    if only:
        code = b"".join(_INSTRUCTION.pack(*each) for each in only)
        kept = ctypes.create_string_buffer(code, len(code))
        program = _PROGRAM.pack(len(only), ctypes.addressof(kept))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    sock.bind((0, 0))
    for group in groups:
        sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return sock


def _messages(sock: socket.socket) -> Iterator[tuple[int, bytes, int]]:
    """All messages that wait: type, body, whose port; type 0 where the kernel dropped some."""
    while True:
        try:
            data = sock.recv(1 << 17)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield 0, b"", 0
            continue
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, _, port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                break
            yield kind, data[offset + _HEADER.size : offset + length], port
            offset += length + 3 & ~3
