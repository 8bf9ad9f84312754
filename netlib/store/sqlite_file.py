"""SqliteStore's file: made whole or not at all, brought up to date, its errors explained."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain

from netlib.errors import NetError, NotPermitted, StoreError

# "netl": tells our file from another program's (file(1) shows it, and PRAGMA application_id).
APPLICATION_ID = 0x6E65746C

# STEPS[n] makes version n + 1 of version n. What was released is never edited, only added to.
STEPS: tuple[tuple[str, ...], ...] = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        "CREATE TABLE entries (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL,"
        " revision INTEGER NOT NULL) WITHOUT ROWID",
        # What `changes` tells; a removal's value is NULL.
        "CREATE TABLE events (revision INTEGER NOT NULL, key TEXT NOT NULL, value TEXT,"
        " PRIMARY KEY (revision, key)) WITHOUT ROWID",
        # One row: the last commit's revision, and up to which revision events are forgotten.
        "CREATE TABLE clock (revision INTEGER NOT NULL, forgotten INTEGER NOT NULL)",
        "INSERT INTO clock VALUES (0, 0)",
    ),
)


def connect(path: str, busy_seconds: float, steps: Sequence[Sequence[str]]) -> sqlite3.Connection:
    """A connection to the state at `path`, which is made when it is not there.

    Transactions are the caller's: sqlite3 begins none by itself.
    """
    with explained(path, busy_seconds):
        # The log is looked for first: it is there only while, or after, the file was.
        orphan = os.path.exists(f"{path}-wal")
        if not os.path.exists(path):
            if orphan:
                raise StoreError(
                    f"{path} is gone, but its log {path}-wal is still there",
                    f"put it back, or move the whole of {os.path.dirname(path)} away",
                )
            _create(path, steps)
        connection = _connect(path, busy_seconds)
        try:
            _upgrade(connection, path, steps)
        except BaseException:
            connection.close()
            raise
        return connection


def check_version(connection: sqlite3.Connection, path: str, version: int) -> None:
    """StoreError unless the file is of this version: another process may have upgraded it."""
    found = _pragma(connection, "user_version")
    if found != version:
        raise _other_version(path, found, version)


def _create(path: str, steps: Sequence[Sequence[str]]) -> None:
    """Make the file aside and link it in: nobody ever sees half of it, the first one wins.

    Never by opening `path` itself: closing any descriptor of a file drops all the locks that
    this process has on it (fcntl(2), "Advisory record locking"), SQLite's too.
    """
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        _sync(os.path.dirname(directory))
    draft = f"{path}.{os.urandom(8).hex()}"
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        error.filename = path  # of the draft's name nobody has heard
        raise
    try:
        with closing(_connect(draft, 0)) as connection:
            # All of it in the file before there is a log: what does not fit when a log is written
            # back, as it is at the end, is told to nobody (pragma.html, "wal_checkpoint").
            _advance(connection, steps)
            connection.execute("PRAGMA journal_mode = WAL")  # kept in the file
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                os.unlink(draft + suffix)
    _sync(directory)


def _connect(path: str, busy_seconds: float) -> sqlite3.Connection:
    name = path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    # mode=rw: a file that vanished meanwhile is an error, never a new empty state.
    return sqlite3.connect(
        f"file:{name}?mode=rw",
        uri=True,
        timeout=busy_seconds,
        isolation_level=None,
        check_same_thread=False,
    )


def _upgrade(connection: sqlite3.Connection, path: str, steps: Sequence[Sequence[str]]) -> None:
    if _pragma(connection, "application_id") != APPLICATION_ID:
        raise StoreError(
            f"{path} holds no state of netlib",
            f"move it away, or choose another directory than {os.path.dirname(path)}",
        )
    found = _pragma(connection, "user_version")
    if found > len(steps):
        raise _other_version(path, found, len(steps))
    if found < len(steps):
        _advance(connection, steps)


def _advance(connection: sqlite3.Connection, steps: Sequence[Sequence[str]]) -> None:
    """All steps that the file has not seen, or none of them."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _pragma(connection, "user_version")  # under the lock: others may upgrade it too
        for statement in chain.from_iterable(steps[found:]):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {max(found, len(steps))}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return int(value)


