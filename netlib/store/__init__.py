"""The Store protocol: an ordered key-value space with conditional commits.

Small enough that an embedded file, etcd and a dictionary all keep it in the same way: what
must be unique is a key that must be absent, so uniqueness is the store's constraint and
never a check before an insert. `netlib.keys` says which keys there are and what they mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from netlib.values import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """A key with its value, and the revision of the commit that wrote it."""

    key: str
    value: str
    revision: int


@dataclass(frozen=True, slots=True)
class Absent:
    """Condition: no key k exists with `first` <= k < `end`; without `end`, `first` itself."""

    first: str
    end: str = ""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Condition: the key's last write was at `revision`; 0: it does not exist."""

    key: str
    revision: int


Condition = Absent | Unchanged


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Writes and removals that happen together, if every condition holds.

    `delete` removes keys, `delete_ranges` all keys k with first <= k < end; a key that is
    put as well stays, with the value put. `durable`: on disk before commit() returns; False
    where losing it in a power failure can be repaired.
    """

    conditions: tuple[Condition, ...] = ()
    put: Mapping[str, str]
    delete: tuple[str, ...] = ()
    delete_ranges: tuple[tuple[str, str], ...] = ()
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Event:
    """A key was written, or removed (`value` None), at a revision."""

    key: str
    value: str | None
    revision: int


class Store(Protocol):
    """Safe to use from many threads and many processes at once.

    Every implementation passes tests/contract/test_store.py. Failures are StoreErrors, or
    NotPermitted; so is every use after close(). Revisions grow, but not always by one: a
    server counts what it does for others, too. Keys do not start with `~`.
    """

    def get(self, key: str) -> Record | None:
        """The record of a key."""

    def range(self, first: str, end: str, *, limit: int = 0, reverse: bool = False) -> list[Record]:
        """Records with first <= key < end in key order (bytewise), at most `limit` if not 0."""

    def count(self, first: str, end: str) -> int:
        """How many records there are with first <= key < end."""

    def reading(self) -> AbstractContextManager[None]:
        """What the calling thread reads in here may all be of one moment, the first read's.

        For many reads in a row, which then cost less. Others' commits are not held up.
        """

    def together(self) -> AbstractContextManager[None]:
        """What the calling thread commits in here may be seen by others only at the end.

        The thread itself sees it at once; all of it is on disk at the end. For several commits in
        a row, which then cost less. Others' commits may be held up. Where the block ends by an
        error, what was committed in it may be there, or not.
        """

    def commit(self, commit: Commit) -> int:
        """The revision of this commit. Raises StoreConflict naming the failed condition's key.

        All conditions are judged before anything is written; the first that fails is named,
        an Absent by its `first`. A commit that puts nothing and finds nothing to delete
        leaves the revision as it is.
        """

    def revision(self) -> int:
        """That of the last commit that wrote or removed something here, or a later one.

        Whoever reads it first, then everything, misses nothing in `changes` since then.
        """

    def changes(self, since: int, timeout_seconds: float = 0.0) -> Iterable[Event] | None:
        """Events after revision `since`, in order; waits for the first up to the time-out.

        One for each key of a commit, in key order. None when that far back is forgotten, or
        `since` never was (the state was put back from a copy): read everything again.
        """

    def close(self) -> None:
        """Give back files and sockets."""


class Leases(Protocol):
    """Life spans that keys can be given: when one ends, all keys that have it are removed.

    They are removed in one commit of nobody's: at one revision, an event for each.
    """

    def grant(self, ttl_seconds: float) -> int:
        """A new lease's id, for commits through `leased`; it ends if it is not kept alive.

        The store may round the time up, to some seconds.
        """

    def keep_alive(self, lease: int) -> float:
        """Start the lease's time anew; how many seconds it is. Raises LeaseLost if it ended."""

    def revoke(self, lease: int) -> None:
        """End the lease now; nothing happens if it ended before."""


class LeasedStore(Store, Leases, Protocol):
    """A Store with leases: what hosts share, so that what is a dead host's goes by itself."""

    def leased(self, lease: int) -> Store:
        """The same data; a key put through it goes with the lease, until it is put again.

        Who puts a key last decides: through another lease it changes over to that one,
        through the store itself it stays for good. A commit that puts something raises
        LeaseLost if the lease ended, and StoreConflict before that. Close the store, not this.
        """


def exactly(first: str, end: str, there: Iterable[tuple[str, int]]) -> Iterator[Condition]:
    """The conditions that there are these keys in a range and no others, each of its revision."""
    for key, revision in sorted(there):
        yield Absent(first, key)
        yield Unchanged(key, revision)
        first = key + "\0"  # the next key there can be
    yield Absent(first, end)


def prefix_end(prefix: str) -> str:
    """The end of the range of all keys that start with `prefix` (keys are ASCII)."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def under(prefix: str) -> tuple[str, str]:
    """The range of all keys that start with `prefix`."""
    return prefix, prefix_end(prefix)


__all__ = [
    "Absent",
    "Commit",
    "Condition",
    "Event",
    "LeasedStore",
    "Leases",
    "Record",
    "Store",
    "Unchanged",
    "exactly",
    "prefix_end",
    "under",
]
