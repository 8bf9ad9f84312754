"""Leases of the store in memory end by the clock that it is given."""

from __future__ import annotations

import threading

import pytest
from support.patience import eventually

from netlib.errors import LeaseLost
from netlib.store import Commit, Event
from netlib.store.memory import MemoryStore


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now


def test_a_lease_ends_when_the_clock_says_so() -> None:
    """Not a moment earlier; keeping it alive starts its time anew."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    lease = store.grant(10)
    store.leased(lease).commit(Commit(put={"a": "1"}))

    clock.now += 9.9
    assert store.keep_alive(lease) == 10
    clock.now += 9.9
    assert store.get("a") is not None
    clock.now += 0.1
    assert store.get("a") is None
    with pytest.raises(LeaseLost):
        store.keep_alive(lease)


def test_leases_that_end_together_end_each_at_a_revision() -> None:
    """Two dead hosts are two changes."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    for key in "ab":
        store.leased(store.grant(10)).commit(Commit(put={key: ""}))
    clock.now += 10

    assert store.revision() == 4
    assert [(e.key, e.value, e.revision) for e in store.changes(2) or ()] == [
        ("a", None, 3),
        ("b", None, 4),
    ]


def test_who_waits_learns_of_the_end() -> None:
    """Also who began to wait before there was any lease."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    seen: list[list[Event] | None] = []

    def wait() -> None:
        seen.append(store.changes(0, timeout_seconds=20))
        seen.append(store.changes(1, timeout_seconds=20))

    waiter = threading.Thread(target=wait)
    waiter.start()
    store.leased(store.grant(10)).commit(Commit(put={"a": "1"}))
    eventually(lambda: seen)
    clock.now += 10
    waiter.join(20)

    assert seen == [[Event("a", "1", 1)], [Event("a", None, 2)]]
