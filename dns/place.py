"""Where a state's keeper is found: a socket and a lock in the state's folder."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path

from netlib.dns import word
from netlib.dns.channel import connect, listen
from netlib.values import dataclass

SOCKET, LOCK, LOG = "names.sock", "names.lock", "names.log"
_GIVE_WAY_SECONDS = 1.0


class AlreadyKept(Exception):
    """Another keeper serves this state."""


@dataclass(frozen=True, slots=True)
class Place:
    """What only one keeper of a state can have: the lock, and the socket of that name.

    `ear` is the lock's file as only the keeper has it open (see netlib.dns.word); the server has
    the `lock`, too, so that an heir waits for the end of both.
    """

    folder: Path
    lock: int
    ear: int
    listener: socket.socket

    @classmethod
    def claim(cls, folder: Path) -> Place:
        """Raises AlreadyKept where another keeper has it."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _GIVE_WAY_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # It is just ending, and gives way; or it was killed, and its server, which has the
                # sockets that the next one is to bind, is about to go along.
                if time.monotonic() > deadline or _is_served(folder / SOCKET):
                    os.close(lock)
                    raise AlreadyKept(f"another keeper serves the names of {folder}") from None
                time.sleep(0.005)
        ear = word.hear(folder / LOCK)
        path = folder / SOCKET
        path.unlink(missing_ok=True)
        return cls(folder, lock, ear, listen(path))

    def unname(self) -> None:
        """Be found no more."""
        (self.folder / SOCKET).unlink(missing_ok=True)
        self.listener.close()

    def give_back(self) -> None:
        """Let another keeper have it."""
        os.close(self.ear)
        os.close(self.lock)


def _is_served(path: Path) -> bool:
    """Whether somebody listens at a socket."""
    try:
        connect(path, _GIVE_WAY_SECONDS).close()
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError:  # so many want to speak to it that it takes no more
        return True
    return True
