"""Operations run side by side; repair and garbage collection run alone."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from zlib import crc32

from netlib.errors import NotPermitted, StoreError

_FLOCK = struct.Struct("@hhqqi0q")  # struct flock
_UNLOCK = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)  # of all bytes
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


class OperationLock:
    """A lock file that all processes and threads of one state share (flock(2)).

    Who holds it shared may have half-done work in the state and the kernel; who holds it
    alone knows that whatever is half done was left by somebody who died.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path if path is None else os.path.abspath(path)

    def shared(self) -> AbstractContextManager[None]:
        """Held by every operation that changes something."""
        return self._held(fcntl.LOCK_SH)

    def alone(self) -> AbstractContextManager[None]:
        """Held by repair and garbage collection: waits until running operations end."""
        return self._held(fcntl.LOCK_EX)

    @contextmanager
    def of(self, things: Mapping[str, bool]) -> Iterator[None]:
        """Held by an operation on what it changes (True), or needs as it is (False).

        Operations on one sandbox, or on a network and its endpoints, follow each other.
        Locks of open files (fcntl(2), F_OFD_SETLKW), so that threads wait for each other, too.
        """
        if self._path is None or not things:
            yield
            return
        descriptor = open_lock(self._path)
        try:
            self._lock_bytes(descriptor, things)
            yield
        finally:
            # Not by close(2) alone: a child that was forked meanwhile has the open file, too.
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _UNLOCK)
            os.close(descriptor)

    @contextmanager
    def _held(self, how: int) -> Iterator[None]:
        if self._path is None:
            yield
            return
        descriptor = open_lock(self._path)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # likewise
            os.close(descriptor)

    def _lock_bytes(self, descriptor: int, things: Mapping[str, bool]) -> None:
        places: dict[int, bool] = {}
        for thing, alone in things.items():
            place = crc32(thing.encode())  # a byte of the file; it need not be there
            places[place] = places.get(place, False) or alone
        # Everybody in the same order, so that nobody waits for who waits for him.
        for place, alone in sorted(places.items()):
            kind = fcntl.F_WRLCK if alone else fcntl.F_RDLCK
            request = _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0)
            try:
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, request)
            except OSError as error:
                raise StoreError(
                    f"{self._path} can not be locked: {error.strerror}",
                    "choose a folder on a local file system with --state-dir",
                ) from error


def open_lock(path: str | Path) -> int:
    """A lock file of a state, made with its folder if it is not there.

    Raises NotPermitted, StoreError.
    """
    try:
        try:
            return os.open(path, _FLAGS, 0o600)
        except FileNotFoundError:  # the folder, and only at first
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            return os.open(path, _FLAGS, 0o600)
    except PermissionError as error:
        raise NotPermitted(
            f"{path} can not be opened: {error.strerror}",
            "run as root, or choose a folder of your own with --state-dir",
        ) from error
    except OSError as error:
        raise StoreError(
            f"{path} can not be opened: {error.strerror}",
            "choose a folder that can be written to with --state-dir",
        ) from error
