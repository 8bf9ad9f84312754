"""A sandbox's files stay shown when the host puts others in their place.

What is mounted on a file in one mount namespace is taken away when that file is removed in
another one, or a file renamed over it (Linux 3.18 and newer). So systemd-resolved, NetworkManager
and dhclient rewrite the host's resolv.conf, with each lease: a sandbox that was told names would
from then on ask whom the host asks.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from netlib.run.child import ends
from netlib.run.launcher import show_files
from netlib.throwaway import NEW_MOUNTS, join, unshare

# linux/sched.h: the thread's root and folder, without which it can't join other mounts (setns(2)).
_OWN_FOLDERS = 0x200
# A link at the path may lead to another file, and one that is missing come back: no mount tells.
_LOOK_SECONDS = 5.0
_SOON_SECONDS = 0.1
_ENDING_SECONDS = 1.0


def keep_shown(pid: int, files: Mapping[str, str], warn: Callable[[str], None] | None) -> None:
    """Show files of the state at these paths again where a process, a child, sees others.

    In a thread, until the process ends.
    """

    def keep() -> None:
        try:
            _keep(pid, files)
        except OSError as error:
            if warn is not None and not _is_ending(pid):
                names = " or ".join(files)
                warn(f"if the host replaces {names}, the sandbox sees the host's: {error}")

    if files:
        threading.Thread(target=keep, name="net-run-files", daemon=True).start()


def _is_ending(pid: int) -> bool:
    """Also where nobody has asked how it ended: then proc(5) refuses what it shows of others.

    Who has no mounts any more is gone in a moment.
    """
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return ends(process, _ENDING_SECONDS)
    finally:
        os.close(process)


def _keep(pid: int, files: Mapping[str, str]) -> None:
    with ExitStack() as closing:

        def opened(path: str, flags: int = os.O_RDONLY) -> int:
            descriptor = os.open(path, flags | os.O_CLOEXEC)
            closing.callback(os.close, descriptor)
            return descriptor

        process = os.pidfd_open(pid)
        closing.callback(os.close, process)
        news = select.poll()
        news.register(process, select.POLLIN)
        news.register(opened(f"/proc/{pid}/mountinfo"), select.POLLPRI)  # proc_pid_mountinfo(5)
        own = opened("/proc/self", os.O_PATH)  # whatever the process has there
        namespace = opened(f"/proc/{pid}/ns/mnt")
        unshare(_OWN_FOLDERS)
        join(namespace, NEW_MOUNTS)
        seconds = 0.0
        while process not in dict(news.poll(1000 * seconds)):
            bare = {path: files[path] for path in files if _is_bare(path, files[path], own)}
            try:
                is_missing = bool(show_files(bare))
            except FileNotFoundError:  # what was there is just going: what comes is there soon
                is_missing = True
            seconds = _SOON_SECONDS if is_missing else _LOOK_SECONDS


def _is_bare(path: str, source: str, own: int) -> bool:
    """Whether nothing is mounted at a path: what the process itself mounts there is its own."""
    if not os.path.exists(source):
        return False  # of a sandbox that was removed there is nothing to show
    path = os.path.realpath(path)
    try:
        return _mount(path, own) == _mount(os.path.dirname(path), own)
    except FileNotFoundError:
        return True


def _mount(path: str, own: int) -> int:
    """The number of the mount that a path is on. `own`: this process's folder of /proc."""
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        about = os.open(f"fdinfo/{descriptor}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=own)
        with os.fdopen(about) as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
    finally:
        os.close(descriptor)
