"""Which name servers said nothing when they were asked last: they are asked after the others.

Pure but for the clock. The order that somebody gave is kept among equals, because it means
something: the first server may know names that the others don't.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from netlib.values import dataclass

LONGEST_PAUSE_SECONDS = 30.0
_MOST_KNOWN = 2000  # a sandbox's own servers are known for it alone, and sandboxes come and go

T = TypeVar("T")


@dataclass(slots=True)
class _Known:
    """`silences` in a row, and when the next trial is due; when something was heard last."""

    silences: int = 0
    due: float = 0.0
    heard: float = float("-inf")


class Standing(Generic[T]):
    """What is known of servers. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[T, _Known] = OrderedDict()

    def order(self, servers: Iterable[T]) -> list[T]:
        """Those that answer first, then by how long they have been silent; else as they are."""
        return sorted(servers, key=self._silences)

    def silent(self) -> list[tuple[T, int]]:
        """Who says nothing, and how often in a row."""
        return [(who, known.silences) for who, known in self._known.items() if known.silences]

    def is_due(self, server: T) -> bool:
        """Whether a silent one is to be tried again; True once, until that one has ended."""
        known = self._known.get(server)
        if known is None or not known.silences or known.due > self._clock():
            return False
        known.due = float("inf")
        return True

    def answered(self, server: T) -> None:
        """It said something, whatever that was."""
        known = self._of(server)
        known.silences, known.heard = 0, self._clock()

    def unheard(self, server: T, since: float) -> None:
        """It was asked at `since` and has not answered in time.

        Nothing is held against one that answered others meanwhile: it was the question's fault.
        """
        known = self._of(server)
        if known.heard >= since:
            return
        known.silences += 1
        # At first with the next question, for it may have been one lost packet.
        pause = min(2.0 ** min(known.silences, 9) - 2, LONGEST_PAUSE_SECONDS)
        known.due = self._clock() + pause

    def clear(self) -> None:
        """Forget all: the host has other servers, so it may be elsewhere."""
        self._known.clear()

    def _silences(self, server: T) -> int:
        known = self._known.get(server)
        return known.silences if known is not None else 0

    def _of(self, server: T) -> _Known:
        known = self._known.setdefault(server, _Known())
        self._known.move_to_end(server)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return known
