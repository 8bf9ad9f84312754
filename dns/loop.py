"""A small event loop: file descriptors that became ready, and calls that are due."""

from __future__ import annotations

import heapq
import select
import time
from collections.abc import Callable
from typing import Protocol

READ, WRITE, GONE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP | select.EPOLLERR

Handler = Callable[[int], None]


class HasFileno(Protocol):
    """A socket, file or anything else with a descriptor."""

    def fileno(self) -> int:
        """The descriptor."""


class Timer:
    """A call that is due at `at`, in seconds of the monotonic clock."""

    __slots__ = ("at", "call")

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call: Callable[[], None] | None = call

    def __lt__(self, other: Timer) -> bool:
        return self.at < other.at

    def cancel(self) -> None:
        """The call is not made."""
        self.call = None


class Loop:
    """Handlers are called with the events of their descriptor; an error in one is its caller's."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._forgotten: set[int] = set()  # in this turn
        self._timers: list[Timer] = []
        self._running = False

    def watch(self, source: HasFileno, handler: Handler, events: int = READ) -> None:
        """Call `handler` with the events of `source`; again: with other events."""
        number = source.fileno()
        known = number in self._handlers
        self._handlers[number] = handler
        (self._epoll.modify if known else self._epoll.register)(number, events)

    def forget(self, source: HasFileno) -> None:
        """No more calls for `source`. To be said before it is closed."""
        number = source.fileno()
        if self._handlers.pop(number, None) is not None:
            self._epoll.unregister(number)
            self._forgotten.add(number)

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Make a call once, `seconds` from now."""
        timer = Timer(time.monotonic() + seconds, call)
        heapq.heappush(self._timers, timer)
        return timer

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        while self._running:
            self.turn(None)

    def stop(self) -> None:
        """End `run` after this turn."""
        self._running = False

    def turn(self, longest: float | None) -> None:
        """Wait, at most `longest` seconds, and make the calls that are due."""
        wait = self._until_due()
        if longest is not None and (wait is None or wait > longest):
            wait = longest
        self._forgotten.clear()
        for number, events in self._epoll.poll(wait):
            # What another handler of this turn forgot: its number may be a new socket's by now.
            if number not in self._forgotten:
                self._handlers[number](events)
        timers = self._timers
        while timers and (timers[0].call is None or timers[0].at <= time.monotonic()):
            call = heapq.heappop(timers).call
            if call is not None:
                call()

    def _until_due(self) -> float | None:
        timers = self._timers
        while timers and timers[0].call is None:
            heapq.heappop(timers)
        return max(0.0, timers[0].at - time.monotonic()) if timers else None

    def close(self) -> None:
        """Give back the descriptor."""
        self._epoll.close()
