"""Run a command inside a sandbox that is there, and end the processes of sandboxes."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

from netlib.errors import (
    CommandRefused,
    InvalidRequest,
    KernelError,
    NamespaceGone,
    NoSuchCommand,
    NoSuchSandbox,
    NotPermitted,
)
from netlib.model import Sandbox
from netlib.net import Net
from netlib.plan import Plan
from netlib.run.child import ends, start_time
from netlib.run.launcher import execute, keep_mounts_in, reset_signals, show_devices, show_files
from netlib.run.request import HOSTNAME_BYTES
from netlib.run.sandbox import FILES
from netlib.sandbox_files import folder_of
from netlib.throwaway import NEW_MOUNTS, NEW_NET, NEW_UTS, join, unshare
from netlib.verbs.sandboxes import plan_departure

_KINDS = {"net": NEW_NET, "uts": NEW_UTS, "mnt": NEW_MOUNTS}
# How long after the command's end its supervisor may take to clean up before we do.
_CLEAN_UP_SECONDS = 10.0


def enter(net: Net, reference: str, command: Sequence[str]) -> NoReturn:
    """Become a command inside a sandbox: in its network, with its names, files and variables.

    Closes `net`: the process goes on as another program. Raises NoSuchSandbox, NoSuchCommand,
    CommandRefused, NotPermitted.
    """
    box = net.engine.sandbox(reference)
    descriptors = _open(box)
    known = net.engine.state.find_sandbox(box.name)
    # The name may have been another one's, whose files are there until that is forgotten.
    is_its = known is not None and known.netns.inode == box.netns.inode
    files = folder_of(net.state_dir, box.name) if is_its else None
    if box.kind == "name":
        os.environ.update({**net.link_environment(box.name), **box.environment})
    net.close()  # its threads would keep setns(2) from changing the mounts
    try:
        for kind, descriptor in descriptors:
            join(descriptor, kind)
        if NEW_MOUNTS not in dict(descriptors):
            _mount_own(box, net.state_dir, files)
    except OSError as error:
        raise NotPermitted(
            f"{box.name} can't be entered: {error.strerror}", "run it as root"
        ) from error
    reset_signals()
    try:
        execute(command)
    except FileNotFoundError as error:
        raise NoSuchCommand(
            f"there is no command {command[0]!r} in {box.name}", "give a path, or look at PATH"
        ) from error
    except OSError as error:
        raise CommandRefused(f"{command[0]} can't be run: {error.strerror}") from error


def _mount_own(box: Sandbox, state_dir: Path, files: Path | None) -> None:
    """Mounts and a hostname for this command alone: the sandbox has no process to share them."""
    unshare(NEW_MOUNTS | NEW_UTS)
    keep_mounts_in()
    if files is not None:
        show_files({f"/etc/{name}": str(files / name) for name in FILES if (files / name).exists()})
    if state_dir.is_dir():
        show_devices(str(state_dir))
    if box.hostname:
        socket.sethostname(box.hostname[:HOSTNAME_BYTES])


def _open(box: Sandbox) -> list[tuple[int, int]]:
    """Kinds and descriptors of the namespaces to enter, the network's checked to be the one."""
    paths = {"net": box.netns.path}
    if box.pid and box.netns.path == f"/proc/{box.pid}/ns/net":
        paths = {kind: f"/proc/{box.pid}/ns/{kind}" for kind in _KINDS}
    found: list[tuple[int, int]] = []
    try:
        for kind, path in paths.items():
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            found.append((_KINDS[kind], descriptor))
    except PermissionError as error:
        raise NotPermitted(
            f"{box.name} can't be entered: {error.strerror}", "run it as root"
        ) from error
    except OSError as error:
        raise NoSuchSandbox(f"sandbox {box.name} has ended", "run: net gc") from error
    if box.netns.inode not in (0, os.fstat(found[0][1]).st_ino):
        raise NamespaceGone(f"{box.netns.path} is not the namespace of {box.name} any more")
    return found


def stop(net: Net, name: str, timeout_seconds: float = 10.0) -> None:
    """End a sandbox's process: ask it, and kill it when that takes too long; then clean up.

    Raises NoSuchSandbox, InvalidRequest for one without a process of its own.
    """
    box = _started(net, name)
    with ExitStack() as descriptors:
        supervisor: int | None = None
        with suppress(ProcessLookupError):
            process = _open_process(box, descriptors)
            supervisor = _parent(box, descriptors)
            _end(box, process, timeout_seconds)
        if _is_forgotten(net, box, supervisor):
            return
    # Whoever should have cleaned up is gone, or hangs.
    with suppress(NoSuchSandbox):
        net.remove_sandbox(name)


def plan_stop(net: Net, name: str) -> tuple[int, Plan]:
    """The process that `stop` would end, and what it would clean up."""
    return _started(net, name).pid, plan_departure(net.engine, name)


def _started(net: Net, name: str) -> Sandbox:
    """A sandbox whose process we started."""
    box = net.engine.state.sandbox(name)
    if not box.pid or box.kind != "name":
        raise InvalidRequest(
            f"{name} has no process that `net run` started", f"run: net sandbox rm {name}"
        )
    return box


def _is_forgotten(net: Net, box: Sandbox, supervisor: int | None) -> bool:
    """Whether the one who started the process cleans up; waits for it while it lives."""
    deadline = time.monotonic() + _CLEAN_UP_SECONDS
    while True:
        alive = supervisor is not None and not ends(supervisor, 0.01)
        known = net.engine.state.find_sandbox(box.name)
        if known is None or known.pid != box.pid:
            return True
        if not alive or time.monotonic() > deadline:
            return False


def _open_process(box: Sandbox, descriptors: ExitStack) -> int:
    """A descriptor of the process. ProcessLookupError when its number is another's by now."""
    try:
        process = os.pidfd_open(box.pid)
    except PermissionError as error:
        raise _refused(box, error) from error
    descriptors.callback(os.close, process)
    # From here on the number can't come to mean another process.
    if start_time(box.pid) != box.started:
        raise ProcessLookupError
    return process


def _parent(box: Sandbox, descriptors: ExitStack) -> int | None:
    """A descriptor of who started the process, if that is to be seen from here."""
    with suppress(OSError, IndexError, ValueError):
        text = Path(f"/proc/{box.pid}/stat").read_text()
        parent = int(text.rpartition(")")[2].split()[1])  # proc_pid_stat(5), field 4
        if parent > 1:
            descriptor = os.pidfd_open(parent)
            descriptors.callback(os.close, descriptor)
            return descriptor
    return None


def _end(box: Sandbox, process: int, timeout_seconds: float) -> None:
    try:
        for number, patience in ((signal.SIGTERM, timeout_seconds), (signal.SIGKILL, 5.0)):
            signal.pidfd_send_signal(process, number)
            if ends(process, patience):
                return
    except PermissionError as error:
        raise _refused(box, error) from error
    raise KernelError(f"{box.name} does not end, though it was killed", "see: ps(1)")


def _refused(box: Sandbox, error: PermissionError) -> NotPermitted:
    return NotPermitted(f"{box.name} can't be ended: {error.strerror}", "run it as root")
