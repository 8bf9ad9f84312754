"""Links as rtnetlink requests, whatever their kind."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple

from netlib.errors import Unsupported
from netlib.kernel import netlink, rtnl
from netlib.kernel.kinds import bridge, dummy, ipvlan, macvlan, veth, vlan, vxlan
from netlib.kernel.kinds.common import Requests, find, is_ours
from netlib.kernel.netns import is_host
from netlib.kernel.rtnl import LinkState
from netlib.kernel.session import Session
from netlib.model import Netns
from netlib.values import replace
from netlib.wiring import Bridge, Dummy, Ipvlan, Link, Macvlan, VethPair, Vlan, Vxlan


class _Kind(NamedTuple):
    """What Linux calls a kind, and how it is made, changed and read."""

    name: str
    create: Callable[[Any, Session], Requests]
    change: Callable[[Any, LinkState, Session], Requests]
    read: Callable[[Any, LinkState, Session], Link]


_KINDS: dict[type[Link], _Kind] = {
    Bridge: _Kind("bridge", bridge.create, bridge.change, bridge.read),
    VethPair: _Kind("veth", veth.create, veth.change, veth.read),
    Macvlan: _Kind("macvlan", macvlan.create, macvlan.change, macvlan.read),
    Ipvlan: _Kind("ipvlan", ipvlan.create, ipvlan.change, ipvlan.read),
    Dummy: _Kind("dummy", dummy.create, dummy.change, dummy.read),
    Vlan: _Kind("vlan", vlan.create, vlan.change, vlan.read),
    Vxlan: _Kind("vxlan", vxlan.create, vxlan.change, vxlan.read),
}


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


def find_own(noun: Link, session: Session) -> LinkState | None:
    """A noun's device, if it is ours; also one that was renamed where it can only be seen there.

    A veth goes with its end on the host. A device on a parent has none: under another name it
    would keep its addresses when they are given to others, and its MAC from its successor.
    """
    state = find(session, noun.netns, noun.name)
    if state is not None and is_ours(state):
        return state
    if not isinstance(noun, Macvlan | Ipvlan) or is_host(noun.netns):
        return None
    bodies = session.rtnl(noun.netns).ask(rtnl.all_links(), f"the devices of {noun.netns}")
    return next((one for one in map(rtnl.read_link, bodies) if one.alias == noun.owner), None)


def read(noun: Link, session: Session) -> Link | None:
    """The link that is there in a noun's place, if it is ours and of its kind."""
    state = find_own(noun, session)
    kind = _kind(noun)
    if state is None or state.kind != kind.name:
        return None
    if state.name != noun.name and isinstance(noun, Macvlan | Ipvlan):
        return replace(noun, parent="")  # renamed: a fixed attribute differs
    return kind.read(noun, state, session)


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
    if state.kind == "dummy":
        return Dummy(**common)
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
        return vxlan.read(noun, state)
    return None


def _kind(noun: Link) -> _Kind:
    try:
        return _KINDS[type(noun)]
    except KeyError:
        raise Unsupported(f"no way to make a {type(noun).__name__} is known here") from None


__all__ = ["change", "create", "find", "find_own", "is_ours", "needs", "of_state", "read"]
