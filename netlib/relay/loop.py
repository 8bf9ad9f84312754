"""The event loop: file descriptors that became ready, work that goes on, and ticks on demand."""

from __future__ import annotations

import select
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

_TICK_SECONDS = 1.0
_LOGGED_FAULTS = 100


class Closable(Protocol):
    """A socket, or what owns a file descriptor like one."""

    def fileno(self) -> int:
        """The number of it."""

    def close(self) -> None:
        """Give it back."""


class Handler(Protocol):
    """What a loop runs. `failed` is told of an exception that should not have come."""

    def on_event(self, events: int) -> None:
        """Something is possible."""

    def failed(self) -> None:
        """Give up what an unexpected exception left in the middle."""


class Worker(Protocol):
    """What has more to do than fits into its turn."""

    def turn(self) -> None:
        """The next turn has come."""

    def failed(self) -> None:
        """Give up what an unexpected exception left in the middle."""


class Loop:
    """Runs handlers until `ended`. No handler's exception ends it."""

    def __init__(self) -> None:
        self.ended = False
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._waiting: deque[Worker] = deque()
        self._closing: list[Closable] = []
        self._tickers: list[Callable[[float], bool]] = []
        self._next_tick: float | None = None
        self._faults = 0

    def add(self, thing: Closable, handler: Handler, events: int) -> None:
        """Tell `handler` of `events` of a thing's file descriptor."""
        self._epoll.register(thing.fileno(), events)
        self._handlers[thing.fileno()] = handler

    def release(self, thing: Closable) -> None:
        """Tell no more of a thing."""
        if self._handlers.pop(thing.fileno(), None) is not None:
            self._epoll.unregister(thing.fileno())

    def close(self, thing: Closable) -> None:
        """Tell no more of a thing, and close it when this round is over.

        Not before: its number would be given to a new file, and an event of this round that
        is meant for the old one would reach the new one's handler.
        """
        self.release(thing)
        self._closing.append(thing)

    def pause(self, thing: Closable) -> None:
        """No events of this thing until `resume`."""
        self._epoll.modify(thing.fileno(), 0)

    def resume(self, thing: Closable, events: int) -> None:
        """Events again."""
        self._epoll.modify(thing.fileno(), events)

    def soon(self, worker: Worker) -> None:
        """Another turn, after everybody else had theirs."""
        self._waiting.append(worker)

    def each_tick(self, call: Callable[[float], bool]) -> None:
        """Call with the time (time.monotonic) about once a second, while anybody needs ticks.

        True asks for another one. Who has nothing to wait for lets the processor sleep.
        """
        self._tickers.append(call)

    def need_ticks(self) -> None:
        """A tick in a second, if none is to come anyway."""
        if self._next_tick is None:
            self._next_tick = time.monotonic() + _TICK_SECONDS

    def run(self) -> None:
        """Run until `ended` is set."""
        while not self.ended:
            for number, events in self._epoll.poll(self._patience(), 128):
                handler = self._handlers.get(number)
                if handler is not None:
                    try:
                        handler.on_event(events)
                    except Exception:
                        self._fault(handler)
            for _ in range(len(self._waiting)):
                worker = self._waiting.popleft()
                try:
                    worker.turn()
                except Exception:
                    self._fault(worker)
            if self._next_tick is not None and time.monotonic() >= self._next_tick:
                self._tick()
            while self._closing:
                self._closing.pop().close()

    def _patience(self) -> float | None:
        """How long to wait for events, in seconds; None: as long as there are none."""
        if self._waiting:
            return 0.0
        if self._next_tick is None:
            return None
        return max(0.0, self._next_tick - time.monotonic())

    def _tick(self) -> None:
        now = time.monotonic()
        self._next_tick = None
        wanted = [call(now) for call in self._tickers]
        if any(wanted):
            self.need_ticks()

    def _fault(self, party: Handler | Worker) -> None:
        """A fault of ours must cost one connection, not everybody's: note it and go on."""
        self._faults += 1
        if self._faults <= _LOGGED_FAULTS:
            _, error, trace = sys.exc_info()
            lines = [f"{error!r}"]
            while trace is not None:
                code = trace.tb_frame.f_code
                lines.append(f"  {code.co_filename}:{trace.tb_lineno} in {code.co_name}")
                trace = trace.tb_next
            # Not by the traceback module: it costs time to load, and can't read files later.
            print("\n".join(lines), file=sys.stderr, flush=True)
        party.failed()
