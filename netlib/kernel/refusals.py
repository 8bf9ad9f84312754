"""Refused steps as errors that say what happened to what."""

from __future__ import annotations

import errno

from netlib.errors import AlreadyThere, NetError, Unsupported
from netlib.kernel.errnos import Refusal, refused
from netlib.plan import Create, Delete, Step, subject
from netlib.wiring import (
    Address,
    Dummy,
    FdbEntry,
    Forwarding,
    Ipvlan,
    Link,
    Loopback,
    Macvlan,
    Neighbour,
    Noun,
    Route,
    Sysctl,
    Up,
    Vlan,
    Vxlan,
)

# Where a kind of device comes from that not every kernel has, as modprobe(8) knows it.
_MODULES: dict[type[Noun], str] = {
    Dummy: "dummy",
    Ipvlan: "ipvlan",
    Macvlan: "macvlan",
    Vlan: "8021q",
    Vxlan: "vxlan",
}


def translated(refusal: Refusal, step: Step) -> NetError:
    """The error that a refused step is."""
    verb = {Create: "made", Delete: "removed"}.get(type(step), "set")
    noun = subject(step)
    error = refused(refusal, f"{thing(noun)} can't be {verb}")
    module = _MODULES.get(type(noun))
    if isinstance(error, Unsupported) and module is not None:
        error.hint = f"this kernel lacks {module}; if it is built as a module: modprobe {module}"
    if isinstance(noun, Macvlan | Ipvlan) and refusal.errno == errno.EINVAL:
        error.hint = (
            f"its MTU is {noun.mtu}: if that of {noun.parent} is less now (ip link), raise it, or "
            "run: net update -o mtu=N NETWORK"
        )
    if isinstance(noun, Up | Address) and refusal.errno == errno.EADDRINUSE:
        # Looked for among all on one parent (macvlan_addr_busy; of ipvlan, addresses likewise).
        what = "MAC" if isinstance(noun, Up) else "IP"
        error.hint = f"the parent or another device on it has its {what} address: give it another"
    if isinstance(error, AlreadyThere) and isinstance(noun, Route):
        leave = "connect with -o no_default_route=true" if not noun.destination.prefixlen else ""
        error.hint = f"somebody else made one{', and to leave it: ' * bool(leave)}{leave}"
    if refusal.errno == errno.EADDRINUSE and isinstance(noun, Vxlan):
        error.hint = f"see who has UDP port {noun.port}: ss -lnup"
    return error


def thing(noun: Noun) -> str:
    """What a noun is, in words, for a message."""
    where = f" in {noun.netns}"
    match noun:
        case Link():
            words = "".join(f" {c.lower()}" if c.isupper() else c for c in type(noun).__name__)
            return f"the{words} {noun.name}{where}"
        case Address():
            return f"the address {noun.address} of {noun.device}{where}"
        case Route():
            return f"the route to {noun.destination} by {noun.device}{where}"
        case Neighbour():
            return f"the neighbour {noun.address} at {noun.device}{where}"
        case FdbEntry():
            return f"the forwarding entry {noun.mac} of {noun.device}{where}"
        case Sysctl():
            return f"the sysctl {noun.path}{where}"
        case Up():
            return f"{noun.device}{where}"
        case Loopback():
            return f"lo{where}"
        case Forwarding():
            return f"IPv{noun.family} forwarding{where}"
    return repr(noun)


__all__ = ["thing", "translated"]
