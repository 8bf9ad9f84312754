"""The embedded Store: one SQLite file in WAL mode, opened by every process that wants it.

Two connections: readers never wait for a writer's disk (wal.html), and a lock around each
makes threads take turns. Both are opened when first needed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

from netlib.errors import StoreConflict, StoreError
from netlib.store import Absent, Commit, Condition, Event, Record
from netlib.store.sqlite_file import NAME, STEPS, check_version, connect, explained, locked

_RECORDS = "SELECT key, value, revision FROM entries WHERE key"


class SqliteStore:
    """The state in `directory`, for many processes and threads.

    `busy_seconds`: how long a commit waits for others. `keep_events`: how many `changes`
    remembers, about. `poll_seconds`: how often it looks for what other processes did; what
    this object did, it learns at once.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        busy_seconds: float = 10.0,
        keep_events: int = 10_000,
        poll_seconds: float = 0.02,
        steps: Sequence[Sequence[str]] = STEPS,
    ) -> None:
        self.directory = os.path.abspath(directory)
        self.path = os.path.join(self.directory, NAME)
        self.busy_seconds = busy_seconds
        self.steps = steps
        self.closed = False
        self.turns = self._reader, self._writer = _Turn(self), _Turn(self)
        self.changed = threading.Condition()
        self._keep_events = keep_events
        self._poll_seconds = poll_seconds
        self._commits = 0  # of this object, for who waits for changes
        _fork.stores.add(self)

    def get(self, key: str) -> Record | None:
        """The record of a key."""
        row = self._ask(f"{_RECORDS} = ?", (key,))
        return Record(*row[0]) if row else None

    def range(self, first: str, end: str, *, limit: int = 0, reverse: bool = False) -> list[Record]:
        """Records with first <= key < end in key order, at most `limit` if not 0."""
        order = "DESC" if reverse else "ASC"
        rows = self._ask(
            f"{_RECORDS} >= ? AND key < ? ORDER BY key {order} LIMIT ?", (first, end, limit or -1)
        )
        return [Record(*row) for row in rows]

    def count(self, first: str, end: str) -> int:
        """How many records there are with first <= key < end."""
        sql = "SELECT count(*) FROM entries WHERE key >= ? AND key < ?"
        return int(self._ask(sql, (first, end))[0][0])

    def revision(self) -> int:
        """That of the last commit."""
        return int(self._ask("SELECT revision FROM clock")[0][0])

    def commit(self, commit: Commit) -> int:
        """The revision of this commit. Raises StoreConflict naming the failed condition's key."""
        with self._writer.take() as connection:
            self._writer.sync(connection, commit.durable)
            connection.execute("BEGIN IMMEDIATE")
            check_version(connection, self.path, len(self.steps))
            revision = _write(connection, commit, self._keep_events)
            connection.execute("COMMIT")
        with self.changed:
            self._commits += 1
            self.changed.notify_all()
        return revision

    def changes(self, since: int, timeout_seconds: float = 0.0) -> list[Event] | None:
        """Events after revision `since`, in order; waits for the first up to the time-out."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            seen = self._commits
            events = self._events(since)
            remaining = deadline - time.monotonic()
            if events is None or events or remaining <= 0:
                return events
            with self.changed:
                if self._commits == seen and not self.closed:
                    self.changed.wait(min(remaining, self._poll_seconds))

    def close(self) -> None:
        """Close both connections, and wake who waits for changes."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
        for turn in self.turns:
            with turn.lock, explained(self.path):
                turn.drop()
        _fork.stores.discard(self)

    def _ask(self, sql: str, parameters: tuple[str | int, ...] = ()) -> list[Any]:
        with self._reader.take() as connection:
            return connection.execute(sql, parameters).fetchall()

    def _events(self, since: int) -> list[Event] | None:
        with self._reader.take() as connection:
            connection.execute("BEGIN")  # one snapshot: what is read next may not be forgotten
            revision, forgotten = connection.execute(
                "SELECT revision, forgotten FROM clock"
            ).fetchone()
            if not forgotten <= since <= revision:
                return None
            if revision == since:
                return []
            rows = connection.execute(
                "SELECT key, value, revision FROM events WHERE revision > ? ORDER BY revision, key",
                (since,),
            )
            return [Event(*row) for row in rows]


# -- commits ------------------------------------------------------------------------------------


