"""Where the threads of one process wait for each other, and what they need not wait for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class _Lock(Protocol):
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, or not within the time."""

    def release(self) -> None:
        """Give it back."""


# Who waits longer than this for what others do goes ahead beside them.
_ROOM_SECONDS = 0.25
_TURN_SECONDS = 2.0


class Turns:
    """Locks that only save work: whoever has waited for long goes on without."""

    def __init__(self) -> None:
        self._room = threading.RLock()
        self._near, self._far = threading.Lock(), threading.Lock()
        self._own = threading.local()

    def room(self) -> AbstractContextManager[None]:
        """Where one thread works, and none that would only take the interpreter from it.

        Two that build at once cost half as much again for each: they wake each other up at
        every system call, and the kernel changes links one after the other anyway. A thread
        that is in there may enter again.
        """
        return self._held(self._room, _ROOM_SECONDS)

    def turn(self) -> AbstractContextManager[None]:
        """Threads take turns, so that they do not choose the same address.

        Nobody waits for long on one that has to ask a container engine something.
        """
        return self._held(self._near, _TURN_SECONDS)

    def step_aside(self) -> None:
        """Keep nobody waiting from here on who does not ask the cluster anything.

        It takes some milliseconds to answer, or a second and more not to answer.
        """
        mine = self._mine()
        asks = self._near in mine
        for lock in reversed(mine):
            if lock is not self._far:
                lock.release()
        mine[:] = [lock for lock in mine if lock is self._far]
        if asks and self._far.acquire(timeout=_TURN_SECONDS):
            mine.append(self._far)

    def _mine(self) -> list[_Lock]:
        found: list[_Lock] = self._own.__dict__.setdefault("locks", [])
        return found

    @contextmanager
    def _held(self, lock: _Lock, seconds: float) -> Iterator[None]:
        mine = self._mine()
        taken = lock.acquire(timeout=seconds)
        if taken:
            mine.append(lock)
        try:
            yield
        finally:
            # It may have stepped aside meanwhile, and taken a turn among those that did.
            for one in [lock] if lock is not self._near else [lock, self._far]:
                if taken and one in mine:
                    mine.remove(one)
                    one.release()
