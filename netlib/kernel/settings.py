"""Sysctls, forwarding and lo. /proc/sys/net shows the namespace of the thread that opens it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from netlib.errors import NamespaceGone, NetError
from netlib.kernel import rtnl
from netlib.kernel.errnos import of_os_error, raise_together, refused
from netlib.kernel.journal import Journal
from netlib.kernel.procfs import Sysctls
from netlib.kernel.refusals import thing
from netlib.kernel.session import Session
from netlib.model import Family
from netlib.plan import Delete, Step, subject
from netlib.values import replace
from netlib.wiring import Forwarding, Loopback, Noun, Sysctl

_ROOT = "/proc/sys/"
_MOST_BYTES = 4096
_LO = 1  # lo is the first device of every namespace
FORWARDING: dict[Family, str] = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def read(path: str) -> str:
    """A sysctl's value in the calling thread's namespace, "" if there is none."""
    try:
        with open(_ROOT + path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def write(path: str, value: str) -> None:
    """Set a sysctl in the calling thread's namespace. Raises OSError."""
    fd = os.open(_ROOT + path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def exchange(path: str, value: str, sysctls: Sysctls) -> str:
    """Set a sysctl in the calling thread's namespace; what it was before. Raises OSError.

    In one opening, which for a new device or namespace is what takes long.
    """
    fd = sysctls.open(path, os.O_RDWR)
    try:
        before = os.read(fd, _MOST_BYTES).decode(errors="replace").strip()
        if before != value:
            os.pwrite(fd, value.encode(), 0)
        return before
    finally:
        os.close(fd)


def do_sysctls(steps: Sequence[Step], session: Session, journal: Journal) -> None:
    """Write all values of one namespace, or the old ones back."""

    def work() -> None:
        old: list[tuple[str, str]] = []
        try:
            for step in steps:
                noun = subject(step)
                assert isinstance(noun, Sysctl)
                value = noun.default if isinstance(step, Delete) else noun.value
                try:
                    old.append((noun.path, exchange(noun.path, value, session.sysctls)))
                except OSError as error:
                    raise of_os_error(error, f"{thing(noun)} can't be set") from error
        except NetError:
            for path, value in reversed(old):
                with suppress(OSError):
                    write(path, value)
            raise

    if steps:
        session.run_in(subject(steps[0]).netns, work)
        for step in steps:
            journal.note(step)


def remove_sysctls(nouns: Iterable[Noun], session: Session) -> None:
    """Write the defaults where the devices are there still: all that can be, then raise."""
    failures: list[NetError] = []
    for noun in nouns:
        assert isinstance(noun, Sysctl)
        try:
            session.run_in(noun.netns, partial(write, noun.path, noun.default))
        except (FileNotFoundError, NamespaceGone):
            pass
        except OSError as error:
            failures.append(of_os_error(error, f"{thing(noun)} can't be set"))
        except NetError as error:
            failures.append(error)
    raise_together(failures)


def observe_sysctl(noun: Sysctl, session: Session) -> Sysctl | None:
    """The sysctl as it is; at its default it is as if nobody had set it."""
    value = session.run_in(noun.netns, lambda: read(noun.path))
    if not value or (value == noun.default and value != noun.value):
        return None
    return replace(noun, value=value)


def ensure_forwarding(noun: Forwarding, session: Session) -> None:
    """Switch forwarding on."""

    def work() -> None:
        try:
            set_forwarding(noun.family, on=True)
        except OSError as error:
            raise of_os_error(error, f"{thing(noun)} can't be switched on") from error

    session.run_in(noun.netns, work)


def set_forwarding(family: Family, *, on: bool) -> None:
    """Switch forwarding on or off in the calling thread's namespace. Raises OSError."""
    path = FORWARDING[family]
    if read(path) == "01"[on]:
        return
    if on and family == 6:
        _keep_router_advertisements()
    write(path, "01"[on])


def _keep_router_advertisements() -> None:
    # A device that forwards ignores router advertisements at accept_ra 1, so the host would
    # lose the default route that it learned: 2 hears them all the same (ip-sysctl.rst).
    for directory in Path(_ROOT, "net/ipv6/conf").iterdir():
        path = f"net/ipv6/conf/{directory.name}/accept_ra"
        if directory.name not in ("all", "default", "lo") and read(path) == "1":
            with suppress(FileNotFoundError):  # the device went meanwhile
                write(path, "2")


def forwards(family: Family) -> bool:
    """Whether the calling thread's namespace forwards packets of a family."""
    return read(FORWARDING[family]) == "1"


def observe_forwarding(noun: Forwarding, session: Session) -> Forwarding | None:
    """The noun, if forwarding is on."""
    return noun if session.run_in(noun.netns, lambda: forwards(noun.family)) else None


def ensure_loopback(noun: Loopback, session: Session) -> None:
    """Set lo up."""
    (refusal,) = session.rtnl(noun.netns).transact([rtnl.set_link(index=_LO, up=True)])
    if refusal is not None:
        raise refused(refusal, f"{thing(noun)} can't be set up")


def observe_loopback(noun: Loopback, session: Session) -> Loopback | None:
    """The noun, if lo is up."""
    return noun if session.rtnl(noun.netns).is_up("lo") else None


__all__ = [
    "FORWARDING",
    "do_sysctls",
    "ensure_forwarding",
    "ensure_loopback",
    "exchange",
    "forwards",
    "observe_forwarding",
    "observe_loopback",
    "observe_sysctl",
    "read",
    "remove_sysctls",
    "set_forwarding",
    "write",
]
