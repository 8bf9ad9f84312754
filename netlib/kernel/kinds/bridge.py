"""Bridges (ip-link(8), br_netlink.c)."""

from __future__ import annotations

from netlib.kernel import netlink, rtnl
from netlib.kernel.kinds.common import Requests, as_found, mac_to_set
from netlib.kernel.netlink import Request, text, u8, u32
from netlib.kernel.rtnl import LinkState
from netlib.kernel.session import Session
from netlib.values import replace
from netlib.wiring import Bridge


def _data(noun: Bridge) -> bytes:
    return rtnl.info(
        "bridge",
        u32(1, 0),  # no forward delay: a port forwards at once
        u32(5, 0),  # no spanning tree
        u32(4, noun.ageing_seconds * 100),  # in clock ticks (USER_HZ)
        u8(23, noun.multicast_snooping),
    )


def _settings(noun: Bridge) -> Request:
    return rtnl.set_link(
        text(rtnl.NAME, noun.name),
        text(rtnl.ALIAS, noun.owner),
        u32(rtnl.MTU, noun.mtu),
        up=noun.up,
    )


def create(noun: Bridge, session: Session) -> Requests:
    """The requests that make it."""
    # Only an MTU that changes after creation is kept when ports with a smaller one come and
    # go (br_mtu_auto_adjust in net/bridge/br_if.c), so it starts with another.
    yield (
        noun.netns,
        rtnl.new_link(
            text(rtnl.NAME, noun.name),
            mac_to_set(noun.mac),
            u32(rtnl.MTU, noun.mtu ^ 1),  # which is one, too, for the least and the most
            _data(noun),
        ),
    )
    yield noun.netns, _settings(noun)


def change(noun: Bridge, state: LinkState, session: Session) -> Requests:
    """The requests that make it, as it is now, be as the noun says."""
    name, mac = text(rtnl.NAME, noun.name), mac_to_set(noun.mac, state)
    yield noun.netns, rtnl.set_link(name, mac, _data(noun))
    yield noun.netns, _settings(noun)


def read(noun: Bridge, state: LinkState, session: Session) -> Bridge:
    """The noun as it is now."""
    return replace(
        noun,
        **as_found(state),
        mac=state.mac,
        multicast_snooping=bool(netlink.number(state.data.get(23))),
        ageing_seconds=netlink.number(state.data.get(4)) // 100,
    )
