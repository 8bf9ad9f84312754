"""The embedded Store: one SQLite file in WAL mode, opened by every process that wants it.

Two connections, for readers never wait for a writer's disk (wal.html). What one of them writes, the
other one has to read from the file again; so who reads much does it by the one that mostly writes.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from netlib.errors import StoreConflict
from netlib.store import Absent, Commit, Condition, Event, Record, Unchanged
from netlib.store.sqlite_connection import SharedConnection, forks
from netlib.store.sqlite_file import STEPS, check_version, explained

_LONGEST_PAUSE = 0.1  # seconds
_TOGETHER = 500  # SQLite takes 999 parameters, or more (limits.html)
_RECORDS = "SELECT key, value, revision FROM entries WHERE key"


class SqliteStore:
    """The state in the file at `path`, for many processes and threads.

    Neither the file nor its directory need be there. `busy_seconds`: how long a commit waits
    for others. `keep_events`: how many `changes` remembers, about. `poll_seconds`: how soon who
    waits looks for what other processes did, and less often the longer there is nothing; what this
    object did, he learns at once. `untold` are folders of keys that `changes` says nothing of: to
    note what is told costs more than to write it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_seconds: float = 10.0,
        keep_events: int = 10_000,
        poll_seconds: float = 0.02,
        untold: Sequence[str] = (),
        steps: Sequence[Sequence[str]] = STEPS,
    ) -> None:
        self._path = os.path.abspath(path)
        self._version = len(steps)
        self._keep_events = keep_events
        self._poll_seconds = poll_seconds
        self._untold = tuple(untold)
        self._reader = SharedConnection(self._path, busy_seconds, steps)
        self._writer = SharedConnection(self._path, busy_seconds, steps)
        self._is_reading = False
        self._own = threading.local()  # the connection of a thread that is in `reading`
        self._news = threading.Condition()
        self._commits = 0  # of this object, for who waits for changes
        forks.tell(self)

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

    @contextmanager
    def reading(self) -> Iterator[None]:
        """What the calling thread reads in here is of one moment, unless another one is in here.

        In one transaction, so that the file is looked at and locked once and not for each read.
        """
        turn = None if self._own_connection() else self._writer.take_if_free()
        if turn is None:
            yield
            return
        with turn as connection:
            connection.execute("BEGIN")
            self._is_reading = True
            self._own.connection = connection
            try:
                yield
            finally:
                self._own.connection = None
                self._is_reading = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """What the calling thread commits in here is one transaction; none, if an error ends it."""
        with self._free().take(durable=True) as connection:
            check_version(connection, self._path, self._version)
            self._own.connection, self._own.is_writing = connection, True
            try:
                yield
                connection.execute("COMMIT")
            finally:
                self._own.connection, self._own.is_writing = None, False
        self._tell()

    def commit(self, commit: Commit) -> int:
        """The revision of this commit. Raises StoreConflict naming the failed condition's key."""
        if getattr(self._own, "is_writing", False):
            return self._write_taken(commit)
        with self._free().take(durable=commit.durable) as connection:
            check_version(connection, self._path, self._version)
            revision = _write(connection, commit, self._keep_events, self._untold)
            connection.execute("COMMIT")
        self._tell()
        return revision

    def changes(self, since: int, timeout_seconds: float = 0.0) -> list[Event] | None:
        """Events after revision `since`, in order; waits for the first up to the time-out."""
        deadline = time.monotonic() + timeout_seconds
        pause = self._poll_seconds
        while True:
            seen = self._commits
            events = self._events(since)
            remaining = deadline - time.monotonic()
            if events is None or events or remaining <= 0:
                return events
            with self._news:
                if self._commits == seen:
                    self._news.wait(min(remaining, pause))
            pause = min(1.5 * pause, max(self._poll_seconds, _LONGEST_PAUSE))

    def close(self) -> None:
        """Close both connections, and wake who waits for changes."""
        self._reader.close()
        self._writer.close()
        self._tell()

    def before_fork(self) -> bool:
        """Close what can not cross a fork."""
        reader, writer = self._reader.hold(), self._writer.hold()
        return reader and writer

    def after_fork(self, in_child: bool) -> None:
        """Go on, on both sides."""
        self._reader.let_go(in_child)
        self._writer.let_go(in_child)
        if in_child:
            self._news = threading.Condition()  # its holder may be a thread of the parent's

    def _tell(self) -> None:
        with self._news:
            self._commits += 1
            self._news.notify_all()

    def _write_taken(self, commit: Commit) -> int:
        """Likewise, in the transaction of `together`: all of it or nothing."""
        connection = self._own.connection
        with explained(self._path):
            connection.execute("SAVEPOINT one")
            try:
                return _write(connection, commit, self._keep_events, self._untold)
            except BaseException:
                connection.execute("ROLLBACK TO one")
                raise
            finally:
                connection.execute("RELEASE one")

    def _free(self) -> SharedConnection:
        """The connection to write by: who is in `reading` may be at it for long."""
        return self._reader if self._is_reading else self._writer

    def _own_connection(self) -> sqlite3.Connection | None:
        found: sqlite3.Connection | None = getattr(self._own, "connection", None)
        return found

    def _ask(self, sql: str, parameters: tuple[str | int, ...] = ()) -> list[Any]:
        connection = self._own_connection()
        if connection is None:
            return self._reader.ask(sql, parameters)
        return self._writer.ask_taken(connection, sql, parameters)

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


