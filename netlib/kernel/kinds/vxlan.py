"""VXLAN ports (RFC 7348, vxlan.rst)."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

from netlib.kernel import netlink, rtnl
from netlib.kernel.kinds.common import (
    BROADCAST_FLOOD,
    FLOOD,
    ISOLATED,
    LEARNING,
    MULTICAST_FLOOD,
    SUPPRESS,
    Requests,
    as_found,
    index_of,
    mac_to_set,
    without_generated_address,
)
from netlib.kernel.netlink import Request, attribute, text, u8, u32
from netlib.kernel.rtnl import LinkState
from netlib.kernel.session import Session
from netlib.values import replace
from netlib.wiring import Vxlan

_LEARNS = 7  # IFLA_VXLAN_LEARNING (linux/if_link.h)
# How packets are taken: devices share a UDP port only where they agree (VXLAN_F_RCV_FLAGS in
# include/net/vxlan.h). Ours have none of these. Numbers first, then what is there or not.
_UDP_ZERO_CSUM6_RX, _REMCSUM_RX, _COLLECT_METADATA, _VNIFILTER = 20, 22, 25, 30
_GBP, _REMCSUM_NOPARTIAL, _GPE = 23, 24, 27
_SWITCHES = (_UDP_ZERO_CSUM6_RX, _REMCSUM_RX, _COLLECT_METADATA, _VNIFILTER)
_MARKS = {_GBP, _REMCSUM_NOPARTIAL, _GPE}


def _settings(noun: Vxlan) -> Iterator[Request]:
    name = text(rtnl.NAME, noun.name)
    flood = noun.flood
    flags = rtnl.port(
        u8(LEARNING, noun.learning),
        u8(SUPPRESS, noun.suppress),
        u8(FLOOD, flood),
        u8(MULTICAST_FLOOD, flood),
        u8(BROADCAST_FLOOD, flood),
        u8(ISOLATED, noun.isolated),
    )
    port = (flags, without_generated_address(noun.mtu)) if noun.bridge else ()
    yield rtnl.set_link(name, text(rtnl.ALIAS, noun.owner), *port)
    yield rtnl.set_link(name, up=noun.up)


def create(noun: Vxlan, session: Session) -> Requests:
    """The requests that make it."""
    bridge = index_of(session, noun.netns, noun.bridge, noun)
    local = attribute(4 if noun.local.version == 4 else 17, noun.local.packed)
    yield (
        noun.netns,
        rtnl.new_link(
            text(rtnl.NAME, noun.name),
            mac_to_set(noun.mac),
            u32(rtnl.MTU, noun.mtu),
            u32(rtnl.MASTER, bridge),
            rtnl.info(
                "vxlan",
                u32(1, noun.vni),
                local,
                u8(5, 64),  # TTL
                u8(_LEARNS, noun.learning),
                attribute(15, noun.port.to_bytes(2, "big")),
            ),
        ),
    )
    for request in _settings(noun):
        yield noun.netns, request


def change(noun: Vxlan, state: LinkState, session: Session) -> Requests:
    """The requests that make it, as it is now, be as the noun says."""
    bridge = index_of(session, noun.netns, noun.bridge, noun) if noun.bridge else 0
    mtu, plug = u32(rtnl.MTU, noun.mtu), u32(rtnl.MASTER, bridge)
    yield noun.netns, rtnl.set_link(mtu, plug, mac_to_set(noun.mac, state), index=state.ifindex)
    if bool(netlink.number(state.data.get(_LEARNS))) != noun.learning:
        learns = rtnl.info("vxlan", u8(_LEARNS, noun.learning))
        yield noun.netns, rtnl.set_link(learns, index=state.ifindex)
    for request in _settings(noun):
        yield noun.netns, request


def read(noun: Vxlan, state: LinkState, session: Session | None = None) -> Vxlan:
    """The noun as it is now."""
    data, port = state.data, state.port
    local = data.get(4) or data.get(17)
    bridge = noun.bridge
    if session is not None:
        bridge = session.rtnl(noun.netns).device(state.master) if state.master else ""
    flags = (FLOOD, MULTICAST_FLOOD, BROADCAST_FLOOD)
    learning = (data.get(_LEARNS), port.get(LEARNING))
    return replace(
        noun,
        **as_found(state),
        bridge=bridge,
        mac=state.mac,
        vni=netlink.number(data.get(1)),
        local=noun.local if local is None else ip_address(local),
        port=int.from_bytes(data.get(15, b""), "big"),
        flood=any(netlink.number(port.get(flag)) for flag in flags),
        isolated=bool(netlink.number(port.get(ISOLATED))),
        learning=any(map(netlink.number, learning)),
        suppress=bool(netlink.number(port.get(SUPPRESS))) if port else noun.suppress,
    )


def rival(noun: Vxlan, session: Session) -> str:
    """Another device beside which that can't be made, in words; "": none that is known."""
    where = f"UDP port {noun.port}"
    socket = session.rtnl(noun.netns)
    for body in socket.ask(rtnl.all_links(), f"the devices of {noun.netns}"):
        state = rtnl.read_link(body)
        data = state.data
        port = int.from_bytes(data.get(15, b""), "big")
        if state.kind != "vxlan" or state.name == noun.name or port != noun.port:
            continue
        if data.keys() & _MARKS or any(netlink.number(data.get(one)) for one in _SWITCHES):
            if state.up:
                return f"the device {state.name} has {where} for itself"
        elif netlink.number(data.get(1)) == noun.vni:
            return f"the device {state.name} has VNI {noun.vni} at {where}"
    return ""
