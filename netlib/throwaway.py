"""A throw-away host: a command's own network, mounts, processes and names, gone when it ends.

`python -m netlib.throwaway -- COMMAND…` runs a command as root of such a host; `enter` puts
the current process's program into one. Tests, labs and the demo run here, so that nothing
they do to interfaces, rules, sysctls or state reaches the machine they run on. It works for
ordinary users where the system allows them user namespaces, and for root everywhere.

Inside: an empty network with `lo` up; empty /run, /var/lib/netlib, /var/lib/cni, /etc/cni and
/etc/sysctl.d; whatever is written elsewhere below /etc and /var/lib is forgotten. All other
files are those outside, and so are the working directory and the paths to `keep`.

Standard library only: it is also run as a lone script, before anything is installed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

MARKER = Path("/run/netlib-throwaway.json")
EMPTY = ("/var/lib/netlib", "/var/lib/cni", "/etc/cni", "/etc/sysctl.d")
REFUSED = 6  # the exit status of everything that is not permitted, see netlib.errors

# linux/sched.h
NEW_MOUNTS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
# linux/mount.h
_BIND, _RECURSIVE, _PRIVATE, _SHARED = 0x1000, 0x4000, 0x40000, 0x100000
_NO_SUID, _NO_DEVICES, _NO_EXEC = 2, 4, 8
# linux/prctl.h, linux/sockios.h, linux/if.h, asm-generic/siginfo.h
_SET_PARENT_DEATH_SIGNAL = 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_SENT_BY_KERNEL = 0x80

_FORWARDED = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGCONT,
    }
)
_AWAITED = _FORWARDED | {signal.SIGCHLD}
T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """This system gives the caller no throw-away host."""


def inside() -> bool:
    """Whether this process is in a throw-away host, out of reach of the real one.

    An environment variable could be inherited by accident, so this compares namespaces: our
    processes are those of the marker, and our network is not the one of who made it.
    """
    try:
        marker = json.loads(MARKER.read_text())
        return bool(
            os.readlink("/proc/self/ns/pid") == marker["processes"]
            and os.readlink("/proc/thread-self/ns/net") != marker["network_outside"]
        )
    except (OSError, ValueError, KeyError):
        return False


def enter(command: Sequence[str] = (), keep: Iterable[Path | str] = ()) -> None:
    """Start this process's program over inside a throw-away host; nothing if it is in one.

    `command` replaces the program; by default it is the interpreter with its own arguments.
    """
    if inside():
        return
    sys.stdout.flush()
    sys.stderr.flush()
    # A fresh interpreter: unshare(CLONE_NEWUSER) refuses processes with several threads, and
    # the one that waits outside should be small.
    kept = [f"--keep={path}" for path in keep]
    program = [sys.executable, "-I", "-S", os.path.abspath(__file__)]
    os.execv(sys.executable, [*program, *kept, "--", *(command or sys.orig_argv)])


def run(command: Sequence[str], keep: Iterable[Path | str] = (), parent: int = 0) -> int:
    """Run a command in a throw-away host and return its exit status, 128 + n after signal n.

    With the process id of our `parent`, all of it ends when that one does, however it ends.

    Must be called by a process with one thread, which is of no more use afterwards: it is in
    the new network itself.
    """
    outside = os.readlink("/proc/self/ns/net")
    working_directory = os.getcwd()
    _unshare()
    if parent:  # only now, as Linux takes it back with new capabilities (commit_creds)
        _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            return 128 + signal.SIGKILL
    # Before there is anybody to pass them on to: the first process of a PID namespace never
    # gets what it neither blocks nor handles (pid_namespaces(7)).
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    first = os.fork()
    if first:
        return _wait_for(first)
    try:
        # The namespaces end with their first process, so nothing survives who waits for it.
        _libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if not os.isatty(0):
            # Else what is sent to our caller's whole group would come a second time from us.
            os.setpgid(0, 0)
        _prepare(outside, [working_directory, sys.prefix, sys.base_prefix, *map(str, keep)])
        os.chdir(working_directory)
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            _execute(command)
        status = _wait_for(child)
    except OSError as error:
        print(f"throwaway: {error}", file=sys.stderr)
        status = 1
    os._exit(status)


def _execute(command: Sequence[str]) -> NoReturn:
    """Become a program. As in shells, 127 says that there is none, 126 that it can not run."""
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        found = shutil.which(command[0])
        reason = error.strerror if found else "there is no such program"
        print(f"throwaway: {command[0]}: {reason}", file=sys.stderr)
        os._exit(126 if found else 127)


def separate() -> None:
    """Give this process, one of several in a throw-away host, an empty /run of its own."""
    marker = MARKER.read_text()
    unshare(NEW_MOUNTS | NEW_NET)
    _empty_run()
    MARKER.write_text(marker)


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own (unshare(2))."""
    if _libc.unshare(flags):
        raise _os_error("unshare")