def _sync(directory: str) -> None:
    """New names in a directory outlive a power failure only when it is synced too (fsync(2))."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# -- errors -------------------------------------------------------------------------------------


def _other_version(path: str, found: int, known: int) -> StoreError:
    return StoreError(
        f"{path} is of version {found}, and this netlib knows version {known}",
        "use the newest netlib that is installed here, and restart what runs an older one",
    )


@contextmanager
def explained(path: str, busy_seconds: float = 0) -> Iterator[None]:
    """What SQLite or the system says against `path` becomes a StoreError or NotPermitted."""
    try:
        yield
    except sqlite3.Error as error:
        raise _explain(error, path, busy_seconds) from error
    except OSError as error:
        raise _explain_number(error.errno or 0, error.filename or path, str(error)) from error


def _explain(error: sqlite3.Error, path: str, busy_seconds: float) -> NetError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the extension (rescode.html)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        return locked(path, busy_seconds)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StoreError(
            f"{path} is damaged ({error})",
            "stop what uses it, keep a copy of its directory, then try"
            f" `sqlite3 {path} .recover`; or move the directory away and create the networks anew",
        )
    number, file = _reason(code, path)
    return _explain_number(number, file, f"{path}: {error}")


def _reason(code: int, path: str) -> tuple[int, str]:
    """Why SQLite could not read or write, as it says no more than that, and which file."""
    if code == sqlite3.SQLITE_FULL:
        return errno.ENOSPC, path
    folder = os.path.dirname(path)
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        return error.errno or 0, folder
    if code == sqlite3.SQLITE_IOERR and disk.f_bavail * disk.f_frsize < _LEAST_BYTES:
        return errno.ENOSPC, path
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        if disk.f_flag & os.ST_RDONLY:
            return errno.EROFS, path
        for file in (folder, path, f"{path}-wal", f"{path}-shm"):
            if os.path.exists(file) and not os.access(file, os.R_OK | os.W_OK):
                return errno.EACCES, file
    return 0, path


# The index of the log grows by 32 kB (wal.html, "WAL-Index File"), and what did not fit of a new
# file is gone when this is asked.
_LEAST_BYTES = 128 * 1024


def check_room(path: str) -> None:
    """Raise StoreError if nothing can be written to the file at `path`, as far as that is known."""
    folder = os.path.dirname(path)
    with suppress(FileNotFoundError):  # it is made when it is needed
        disk = os.statvfs(folder)
        free = (disk.f_bavail if os.geteuid() else disk.f_bfree) * disk.f_frsize
        if disk.f_flag & os.ST_RDONLY:
            raise _explain_number(errno.EROFS, path, "")
        if free < _LEAST_BYTES:
            raise _explain_number(errno.ENOSPC, path, "")


def _explain_number(number: int, path: str, text: str) -> NetError:
    if number in (errno.EACCES, errno.EPERM):
        return NotPermitted(
            f"{path} can not be read and written by user {os.geteuid()}",
            "run as root or its owner, or choose a directory of your own: --state-dir DIR",
        )
    if number == errno.EROFS:
        return StoreError(
            f"{path} is on a file system that is mounted read-only",
            "mount it writable, or choose another directory: --state-dir DIR",
        )
    if number in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"there is no space left for {path}, so nothing was changed",
            f"free some space (df {os.path.dirname(path)}) and try again",
        )
    if number in (errno.ENOTDIR, errno.EEXIST):
        return StoreError(f"{path} is no directory", "choose another one: --state-dir DIR")
    return StoreError(
        f"the state could not be read or written: {text}",
        f"look at {os.path.dirname(path)} and the kernel's log (dmesg)",
    )


def locked(path: str, busy_seconds: float) -> StoreError:
    """Others held the write lock for all the time that we were ready to wait."""
    return StoreError(
        f"{path} was locked by another process for {busy_seconds:g} s",
        f"try again; who has it open, says: fuser -v {path}",
    )
