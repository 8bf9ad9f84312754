"""Word that the state changed, left by who changed it where the server finds it with each query.

Who commits does not wait until the change is served: it leaves eight new bytes and goes on. The
server has the file mapped. It looks at it when it has received a query, before it answers, and
first catches up if there is word that it has not heard. So a query that is sent after a change
returned is answered by that change, however many there are, and nobody waits but a first asker.

The file is the keeper's lock; while a keeper lives, it has a lock of its open file on the first
byte (fcntl(2), F_OFD_SETLK): that is how who leaves word learns whether anybody hears it. It has
the file open once more for that. What its server has open, too, would stay locked by a server that
outlives its keeper for a moment, and hears nothing from there any more.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from pathlib import Path

BYTES = 8
_FLOCK = struct.Struct("@hhqqi0q")  # struct flock
_FIRST = (os.SEEK_SET, 0, 1, 0)


def hear(path: str | Path) -> int:
    """Be the one who hears what is left in a file, until the descriptor is closed. For keepers."""
    ear = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    os.posix_fallocate(ear, 0, BYTES)  # a hole, on a full tmpfs, ends who looks into it (SIGBUS)
    fcntl.fcntl(ear, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, *_FIRST))
    return ear


def leave(path: str | Path) -> bool:
    """Say that something changed; False where nobody hears it. Raises OSError."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Any bytes will do that were not there before. Commits come first, so who hears the
        # later one of two reads what both wrote.
        os.pwrite(lock, os.urandom(BYTES), 0)
        asked = _FLOCK.pack(fcntl.F_WRLCK, *_FIRST)
        kind: int = _FLOCK.unpack(fcntl.fcntl(lock, fcntl.F_OFD_GETLK, asked))[0]
    finally:
        os.close(lock)
    return kind != fcntl.F_UNLCK


class Word:
    """The server's end: what was left last."""

    def __init__(self, lock: int) -> None:
        self._bytes = mmap.mmap(lock, BYTES, mmap.MAP_SHARED, mmap.PROT_READ)
        self._heard = b""

    def is_new(self) -> bool:
        """Whether something was left since this was asked last; at first it always was."""
        left = self._bytes[:]
        if left == self._heard:
            return False
        self._heard = left
        return True