def join(namespace: int, kind: int) -> None:
    """Bring the calling thread into the namespace behind a file descriptor (setns(2))."""
    if _libc.setns(namespace, kind):
        raise _os_error("setns")


def in_a_thread(work: Callable[[], T]) -> T:
    """What a thread of its own returns or raises, which may go to other namespaces and ends."""
    import threading

    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # belongs to the caller
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def raise_loopback() -> None:
    """Set `lo` up in the calling thread's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        (flags,) = struct.unpack("16xh22x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | _IFF_UP))


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Attach a file system to the tree (mount(2))."""
    names = os.fsencode(source), os.fsencode(target), os.fsencode(kind)
    if _libc.mount(*names, ctypes.c_ulong(flags), os.fsencode(options)):
        raise _os_error("mount", target)


def unmount(target: str) -> None:
    """Detach a mount at once; it ends when its last user is gone (umount2(2), MNT_DETACH)."""
    if _libc.umount2(os.fsencode(target), 2):
        raise _os_error("umount", target)


def bind(source: str, target: str) -> None:
    """Show `source`, and what is mounted below it, at `target` as well."""
    mount(source, target, flags=_BIND | _RECURSIVE)


def tmpfs(target: str, mode: str = "0755") -> None:
    """Mount an empty file system in memory."""
    mount("throwaway", target, "tmpfs", _NO_SUID | _NO_DEVICES, f"mode={mode}")


def _unshare() -> None:
    """Namespaces of our own; as an ordinary user with a user namespace, where we are root."""
    namespaces = NEW_NET | NEW_MOUNTS | NEW_UTS | NEW_IPC | NEW_PID
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        with contextlib.suppress(PermissionError):  # without CAP_SYS_ADMIN root is as others are
            unshare(namespaces)
            return
    try:
        unshare(namespaces | NEW_USER)
    except OSError as error:
        full = error.errno == errno.ENOSPC  # there are as many as there may be, often none
        allow = "user.max_user_namespaces=10000" if full else "kernel.unprivileged_userns_clone=1"
        raise Refused(
            f"this system refuses user namespaces to uid {uid} ({error.strerror}); run it as "
            f"root, or allow them: sysctl -w {allow}"
        ) from error
    # Without this an ordinary user may write no gid_map (user_namespaces(7)).
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _prepare(outside: str, keep: Iterable[str]) -> None:
    """The mounts, the loopback device and the marker, done by the host's first process."""
    paths = os.environ.get("PATH", os.defpath).split(":")
    # Ordinary users of Debian do not have the administrator's programs on their path.
    paths += [path for path in ("/usr/local/sbin", "/usr/sbin", "/sbin") if path not in paths]
    os.environ["PATH"] = ":".join(paths)
    try:
        mount("none", "/", flags=_RECURSIVE | _PRIVATE)
    except PermissionError as error:
        # Ubuntu's AppArmor gives the namespace, but no rights in it.
        raise Refused("this system gives user namespaces no rights; run it as root") from error
    kept = {path: os.open(path, os.O_PATH) for path in dict.fromkeys(keep)}
    mount("proc", "/proc", "proc", _NO_SUID | _NO_DEVICES | _NO_EXEC)
    _empty_run()
    for parent in ("/etc", "/var/lib"):
        _shadow(parent, [name for name in EMPTY if os.path.dirname(name) == parent])
    for folder in EMPTY:
        tmpfs(folder)
    for path, descriptor in kept.items():
        _bring_back(path, descriptor)
    marker = {"processes": os.readlink("/proc/self/ns/pid"), "network_outside": outside}
    MARKER.write_text(json.dumps(marker))


