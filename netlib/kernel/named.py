"""Network namespaces that stay without a process, as ip-netns(8) makes and finds them."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from netlib.errors import AlreadyThere, InvalidName
from netlib.kernel.netns import leave_for_new_netns
from netlib.kernel.refusals import of_os_error
from netlib.model import HOST, Netns

FOLDER = Path("/run/netns")

# linux/mount.h, umount2(2)
_BIND, _RECURSIVE, _SHARED, _DETACH = 0x1000, 0x4000, 1 << 20, 2


def make(name: str) -> Netns:
    """A new network namespace at /run/netns/`name`, with `lo` and nothing else."""
    if name == HOST.name or "/" in name or name in ("", ".", ".."):
        raise InvalidName(f"{name!r} is no name for a network namespace", "choose another name")
    path = FOLDER / name
    what = f"the network namespace {name} can't be made"
    try:
        _prepare_folder()
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError as error:
        raise AlreadyThere(
            f"there is a network namespace {name} at {path}", "choose another name"
        ) from error
    except OSError as error:
        raise of_os_error(error, what) from error
    try:
        _in_a_thread_of_its_own(lambda: _bind_new(path))
    except OSError as error:
        with suppress(OSError):
            path.unlink()
        raise of_os_error(error, what) from error
    return Netns(name=name, path=str(path), inode=path.stat().st_ino)


def drop(netns: Netns) -> None:
    """End a namespace that `make` made, if it is there still and no other has its name."""
    path = Path(netns.path)
    if path.parent != FOLDER:
        return  # somebody else's to end
    try:
        if netns.inode and path.stat().st_ino != netns.inode:
            return
        _check(_libc().umount2(os.fsencode(path), _DETACH))
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise of_os_error(error, f"the network namespace {netns} can't be removed") from error


def _bind_new(path: Path) -> None:
    leave_for_new_netns()
    _mount(b"/proc/thread-self/ns/net", path, _BIND)


def _in_a_thread_of_its_own(work: Callable[[], None]) -> None:
    """The thread changes its namespace, so it must end with the work."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # belongs to the caller
            failure.append(error)

    thread = threading.Thread(target=run, name="netlib-new-netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def _prepare_folder() -> None:
    FOLDER.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Shared, as ip-netns(8) makes it: else a mount namespace that was copied meanwhile would
    # keep a namespace alive that was removed here.
    try:
        _mount(b"", FOLDER, _SHARED | _RECURSIVE)
    except OSError:
        _mount(os.fsencode(FOLDER), FOLDER, _BIND | _RECURSIVE)
        _mount(b"", FOLDER, _SHARED | _RECURSIVE)


def _mount(source: bytes, target: Path, flags: int) -> None:
    _check(_libc().mount(source, os.fsencode(target), b"none", ctypes.c_ulong(flags), None))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


__all__ = ["FOLDER", "drop", "make"]
