"""Operations run side by side; repair and garbage collection run alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netlib.errors import NotPermitted, StoreError


class OperationLock:
    """A lock file that all processes and threads of one state share (flock(2)).

    Who holds it shared may have half-done work in the state and the kernel; who holds it
    alone knows that whatever is half done was left by somebody who died.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Held by every operation that changes something."""
        with self._held(fcntl.LOCK_SH):
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Held by repair and garbage collection: waits until running operations end."""
        with self._held(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _held(self, how: int) -> Iterator[None]:
        if self._path is None:
            yield
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise NotPermitted(
                f"{self._path} can not be opened: {error.strerror}",
                "run as root, or choose a folder of your own with --state-dir",
            ) from error
        except OSError as error:
            raise StoreError(
                f"{self._path} can not be opened: {error.strerror}",
                "choose a folder that can be written to with --state-dir",
            ) from error
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)