def _empty_run() -> None:
    """An empty /run, and `lo` up: the ground of every host."""
    tmpfs("/run")
    for folder in ("/run/netns", "/run/lock"):
        os.mkdir(folder)
    # As ip-netns(8) leaves it: a mount that hides no names, because there are none yet.
    bind("/run/netns", "/run/netns")
    mount("none", "/run/netns", flags=_RECURSIVE | _SHARED)
    raise_loopback()


def _shadow(parent: str, folders: Iterable[str]) -> None:
    """`parent` with these folders in it; what is written to it stays in memory (overlayfs).

    The owner of an overlay's root is that of its upper directory: us, so an ordinary user
    can make files in /etc too.
    """
    upper, work = (f"/run/throwaway{parent}/{part}" for part in ("upper", "work"))
    os.makedirs(work)
    for folder in folders:
        os.makedirs(upper + folder.removeprefix(parent))
    layers = f"lowerdir={parent},upperdir={upper},workdir={work}"
    try:
        mount("throwaway", parent, "overlay", 0, layers)
    except OSError as error:
        raise Refused(
            f"overlayfs can not shadow {parent} here ({error.strerror}); a throw-away host needs "
            "Linux 5.11 or newer and the module overlay: modprobe overlay"
        ) from error


def _bring_back(path: str, descriptor: int) -> None:
    """Show a kept folder at its path again, where a mount of ours hides it."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        os.makedirs(path)
        there = os.stat(path)
    # Below an overlay a folder looks the same, but what is written to it would be lost.
    if (there.st_dev, there.st_ino) != ((was := os.fstat(descriptor)).st_dev, was.st_ino):
        bind(f"/proc/self/fd/{descriptor}", path)
    os.close(descriptor)


def _wait_for(child: int) -> int:
    """Pass signals on to a child, reap whatever ends, and return the child's exit status."""
    while True:
        ended = _reap(child)
        if ended is not None:
            return ended
        received = signal.sigwaitinfo(_AWAITED)
        # What a terminal sends (Ctrl-C) reaches the whole process group, the child too.
        if received.si_signo != signal.SIGCHLD and received.si_code != _SENT_BY_KERNEL:
            os.kill(child, received.si_signo)


def _reap(child: int) -> int | None:
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None


def _os_error(*what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), " ".join(what))


def main(arguments: Sequence[str]) -> int:
    """Run a command in a throw-away host, as `python -m netlib.throwaway` does."""
    keep: list[str] = []
    parent = 0
    rest = list(arguments)
    while rest and rest[0].startswith(("--keep=", "--parent=")):
        option, _, value = rest.pop(0).partition("=")
        if option == "--keep":
            keep.append(value)
        else:
            parent = int(value)
    if rest and rest[0] == "--":
        rest.pop(0)
    if not rest or rest[0].startswith("-"):
        print("usage: python -m netlib.throwaway [--keep=DIR]… -- COMMAND…", file=sys.stderr)
        return 2
    try:
        return run(rest, keep, parent)
    except Refused as refusal:
        print(f"throwaway: {refusal}", file=sys.stderr)
        return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
