"""Processes that die at a chosen step of an operation, as by `kill -9`."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from netlib import Net
from netlib.dns.client import Resolver
from netlib.kernel import named, settings
from netlib.kernel.linux import LinuxKernel
from netlib.kernel.netfilter import libnftables, program
from netlib.kernel.netfilter.ruleset import Ruleset
from netlib.kernel.netlink import Socket
from netlib.relay.door import RelayDoor
from netlib.store.sqlite import SqliteStore

# Whatever netlib does to the host or to the disk goes through one of these.
Steps = tuple[tuple[Any, str], ...]
FIREWALL: Steps = (
    (libnftables.Library, "run"),
    (Ruleset, "change"),
    (program.Place, "run"),
)
STEPS: Steps = (
    *FIREWALL,
    (SqliteStore, "commit"),
    (LinuxKernel, "do"),
    (LinuxKernel, "begin"),
    (LinuxKernel, "remove"),
    (LinuxKernel, "perform"),
    (Socket, "transact"),
    (settings, "write"),
    (settings, "exchange"),
    (RelayDoor, "_ask"),
    (RelayDoor, "_send"),
    (Resolver, "_ask"),
    (Resolver, "_listen_once"),
    (named, "_mount"),
    (named, "_new"),
    (named, "drop"),
)
_MOST_STEPS = 300


def die_at(step: int, state_dir: Path, work: Callable[[Net], object], steps: Steps = STEPS) -> bool:
    """Do `work` in a child process that kills itself before its `step`th step; whether it did.

    False: it came to its end first. What it raises is an AssertionError here.
    """
    child = os.fork()
    if not child:
        _live(step, state_dir, work, steps)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0, f"the child failed at step {step}"
    return False


def deaths(state_dir: Path, work: Callable[[Net], object], steps: Steps = STEPS) -> Iterator[int]:
    """Have `work` die at its first step, its second, and so on until it no longer does."""
    for step in range(1, _MOST_STEPS):
        if not die_at(step, state_dir, work, steps):
            return
        yield step
    raise AssertionError(f"more than {_MOST_STEPS} steps")


def _live(step: int, state_dir: Path, work: Callable[[Net], object], steps: Steps) -> None:
    try:
        left = step

        def count() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        for owner, name in steps:
            setattr(owner, name, _counted(getattr(owner, name), count))
        with Net(state_dir) as net:
            work(net)
            count()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _counted(function: Callable[..., Any], count: Callable[[], None]) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        count()
        return function(*args, **kwargs)

    return counted
