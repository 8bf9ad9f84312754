"""Error numbers (errno(3)) as errors with a type: nothing else ever leaves the kernel's door."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

from netlib.errors import AlreadyThere, KernelError, NetError, NotPermitted, NotThere, Unsupported

# ESRCH: no such route; EADDRNOTAVAIL: the device has no such address.
_ABSENT = {errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO}

P = ParamSpec("P")
R = TypeVar("R")


class Refusal(NamedTuple):
    """The kernel's no: an error number and its explanation, if it gave one.

    It is a value that who asked has to judge, and no exception that could be overlooked.
    """

    errno: int
    explanation: str = ""


def is_absence(refusal: Refusal) -> bool:
    """Whether what was to be removed is not there."""
    return refusal.errno in _ABSENT


def refused(refusal: Refusal, what: str) -> NetError:
    """The error of a refusal; `what` says what could not be done to what."""
    reason = refusal.explanation.rstrip(".") or os.strerror(refusal.errno)
    message = f"{what}: {reason}"
    if refusal.errno == errno.EPERM:
        return NotPermitted(message, "run it as root, or with CAP_NET_ADMIN in that namespace")
    if refusal.errno == errno.EROFS:
        return NotPermitted(
            message, "/proc/sys is mounted read-only, as in a container without privileges"
        )
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


def typed(method: Callable[P, R]) -> Callable[P, R]:
    """A method out of which a failed system call comes as an error with a type, too."""

    @wraps(method)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except OSError as error:
            raise failed(error) from error

    return guarded


def failed(error: OSError) -> NetError:
    """The error of a system call that nobody expected to fail: too many open files, say."""
    what = f"{error.filename}: " if error.filename else ""
    message = f"Linux refuses: {what}{error.strerror or error}"
    if isinstance(error, PermissionError):
        return NotPermitted(message, "run it as root")
    return KernelError(message)


def raise_together(failures: Sequence[NetError]) -> None:
    """Raise what failed: the one error as it is, several as one that tells of all."""
    if len(failures) == 1:
        raise failures[0]
    if failures:
        message = "; ".join(failure.message for failure in failures)
        raise KernelError(message, failures[0].hint) from failures[0]
