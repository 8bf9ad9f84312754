"""Requests for addresses, routes, neighbours and forwarding entries; pure, as rtnl is."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from netlib.kernel.netlink import (
    BULK,
    CREATE,
    DUMP,
    EXCLUSIVE,
    REPLACE,
    Request,
    attribute,
    attributes,
    number,
    u32,
)
from netlib.kernel.rtnl import mac_text, packed_mac
from netlib.model import IPAddress, IPInterface, IPNetwork, interface

# Message types, headers and constants of linux/rtnetlink.h, if_addr.h and neighbour.h.
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg
_ROUTE = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # struct ndmsg

AF_INET, AF_INET6, AF_BRIDGE = 2, 10, 7
_NO_DAD = 0x02  # IFA_F_NODAD
_TABLE_MAIN, _PROTOCOL_STATIC, UNICAST = 254, 4, 1
_SCOPE_LINK, _SCOPE_UNIVERSE, _SCOPE_NOWHERE = 253, 0, 255
_ON_LINK = 0x4  # RTNH_F_ONLINK
_FIB_MATCH = 0x2000  # RTM_F_FIB_MATCH
_IPV6_DEFAULT_METRIC = 1024  # IP6_RT_PRIO_USER
NO_ARP, PERMANENT = 0x40, 0x80  # NUD_NOARP, NUD_PERMANENT
SELF, AT_MASTER, STICKY = 0x02, 0x04, 0x40  # NTF_SELF, NTF_MASTER, NTF_STICKY
ZERO_MAC = "00:00:00:00:00:00"


def family(address: IPAddress | IPInterface | IPNetwork) -> int:
    """AF_INET or AF_INET6."""
    return AF_INET if address.version == 4 else AF_INET6


# -- addresses ----------------------------------------------------------------------------------


def _address_body(index: int, address: IPInterface) -> bytes:
    flags = _NO_DAD if address.version == 6 else 0
    packed = address.ip.packed
    return (
        _ADDRESS.pack(family(address), address.network.prefixlen, flags, 0, index)
        + attribute(2, packed)  # IFA_LOCAL
        + attribute(1, packed)  # IFA_ADDRESS
    )


def new_address(index: int, address: IPInterface) -> Request:
    """Give a device an address, an IPv6 one without duplicate detection."""
    return Request(NEWADDR, CREATE | EXCLUSIVE, _address_body(index, address))


def delete_address(index: int, address: IPInterface) -> Request:
    """Take an address from a device."""
    return Request(DELADDR, 0, _address_body(index, address))


def addresses_of(index: int) -> Request:
    """All addresses of a device."""
    return Request(GETADDR, DUMP, _ADDRESS.pack(0, 0, 0, 0, index))


def read_address(body: bytes) -> tuple[int, IPInterface]:
    """The device's index and the address that an address message tells of."""
    _, length, _, _, index = _ADDRESS.unpack_from(body)
    found = attributes(body, _ADDRESS.size)
    return index, interface(ip_address(found.get(2) or found[1]), length)


# -- routes -------------------------------------------------------------------------------------


class RouteState(NamedTuple):
    """A route of any table; `metric` is 0 where IPv6 gives its default."""

    destination: tuple[int, bytes, int]  # address family, packed prefix, prefix length
    via: IPAddress | None
    metric: int
    ifindex: int
    on_link: bool
    table: int
    kind: int
    src: IPAddress | None = None


def _route_body(
    destination: IPNetwork,
    index: int,
    via: IPAddress | None,
    metric: int,
    *,
    on_link: bool,
    src: IPAddress | None,
) -> bytes:
    scope = _SCOPE_LINK if via is None and destination.version == 4 else _SCOPE_UNIVERSE
    return b"".join(
        [
            _ROUTE.pack(
                family(destination),
                destination.prefixlen,
                0,
                0,
                _TABLE_MAIN,
                _PROTOCOL_STATIC,
                scope,
                UNICAST,
                _ON_LINK if on_link else 0,
            ),
            attribute(1, destination.network_address.packed) if destination.prefixlen else b"",
            u32(4, index),  # RTA_OIF
            attribute(5, via.packed) if via is not None else b"",  # RTA_GATEWAY
            u32(6, metric) if metric else b"",  # RTA_PRIORITY
            attribute(7, src.packed) if src is not None else b"",  # RTA_PREFSRC
        ]
    )


def new_route(
    destination: IPNetwork,
    index: int,
    via: IPAddress | None = None,
    metric: int = 0,
    *,
    on_link: bool = False,
    src: IPAddress | None = None,
    replace: bool = False,
) -> Request:
    """Make a route in the main table; `replace`: in place of one with the same metric."""
    body = _route_body(destination, index, via, metric, on_link=on_link, src=src)
    return Request(NEWROUTE, CREATE | (REPLACE if replace else EXCLUSIVE), body)


def delete_route(
    destination: IPNetwork,
    index: int,
    via: IPAddress | None = None,
    metric: int = 0,
    *,
    on_link: bool = False,
    src: IPAddress | None = None,
) -> Request:
    """Remove a route from the main table."""
    body = bytearray(_route_body(destination, index, via, metric, on_link=on_link, src=src))
    body[6] = _SCOPE_NOWHERE  # any scope
    return Request(DELROUTE, 0, bytes(body))


def routes(version: int, table: int = 0, index: int = 0) -> Request:
    """All routes of an IP version: of all tables, or of one; by all devices, or by one."""
    header = _ROUTE.pack(AF_INET if version == 4 else AF_INET6, 0, 0, 0, 0, 0, 0, 0, 0)
    by_table = u32(15, table) if table else b""  # RTA_TABLE
    return Request(GETROUTE, DUMP, header + by_table + (u32(4, index) if index else b""))


