"""Macvlan devices (macvlan.c)."""

from __future__ import annotations

from typing import Any

from netlib.kernel import netlink, rtnl
from netlib.kernel.kinds.below import change_below, create_below, parent_of
from netlib.kernel.kinds.common import Requests, as_found, mac_to_set
from netlib.kernel.netlink import u32
from netlib.kernel.rtnl import LinkState
from netlib.kernel.session import Session
from netlib.values import replace
from netlib.wiring import Macvlan

_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}


def _info(noun: Macvlan) -> bytes:
    queue = [u32(7, noun.broadcast_queue)] if noun.broadcast_queue else []
    return rtnl.info("macvlan", u32(1, _MODES[noun.mode]), *queue)


def create(noun: Macvlan, session: Session) -> Requests:
    """The requests that make it."""
    return create_below(noun, session, mac_to_set(noun.mac), _info(noun))


def change(noun: Macvlan, state: LinkState, session: Session) -> Requests:
    """The requests that make it, as it is now, be as the noun says."""
    return change_below(noun, state.ifindex, mac_to_set(noun.mac, state), _info(noun))


def read(noun: Macvlan, state: LinkState, session: Session) -> Macvlan:
    """The noun as it is now."""
    mode = netlink.number(state.data.get(1))
    names: dict[int, Any] = {number: name for name, number in _MODES.items()}
    queue = netlink.number(state.data.get(7)) if noun.broadcast_queue else 0
    # It goes up with its address: that it is down says nothing of this noun.
    found: dict[str, Any] = {**as_found(state), "up": noun.up}
    found["mac"] = state.mac if noun.mac else ""  # passthru: the parent's
    return replace(
        noun,
        **found,
        parent=parent_of(noun, state, session),
        mode=names.get(mode, noun.mode),
        broadcast_queue=queue,
    )
