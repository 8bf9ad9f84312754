"""Links as rtnetlink requests: how each kind is made, changed and read back."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from netlib.errors import NotThere, Unsupported
from netlib.kernel import netlink, rtnl
from netlib.kernel.netlink import Request, attribute, text, u8, u16, u32
from netlib.kernel.netns import Session
from netlib.kernel.rtnl import LinkState
from netlib.model import Netns
from netlib.names import MARK
from netlib.wiring import Bridge, Ipvlan, Link, Macvlan, VethPair, Vlan, Vxlan

# Where a request goes, and the request; None: what follows needs what went before.
Requests = Iterator[tuple[Netns, Request] | None]

_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}

# Attributes of a bridge's port (linux/if_link.h, IFLA_BRPORT_*).
_HAIRPIN, _LEARNING, _FLOOD = 4, 8, 9
_MULTICAST_FLOOD, _BROADCAST_FLOOD, _SUPPRESS, _ISOLATED, _LOCKED = 27, 30, 32, 33, 39


def is_ours(state: LinkState) -> bool:
    """Whether a device carries our mark."""
    return state.alias.startswith(MARK)


def needs(noun: Link) -> tuple[Netns, str] | None:
    """The device that must be there before this one can be made."""
    if isinstance(noun, VethPair | Vxlan):
        return (noun.netns, noun.bridge) if noun.bridge else None
    if isinstance(noun, Macvlan | Ipvlan):
        return noun.parent_netns, noun.parent
    if isinstance(noun, Vlan):
        return noun.netns, noun.parent
    return None


def create(noun: Link, session: Session) -> Requests:
    """The requests that make a link."""
    return _kind(noun).create(noun, session)


def change(noun: Link, state: LinkState, session: Session) -> Requests:
    """The requests that make an existing link, now in this state, be as a noun says."""
    return _kind(noun).change(noun, state, session)


def read(noun: Link, session: Session) -> Link | None:
    """The link that is there in a noun's place, if it is ours and of its kind."""
    state = find(session, noun.netns, noun.name)
    kind = _kind(noun)
    if state is None or not is_ours(state) or state.kind != kind.name:
        return None
    return kind.read(noun, state, session)


def find(session: Session, netns: Netns, name: str) -> LinkState | None:
    """A device by its name."""
    try:
        (body,) = session.rtnl(netns).ask(rtnl.get_link(name))
    except netlink.Refusal:
        return None
    return rtnl.read_link(body)


def of_state(state: LinkState, socket: netlink.Socket) -> Link | None:
    """A device of ours as a noun that is good for deletion, None for kinds we never make."""
    common: dict[str, Any] = {
        "name": state.name,
        "owner": state.alias,
        "mtu": state.mtu,
        "up": state.up,
    }
    master = socket.device(state.master) if state.master else ""
    parent = socket.device(state.parent) if state.parent and not state.elsewhere else ""
    if state.kind == "bridge":
        return Bridge(**common, mac=state.mac)
    if state.kind == "veth":
        gone = Netns(name="?")  # where the peer is can't be told from here
        return VethPair(**common, peer=parent, peer_netns=gone, mac="", bridge=master)
    if state.kind == "macvlan":
        return Macvlan(**common, parent=parent, mac=state.mac)
    if state.kind == "ipvlan":
        return Ipvlan(**common, parent=parent)
    if state.kind == "vlan":
        return Vlan(**common, parent=parent, vlan_id=netlink.number(state.data.get(1)))
    if state.kind == "vxlan":
        noun = Vxlan(
            **common,
            bridge=master,
            vni=0,
            local=ip_address("0.0.0.0"),  # noqa: S104 - "unknown", nothing is bound
            mac=state.mac,
        )
        return _read_vxlan(noun, state)
    return None


class _Kind:
    """How one kind of link is made, changed and read."""

    def __init__(
        self,
        name: str,
        create: Callable[[Any, Session], Requests],
        change: Callable[[Any, LinkState, Session], Requests],
        read: Callable[[Any, LinkState, Session], Link],
    ) -> None:
        self.name = name
        self.create = create
        self.change = change
        self.read = read


def _kind(noun: Link) -> _Kind:
    try:
        return _KINDS[type(noun)]
    except KeyError:
        raise Unsupported(f"no way to make a {type(noun).__name__} is known here") from None


def _index(session: Session, netns: Netns, name: str, wanted_by: Link) -> int:
    index = session.rtnl(netns).index(name)
    if not index:
        raise NotThere(f"{wanted_by.name} needs the device {name}, which is not there")
    return index


def _mac(mac: str, state: LinkState | None = None) -> bytes:
    """A MAC to be set, if it is not there already: setting it empties the neighbour table."""
    if not mac or (state is not None and state.mac == mac):
        return b""
    return attribute(rtnl.MAC, rtnl.packed_mac(mac))