def _write(
    connection: sqlite3.Connection, commit: Commit, keep_events: int, untold: tuple[str, ...]
) -> int:
    """Judge and write, in a transaction that was begun; the revision."""
    ask = connection.execute
    failed = _failed(connection, commit.conditions)
    if failed is not None:
        raise StoreConflict(failed.first if isinstance(failed, Absent) else failed.key)
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
    if doomed:
        connection.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in doomed])
    connection.executemany(
        "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
        [(key, value, revision) for key, value in commit.put.items()],
    )
    events: dict[str, str | None] = {**dict.fromkeys(doomed), **commit.put}
    connection.executemany(
        "INSERT INTO events VALUES (?, ?, ?)",
        [(revision, key, value) for key, value in events.items() if not key.startswith(untold)],
    )
    # Not at each commit, for it counts through all that is kept.
    every = keep_events // 16 + 1
    if revision % every == 0 or len(events) > every:
        _forget(connection, keep_events)
    return int(revision)


def _failed(connection: sqlite3.Connection, conditions: Sequence[Condition]) -> Condition | None:
    """The first condition that does not hold."""
    keys = [c.key if isinstance(c, Unchanged) else c.first for c in conditions if not _is_range(c)]
    there: dict[str, int] = {}
    for start in range(0, len(keys), _TOGETHER):  # in few questions: each costs a change of thread
        some = keys[start : start + _TOGETHER]
        marks = ", ".join("?" * len(some))
        sql = f"SELECT key, revision FROM entries WHERE key IN ({marks})"  # noqa: S608 - marks only
        there.update(connection.execute(sql, some))
    for condition in conditions:
        if isinstance(condition, Unchanged):
            holds = there.get(condition.key, 0) == condition.revision
        elif condition.end:
            holds = _is_empty(connection, condition)
        else:
            holds = condition.first not in there
        if not holds:
            return condition
    return None


def _is_range(condition: Condition) -> bool:
    return isinstance(condition, Absent) and bool(condition.end)


def _is_empty(connection: sqlite3.Connection, condition: Absent) -> bool:
    sql = "SELECT 1 FROM entries WHERE key >= ? AND key < ? LIMIT 1"
    return connection.execute(sql, (condition.first, condition.end)).fetchone() is None


def _forget(connection: sqlite3.Connection, keep_events: int) -> None:
    """Drop all but the newest events, whole revisions of them."""
    row = connection.execute(
        "SELECT revision FROM events ORDER BY revision DESC, key DESC LIMIT 1 OFFSET ?",
        (keep_events,),
    ).fetchone()
    if row:
        connection.execute("DELETE FROM events WHERE revision <= ?", row)
        connection.execute("UPDATE clock SET forgotten = ?", row)
