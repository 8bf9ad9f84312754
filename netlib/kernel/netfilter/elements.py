"""Elements of our table's sets and maps as one nfnetlink transaction. Pure: bytes out.

Only what every attach needs. The base, reading, and whatever the kernel refuses are libnftables'
work: it knows all of the language, and says what is wrong (docs/decisions/0023).
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from ipaddress import ip_network
from itertools import groupby, islice
from operator import attrgetter
from typing import NamedTuple

from netlib.firewall.facts import Element
from netlib.firewall.nftables_base import CONTAINERS, TABLE
from netlib.kernel.netlink import ACK, CREATE, Request, attribute, nested, text

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_SUBSYSTEM, _FAMILY_INET = 10, 1
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEW_ELEMENT, _DELETE_ELEMENT = _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS, _ONE = 1, 2, 3, 1
_KEY, _DATA, _USER_DATA, _KEY_END = 1, 2, 6, 10
_VALUE, _VERDICT, _CODE, _CHAIN = 1, 2, 1, 2
_DROP, _GOTO = 0, -4
# An attribute's length has 16 bits, and an element takes some 100 bytes.
_TOGETHER = 400

_HEADER = struct.Struct("!BBH")  # struct nfgenmsg
_OURS = _HEADER.pack(_FAMILY_INET, 0, 0)
BEGIN = Request(_BATCH_BEGIN, 0, _HEADER.pack(0, 0, _SUBSYSTEM))
END = Request(_BATCH_END, 0, _HEADER.pack(0, 0, _SUBSYSTEM))

_PROTOCOLS = {"tcp": b"\x06", "udp": b"\x11", "sctp": b"\x84"}
_FAMILIES = {"ipv4": b"\x02", "ipv6": b"\x0a"}
_NAME_BYTES = 16  # IFNAMSIZ

_CONTAINER = re.compile(r"(\w+) { type ([^:;]+)(?: : ([^;]+))?;( flags interval;)?(?: counter;)? }")


class _Container(NamedTuple):
    """A set or map: the types of a key's parts and of the value's; whether keys are ranges."""

    key: tuple[str, ...]
    value: tuple[str, ...]
    ranged: bool


def requests(gone: Iterable[Element], come: Iterable[Element]) -> list[Request]:
    """What deletes and then adds elements, to be sent between BEGIN and END."""
    return [
        *_messages(_DELETE_ELEMENT, ACK, gone),
        *_messages(_NEW_ELEMENT, ACK | CREATE, come),
    ]


def _messages(kind: int, flags: int, elements: Iterable[Element]) -> Iterator[Request]:
    table = text(_LIST_TABLE, TABLE.partition(" ")[2])
    # Few messages, however many elements there are: each acknowledgement takes about 800 bytes of
    # the receive buffer, 212 kB by default, and all of them come at once.
    by_container = attrgetter("container")
    for name, group in groupby(sorted(elements, key=by_container), key=by_container):
        container = _containers()[name]
        parts = (_element(element, container, full=kind == _NEW_ELEMENT) for element in group)
        while some := list(islice(parts, _TOGETHER)):
            body = _OURS + table + text(_LIST_SET, name) + nested(_LIST_ELEMENTS, *some)
            yield Request(kind, flags, body)


@cache
def _containers() -> dict[str, _Container]:
    found: dict[str, _Container] = {}
    for name, key, value, ranged in _CONTAINER.findall(CONTAINERS.replace("\\\n", "")):
        found[name] = _Container(
            tuple(key.split(" . ")), tuple(value.split(" . ")) if value else (), bool(ranged)
        )
    return found


def _element(element: Element, container: _Container, *, full: bool) -> bytes:
    spans = [
        _PACK[kind](part)
        for kind, part in zip(container.key, element.key.split(" . "), strict=True)
    ]
    parts = [_bytes(_KEY, *(first for first, _ in spans))]
    if container.ranged:
        parts.append(_bytes(_KEY_END, *(last for _, last in spans)))
    if full and element.value:
        parts.append(_value(element.value, container))
    if full and element.comment:
        comment = element.comment.encode() + b"\0"
        # Type 0 of libnftnl's user data, which is how nft shows it as a comment.
        parts.append(attribute(_USER_DATA, bytes((0, len(comment))) + comment))
    return nested(_ONE, *parts)


def _value(value: str, container: _Container) -> bytes:
    if container.value != ("verdict",):
        parts = zip(container.value, value.split(" . "), strict=True)
        return _bytes(_DATA, *(_PACK[kind](part)[0] for kind, part in parts))
    verb, _, chain = value.partition(" ")
    if verb == "drop":
        verdict = [attribute(_CODE, struct.pack("!i", _DROP))]
    elif verb == "goto":
        verdict = [attribute(_CODE, struct.pack("!i", _GOTO)), text(_CHAIN, chain)]
    else:
        raise KeyError(value)
    return nested(_DATA, nested(_VERDICT, *verdict))


def _bytes(kind: int, *parts: bytes) -> bytes:
    """A value; each part of one is filled up to whole registers of four bytes."""
    whole = b"".join(part + bytes(-len(part) & 3) for part in parts)
    return nested(kind, attribute(_VALUE, whole))


# -- a part of a key as its first and its last value --------------------------------------------

Span = tuple[bytes, bytes]


def _device(part: str) -> Span:
    name = part.strip('"').encode().ljust(_NAME_BYTES, b"\0")
    return name, name


def _address(family: socket.AddressFamily, part: str) -> Span:
    if "/" in part:
        prefix = ip_network(part)
        return prefix.network_address.packed, prefix.broadcast_address.packed
    packed = socket.inet_pton(family, part)
    return packed, packed


def _port(part: str) -> Span:
    first, _, last = part.partition("-")
    return int(first).to_bytes(2, "big"), int(last or first).to_bytes(2, "big")


_PACK: dict[str, Callable[[str], Span]] = {
    "ifname": _device,
    "ipv4_addr": lambda part: _address(socket.AF_INET, part),
    "ipv6_addr": lambda part: _address(socket.AF_INET6, part),
    "inet_service": _port,
    "inet_proto": lambda part: (_PROTOCOLS[part],) * 2,
    "nf_proto": lambda part: (_FAMILIES[part],) * 2,
}

__all__ = ["BEGIN", "END", "requests"]
