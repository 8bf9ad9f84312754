"""IEEE 802.1Q sub-interfaces."""

from __future__ import annotations

from netlib.kernel import netlink, rtnl
from netlib.kernel.kinds.common import Requests, as_found, index_of
from netlib.kernel.netlink import text, u16, u32
from netlib.kernel.rtnl import LinkState
from netlib.kernel.session import Session
from netlib.values import replace
from netlib.wiring import Vlan


def create(noun: Vlan, session: Session) -> Requests:
    """The requests that make it."""
    parent = index_of(session, noun.netns, noun.parent, noun)
    name, mtu = text(rtnl.NAME, noun.name), u32(rtnl.MTU, noun.mtu)
    info = rtnl.info("vlan", u16(1, noun.vlan_id))
    yield noun.netns, rtnl.new_link(name, u32(rtnl.PARENT, parent), mtu, info)
    yield noun.netns, rtnl.set_link(name, text(rtnl.ALIAS, noun.owner), up=noun.up)


def change(noun: Vlan, state: LinkState, session: Session) -> Requests:
    """The requests that make it, as it is now, be as the noun says."""
    name, mtu = text(rtnl.NAME, noun.name), u32(rtnl.MTU, noun.mtu)
    yield noun.netns, rtnl.set_link(name, text(rtnl.ALIAS, noun.owner), mtu, up=noun.up)


def read(noun: Vlan, state: LinkState, session: Session) -> Vlan:
    """The noun as it is now."""
    return replace(
        noun,
        **as_found(state),
        parent=session.rtnl(noun.netns).device(state.parent),
        vlan_id=netlink.number(state.data.get(1)),
    )
