"""Ipvlan devices (ipvlan.rst)."""

from __future__ import annotations

from typing import Any

from netlib.kernel import netlink, rtnl
from netlib.kernel.kinds.below import change_below, create_below, parent_of
from netlib.kernel.kinds.common import Requests, as_found
from netlib.kernel.netlink import u16
from netlib.kernel.rtnl import LinkState
from netlib.kernel.session import Session
from netlib.values import replace
from netlib.wiring import Ipvlan

_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}


def _info(noun: Ipvlan) -> bytes:
    mode, flag = _MODES[noun.mode], _FLAGS[noun.flag]
    return rtnl.info("ipvlan", u16(1, mode), u16(2, flag))


def create(noun: Ipvlan, session: Session) -> Requests:
    """The requests that make it."""
    return create_below(noun, session, _info(noun))


def change(noun: Ipvlan, state: LinkState, session: Session) -> Requests:
    """The requests that make it, as it is now, be as the noun says."""
    return change_below(noun, state.ifindex, _info(noun))


def read(noun: Ipvlan, state: LinkState, session: Session) -> Ipvlan:
    """The noun as it is now."""
    modes: dict[int, Any] = {number: name for name, number in _MODES.items()}
    flags: dict[int, Any] = {number: name for name, number in _FLAGS.items()}
    found: dict[str, Any] = {**as_found(state), "up": noun.up}
    return replace(
        noun,
        **found,
        parent=parent_of(noun, state, session),
        mode=modes.get(netlink.number(state.data.get(1)), noun.mode),
        flag=flags.get(netlink.number(state.data.get(2)), noun.flag),
    )
