"""Network namespaces that stay without a process, as ip-netns(8) makes and finds them."""

from __future__ import annotations

import ctypes
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from netlib.errors import AlreadyThere, InvalidName
from netlib.kernel.errnos import of_os_error
from netlib.kernel.netns import leave_for_new_netns
from netlib.model import HOST, Netns

FOLDER = Path("/run/netns")
_MODE = 0o400  # of the file that a namespace is bound to; ip-netns(8) gives it none at all

# linux/mount.h, umount2(2)
_BIND, _RECURSIVE, _SHARED, _DETACH = 0x1000, 0x4000, 1 << 20, 2


def make(name: str, claim: Callable[[Netns], None] | None = None) -> Netns:
    """A new network namespace at /run/netns/`name`, with `lo` and nothing else.

    `claim` is told of it before anybody can find it, so that whoever dies later leaves nothing
    unknown; what it raises ends the namespace.
    """
    if name == HOST.name or "/" in name or name in ("", ".", ".."):
        raise InvalidName(f"{name!r} is no name for a network namespace", "choose another name")
    path = FOLDER / name
    try:
        _prepare_folder()
        if path.exists():
            raise FileExistsError(path)
        descriptor = _new()
        try:
            netns = Netns(name=name, path=str(path), inode=os.fstat(descriptor).st_ino)
            if claim is not None:
                claim(netns)
            _bind(descriptor, path)
        finally:
            os.close(descriptor)
    except FileExistsError as error:
        raise AlreadyThere(
            f"there is a network namespace {name} at {path}", "choose another name"
        ) from error
    except OSError as error:
        raise of_os_error(error, f"the network namespace {name} can't be made") from error
    return netns


def drop(netns: Netns) -> None:
    """End a namespace that `make` made, if it is there still and no other has its name."""
    path = Path(netns.path)
    if path.parent != FOLDER:
        return  # somebody else's to end
    try:
        status = path.stat()
        if _is_unbound(status):
            path.unlink()  # somebody died between two calls
            return
        if netns.inode and status.st_ino != netns.inode:
            return
        _check(_libc().umount2(os.fsencode(path), _DETACH))
        path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise of_os_error(error, f"the network namespace {netns} can't be removed") from error


def _bind(descriptor: int, path: Path) -> None:
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE))
    try:
        _mount(os.fsencode(f"/proc/self/fd/{descriptor}"), path, _BIND)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def _is_unbound(status: os.stat_result) -> bool:
    """Whether it is a file of ours that no namespace was bound to."""
    return (
        status.st_mode == stat.S_IFREG | _MODE
        and status.st_size == 0
        and status.st_dev == FOLDER.stat().st_dev
    )


def _new() -> int:
    """A new namespace, held by a file descriptor. A thread of its own goes there and ends."""
    found: list[int] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            leave_for_new_netns()
            found.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except BaseException as error:  # belongs to the caller
            failure.append(error)

    thread = threading.Thread(target=run, name="netlib-new-netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return found[0]


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
