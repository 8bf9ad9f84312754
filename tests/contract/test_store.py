"""What every Store must do. A new implementation becomes a Kind in tests/support/stores.py."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from support.stores import KINDS, Kind, Opener

from netlib.errors import StoreConflict, StoreError
from netlib.store import Absent, Commit, Condition, Event, Record, Store, Unchanged, under

ALL = ("", "~")


@pytest.fixture(params=KINDS, ids=str)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    with ExitStack() as stack:
        yield Opener(request.param, tmp_path, stack)


@pytest.fixture
def store(opener: Opener) -> Store:
    return opener()


def put(store: Store, *conditions: Condition, **pairs: str) -> int:
    return store.commit(Commit(conditions=conditions, put=pairs, durable=False))


# -- reading ------------------------------------------------------------------------------------


def test_an_empty_store_has_nothing(store: Store) -> None:
    """Nothing is there, and nothing happened, before the first commit."""
    assert store.get("a") is None
    assert store.range(*ALL) == []
    assert store.count(*ALL) == 0
    assert store.changes(store.revision()) == []


def test_reads_may_be_of_one_moment_and_hold_up_nobody(store: Store) -> None:
    """Whoever commits meanwhile goes on; afterwards everything is seen."""
    put(store, a="1")
    with store.reading():
        first = store.get("a")
        put(store, a="2", b="2")
        with store.reading():
            again = store.get("a")
        assert first is not None
        assert again is not None
        assert (first.value, again.value) in {("1", "1"), ("1", "2")}
        assert len(store.range(*ALL)) in (1, 2)
    assert [record.value for record in store.range(*ALL)] == ["2", "2"]


def test_several_threads_read_at_once(store: Store) -> None:
    """Nobody waits until another one has read all that it wants."""
    put(store, a="1")
    seen: list[Record | None] = []

    def read() -> None:
        with store.reading():
            seen.append(store.get("a"))

    with store.reading():
        store.get("a")
        other = threading.Thread(target=read)
        other.start()
        other.join(5)
        assert len(seen) == 1
    assert seen[0] == store.get("a")


def test_after_a_failure_reads_are_of_the_present_again(store: Store) -> None:
    """What is thrown out of `reading` takes its moment with it."""
    put(store, a="1")
    with suppress(KeyError), store.reading():
        store.get("a")
        raise KeyError
    put(store, a="2")
    assert [record.value for record in store.range(*ALL)] == ["2"]


def test_commits_may_be_made_together_and_are_judged_each_by_itself(opener: Opener) -> None:
    """Who makes them sees what was written; in the end all of it is there, for everybody."""
    store, other = opener(), opener()
    put(store, a="0")
    since = store.revision()
    with store.together():
        put(store, Absent("b"), b="1")
        with store.reading():
            assert [record.value for record in store.range(*ALL)] == ["0", "1"]
        with pytest.raises(StoreConflict):
            put(store, Absent("b"), b="2", c="2")
        store.commit(Commit(put={"d": "3"}, delete=("a",)))
        assert store.get("a") is None
        assert store.count(*ALL) == 2
    there = {record.key: record.value for record in other.range(*ALL)}
    assert there == {"b": "1", "d": "3"}
    told = other.changes(since, 5)
    assert told is not None
    assert {event.key for event in told} == {"a", "b", "d"}
    put(store, Absent("e"), e="4")
    assert other.get("e") is not None


def test_who_reads_for_long_holds_up_nobody_who_commits_together(store: Store) -> None:
    """An operation that asks a container engine something is thought through meanwhile."""
    put(store, a="0")
    began, go_on = threading.Event(), threading.Event()
    seen: list[Record | None] = []

    def read() -> None:
        with store.reading():
            seen.append(store.get("a"))
            began.set()
            assert go_on.wait(20)
            seen.append(store.get("a"))

    def write() -> None:
        with store.together():
            put(store, b="1")
            seen.append(store.get("b"))

    reader, writer = threading.Thread(target=read), threading.Thread(target=write)
    reader.start()
    assert began.wait(20)
    writer.start()
    writer.join(5)
    is_held_up = writer.is_alive()
    go_on.set()
    reader.join(20)
    writer.join(20)
    assert not is_held_up
    assert [record.value for record in seen if record] == ["0", "1", "0"]
    assert store.get("b") == seen[1]


def test_others_commit_after_those_that_are_made_together(opener: Opener) -> None:
    """Another thread, and another handle, get their turn; nothing of either is lost."""
    store, other = opener(), opener()
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda one=one, n=n: found.append(put(one, **{f"t{n}": "1"})))  # type: ignore[misc]
        for n, one in enumerate((store, other))
    ]
    with store.together():
        put(store, a="1")
        for thread in threads:
            thread.start()
        put(store, b="1")
    for thread in threads:
        thread.join(20)
    assert len(found) == 2
    assert [record.key for record in store.range(*ALL)] == ["a", "b", "t0", "t1"]


def test_after_a_failure_among_commits_made_together_the_store_goes_on(store: Store) -> None:
    """What was committed before it may be there or not; nobody waits for it any more."""
    with suppress(KeyError), store.together():
        put(store, a="1")
        raise KeyError
    put(store, b="2")
    assert store.get("b") is not None


def test_a_record_has_the_revision_of_the_commit_that_wrote_it(store: Store) -> None:
    """Each record tells its own last write, the store that of the last commit."""
    first = put(store, a="1", b="2")
    second = put(store, a="3")

    assert second > first > 0
    assert store.get("a") == Record("a", "3", second)
    assert store.get("b") == Record("b", "2", first)
    assert store.revision() >= second


def test_values_come_back_as_they_were(store: Store) -> None:
    """Values are any text: empty, long, of many lines, with NUL and beyond ASCII."""
    values = {"empty": "", "long": "x" * 100_000, "text": "a\n\x00\"'é\U0001f310"}
    store.commit(Commit(put=values))

    assert {record.key: record.value for record in store.range(*ALL)} == values


def test_a_range_is_in_byte_order_and_ends_before_its_end(store: Store) -> None:
    """Upper case before lower, a prefix before what it starts, digits as text."""
    keys = ["a/10", "a/2", "a/B", "a/b", "a0", "a", "b/1"]
    store.commit(Commit(put=dict.fromkeys(keys, "")))

    assert [r.key for r in store.range(*under("a/"))] == ["a/10", "a/2", "a/B", "a/b"]
    assert [r.key for r in store.range("a", "a/2")] == ["a", "a/10"]
    assert [r.key for r in store.range("b", "a")] == []
    assert store.count(*under("a/")) == 4
    assert store.count("b", "a") == 0


def test_a_range_stops_at_its_limit_from_either_end(store: Store) -> None:
    """Pages can be read forwards and backwards."""
    store.commit(Commit(put=dict.fromkeys("abcde", "")))

    assert [r.key for r in store.range("b", "~", limit=2)] == ["b", "c"]
    assert [r.key for r in store.range("a", "e", limit=2, reverse=True)] == ["d", "c"]
    assert [r.key for r in store.range("a", "e", reverse=True)] == ["d", "c", "b", "a"]


# -- commits ------------------------------------------------------------------------------------


def test_deletions_take_keys_and_ranges(store: Store) -> None:
    """What is deleted is gone; deleting what is not there is no failure."""
    store.commit(Commit(put=dict.fromkeys(["a", "b/1", "b/2", "c"], "")))
    store.commit(Commit(put={"d": ""}, delete=("a", "none"), delete_ranges=(under("b/"),)))

    assert [record.key for record in store.range(*ALL)] == ["c", "d"]


def test_what_is_deleted_and_put_in_one_commit_is_put(store: Store) -> None:
    """A folder can be replaced in one commit, and its events say what came of it."""
    before = store.commit(Commit(put={"a/1": "old", "a/2": "old"}))
    after = store.commit(Commit(put={"a/2": "new"}, delete=("a/2",), delete_ranges=(under("a/"),)))

    assert store.range(*ALL) == [Record("a/2", "new", after)]
    assert store.changes(before) == [Event("a/1", None, after), Event("a/2", "new", after)]


@pytest.mark.parametrize(
    ("condition", "key"),
    [
        (Absent("a"), "a"),
        (Absent("a", "b"), "a"),
        (Absent("", "~"), ""),
        (Unchanged("a", 0), "a"),
        (Unchanged("b", 0), "b"),
        (Unchanged("b", 1), "b"),
        (Unchanged("b", 10**9), "b"),
        (Unchanged("none", 1), "none"),
    ],
    ids=str,
)
def test_a_condition_that_fails_keeps_everything_as_it_was(
    store: Store, condition: Condition, key: str
) -> None:
    """The first condition that fails is named, and nothing of the commit happens."""
    put(store, a="1", b="1")
    revision = put(store, b="2")
    records = store.range(*ALL)

    with pytest.raises(StoreConflict) as conflict:
        store.commit(
            Commit(
                conditions=(Absent("none"), condition, Absent("b")),
                put={"b": "lost", "new": "lost"},
                delete=("a",),
            )
        )

    assert conflict.value.key == key
    assert store.range(*ALL) == records
    assert store.changes(revision) == []


def test_conditions_that_hold_let_a_commit_through(store: Store) -> None:
    """Absent looks at its own key or range, Unchanged at the last write."""
    revision = put(store, a="1", c="1")
    again = put(
        store,
        Absent("aa"),
        Absent("b", "c"),
        Absent("c", "c"),
        Unchanged("a", revision),
        Unchanged("b", 0),
        a="2",
    )

    assert again > revision
    assert store.get("a") == Record("a", "2", again)


def test_a_commit_may_only_ask(store: Store) -> None:
    """Without effect there is no new revision, but the conditions count."""
    revision = put(store, a="1")

    empty = Commit(conditions=(Absent("b"),), put={}, delete=("b",), delete_ranges=(("b", "c"),))
    assert store.commit(empty) >= revision
    assert store.changes(revision) == []
    with pytest.raises(StoreConflict):
        store.commit(Commit(conditions=(Absent("a"),), put={}))


def test_writing_the_same_value_again_is_a_write(store: Store) -> None:
    """Unchanged is about writes, not values."""
    revision = put(store, a="1")
    again = put(store, a="1")

    assert again > revision
    with pytest.raises(StoreConflict):
        put(store, Unchanged("a", revision), a="2")


# -- changes ------------------------------------------------------------------------------------


def test_changes_tell_every_write_and_removal_in_order(store: Store) -> None:
    """From any revision on, nothing is missing and nothing is told twice."""
    start = put(store, a="1")
    second = put(store, b="2", a="2")
    third = store.commit(Commit(put={"c": "3"}, delete_ranges=(("a", "b"),)))

    assert store.changes(start) == [
        Event("a", "2", second),
        Event("b", "2", second),
        Event("a", None, third),
        Event("c", "3", third),
    ]
    assert store.changes(second) == [Event("a", None, third), Event("c", "3", third)]
    assert store.changes(third) == []


def test_changes_forget_what_is_long_past(opener: Opener) -> None:
    """Who asks too far back is told to read everything again; the newest stay known."""
    store = opener(keep_events=16)
    revisions = [put(store, a=str(number)) for number in range(100)]
    opener.kind.forget(store, revisions[60])

    assert store.changes(revisions[0]) is None
    assert store.changes(revisions[50]) is None
    newest = store.changes(revisions[89])
    assert newest is not None
    assert [event.value for event in newest] == [str(number) for number in range(90, 100)]


def test_changes_after_a_revision_that_never_was_are_unknown(store: Store) -> None:
    """The state may have been put back from a copy: read everything again."""
    assert store.changes(put(store, a="1") + 1000) is None


def test_waiting_for_changes_ends_at_the_time_out(store: Store) -> None:
    """No change, no event, and not much later than asked."""
    revision = store.revision()
    began = time.monotonic()

    assert store.changes(revision, timeout_seconds=0.1) == []
    assert 0.1 <= time.monotonic() - began < 2


@pytest.mark.parametrize("same", [True, False], ids=["same handle", "another handle"])
def test_waiting_for_changes_ends_with_the_first(opener: Opener, same: bool) -> None:
    """A commit by anybody wakes who waits."""
    store = opener()
    writer = store if same else opener()
    revision = store.revision()
    timer = threading.Timer(0.05, put, (writer,), {"a": "1"})
    timer.start()
    began = time.monotonic()
    try:
        changes = store.changes(revision, timeout_seconds=20)
    finally:
        timer.join()
    record = store.get("a")
    assert record is not None
    assert changes == [Event("a", "1", record.revision)]
    assert time.monotonic() - began < 5


# -- handles ------------------------------------------------------------------------------------


def test_handles_on_the_same_data_agree(opener: Opener) -> None:
    """What one commits, the other reads at once."""
    one, other = opener(), opener()
    revision = put(one, a="1")

    assert other.get("a") == Record("a", "1", revision)
    with pytest.raises(StoreConflict):
        put(other, Absent("a"), a="2")


def test_a_closed_store_refuses_everything(opener: Opener) -> None:
    """Use after close is an error that says so; closing again is none; others go on."""
    store, other = opener(), opener()
    put(store, a="1")
    store.close()
    store.close()

    uses: list[Callable[[], object]] = [
        lambda: store.get("a"),
        lambda: store.range(*ALL),
        lambda: store.count(*ALL),
        lambda: store.commit(Commit(put={"b": "1"})),
        store.revision,
        lambda: store.changes(0),
    ]
    for use in uses:
        with pytest.raises(StoreError, match="closed"):
            use()
    assert other.get("a") is not None


def test_closing_wakes_who_waits_for_changes(opener: Opener) -> None:
    """A watcher's thread can be ended from outside."""
    store = opener()
    revision = put(store, a="1")
    timer = threading.Timer(0.05, store.close)
    timer.start()
    began = time.monotonic()
    with pytest.raises(StoreError, match="closed"):
        store.changes(revision, timeout_seconds=20)
    timer.join()
    assert time.monotonic() - began < 5


