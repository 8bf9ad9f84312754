"""Requests to rtnetlink(7), and its answers as plain values. Pure: bytes out, values in."""

from __future__ import annotations

import struct
from typing import NamedTuple

from netlib.kernel.netlink import (
    CREATE,
    DUMP,
    EXCLUSIVE,
    Request,
    attributes,
    nested,
    number,
    string,
    text,
    u8,
    u32,
)

# Message types (linux/rtnetlink.h).
NEWLINK, DELLINK, GETLINK = 16, 17, 18

# Attributes of links (linux/if_link.h).
MAC, NAME, MTU, PARENT, MASTER = 1, 3, 4, 5, 10
INFO, ALIAS, FAMILIES, GROUP, NETNS_FD, FILTER, PARENT_NETNS = 18, 20, 26, 27, 28, 29, 37
TX_QUEUES, RX_QUEUES = 31, 32
KIND, DATA, PORT_KIND, PORT_DATA = 1, 2, 4, 5

_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg

AF_INET6 = 10
UP = 1  # IFF_UP
_SKIP_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS
_NO_GENERATED_ADDRESS = 1  # IN6_ADDR_GEN_MODE_NONE


def packed_mac(mac: str) -> bytes:
    """A MAC address as six bytes."""
    return bytes.fromhex(mac.replace(":", ""))


def mac_text(payload: bytes | None) -> str:
    """A MAC address as lower-case text with colons."""
    return "" if payload is None else payload.hex(":")


# -- links --------------------------------------------------------------------------------------


def link_body(*attrs: bytes, index: int = 0, up: bool | None = None) -> bytes:
    """A link message: its device by `index`, or by a NAME attribute; set up, down or left."""
    flags, change = (0, 0) if up is None else (UP if up else 0, UP)
    return _LINK.pack(0, 0, index, flags, change) + b"".join(attrs)


def new_link(*attrs: bytes) -> Request:
    """Make a device."""
    return Request(NEWLINK, CREATE | EXCLUSIVE, link_body(*attrs))


def set_link(*attrs: bytes, index: int = 0, up: bool | None = None) -> Request:
    """Change the device of an index, or that of the NAME among the attributes."""
    return Request(NEWLINK, 0, link_body(*attrs, index=index, up=up))


def delete_link(index: int) -> Request:
    """Remove a device."""
    return Request(DELLINK, 0, link_body(index=index))


def delete_group(group: int) -> Request:
    """Remove all devices of a group, at the cost of one wait for RCU."""
    return Request(DELLINK, 0, link_body(u32(GROUP, group)))


def info(kind: str, *data: bytes) -> bytes:
    """What kind of device this is, and that kind's own attributes."""
    return nested(INFO, text(KIND, kind), *([nested(DATA, *data)] if data else []))


def port(*data: bytes) -> bytes:
    """Attributes of a bridge's port."""
    return nested(INFO, text(PORT_KIND, "bridge"), nested(PORT_DATA, *data))


def no_generated_address() -> bytes:
    """The device makes itself no link-local address (RFC 4862 section 5.3)."""
    return nested(FAMILIES, nested(AF_INET6, u8(8, _NO_GENERATED_ADDRESS)))


def get_link(name: str) -> Request:
    """One device by its name."""
    return Request(GETLINK, 0, link_body(text(NAME, name), u32(FILTER, _SKIP_STATISTICS)))


def get_link_at(index: int) -> Request:
    """One device by its index."""
    return Request(GETLINK, 0, link_body(u32(FILTER, _SKIP_STATISTICS), index=index))


def all_links() -> Request:
    """Every device."""
    return Request(GETLINK, DUMP, link_body(u32(FILTER, _SKIP_STATISTICS)))


class LinkState(NamedTuple):
    """A device as the kernel tells of it; `data` and `port` are attributes of its kind."""

    ifindex: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    alias: str
    master: int
    parent: int
    group: int
    elsewhere: bool  # its parent or peer is in another network namespace
    data: dict[int, bytes]
    port: dict[int, bytes]


def read_link(body: bytes) -> LinkState:
    """The device that a link message tells of."""
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = attributes(body, _LINK.size)
    details = attributes(found.get(INFO, b""))
    return LinkState(
        ifindex=index,
        name=string(found.get(NAME)),
        kind=string(details.get(KIND)),
        up=bool(flags & UP),
        mtu=number(found.get(MTU)),
        mac=mac_text(found.get(MAC)),
        alias=string(found.get(ALIAS)),
        master=number(found.get(MASTER)),
        parent=number(found.get(PARENT)),
        group=number(found.get(GROUP)),
        elsewhere=PARENT_NETNS in found,
        data=attributes(details.get(DATA, b"")),
        port=attributes(details.get(PORT_DATA, b"")),
    )