def _common(noun: Link, state: LinkState) -> dict[str, Any]:
    return {"owner": state.alias, "mtu": state.mtu, "up": state.up}


# -- bridge -------------------------------------------------------------------------------------


def _bridge_data(noun: Bridge) -> bytes:
    return rtnl.info(
        "bridge",
        u32(1, 0),  # no forward delay: a port forwards at once
        u32(5, 0),  # no spanning tree
        u32(4, noun.ageing_seconds * 100),  # in clock ticks (USER_HZ)
        u8(23, noun.multicast_snooping),
    )


def _bridge_settings(noun: Bridge) -> Request:
    return rtnl.set_link(
        text(rtnl.NAME, noun.name),
        text(rtnl.ALIAS, noun.owner),
        u32(rtnl.MTU, noun.mtu),
        up=noun.up,
    )


def _create_bridge(noun: Bridge, session: Session) -> Requests:
    # Only an MTU that changes after creation is kept when ports with a smaller one come and
    # go (br_mtu_auto_adjust in net/bridge/br_if.c), so it starts with another.
    yield (
        noun.netns,
        rtnl.new_link(
            text(rtnl.NAME, noun.name),
            _mac(noun.mac),
            u32(rtnl.MTU, noun.mtu - 1),
            _bridge_data(noun),
        ),
    )
    yield noun.netns, _bridge_settings(noun)


def _change_bridge(noun: Bridge, state: LinkState, session: Session) -> Requests:
    name, mac = text(rtnl.NAME, noun.name), _mac(noun.mac, state)
    yield noun.netns, rtnl.set_link(name, mac, _bridge_data(noun))
    yield noun.netns, _bridge_settings(noun)


def _read_bridge(noun: Bridge, state: LinkState, session: Session) -> Bridge:
    return replace(
        noun,
        **_common(noun, state),
        mac=state.mac,
        multicast_snooping=bool(netlink.number(state.data.get(23))),
        ageing_seconds=netlink.number(state.data.get(4)) // 100,
    )


# -- veth ---------------------------------------------------------------------------------------


def _veth_port(noun: VethPair) -> bytes:
    return rtnl.port(
        u8(_HAIRPIN, noun.hairpin),
        u8(_ISOLATED, noun.isolated),
        # A locked port takes frames only from the MAC that is entered for it below.
        u8(_LOCKED, noun.locked),
        u8(_LEARNING, not noun.locked),
    )


def _veth_settings(noun: VethPair) -> Iterator[Request]:
    name = text(rtnl.NAME, noun.name)
    port = (_veth_port(noun), rtnl.no_generated_address()) if noun.bridge else ()
    yield rtnl.set_link(name, text(rtnl.ALIAS, noun.owner), *port)
    # Apart, because in one message "up" would come before "no generated address".
    yield rtnl.set_link(name, up=noun.up)


def _create_veth(noun: VethPair, session: Session) -> Requests:
    master = b""
    if noun.bridge:
        master = u32(rtnl.MASTER, _index(session, noun.netns, noun.bridge, noun))
    # The peer stays down: veth refuses it up before its other end exists (ENOTCONN).
    peer = attribute(
        1,  # VETH_INFO_PEER
        rtnl.link_body(
            text(rtnl.NAME, noun.peer),
            _mac(noun.mac),
            u32(rtnl.MTU, noun.mtu),
            u32(rtnl.NETNS_FD, session.fd(noun.peer_netns)),
        ),
    )
    yield (
        noun.netns,
        rtnl.new_link(
            text(rtnl.NAME, noun.name),
            u32(rtnl.MTU, noun.mtu),
            _mac(noun.host_mac),
            master,
            rtnl.info("veth", peer),
        ),
    )
    for request in _veth_settings(noun):
        yield noun.netns, request
    if noun.locked and noun.bridge:
        yield None
        index = _index(session, noun.netns, noun.name, noun)
        yield noun.netns, rtnl.port_entry(index, noun.mac, sticky=False)


def _change_veth(noun: VethPair, state: LinkState, session: Session) -> Requests:
    index = state.ifindex
    master = _index(session, noun.netns, noun.bridge, noun) if noun.bridge else 0
    mtu, plug = u32(rtnl.MTU, noun.mtu), u32(rtnl.MASTER, master)
    yield noun.netns, rtnl.set_link(mtu, plug, _mac(noun.host_mac, state), index=index)
    for request in _veth_settings(noun):
        yield noun.netns, request
    peer = find(session, noun.peer_netns, noun.peer)
    if peer is None:
        raise NotThere(f"{noun.name} has no peer {noun.peer} in {noun.peer_netns}")
    yield noun.peer_netns, rtnl.set_link(mtu, _mac(noun.mac, peer), index=peer.ifindex)
    if noun.locked and noun.bridge:
        yield noun.netns, rtnl.port_entry(index, noun.mac, sticky=False)


