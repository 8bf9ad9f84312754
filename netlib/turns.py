"""Where the threads of one process wait for each other, and what they need not wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Lock(Protocol):
    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take it, or not within the time."""

    def release(self) -> None:
        """Give it back."""


# Who waits longer than this for what others do goes ahead beside them.
_ROOM_SECONDS = 0.25
_TURN_SECONDS = 2.0
# Who has waited for others already looks so often, and waits so long, whether more come.
_LINGERS, _LINGER_SECONDS = 10, 0.001
# Who waits longer than this for others' work does its own beside it.
_GATHER_SECONDS = 1.0


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


class _Asked(Generic[T, R]):
    """One thing that a thread waits for."""

    __slots__ = ("answer", "is_done", "thing", "woken")

    def __init__(self, thing: T) -> None:
        self.thing = thing
        # No lock: who is interrupted just when it has it knows nothing of that, and waits for ever.
        self.woken = threading.Event()
        self.is_done = False
        self.answer: R | Exception


class Together(Generic[T, R]):
    """What several threads want done at once, one of them does for all.

    Who comes first works; who comes meanwhile is worked for by the next one, `most` in one go.
    Like the locks above this only saves work: whoever has waited for long goes on without.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._is_busy = False
        self._waiting: list[_Asked[T, R]] = []

    def do(self, thing: T, work: Callable[[Sequence[T]], Sequence[R | Exception]]) -> R:
        """Have a thing done; what comes of it is returned, or raised.

        `work` does some things, this one and others', and says what came of each; or another
        thread's work does this one.
        """
        mine: _Asked[T, R] = _Asked(thing)
        with self._lock:
            leads = not self._is_busy
            self._is_busy = True
            if not leads:
                self._waiting.append(mine)
        if not leads and not self._wait(mine):
            (mine.answer,) = work([thing])
        elif not mine.is_done:
            self._lead(mine, work, has_waited=not leads)
        if isinstance(mine.answer, Exception):
            raise mine.answer
        return mine.answer

    def _wait(self, mine: _Asked[T, R]) -> bool:
        """Wait until it is done, or is to be done now by who asked; False: nobody is at it."""
        try:
            if mine.woken.wait(_GATHER_SECONDS) or not self._withdraw(mine):
                return True
        except BaseException:  # an interrupt: nobody is to wait for who leaves
            if not self._withdraw(mine) and not mine.is_done:
                self._pass_on()
            raise
        return False

    def _withdraw(self, mine: _Asked[T, R]) -> bool:
        """Take back what nobody is at; else wait until it is done, or is to be done now."""
        with self._lock:
            is_waiting = mine in self._waiting
            if is_waiting:
                self._waiting.remove(mine)
        if not is_waiting:
            mine.woken.wait()
        return is_waiting

    def _linger(self) -> None:
        """Let those come who are coming: the more there are, the less each costs."""
        for _ in range(_LINGERS):
            there = len(self._waiting)
            time.sleep(_LINGER_SECONDS)
            if len(self._waiting) == there:
                return

    def _lead(
        self,
        mine: _Asked[T, R],
        work: Callable[[Sequence[T]], Sequence[R | Exception]],
        *,
        has_waited: bool,
    ) -> None:
        others: list[_Asked[T, R]] = []
        try:
            if has_waited:
                self._linger()
            with self._lock:
                others = self._waiting[: self._most - 1]
                del self._waiting[: self._most - 1]
            batch = [mine, *others]
            answers = work([one.thing for one in batch])
            for one, answer in zip(batch, answers, strict=True):
                one.answer, one.is_done = answer, True
        finally:
            self._pass_on()
            for one in others:  # where the work was interrupted, each does its own
                one.woken.set()

    def _pass_on(self) -> None:
        """Have the next one work, for itself and all who wait with it."""
        with self._lock:
            self._is_busy = bool(self._waiting)
            if self._waiting:
                self._waiting.pop(0).woken.set()


class Gathered:
    """What is made at once, and what is removed at once.

    How much: what it holds, and holds others up by, is as much as it is many.
    """

    def __init__(self) -> None:
        self.built: Together[Any, Any] = Together(16)
        self.removed: Together[Any, Any] = Together(100)
