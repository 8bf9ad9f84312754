"""Connections to SqliteStore's file that threads take turns with, and that no fork crosses."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol
from weakref import WeakSet

from netlib.errors import StoreError
from netlib.store.sqlite_file import STEPS, connect, explained, locked

_FIRST_PAUSE, _LAST_PAUSE = 0.0002, 0.005  # seconds


class SharedConnection:
    """One connection to the file at `path`, opened when needed, for one thread at a time."""

    def __init__(
        self, path: str, busy_seconds: float, steps: Sequence[Sequence[str]] = STEPS
    ) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._steps = steps
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file = (0, 0)
        self._is_durable: bool | None = None
        self._is_held = False
        self._is_closed = False

    def take(self, *, durable: bool | None = None) -> Turn:
        """The connection; a transaction that is still open at the end is rolled back.

        With `durable` one that writes is begun; it says whether its commit waits for the disk.
        """
        if not self._lock.acquire(timeout=self._busy_seconds):
            raise locked(self._path, self._busy_seconds)
        return Turn(self, durable)

    def take_if_free(self) -> Turn | None:
        """Likewise, to read; None where it is not free just now."""
        return Turn(self, None) if self._lock.acquire(blocking=False) else None

    def begin(self, durable: bool | None) -> sqlite3.Connection:
        """The connection, for who has the lock."""
        try:
            connection = self._ready()
            if durable is not None:
                self._begin(connection, durable)
        except BaseException as error:
            self.end(error)
            raise
        return connection

    def end(self, error: BaseException | None = None) -> None:
        """Let the next one have it. Raises what SQLite's or the system's `error` means."""
        connection = self._connection
        is_open = connection is not None and connection.in_transaction
        try:
            if connection is not None and is_open:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error | OSError):
                raise error
        except (sqlite3.Error, OSError):
            with explained(self._path, self._busy_seconds):
                raise
        finally:
            self._lock.release()

    def ask(self, sql: str, parameters: tuple[str | int, ...]) -> list[Any]:
        """All rows that a statement finds: `take` for one question, of which there are many."""
        if not self._lock.acquire(timeout=self._busy_seconds):
            raise locked(self._path, self._busy_seconds)
        try:
            return self._ready().execute(sql, parameters).fetchall()
        except (sqlite3.Error, OSError):
            with explained(self._path, self._busy_seconds):
                raise
        finally:
            self._lock.release()

    def ask_taken(
        self, connection: sqlite3.Connection, sql: str, parameters: tuple[str | int, ...]
    ) -> list[Any]:
        """All rows that a statement finds, by the connection that the caller has taken."""
        try:
            return connection.execute(sql, parameters).fetchall()
        except (sqlite3.Error, OSError):
            with explained(self._path, self._busy_seconds):
                raise

    def _begin(self, connection: sqlite3.Connection, durable: bool) -> None:
        if durable != self._is_durable:
            # NORMAL still keeps the order: after a power failure the newest commits may be
            # missing, never older ones (pragma.html#pragma_synchronous).
            level = "FULL" if durable else "NORMAL"
            connection.execute(f"PRAGMA synchronous = {level}")
            if self._is_durable is None:
                # In write-ahead mode only a begin can meet another's lock. SQLite's own waiting
                # sleeps up to 100 ms at a time, far longer than a queue of commits takes.
                connection.execute("PRAGMA busy_timeout = 0")
            self._is_durable = durable
        deadline, pause = time.monotonic() + self._busy_seconds, _FIRST_PAUSE
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(pause)
                pause = min(1.5 * pause, _LAST_PAUSE)
            else:
                return

    def close(self) -> None:
        """Close the connection, and give no further turns."""
        self._is_closed = True
        with self._lock, explained(self._path):
            self._drop()

    def _ready(self) -> sqlite3.Connection:
        if self._is_closed:
            raise StoreError(f"{self._path} was closed already")
        forks.check(self._path)
        if self._connection is not None:
            # A directory that was moved away or removed must not go on being written.
            if self._file == _identity(self._path):
                return self._connection
            self._drop()
        self._connection = connect(self._path, self._busy_seconds, self._steps)
        self._file = _identity(self._path)
        return self._connection

    def _drop(self) -> None:
        connection, self._connection, self._is_durable = self._connection, None, None
        if connection is not None:
            connection.close()

    def hold(self) -> bool:
        """Before a fork: nobody is in the middle of anything, and nothing is open."""
        self._is_held = self._lock.acquire(timeout=self._busy_seconds)
        if self._is_held:
            self._drop()
        return self._is_held

    def let_go(self, in_child: bool) -> None:
        """After a fork, on both sides."""
        if self._is_held:
            self._lock.release()
        elif in_child:
            self._lock = threading.Lock()  # its holder is no thread of ours; check() refuses
        self._is_held = False


class Turn:
    """The connection, for the block that is entered with it at once."""

    __slots__ = ("_durable", "_shared")

    def __init__(self, shared: SharedConnection, durable: bool | None) -> None:
        self._shared = shared
        self._durable = durable

    def __enter__(self) -> sqlite3.Connection:
        return self._shared.begin(self._durable)

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._shared.end(error)


def _identity(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return (0, 0)
    return (status.st_dev, status.st_ino)


class Forked(Protocol):
    """What is told of forks."""

    def before_fork(self) -> bool:
        """In the parent. Whether all is ready for it."""

    def after_fork(self, in_child: bool) -> None:
        """On both sides."""


class _Forks:
    """Sees to it that no connection is open while the process forks.

    SQLite's locks belong to a process, and its memory does not learn that it became
    another's (howtocorrupt.html section 2.6). Both sides open theirs anew when needed. Where
    that could not be had (fork(2) by other means than os.fork(), or a thread that would not
    end its turn), the child is refused.
    """

    def __init__(self) -> None:
        self._members: WeakSet[Forked] = WeakSet()
        self._told: list[Forked] = []
        self._is_ready = True
        self._pid = 0  # of the process that opened what is open; 0: nothing is
        self._lock = threading.Lock()
        os.register_at_fork(
            before=self._before,
            after_in_parent=lambda: self._after(False),
            after_in_child=lambda: self._after(True),
        )

    def tell(self, member: Forked) -> None:
        """Tell `member` of all forks from now on, as long as it lives."""
        with self._lock:
            self._members.add(member)

    def check(self, path: str) -> None:
        """StoreError unless connections of this process may be opened and used."""
        pid = os.getpid()
        if self._pid not in (0, pid):
            raise StoreError(
                f"{path} was open while this process was forked",
                "fork with os.fork(), or start the child as a program of its own",
            )
        self._pid = pid

    def _before(self) -> None:
        self._lock.acquire()
        self._told = list(self._members)
        answers = [member.before_fork() for member in self._told]  # each must be asked
        self._is_ready = all(answers)

    def _after(self, in_child: bool) -> None:
        if in_child and self._is_ready:
            self._pid = 0
        for member in self._told:
            member.after_fork(in_child)
        self._told = []
        self._lock.release()


forks = _Forks()