def _read_veth(noun: VethPair, state: LinkState, session: Session) -> VethPair:
    port = state.port
    found = replace(
        noun,
        **_common(noun, state),
        bridge=session.rtnl(noun.netns).device(state.master) if state.master else "",
        host_mac=state.mac if noun.host_mac else "",
    )
    if port:
        found = replace(
            found,
            hairpin=bool(netlink.number(port.get(_HAIRPIN))),
            isolated=bool(netlink.number(port.get(_ISOLATED))),
            locked=bool(netlink.number(port.get(_LOCKED))),
        )
    peer = find(session, noun.peer_netns, noun.peer)
    if peer is None or peer.kind != "veth":
        return replace(found, peer="", mac="")  # renamed, moved: a fixed attribute differs
    mtu = found.mtu if peer.mtu == noun.mtu else peer.mtu
    return replace(found, mac=peer.mac, mtu=mtu)


# -- macvlan and ipvlan: made from the parent's namespace, straight into their own ----------------


def _create_below(noun: Macvlan | Ipvlan, session: Session, *attrs: bytes) -> Requests:
    parents = session.rtnl(noun.parent_netns)
    parent = _index(session, noun.parent_netns, noun.parent, noun)
    moves = noun.netns != noun.parent_netns
    # Older kernels look for the name where the request is made, not where the device goes.
    name = noun.name
    if moves and parents.index(name):
        name = f"nm-{os.urandom(6).hex()}"
    where = u32(rtnl.NETNS_FD, session.fd(noun.netns)) if moves else b""
    yield (
        noun.parent_netns,
        rtnl.new_link(
            text(rtnl.NAME, name),
            u32(rtnl.PARENT, parent),
            u32(rtnl.MTU, noun.mtu),
            where,
            *attrs,
        ),
    )
    yield None
    index = _index(session, noun.netns, name, noun)
    rename = text(rtnl.NAME, noun.name) if name != noun.name else b""
    yield noun.netns, rtnl.set_link(text(rtnl.ALIAS, noun.owner), rename, index=index)


def _change_below(noun: Macvlan | Ipvlan, index: int, *attrs: bytes) -> Requests:
    yield (
        noun.netns,
        rtnl.set_link(text(rtnl.ALIAS, noun.owner), u32(rtnl.MTU, noun.mtu), *attrs, index=index),
    )


def _macvlan_info(noun: Macvlan) -> bytes:
    queue = [u32(7, noun.broadcast_queue)] if noun.broadcast_queue else []
    return rtnl.info("macvlan", u32(1, _MACVLAN_MODES[noun.mode]), *queue)


def _create_macvlan(noun: Macvlan, session: Session) -> Requests:
    return _create_below(noun, session, _mac(noun.mac), _macvlan_info(noun))


def _change_macvlan(noun: Macvlan, state: LinkState, session: Session) -> Requests:
    return _change_below(noun, state.ifindex, _mac(noun.mac, state), _macvlan_info(noun))


def _read_macvlan(noun: Macvlan, state: LinkState, session: Session) -> Macvlan:
    mode = netlink.number(state.data.get(1))
    names: dict[int, Any] = {number: name for name, number in _MACVLAN_MODES.items()}
    queue = netlink.number(state.data.get(7)) if noun.broadcast_queue else 0
    # It goes up with its address: that it is down says nothing of this noun.
    found: dict[str, Any] = {**_common(noun, state), "up": noun.up, "mac": state.mac}
    return replace(
        noun,
        **found,
        parent=_parent(noun, state, session),
        mode=names.get(mode, noun.mode),
        broadcast_queue=queue,
    )


def _create_ipvlan(noun: Ipvlan, session: Session) -> Requests:
    return _create_below(noun, session, _ipvlan_info(noun))


def _change_ipvlan(noun: Ipvlan, state: LinkState, session: Session) -> Requests:
    return _change_below(noun, state.ifindex, _ipvlan_info(noun))


def _ipvlan_info(noun: Ipvlan) -> bytes:
    mode, flag = _IPVLAN_MODES[noun.mode], _IPVLAN_FLAGS[noun.flag]
    return rtnl.info("ipvlan", u16(1, mode), u16(2, flag))


def _read_ipvlan(noun: Ipvlan, state: LinkState, session: Session) -> Ipvlan:
    modes: dict[int, Any] = {number: name for name, number in _IPVLAN_MODES.items()}
    flags: dict[int, Any] = {number: name for name, number in _IPVLAN_FLAGS.items()}
    found: dict[str, Any] = {**_common(noun, state), "up": noun.up}
    return replace(
        noun,
        **found,
        parent=_parent(noun, state, session),
        mode=modes.get(netlink.number(state.data.get(1)), noun.mode),
        flag=flags.get(netlink.number(state.data.get(2)), noun.flag),
    )


