"""Connections to a host port are forgotten, so that its next packet meets the rules anew."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from netlib.kernel import netlink
from netlib.kernel.errnos import is_absence, refused
from netlib.kernel.netlink import Request, attribute, attributes, nested, u8, u32
from netlib.kernel.netns import Namespaces
from netlib.model import Family, IPAddress, Protocol
from netlib.wiring import ForgetFlows

_GET, _DELETE = 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*
_ORIGINAL, _ID, _ZONE, _FILTER = 1, 12, 18, 25  # CTA_*
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_PROTOCOL_NUMBER, _DESTINATION_PORT = 1, 3
_BY_ORIGINAL = 1  # CTA_FILTER_ORIG_FLAGS
# CTA_FILTER_FLAG(CTA_FILTER_F_CTA_PROTO_NUM), ..._PROTO_DST_PORT (linux, nf_internals.h)
_MATCH_PROTOCOL, _MATCH_PORT = 1 << 3, 1 << 5
_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}


class _Flow(NamedTuple):
    original: bytes
    id: bytes
    zone: bytes | None
    protocol: int
    destination: IPAddress
    port: int


def forget(effects: Sequence[ForgetFlows], namespaces: Namespaces) -> None:
    """Delete the host's connections whose client addressed these ports."""
    if namespaces.run(namespaces.host_fd, _count) == 0:
        return
    # Each walk goes through all of the kernel's hash table, 10 ms where that has its usual
    # size of 2 MB, so there is one for each family and protocol, and not for each port.
    groups: dict[tuple[Family, Protocol], list[ForgetFlows]] = {}
    for effect in effects:
        groups.setdefault((effect.family, effect.protocol), []).append(effect)
    conntrack = namespaces.run(namespaces.host_fd, lambda: netlink.Socket(netlink.NETFILTER))
    try:
        for (family, protocol), group in groups.items():
            _forget(group, socket.AF_INET if family == 4 else socket.AF_INET6, protocol, conntrack)
    finally:
        conntrack.close()


def _count() -> int:
    """How many connections the calling thread's namespace has; 0 also where none is tracked."""
    try:
        with open("/proc/sys/net/netfilter/nf_conntrack_count", encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return 0


def _forget(
    effects: Sequence[ForgetFlows], family: int, protocol: Protocol, conntrack: netlink.Socket
) -> None:
    ports = ", ".join(str(effect.port) for effect in effects)
    flows = [
        flow
        for flow in _flows(effects, family, protocol, conntrack)
        if any(_is_meant(flow, effect) for effect in effects)
    ]
    for answer in conntrack.transact([_deletion(flow, family) for flow in flows]):
        if answer is not None and not is_absence(answer):  # ENOENT: it ended meanwhile
            raise refused(answer, f"a connection to ports {ports} can't be forgotten")


def _header(family: int) -> bytes:
    return struct.pack("=BBH", family, 0, 0)  # struct nfgenmsg


def _flows(
    effects: Sequence[ForgetFlows], family: int, protocol: Protocol, conntrack: netlink.Socket
) -> Iterator[_Flow]:
    # The kernel picks by protocol, and by port where there is but one (since Linux 5.8;
    # before, it sends all).
    parts = [u8(_PROTOCOL_NUMBER, _NUMBERS[protocol])]
    flags = _MATCH_PROTOCOL
    if len(effects) == 1 and effects[0].count == 1:
        parts.append(attribute(_DESTINATION_PORT, effects[0].port.to_bytes(2, "big")))
        flags |= _MATCH_PORT
    pattern = nested(_ORIGINAL, nested(_TUPLE_PROTOCOL, *parts))
    chosen = nested(_FILTER, u32(_BY_ORIGINAL, flags))
    dump = Request(_GET, netlink.DUMP, _header(family) + pattern + chosen)
    for body in conntrack.ask(dump, "the connections of the host"):
        flow = _flow(body)
        if flow is not None:
            yield flow


def _flow(body: bytes) -> _Flow | None:
    found = attributes(body, 4)
    original = found.get(_ORIGINAL, b"")
    parts = attributes(original)
    addresses, protocol = (
        attributes(parts.get(_TUPLE_IP, b"")),
        attributes(parts.get(_TUPLE_PROTOCOL, b"")),
    )
    destination = addresses.get(2) or addresses.get(4)  # CTA_IP_V4_DST, CTA_IP_V6_DST
    if destination is None or _DESTINATION_PORT not in protocol:
        return None
    return _Flow(
        original=original,
        id=found.get(_ID, b""),
        zone=found.get(_ZONE),
        protocol=netlink.number(protocol.get(_PROTOCOL_NUMBER)),
        destination=ip_address(destination),
        port=int.from_bytes(protocol[_DESTINATION_PORT], "big"),
    )


def _is_meant(flow: _Flow, effect: ForgetFlows) -> bool:
    return (
        flow.protocol == _NUMBERS[effect.protocol]
        and effect.port <= flow.port < effect.port + effect.count
        and effect.host in (None, flow.destination)
    )


def _deletion(flow: _Flow, family: int) -> Request:
    # With its id, so that no later connection of the same tuple goes in its place.
    parts = [_header(family), nested(_ORIGINAL, flow.original), attribute(_ID, flow.id)]
    if flow.zone is not None:
        parts.append(attribute(_ZONE, flow.zone))
    return Request(_DELETE, 0, b"".join(parts))
