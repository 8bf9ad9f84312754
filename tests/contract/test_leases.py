"""What every LeasedStore must do: keys that go when nobody keeps them alive any more."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import pytest
from support.patience import eventually
from support.stores import KINDS, Opener

from netlib.errors import LeaseLost, StoreConflict, StoreError
from netlib.store import Absent, Commit, Event, LeasedStore, Record, Store, Unchanged, under

LONG = 60.0


@pytest.fixture(params=[kind for kind in KINDS if kind.lease_seconds], ids=str)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    with ExitStack() as stack:
        yield Opener(request.param, tmp_path, stack)


@pytest.fixture
def store(opener: Opener) -> LeasedStore:
    return cast(LeasedStore, opener())


def put(store: Store, **pairs: str) -> int:
    return store.commit(Commit(put=pairs))


def keys(store: Store) -> list[str]:
    return [record.key for record in store.range("", "~")]


def test_what_a_lease_keeps_goes_when_it_is_revoked(store: LeasedStore) -> None:
    """All its keys, at one revision, and no others."""
    lease = store.grant(LONG)
    put(store, a="stays")
    revision = put(store.leased(lease), b="goes", c="goes")
    assert store.get("b") == Record("b", "goes", revision)

    store.revoke(lease)

    assert keys(store) == ["a"]
    changes = store.changes(revision, timeout_seconds=5)
    assert changes is not None
    first, second = changes
    assert (first.key, first.value, second.key, second.value) == ("b", None, "c", None)
    assert first.revision == second.revision > revision
    assert store.revision() >= first.revision


def test_what_a_lease_keeps_goes_when_its_time_is_over(opener: Opener, store: LeasedStore) -> None:
    """Whoever waits for changes learns of it, on any handle."""
    lease = store.grant(opener.kind.lease_seconds)
    revision = put(store.leased(lease), a="1")

    changes = opener().changes(revision, timeout_seconds=30)
    assert changes is not None
    (event,) = changes
    assert (event.key, event.value) == ("a", None)
    assert store.get("a") is None
    with pytest.raises(LeaseLost):
        store.keep_alive(lease)


def test_a_lease_lives_as_long_as_it_is_kept_alive(opener: Opener, store: LeasedStore) -> None:
    """Keeping alive says how long it will do, and does."""
    lease = store.grant(opener.kind.lease_seconds)
    put(store.leased(lease), a="1")
    ttl = store.keep_alive(lease)
    assert ttl >= opener.kind.lease_seconds

    deadline = time.monotonic() + 1.3 * ttl
    while time.monotonic() < deadline:
        store.keep_alive(lease)
        time.sleep(ttl / 10)

    assert keys(store) == ["a"]


def test_an_ended_lease_takes_nothing_more(store: LeasedStore) -> None:
    """Revoking again is no failure; everything else with it is, and says so."""
    lease = store.grant(LONG)
    view = store.leased(lease)
    store.revoke(lease)
    store.revoke(lease)

    put(store, a="1")
    with pytest.raises(LeaseLost) as lost:
        put(view, b="1")
    assert lost.value.lease == lease
    with pytest.raises(LeaseLost):
        store.keep_alive(lease)
    with pytest.raises(StoreConflict):
        view.commit(Commit(conditions=(Absent("a"),), put={"b": "1"}))
    view.commit(Commit(put={}, delete=("a",)))
    assert keys(store) == []


def test_a_view_with_a_lease_is_the_same_store(store: LeasedStore) -> None:
    """It reads, judges, removes and tells what the store does."""
    lease = store.grant(LONG)
    view = store.leased(lease)
    revision = put(store, a="1", b="1")

    assert view.get("a") == Record("a", "1", revision)
    assert view.range("", "~") == store.range("", "~")
    assert view.count("", "~") == 2
    assert view.revision() >= revision
    with pytest.raises(StoreConflict) as conflict:
        view.commit(Commit(conditions=(Absent("a"),), put={"c": "1"}))
    assert conflict.value.key == "a"
    after = view.commit(
        Commit(
            conditions=(Unchanged("a", revision),), put={"c/1": "1"}, delete_ranges=(("a", "c"),)
        )
    )
    assert view.changes(revision) == [
        Event("a", None, after),
        Event("b", None, after),
        Event("c/1", "1", after),
    ]
    assert store.range(*under("c/")) == [Record("c/1", "1", after)]


def test_the_last_put_decides_what_a_key_goes_with(store: LeasedStore) -> None:
    """Through the store it stays for good, through another lease it goes with that one."""
    one, other = store.grant(LONG), store.grant(LONG)
    put(store.leased(one), a="1", b="1", c="1", d="1")
    put(store, b="2")
    put(store.leased(other), c="2")
    store.commit(Commit(put={}, delete=("d",)))
    put(store, d="2")

    store.revoke(one)
    assert keys(store) == ["b", "c", "d"]
    store.revoke(other)
    assert keys(store) == ["b", "d"]


def test_leases_are_apart(store: LeasedStore) -> None:
    """Each has an id of its own, and the end of one is not the end of another."""
    leases = [store.grant(LONG) for _ in range(5)]
    assert len(set(leases)) == 5
    for number, lease in enumerate(leases):
        put(store.leased(lease), **{f"k{number}": ""})

    for lease in leases[:4]:
        store.revoke(lease)

    assert keys(store) == ["k4"]
    assert store.keep_alive(leases[4]) > 0


def test_an_empty_lease_ends_unseen(store: LeasedStore) -> None:
    """What keeps nothing changes nothing when it ends."""
    revision = put(store, a="1")
    store.revoke(store.grant(LONG))

    assert store.changes(revision) == []


def test_a_closed_store_has_no_leases(store: LeasedStore) -> None:
    """Neither it nor a view of it can be used any more."""
    lease = store.grant(LONG)
    view = store.leased(lease)
    store.close()

    for use in (
        lambda: store.grant(LONG),
        lambda: store.keep_alive(lease),
        lambda: store.revoke(lease),
        lambda: put(view, a="1"),
        lambda: view.get("a"),
    ):
        with pytest.raises(StoreError, match="closed"):
            use()


def test_the_end_of_a_lease_is_not_missed_by_who_reads_all_again(
    opener: Opener, store: LeasedStore
) -> None:
    """The revision, then everything, then the changes since: no key stays behind."""
    lease = store.grant(opener.kind.lease_seconds)
    put(store.leased(lease), **{f"k{number}": "" for number in range(20)})
    revision = store.revision()
    known = set(keys(store))

    def read() -> set[str]:
        nonlocal revision
        changes = store.changes(revision, timeout_seconds=1)
        assert changes is not None
        for event in changes:
            revision = event.revision
            known.discard(event.key)
        return known

    eventually(lambda: not read(), timeout=30)