def _parent(noun: Macvlan | Ipvlan, state: LinkState, session: Session) -> str:
    return session.rtnl(noun.parent_netns).device(state.parent)


# -- vlan ---------------------------------------------------------------------------------------


def _create_vlan(noun: Vlan, session: Session) -> Requests:
    parent = _index(session, noun.netns, noun.parent, noun)
    name, mtu = text(rtnl.NAME, noun.name), u32(rtnl.MTU, noun.mtu)
    info = rtnl.info("vlan", u16(1, noun.vlan_id))
    yield noun.netns, rtnl.new_link(name, u32(rtnl.PARENT, parent), mtu, info)
    yield noun.netns, rtnl.set_link(name, text(rtnl.ALIAS, noun.owner), up=noun.up)


def _change_vlan(noun: Vlan, state: LinkState, session: Session) -> Requests:
    name, mtu = text(rtnl.NAME, noun.name), u32(rtnl.MTU, noun.mtu)
    yield noun.netns, rtnl.set_link(name, text(rtnl.ALIAS, noun.owner), mtu, up=noun.up)


def _read_vlan(noun: Vlan, state: LinkState, session: Session) -> Vlan:
    return replace(
        noun,
        **_common(noun, state),
        parent=session.rtnl(noun.netns).device(state.parent),
        vlan_id=netlink.number(state.data.get(1)),
    )


# -- vxlan --------------------------------------------------------------------------------------


def _vxlan_settings(noun: Vxlan) -> Iterator[Request]:
    name = text(rtnl.NAME, noun.name)
    flood = noun.flood
    flags = rtnl.port(
        u8(_LEARNING, 0),
        u8(_SUPPRESS, 1),
        u8(_FLOOD, flood),
        u8(_MULTICAST_FLOOD, flood),
        u8(_BROADCAST_FLOOD, flood),
    )
    port = (flags, rtnl.no_generated_address()) if noun.bridge else ()
    yield rtnl.set_link(name, text(rtnl.ALIAS, noun.owner), *port)
    yield rtnl.set_link(name, up=noun.up)


def _create_vxlan(noun: Vxlan, session: Session) -> Requests:
    bridge = _index(session, noun.netns, noun.bridge, noun)
    local = attribute(4 if noun.local.version == 4 else 17, noun.local.packed)
    yield (
        noun.netns,
        rtnl.new_link(
            text(rtnl.NAME, noun.name),
            _mac(noun.mac),
            u32(rtnl.MTU, noun.mtu),
            u32(rtnl.MASTER, bridge),
            rtnl.info(
                "vxlan",
                u32(1, noun.vni),
                local,
                u8(5, 64),  # TTL
                u8(7, 0),  # no learning
                attribute(15, noun.port.to_bytes(2, "big")),
            ),
        ),
    )
    for request in _vxlan_settings(noun):
        yield noun.netns, request


def _change_vxlan(noun: Vxlan, state: LinkState, session: Session) -> Requests:
    bridge = _index(session, noun.netns, noun.bridge, noun) if noun.bridge else 0
    mtu, plug = u32(rtnl.MTU, noun.mtu), u32(rtnl.MASTER, bridge)
    yield noun.netns, rtnl.set_link(mtu, plug, _mac(noun.mac, state), index=state.ifindex)
    for request in _vxlan_settings(noun):
        yield noun.netns, request


def _read_vxlan(noun: Vxlan, state: LinkState, session: Session | None = None) -> Vxlan:
    data, port = state.data, state.port
    local = data.get(4) or data.get(17)
    bridge = noun.bridge
    if session is not None:
        bridge = session.rtnl(noun.netns).device(state.master) if state.master else ""
    flags = (_FLOOD, _MULTICAST_FLOOD, _BROADCAST_FLOOD)
    return replace(
        noun,
        **_common(noun, state),
        bridge=bridge,
        mac=state.mac,
        vni=netlink.number(data.get(1)),
        local=noun.local if local is None else ip_address(local),
        port=int.from_bytes(data.get(15, b""), "big"),
        flood=any(netlink.number(port.get(flag)) for flag in flags),
    )


_KINDS: dict[type[Link], _Kind] = {
    Bridge: _Kind("bridge", _create_bridge, _change_bridge, _read_bridge),
    VethPair: _Kind("veth", _create_veth, _change_veth, _read_veth),
    Macvlan: _Kind("macvlan", _create_macvlan, _change_macvlan, _read_macvlan),
    Ipvlan: _Kind("ipvlan", _create_ipvlan, _change_ipvlan, _read_ipvlan),
    Vlan: _Kind("vlan", _create_vlan, _change_vlan, _read_vlan),
    Vxlan: _Kind("vxlan", _create_vxlan, _change_vxlan, _read_vxlan),
}
