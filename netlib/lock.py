"""Operations run side by side; repair and garbage collection run alone."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from math import inf
from pathlib import Path
from zlib import crc32

from netlib.errors import LockStuck, NotPermitted, StoreError

_FLOCK = struct.Struct("@hhqqi0q")  # struct flock
_UNLOCK = _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, 0, 0, 0)  # of all bytes
# Who wants to be alone locks this byte meanwhile: behind all those that stand for things.
_GATE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 1 << 32, 1, 0)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_FIRST_PAUSE, _LAST_PAUSE = 0.0002, 0.005  # seconds between two tries
# Longer than operations take; who has waited for so long goes ahead.
_POLITE_SECONDS = 0.5
# Who has a lock is looked at so often; who stands still at two looks is waited for no longer.
PATIENCE_SECONDS = 5.0


class OperationLock:
    """A lock file that all processes and threads of one state share (flock(2)).

    Who holds it shared may have half-done work in the state and the kernel; who holds it
    alone knows that whatever is half done was left by somebody who died.

    All of it raises LockStuck where who has a lock was stopped, NotPermitted and StoreError where
    the file can not be opened or locked.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path if path is None else os.path.abspath(path)

    def shared(self) -> AbstractContextManager[None]:
        """Held by every operation that changes something.

        Lets who wants to be alone go first, or that one would wait as long as others come.
        """
        return self._held(_shared)

    def alone(self, within_seconds: float = inf) -> AbstractContextManager[None]:
        """Held by repair, garbage collection and who looks for what is amiss.

        Waits until running operations end; BlockingIOError where they have not within a time.
        """
        return self._held(partial(_alone, within_seconds=within_seconds))

    @contextmanager
    def of(self, things: Mapping[str, bool], *, patient: bool = True) -> Iterator[None]:
        """Held by an operation on what it changes (True), or needs as it is (False).

        Operations on one sandbox, or on a network and its endpoints, follow each other; who is
        not `patient` gets BlockingIOError where it would have to wait.
        Locks of open files (fcntl(2), F_OFD_SETLK), so that threads wait for each other, too.
        """
        if self._path is None or not things:
            yield
            return
        descriptor = open_lock(self._path)
        try:
            self._lock_bytes(descriptor, things, patient)
            yield
        finally:
            # Not by close(2) alone: a child that was forked meanwhile has the open file, too.
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _UNLOCK)
            os.close(descriptor)

    @contextmanager
    def _held(self, take: Callable[[int, str], None]) -> Iterator[None]:
        if self._path is None:
            yield
            return
        descriptor = open_lock(self._path)
        try:
            take(descriptor, self._path)
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # likewise
            os.close(descriptor)

    def _lock_bytes(self, descriptor: int, things: Mapping[str, bool], patient: bool) -> None:
        assert self._path is not None
        places: dict[int, bool] = {}
        for thing, alone in things.items():
            place = crc32(thing.encode())  # a byte of the file; it need not be there
            places[place] = places.get(place, False) or alone
        # Everybody in the same order, so that nobody waits for who waits for him.
        for place, alone in sorted(places.items()):
            kind = fcntl.F_WRLCK if alone else fcntl.F_RDLCK
            request = _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0)
            attempt = partial(fcntl.fcntl, descriptor, fcntl.F_OFD_SETLK, request)
            if patient:
                _patiently(self._path, attempt, place)
            else:
                attempt()


def flock(descriptor: int, path: str, how: int = fcntl.LOCK_EX) -> None:
    """Lock an open file, which is at `path`, whole (flock(2)). Raises LockStuck, StoreError."""
    _patiently(path, partial(fcntl.flock, descriptor, how | fcntl.LOCK_NB))


def _shared(descriptor: int, path: str) -> None:
    deadline = 0.0
    while fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _GATE)[:2] != _UNLOCK[:2]:
        deadline = deadline or time.monotonic() + _POLITE_SECONDS
        if time.monotonic() > deadline:
            break
        time.sleep(_LAST_PAUSE)
    flock(descriptor, path, fcntl.LOCK_SH)


def _alone(descriptor: int, path: str, *, within_seconds: float) -> None:
    def attempt() -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with suppress(BlockingIOError):  # somebody else shuts it for us
                fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _GATE)
            raise

    try:
        _patiently(path, attempt, within_seconds=within_seconds)
    finally:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _UNLOCK)


def _patiently(
    path: str,
    attempt: Callable[[], object],
    place: int | None = None,
    *,
    within_seconds: float = inf,
) -> None:
    """Try until it can be had: of a whole file, or of the byte at a place."""
    pause, began, looked = _FIRST_PAUSE, 0.0, 0.0
    suspect = None
    while True:
        try:
            attempt()
        except BlockingIOError:
            now = time.monotonic()
            began, looked = began or now, looked or now
            if now >= began + within_seconds:
                raise
        except OSError as error:
            raise StoreError(
                f"{path} can not be locked: {error.strerror}",
                "choose a folder on a local file system with --state-dir",
            ) from error
        else:
            return
        if now >= looked + PATIENCE_SECONDS:
            from netlib.lock_holders import stopped

            looked, before, suspect = now, suspect, stopped(path, place)
            if suspect is not None and suspect == before:
                raise LockStuck(path, suspect.pid, suspect.name)
        time.sleep(pause)
        pause = min(2 * pause, _LAST_PAUSE)


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