def route_to(address: IPAddress) -> Request:
    """The route that packets to an address take, as it stands in its table."""
    header = _ROUTE.pack(family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, _FIB_MATCH)
    return Request(GETROUTE, 0, header + attribute(1, address.packed))


def read_route(body: bytes) -> RouteState:
    """The route that a route message tells of; of several next hops the first."""
    af, length, _, _, table, _, _, kind, flags = _ROUTE.unpack_from(body)
    found = attributes(body, _ROUTE.size)
    index, via = number(found.get(4)), found.get(5)
    hops = found.get(9)  # RTA_MULTIPATH: struct rtnexthop and its attributes
    if hops is not None:
        size, flags, _, index = struct.unpack_from("=HBBi", hops)
        via = attributes(hops[:size], 8).get(5)
    metric = number(found.get(6))
    if af == AF_INET6 and metric == _IPV6_DEFAULT_METRIC:
        metric = 0
    return RouteState(
        destination=(af, found.get(1, bytes(4 if af == AF_INET else 16)), length),
        via=None if via is None else ip_address(via),
        metric=metric,
        ifindex=index,
        on_link=bool(flags & _ON_LINK),
        table=number(found.get(15), table),
        kind=kind,
        src=ip_address(found[7]) if 7 in found else None,
    )


# -- neighbours and forwarding entries ----------------------------------------------------------


def new_neighbour(index: int, address: IPAddress, mac: str, *, replace: bool = False) -> Request:
    """Make a permanent neighbour entry."""
    return Request(
        NEWNEIGH,
        CREATE | (REPLACE if replace else EXCLUSIVE),
        _NEIGHBOUR.pack(family(address), index, PERMANENT, 0, 0)
        + attribute(1, address.packed)  # NDA_DST
        + attribute(2, packed_mac(mac)),  # NDA_LLADDR
    )


def delete_neighbour(index: int, address: IPAddress) -> Request:
    """Remove a neighbour entry."""
    header = _NEIGHBOUR.pack(family(address), index, 0, 0, 0)
    return Request(DELNEIGH, 0, header + attribute(1, address.packed))


def neighbours_of(index: int, version: int) -> Request:
    """All neighbour entries of a device for an IP version."""
    header = _NEIGHBOUR.pack(AF_INET if version == 4 else AF_INET6, 0, 0, 0, 0)
    return Request(GETNEIGH, DUMP, header + u32(8, index))  # NDA_IFINDEX


def tunnel_entry(index: int, mac: str, remote: IPAddress, flags: int) -> Request:
    """A VXLAN device's own entry: frames for `mac` are sent to the VTEP `remote`."""
    return Request(NEWNEIGH, flags, _fdb_body(index, mac, NO_ARP | PERMANENT, SELF, remote))


def delete_tunnel_entry(index: int, mac: str, remote: IPAddress) -> Request:
    """Remove a VXLAN device's own entry."""
    return Request(DELNEIGH, 0, _fdb_body(index, mac, NO_ARP | PERMANENT, SELF, remote))


def port_entry(index: int, mac: str, *, sticky: bool, flags: int = CREATE | REPLACE) -> Request:
    """A bridge's entry: `mac` is behind the port of this index, for ever."""
    ntf = AT_MASTER | (STICKY if sticky else 0)
    return Request(NEWNEIGH, flags, _fdb_body(index, mac, NO_ARP, ntf, None))


def delete_port_entry(index: int, mac: str) -> Request:
    """Remove a bridge's entry."""
    return Request(DELNEIGH, 0, _fdb_body(index, mac, NO_ARP, AT_MASTER, None))


def get_port_entry(index: int, mac: str) -> Request:
    """A bridge's entry for a MAC, wherever that is; `index` is one of its ports."""
    return Request(GETNEIGH, 0, _fdb_body(index, mac, 0, AT_MASTER, None))


def delete_tunnel_entries(index: int, remote: IPAddress) -> Request:
    """Remove a VXLAN device's own entries for a VTEP, all in one (Linux 6.7, vxlan_flush)."""
    header = _NEIGHBOUR.pack(AF_BRIDGE, index, 0, SELF, 0)
    return Request(DELNEIGH, BULK, header + attribute(1, remote.packed))


def fdb_of(index: int) -> Request:
    """All forwarding entries of a device: its own and those of the bridge for this port."""
    return Request(GETNEIGH, DUMP, _NEIGHBOUR.pack(AF_BRIDGE, index, 0, 0, 0))


def _fdb_body(index: int, mac: str, state: int, flags: int, remote: IPAddress | None) -> bytes:
    destination = b"" if remote is None else attribute(1, remote.packed)
    return (
        _NEIGHBOUR.pack(AF_BRIDGE, index, state, flags, 0)
        + attribute(2, packed_mac(mac))
        + destination
    )


class NeighbourState(NamedTuple):
    """A neighbour's or a forwarding entry."""

    ifindex: int
    state: int
    flags: int
    mac: str
    address: IPv4Address | IPv6Address | None
    at_master: bool


def is_sticky(state: NeighbourState) -> bool:
    """Whether a bridge's entry stays whatever frames it sees."""
    return state.at_master and bool(state.flags & STICKY) and bool(state.state & NO_ARP)


def read_neighbour(body: bytes) -> NeighbourState:
    """The entry that a neighbour message tells of."""
    _, index, state, flags, _ = _NEIGHBOUR.unpack_from(body)
    found = attributes(body, _NEIGHBOUR.size)
    address = found.get(1)
    return NeighbourState(
        ifindex=index,
        state=state,
        flags=flags,
        mac=mac_text(found.get(2)),
        address=None if address is None else ip_address(address),
        at_master=9 in found,  # NDA_MASTER
    )
