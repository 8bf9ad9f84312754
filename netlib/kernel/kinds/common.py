"""What all kinds of links share: finding a device, and what is set or read alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Any

from netlib.errors import NotThere
from netlib.kernel import rtnl
from netlib.kernel.errnos import Refusal, is_absence, refused
from netlib.kernel.netlink import Request, attribute
from netlib.kernel.refusals import thing
from netlib.kernel.rtnl import LinkState
from netlib.kernel.session import Session
from netlib.model import Netns
from netlib.names import MARK
from netlib.wiring import Link

# Where a request goes, and the request; None: what follows needs what went before.
Requests = Iterator[tuple[Netns, Request] | None]

# Attributes of a bridge's port (linux/if_link.h, IFLA_BRPORT_*).
HAIRPIN, LEARNING, FLOOD = 4, 8, 9
MULTICAST_FLOOD, BROADCAST_FLOOD, SUPPRESS, ISOLATED, LOCKED = 27, 30, 32, 33, 39


def is_ours(state: LinkState) -> bool:
    """Whether a device carries our mark."""
    return state.alias.startswith(MARK)


def find(session: Session, netns: Netns, name: str) -> LinkState | None:
    """A device by its name."""
    answer = session.rtnl(netns).try_to_ask(rtnl.get_link(name))
    if isinstance(answer, Refusal):
        if is_absence(answer):
            return None
        raise refused(answer, f"the device {name} in {netns} can't be read")
    (body,) = answer
    return rtnl.read_link(body)


def index_of(session: Session, netns: Netns, name: str, wanted_by: Link) -> int:
    """The index of a device that another one needs. Raises NotThere."""
    index = session.rtnl(netns).index(name)
    if not index:
        raise NotThere(
            f"{thing(wanted_by)} needs the device {name} in {netns}, which is not there",
            "see there: ip link",
        )
    return index


def mac_to_set(mac: str, state: LinkState | None = None) -> bytes:
    """A MAC to be set, if it is not there already: setting it empties the neighbour table."""
    if not mac or (state is not None and state.mac == mac):
        return b""
    return attribute(rtnl.MAC, rtnl.packed_mac(mac))


def as_found(state: LinkState) -> dict[str, Any]:
    """The attributes that every kind has, as they are now."""
    return {"owner": state.alias, "mtu": state.mtu, "up": state.up}


def without_generated_address(mtu: int) -> bytes:
    """A port needs no address of its own; nothing to say where there is no IPv6 anyway."""
    # A device has no IPv6 below its least MTU (RFC 8200 section 5), nor has any where the
    # kernel started without: then the attribute is refused (EAFNOSUPPORT).
    if mtu < 1280 or not _has_ipv6():
        return b""
    return rtnl.no_generated_address()


def _has_ipv6() -> bool:
    try:
        return _saw_ipv6()
    except FileNotFoundError:
        return False


@cache
def _saw_ipv6() -> bool:
    """Whether the kernel knows IPv6, which it does not unlearn. FileNotFoundError if not yet."""
    os.stat("/proc/sys/net/ipv6")
    return True
