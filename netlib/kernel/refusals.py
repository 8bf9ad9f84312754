"""The kernel's error numbers as errors that say what happened to what."""

from __future__ import annotations

import errno
import os

from netlib.errors import (
    AlreadyThere,
    KernelError,
    NetError,
    NotPermitted,
    NotThere,
    Unsupported,
)
from netlib.kernel.netlink import Refusal
from netlib.plan import Create, Delete, Step, subject
from netlib.wiring import (
    Address,
    FdbEntry,
    Forwarding,
    Link,
    Loopback,
    Neighbour,
    Noun,
    Route,
    Sysctl,
    Up,
)

# ESRCH: no such route; EADDRNOTAVAIL: the device has no such address.
_ABSENT = {errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO}


def is_absence(refusal: Refusal) -> bool:
    """Whether what was to be removed is not there."""
    return refusal.errno in _ABSENT


def translated(refusal: Refusal, step: Step) -> NetError:
    """The error that a refused step is."""
    verb = {Create: "made", Delete: "removed"}.get(type(step), "set")
    return refused(refusal, f"{thing(subject(step))} can't be {verb}")


def refused(refusal: Refusal, what: str) -> NetError:
    """The error of a refusal; `what` says what could not be done to what."""
    reason = refusal.explanation.rstrip(".") or os.strerror(refusal.errno)
    message = f"{what}: {reason}"
    if refusal.errno == errno.EPERM:
        return NotPermitted(message, "run it as root, or with CAP_NET_ADMIN in that namespace")
    if refusal.errno == errno.EEXIST:
        return AlreadyThere(message)
    if refusal.errno == errno.EOPNOTSUPP:
        return Unsupported(message, "this kernel lacks a module or a feature that is needed")
    if refusal.errno in _ABSENT:
        return NotThere(message)
    if refusal.errno == errno.EBUSY:
        return KernelError(
            message,
            "the device is in use: a port of a bridge or bond can be no parent, and one parent"
            " can't have macvlan and ipvlan devices",
        )
    return KernelError(message)


def of_os_error(error: OSError, what: str) -> NetError:
    """The error of a failed system call."""
    return refused(Refusal(error.errno or 0, error.strerror or str(error)), what)


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


__all__ = ["is_absence", "of_os_error", "refused", "thing", "translated"]