# -- many at once -------------------------------------------------------------------------------

WORKERS, ROUNDS = 8, 20


def _race(store: Store, worker: int) -> list[int]:
    """The rounds that this worker won: each is a key that must be absent."""
    won = []
    for number in range(ROUNDS):
        with suppress(StoreConflict):
            put(store, Absent(f"race/{number}"), **{f"race/{number}": str(worker)})
            won.append(number)
    return won


def _count(store: Store, _: int) -> list[int]:
    """The values that this worker gave the counter."""
    given = []
    while len(given) < ROUNDS:
        record = store.get("counter")
        value = int(record.value) + 1 if record else 1
        with suppress(StoreConflict):
            put(store, Unchanged("counter", record.revision if record else 0), counter=str(value))
            given.append(value)
    return given


Job = Callable[[Store, int], list[int]]


def in_threads(opener: Opener, job: Job) -> list[int]:
    """What all workers returned, half of them sharing one handle."""
    shared, results = opener(), []
    threads = [
        threading.Thread(
            target=lambda w=worker, s=store: results.extend(job(s, w))  # type: ignore[misc]
        )
        for worker in range(WORKERS)
        for store in [shared if worker % 2 else opener()]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results


def in_processes(opener: Opener, job: Job) -> list[int]:
    """What all workers returned, each a forked process with a handle of its own."""
    fork = multiprocessing.get_context("fork")
    start, results = fork.Barrier(WORKERS), fork.Queue()

    def work(worker: int) -> None:
        store = opener()
        start.wait(30)
        results.put(job(store, worker))
        store.close()

    children = [fork.Process(target=work, args=(worker,)) for worker in range(WORKERS)]
    for child in children:
        child.start()
    collected = [value for _ in children for value in results.get(timeout=30)]
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    return collected


many_at_once = pytest.mark.parametrize(
    ("opener", "workers"),
    [(kind, in_threads) for kind in KINDS]
    + [(kind, in_processes) for kind in KINDS if kind.processes],
    indirect=["opener"],
    ids=lambda value: getattr(value, "__name__", str(value)),
)


@many_at_once
def test_of_many_that_want_one_key_exactly_one_gets_it(
    opener: Opener, workers: Callable[[Opener, Job], list[int]]
) -> None:
    """An Absent condition is uniqueness: also for a store that nobody has opened before."""
    assert sorted(workers(opener, _race)) == list(range(ROUNDS))


@many_at_once
def test_a_counter_loses_no_update(
    opener: Opener, workers: Callable[[Opener, Job], list[int]]
) -> None:
    """Unchanged makes read, change, write safe."""
    assert sorted(workers(opener, _count)) == list(range(1, WORKERS * ROUNDS + 1))
    record = opener().get("counter")
    assert record is not None
    assert record.value == str(WORKERS * ROUNDS)


# -- against a model ----------------------------------------------------------------------------

KEYS = st.text("ab/0", min_size=1, max_size=3)
BOUNDS = st.tuples(KEYS, KEYS)
COMMITS = st.builds(
    Commit,
    conditions=st.lists(
        st.one_of(
            st.builds(Absent, KEYS),
            st.builds(Absent, KEYS, KEYS),
            st.builds(Unchanged, KEYS, st.integers(0, 6)),
        ),
        max_size=2,
    ).map(tuple),
    put=st.dictionaries(KEYS, st.text(max_size=3), max_size=3),
    delete=st.lists(KEYS, max_size=2).map(tuple),
    delete_ranges=st.lists(BOUNDS, max_size=1).map(tuple),
    durable=st.booleans(),
)


def machine(kind: Kind, new_folder: Callable[[], Path]) -> type[RuleBasedStateMachine]:
    """Random use of two handles, beside a dictionary that says what must come of it."""

    class StoreMachine(RuleBasedStateMachine):
        @initialize()
        def start(self) -> None:
            self.stack = ExitStack()
            open_handle = Opener(kind, new_folder(), self.stack)
            self.handles = [open_handle(), open_handle()]
            self.model: dict[str, Record] = {}
            self.began = self.revision = self.handles[0].revision()
            self.log: list[Event] = []

        def of_here(self, commit: Commit) -> Commit:
            """The commit with revisions that this store may have given."""
            conditions = (
                Unchanged(condition.key, self.began + condition.revision)
                if isinstance(condition, Unchanged) and condition.revision
                else condition
                for condition in commit.conditions
            )
            return replace(commit, conditions=tuple(conditions))

        def holds(self, condition: Condition) -> bool:
            if isinstance(condition, Unchanged):
                record = self.model.get(condition.key)
                return condition.revision == (record.revision if record else 0)
            if condition.end:
                return not any(condition.first <= key < condition.end for key in self.model)
            return condition.first not in self.model

        @rule(commit=COMMITS, which=st.integers(0, 1))
        def commit(self, commit: Commit, which: int) -> None:
            commit = self.of_here(commit)
            failed = [c for c in commit.conditions if not self.holds(c)]
            if failed:
                with pytest.raises(StoreConflict) as conflict:
                    self.handles[which].commit(commit)
                first = failed[0]
                assert conflict.value.key == (
                    first.key if isinstance(first, Unchanged) else first.first
                )
                return
            gone = {
                key
                for key in self.model
                if key not in commit.put
                and (key in commit.delete or any(a <= key < b for a, b in commit.delete_ranges))
            }
            revision = self.handles[which].commit(commit)
            if gone or commit.put:
                assert revision > self.revision
                self.revision = revision
            for key in sorted({*gone, *commit.put}):
                self.log.append(Event(key, commit.put.get(key), self.revision))
                self.model.pop(key, None)
                if key in commit.put:
                    self.model[key] = Record(key, commit.put[key], self.revision)

        @rule(bounds=BOUNDS, limit=st.integers(0, 3), reverse=st.booleans(), key=KEYS)
        def read(self, bounds: tuple[str, str], limit: int, reverse: bool, key: str) -> None:
            store = self.handles[0]
            first, end = bounds
            keys = sorted((k for k in self.model if first <= k < end), reverse=reverse)
            wanted = [self.model[k] for k in (keys[:limit] if limit else keys)]
            assert store.range(first, end, limit=limit, reverse=reverse) == wanted
            assert store.count(first, end) == len(keys)
            assert store.get(key) == self.model.get(key)

        @rule(back=st.integers(0, 10))
        def look_back(self, back: int) -> None:
            since = max(self.began, self.revision - back)
            wanted = [event for event in self.log if event.revision > since]
            assert self.handles[1].changes(since) == wanted

        @invariant()
        def all_is_there(self) -> None:
            for store in self.handles:
                assert store.revision() >= self.revision
                assert store.range(*ALL) == [self.model[key] for key in sorted(self.model)]

        def teardown(self) -> None:
            self.stack.close()

    return StoreMachine


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_store_does_what_a_dictionary_would(
    kind: Kind, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever is done in whatever order, every handle tells the same, the model's truth."""
    run_state_machine_as_test(
        machine(kind, lambda: tmp_path_factory.mktemp("store")),
        settings=settings(
            max_examples=kind.examples,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
