"""A Store in a dictionary: for tests, and for trying things out. Gone with the process."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from netlib.errors import LeaseLost, StoreConflict, StoreError
from netlib.store import Absent, Commit, Condition, Event, Record
from netlib.values import dataclass, field

_LOOK_SECONDS = 0.02  # how often who waits for changes looks at a clock that may be anybody's


@dataclass(slots=True)
class _Lease:
    """When it ends, by the clock, and what it keeps."""

    ttl_seconds: float
    end: float
    keys: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Data:
    """What every handle opened on the same data shares."""

    records: dict[str, Record] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)  # sorted
    events: deque[Event] = field(default_factory=deque)
    revision: int = 0
    forgotten: int = 0  # events up to this revision are gone
    leases: dict[int, _Lease] = field(default_factory=dict)
    granted: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)


class MemoryStore:
    """The protocol's plainest meaning, with leases.

    `keep_events` bounds what `changes` remembers; `clock` says when leases end.
    """

    def __init__(
        self, *, keep_events: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._data = _Data()
        self._keep_events = keep_events
        self._clock = clock
        self._closed = False
        self._lease: int | None = None  # what is put through this handle goes with it
        self._origin = self

    def another(self) -> MemoryStore:
        """A further handle on the same data, to be closed on its own."""
        handle = MemoryStore(keep_events=self._keep_events, clock=self._clock)
        handle._data = self._data
        return handle

    def get(self, key: str) -> Record | None:
        """The record of a key."""
        with self._open().changed:
            return self._now().records.get(key)

    def range(self, first: str, end: str, *, limit: int = 0, reverse: bool = False) -> list[Record]:
        """Records with first <= key < end in key order, at most `limit` if not 0."""
        with self._open().changed:
            records, keys = self._now().records, self._keys(first, end)
            if reverse:
                keys.reverse()
            return [records[key] for key in (keys[:limit] if limit else keys)]

    def count(self, first: str, end: str) -> int:
        """How many records there are with first <= key < end."""
        with self._open().changed:
            self._now()
            return len(self._keys(first, end))

    def reading(self) -> AbstractContextManager[None]:
        """Nothing: each read is of its own moment."""
        return nullcontext()

    def together(self) -> AbstractContextManager[None]:
        """Nothing: each commit is made at once."""
        return nullcontext()

    def commit(self, commit: Commit) -> int:
        """The revision of this commit. Raises StoreConflict naming the failed condition's key."""
        with self._open().changed:
            data = self._now()
            for condition in commit.conditions:
                if not self._holds(condition):
                    raise StoreConflict(_key(condition))
            if commit.put and self._lease is not None and self._lease not in data.leases:
                raise LeaseLost(self._lease)
            doomed = {key for key in commit.delete if key in data.records}
            for first, end in commit.delete_ranges:
                doomed.update(self._keys(first, end))
            doomed.difference_update(commit.put)
            if commit.put or doomed:
                self._write(commit, doomed)
            return data.revision

    def revision(self) -> int:
        """That of the last commit."""
        with self._open().changed:
            return self._now().revision

    def changes(self, since: int, timeout_seconds: float = 0.0) -> list[Event] | None:
        """Events after revision `since`, in order; waits for the first up to the time-out."""
        deadline = time.monotonic() + timeout_seconds
        with self._data.changed:
            while True:
                self._open()
                data = self._now()
                if not data.forgotten <= since <= data.revision:
                    return None
                if data.revision > since:
                    return [event for event in data.events if event.revision > since]
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return []
                data.changed.wait(min(remaining, _LOOK_SECONDS) if data.leases else remaining)

    def grant(self, ttl_seconds: float) -> int:
        """A new lease's id."""
        with self._open().changed:
            data = self._now()
            data.granted += 1
            data.leases[data.granted] = _Lease(ttl_seconds, self._clock() + ttl_seconds)
            data.changed.notify_all()  # who waits has a clock to look at from now on
            return data.granted

    def keep_alive(self, lease: int) -> float:
        """Start the lease's time anew. Raises LeaseLost if it ended."""
        with self._open().changed:
            kept = self._now().leases.get(lease)
            if kept is None:
                raise LeaseLost(lease)
            kept.end = self._clock() + kept.ttl_seconds
            return kept.ttl_seconds

    def revoke(self, lease: int) -> None:
        """End the lease now."""
        with self._open().changed:
            if lease in self._now().leases:
                self._end(lease)

    def leased(self, lease: int) -> MemoryStore:
        """The same data; what is put through it goes with the lease."""
        view = self.another()
        view._lease, view._origin = lease, self._origin
        return view

    def close(self) -> None:
        """Refuse all further use, and wake who waits for changes."""
        with self._data.changed:
            self._closed = True
            self._data.changed.notify_all()

    def _open(self) -> _Data:
        if self._closed or self._origin._closed:
            raise StoreError("the state in memory was closed already")
        return self._data

    def _now(self) -> _Data:
        """The data as of now: without what a lease kept that has ended."""
        now = self._clock() if self._data.leases else 0.0
        for lease in [key for key, kept in self._data.leases.items() if kept.end <= now]:
            self._end(lease)
        return self._data

    def _end(self, lease: int) -> None:
        kept = self._data.leases.pop(lease)
        if kept.keys:
            self._write(Commit(put={}), set(kept.keys))

    def _keys(self, first: str, end: str) -> list[str]:
        keys = self._data.keys
        return keys[bisect_left(keys, first) : bisect_left(keys, end)]

    def _holds(self, condition: Condition) -> bool:
        if isinstance(condition, Absent):
            if condition.end:
                return not self._keys(condition.first, condition.end)
            return condition.first not in self._data.records
        record = self._data.records.get(condition.key)
        return condition.revision == (record.revision if record else 0)

    def _write(self, commit: Commit, doomed: set[str]) -> None:
        data = self._data
        data.revision += 1
        for lease in data.leases.values():
            lease.keys -= doomed
            lease.keys.difference_update(commit.put)
        if self._lease in data.leases:
            data.leases[self._lease].keys.update(commit.put)
        for key in doomed:
            del data.records[key]
            del data.keys[bisect_left(data.keys, key)]
        for key, value in commit.put.items():
            if key not in data.records:
                insort(data.keys, key)
            data.records[key] = Record(key, value, data.revision)
        changes: dict[str, str | None] = {**dict.fromkeys(doomed), **commit.put}
        data.events.extend(Event(key, changes[key], data.revision) for key in sorted(changes))
        while len(data.events) > self._keep_events or (
            data.events and data.events[0].revision <= data.forgotten
        ):
            data.forgotten = data.events.popleft().revision
        data.changed.notify_all()


def _key(condition: Condition) -> str:
    return condition.first if isinstance(condition, Absent) else condition.key
