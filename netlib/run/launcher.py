"""The child's side of `net run`: a small program that becomes the command.

It enters namespaces of its own, says so, and waits for its orders, so the command starts with
its networks ready. Standard library only, run by `python -I -S`: it never sees the parent's
threads, memory or imports. `netlib.run.child` is the other side.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from netlib.throwaway import (
    NEW_MOUNTS,
    NEW_NET,
    NEW_UTS,
    join,
    mount,
    raise_loopback,
    unmount,
    unshare,
)

# linux/mount.h, linux/prctl.h
_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC, _BIND, _RECURSIVE, _SLAVE = (
    1,
    2,
    4,
    8,
    0x1000,
    0x4000,
    1 << 19,
)
_SET_PARENT_DEATH_SIGNAL = 1
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as shells have it (POSIX, Shell Command Language 2.8.2)


# Instead of the descriptor of a network namespace: one of its own; the host's.
OWN_NETWORK, HOST_NETWORK = -1, -2


def main(control: int, status: int, network: int) -> NoReturn:
    """Prepare, wait, become the command. `control` brings the orders, `status` takes answers."""
    os.set_inheritable(status, False)
    os.set_inheritable(control, False)
    doing = "be given namespaces of its own"
    try:
        _die_with_parent()
        if network >= 0:
            join(network, NEW_NET)
            os.close(network)
        unshare(NEW_MOUNTS | NEW_UTS | (NEW_NET if network == OWN_NETWORK else 0))
        keep_mounts_in()
        if network == OWN_NETWORK:
            raise_loopback()
        _answer(status, {"ready": True})
        with os.fdopen(control, "rb") as pipe:
            text = pipe.read()
        if not text:
            os._exit(1)  # the parent gave up, and has said why
        orders = json.loads(text)
        doing = "be given its files and names"
        missing = show_files(orders["files"])
        show_devices(orders["scratch"])
        socket.sethostname(orders["hostname"])
        _answer(status, {"missing": missing})
        os.environ.update(orders["environment"])
        reset_signals()
        doing = ""
        execute(orders["command"])
    except OSError as error:
        _answer(
            status, {"errno": error.errno, "reason": error.strerror or str(error), "doing": doing}
        )
    os._exit(1)


def _die_with_parent() -> None:
    """Be killed when the parent dies. If it is dead already, its end of the pipe is closed."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


def keep_mounts_in() -> None:
    """Let nothing that is mounted here get out to the host (mount_namespaces(7)).

    Slave, not private: what is unmounted on the host goes here too, and can be ejected.
    """
    mount("none", "/", flags=_RECURSIVE | _SLAVE)


def show_files(files: Mapping[str, str]) -> list[str]:
    """Show each file of the state at its path, here only; the paths that the host does not have."""
    missing = [path for path in files if not os.path.exists(path)]
    for path, source in files.items():
        if path not in missing:
            mount(source, path, flags=_BIND)
    return missing


def show_devices(scratch: str) -> None:
    """Show the sandbox's own devices in /sys/class/net: sysfs belongs to a network namespace."""
    flags = _NO_SUID | _NO_DEVICES | _NO_EXEC
    try:
        if os.statvfs("/sys").f_flag & os.ST_RDONLY:
            flags |= _READ_ONLY
        groups = os.path.ismount("/sys/fs/cgroup")
        if groups:
            mount("/sys/fs/cgroup", scratch, flags=_BIND | _RECURSIVE)
        mount("sysfs", "/sys", "sysfs", flags)
        if groups:
            mount(scratch, "/sys/fs/cgroup", flags=_BIND | _RECURSIVE)
            unmount(scratch)
    except OSError:
        # A user namespace may not mount sysfs where parts of the host's are hidden
        # (mount_too_revealing in fs/namespace.c). Then /sys/class/net shows the host's
        # devices; no program needs it to use the network.
        return


def reset_signals() -> None:
    """As a shell would start the command: Python ignores two signals, our parent blocks some."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def execute(command: Sequence[str]) -> NoReturn:
    """Become a command. FileNotFoundError where there is none, as a shell would say."""
    try:
        os.execvp(command[0], list(command))
    except PermissionError as error:
        # A folder on PATH that may not be searched is reason enough for execvp(3) to say so.
        found = (os.path.join(folder, command[0]) for folder in os.get_exec_path())
        if "/" in command[0] or any(os.path.exists(path) for path in found):
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error


def _answer(status: int, document: Mapping[str, Any]) -> None:
    os.write(status, json.dumps(document).encode() + b"\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
