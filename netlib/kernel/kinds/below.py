"""Devices on a parent: made from the parent's namespace, straight into their own."""

from __future__ import annotations

import os

from netlib.kernel import rtnl
from netlib.kernel.kinds.common import Requests, index_of
from netlib.kernel.netlink import text, u32
from netlib.kernel.rtnl import LinkState
from netlib.kernel.session import Session
from netlib.wiring import Ipvlan, Macvlan


def create_below(noun: Macvlan | Ipvlan, session: Session, *attrs: bytes) -> Requests:
    """The requests that make a device on its parent; `attrs` are its kind's own."""
    parents = session.rtnl(noun.parent_netns)
    parent = index_of(session, noun.parent_netns, noun.parent, noun)
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
    index = index_of(session, noun.netns, name, noun)
    rename = text(rtnl.NAME, noun.name) if name != noun.name else b""
    yield noun.netns, rtnl.set_link(text(rtnl.ALIAS, noun.owner), rename, index=index)


def change_below(noun: Macvlan | Ipvlan, index: int, *attrs: bytes) -> Requests:
    """The requests that change what all such devices have, and `attrs`."""
    yield (
        noun.netns,
        rtnl.set_link(text(rtnl.ALIAS, noun.owner), u32(rtnl.MTU, noun.mtu), *attrs, index=index),
    )


def parent_of(noun: Macvlan | Ipvlan, state: LinkState, session: Session) -> str:
    """The name of a device's parent."""
    return session.rtnl(noun.parent_netns).device(state.parent)
