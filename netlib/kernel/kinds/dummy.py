"""Devices that lead nowhere (dummy.c)."""

from __future__ import annotations

from netlib.kernel import rtnl
from netlib.kernel.kinds.common import Requests, as_found
from netlib.kernel.netlink import text, u32
from netlib.kernel.rtnl import LinkState
from netlib.kernel.session import Session
from netlib.values import replace
from netlib.wiring import Dummy


def create(noun: Dummy, session: Session) -> Requests:
    """The requests that make it."""
    name, mtu = text(rtnl.NAME, noun.name), u32(rtnl.MTU, noun.mtu)
    yield noun.netns, rtnl.new_link(name, mtu, rtnl.info("dummy"))
    yield noun.netns, rtnl.set_link(name, text(rtnl.ALIAS, noun.owner), up=noun.up)


def change(noun: Dummy, state: LinkState, session: Session) -> Requests:
    """The requests that make it, as it is now, be as the noun says."""
    name, mtu = text(rtnl.NAME, noun.name), u32(rtnl.MTU, noun.mtu)
    yield noun.netns, rtnl.set_link(name, text(rtnl.ALIAS, noun.owner), mtu, up=noun.up)


def read(noun: Dummy, state: LinkState, session: Session) -> Dummy:
    """The noun as it is now."""
    return replace(noun, **as_found(state))