def _write(connection: sqlite3.Connection, commit: Commit, keep_events: int) -> int:
    """Judge and write, in a transaction that was begun; the revision."""
    ask = connection.execute
    for condition in commit.conditions:
        if not _holds(connection, condition):
            raise StoreConflict(condition.first if isinstance(condition, Absent) else condition.key)
    doomed: set[str] = set()
    for key in commit.delete:
        doomed.update(k for (k,) in ask("SELECT key FROM entries WHERE key = ?", (key,)))
    for bounds in commit.delete_ranges:
        doomed.update(
            k for (k,) in ask("SELECT key FROM entries WHERE key >= ? AND key < ?", bounds)
        )
    doomed.difference_update(commit.put)
    (revision,) = ask("SELECT revision FROM clock").fetchone()
    if not commit.put and not doomed:
        return int(revision)

    revision += 1
    ask("UPDATE clock SET revision = ?", (revision,))
    connection.executemany("DELETE FROM entries WHERE key = ?", ((key,) for key in doomed))
    connection.executemany(
        "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
        ((key, value, revision) for key, value in commit.put.items()),
    )
    events: dict[str, str | None] = {**dict.fromkeys(doomed), **commit.put}
    connection.executemany(
        "INSERT INTO events VALUES (?, ?, ?)",
        ((revision, key, value) for key, value in events.items()),
    )
    # Not at each commit, for it counts through all that is kept.
    every = keep_events // 16 + 1
    if revision % every == 0 or len(events) > every:
        _forget(connection, keep_events)
    return int(revision)


def _holds(connection: sqlite3.Connection, condition: Condition) -> bool:
    ask = connection.execute
    if isinstance(condition, Absent):
        if not condition.end:
            found = ask("SELECT 1 FROM entries WHERE key = ?", (condition.first,))
        else:
            found = ask(
                "SELECT 1 FROM entries WHERE key >= ? AND key < ? LIMIT 1",
                (condition.first, condition.end),
            )
        return found.fetchone() is None
    row = ask("SELECT revision FROM entries WHERE key = ?", (condition.key,)).fetchone()
    return condition.revision == (row[0] if row else 0)


def _forget(connection: sqlite3.Connection, keep_events: int) -> None:
    """Drop all but the newest events, whole revisions of them."""
    row = connection.execute(
        "SELECT revision FROM events ORDER BY revision DESC, key DESC LIMIT 1 OFFSET ?",
        (keep_events,),
    ).fetchone()
    if row:
        connection.execute("DELETE FROM events WHERE revision <= ?", row)
        connection.execute("UPDATE clock SET forgotten = ?", row)


# -- connections --------------------------------------------------------------------------------


class _Turn:
    """One connection to a store's file, opened when needed, for one thread at a time."""

    def __init__(self, store: SqliteStore) -> None:
        self.lock = threading.Lock()
        self._store = store
        self._connection: sqlite3.Connection | None = None
        self._durable: bool | None = None
        self._file = (0, 0)
        self._pid = 0

    @contextmanager
    def take(self) -> Iterator[sqlite3.Connection]:
        """The connection; a transaction that is still open at the end is rolled back."""
        store = self._store
        if not self.lock.acquire(timeout=store.busy_seconds):
            raise locked(store.path, store.busy_seconds)
        try:
            with explained(store.path, store.busy_seconds):
                connection = self._ready()
                try:
                    yield connection
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
        finally:
            self.lock.release()

    def sync(self, connection: sqlite3.Connection, durable: bool) -> None:
        """Whether the next commit waits for the disk (pragma.html#pragma_synchronous).

        NORMAL still keeps the order: after a power failure the newest commits may be
        missing, never older ones.
        """
        if durable != self._durable:
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def drop(self) -> None:
        """Close the connection; the next take() opens another."""
        connection, self._connection, self._durable = self._connection, None, None
        if connection is not None:
            connection.close()

    def _ready(self) -> sqlite3.Connection:
        store = self._store
        if store.closed:
            raise StoreError(f"{store.path} was closed already")
        if self._connection is not None:
            # SQLite can not cross a fork (howtocorrupt.html section 2.6). The hooks below see
            # to it, but for a process that was forked by other means than os.fork().
            if self._pid != os.getpid():
                raise StoreError(
                    f"{store.path} was opened before this process was forked",
                    "fork with os.fork(), or open the state in the child alone",
                )
            # A directory that was moved away or removed must not go on being written.
            if self._file == _identity(store.path):
                return self._connection
            self.drop()
        self._connection = connect(store.directory, store.busy_seconds, store.steps)
        self._file, self._pid = _identity(store.path), os.getpid()
        return self._connection


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


class _Fork:
    """No connection is open while the process forks; both sides open theirs anew."""

    def __init__(self) -> None:
        self.stores: WeakSet[SqliteStore] = WeakSet()
        self._lock = threading.Lock()
        self._held: list[_Turn] = []

    def before(self) -> None:
        self._lock.acquire()
        for store in self.stores:
            for turn in store.turns:
                if turn.lock.acquire(timeout=store.busy_seconds):
                    self._held.append(turn)
                    turn.drop()

    def after(self) -> None:
        for turn in self._held:
            turn.lock.release()
        self._held.clear()
        self._lock.release()

    def after_in_child(self) -> None:
        held = set(self._held)
        self.after()
        for store in self.stores:
            store.changed = threading.Condition()  # its holder may be a thread of the parent's
            for turn in store.turns:
                if turn not in held:
                    turn.lock = threading.Lock()  # likewise; take() will refuse


_fork = _Fork()
os.register_at_fork(
    before=_fork.before, after_in_parent=_fork.after, after_in_child=_fork.after_in_child
)
