"""Who has a lock, and does not move: found in /proc by who has waited for long (proc(5))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_STOPPED = frozenset("Tt")  # by a signal, or by a tracer


class Holder(NamedTuple):
    """A process, and the ticks it has run by now: one that is traced stops all the time."""

    pid: int
    name: str
    ticks: int


def stopped(path: str, place: int | None = None) -> Holder | None:
    """A process that was stopped while it had a lock on a file.

    On the byte at `place` (fcntl(2)), else on the whole file (flock(2)). Of those that can be seen
    from here: a process in another container can't.
    """
    try:
        file = os.stat(path)
    except OSError:
        return None
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):  # it has ended, or is somebody else's
            with open(f"/proc/{pid}/stat") as stat:
                name, _, rest = stat.read().partition("(")[2].rpartition(")")
            fields = rest.split()
            is_stopped = fields[0] in _STOPPED or _is_frozen(pid)
            if is_stopped and any(_has(lock, place) for lock in _locks(pid, file)):
                return Holder(int(pid), name, int(fields[11]) + int(fields[12]))
    return None


def _is_frozen(pid: str) -> bool:
    """Whether the control group that it is in was frozen, as `docker pause` does (cgroups(7))."""
    with open(f"/proc/{pid}/cgroup") as groups:
        for line in groups:
            if line.startswith("0::"):
                with open(f"/sys/fs/cgroup{line[3:].strip()}/cgroup.events") as events:
                    return "frozen 1" in events.read()
    return False


def _locks(pid: str, file: os.stat_result) -> Iterator[list[str]]:
    """The locks that a process has on a file, each in the words of its line."""
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found = os.stat(f"/proc/{pid}/fd/{descriptor}")
            if (found.st_dev, found.st_ino) != (file.st_dev, file.st_ino):
                continue
            with open(f"/proc/{pid}/fdinfo/{descriptor}") as lines:
                yield from (line.split()[2:] for line in lines if line.startswith("lock:"))


def _has(lock: list[str], place: int | None) -> bool:
    kind, first, last = lock[0], lock[-2], lock[-1]
    if place is None:
        return kind == "FLOCK"
    return kind == "OFDLCK" and int(first) <= place and (last == "EOF" or place <= int(last))
