"""The Store that many hosts share: etcd, of version 3.4 or newer, through its JSON gateway."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from netlib.errors import InvalidRequest, LeaseLost, StoreUnavailable
from netlib.store import Commit, Event, Record
from netlib.store.etcd_changes import Changes
from netlib.store.etcd_commits import make
from netlib.store.etcd_refusals import Refused, explained
from netlib.store.etcd_requests import Keys
from netlib.store.etcd_servers import Credentials, Servers
from netlib.store.etcd_space import GRANT, KEEP_ALIVE, RANGE, REVOKE, Space
from netlib.store.etcd_watch import Compacted

Json = dict[str, Any]

_PAGE = 1000  # records in one answer


class EtcdStore:
    """The state below `prefix` in the etcd at `endpoints`, for many hosts; with leases.

    `endpoints` are URLs of its members, in any order; one that answers is used until it does
    not. Every call ends within about `timeout_seconds`, twice that for a commit that has to be
    looked for, and `changes` that long after its own time or the loss of the servers.
    `untold` are folders of keys that `changes` says nothing of: telling everybody is what costs
    an etcd most. All handles of a state must name the same ones. `quiet_seconds`: how long a
    watch may be silent before its server is asked whether there is news.

    A commit is done once or not at all: when its answer is lost, it is first voided, in case it
    is still under way, and looked for. Only if that fails as well, there is CommitUnknown.
    """

    def __init__(
        self,
        endpoints: Iterable[str],
        *,
        prefix: str = "/netlib/",
        untold: Iterable[str] = (),
        credentials: Credentials | None = None,
        timeout_seconds: float = 1.5,
        quiet_seconds: float = 2.0,
    ) -> None:
        if not prefix:
            raise InvalidRequest("the keys of an etcd need a prefix", "take for example /netlib/")
        self._keys = Keys(prefix, untold)
        self._servers = Servers(endpoints, credentials or Credentials(), timeout_seconds)
        self._space = Space(self._servers, self._keys)
        self._changes = Changes(self._space, quiet_seconds)

    # -- reading --------------------------------------------------------------------------------

    def get(self, key: str) -> Record | None:
        """The record of a key."""
        found = self._space.ask(RANGE, self._keys.one(key)).get("kvs")
        return self._keys.record(found[0]) if found else None

    def range(self, first: str, end: str, *, limit: int = 0, reverse: bool = False) -> list[Record]:
        """Records with first <= key < end in key order, at most `limit` if not 0."""
        while True:
            try:
                return self._pages(first, end, limit, reverse)
            except Compacted:
                continue  # between two pages: from the start, at a newer revision

    def count(self, first: str, end: str) -> int:
        """How many records there are with first <= key < end."""
        self._servers.check_open()
        keys = self._keys.range(first, end)
        if keys is None:
            return 0
        return int(self._space.ask(RANGE, {**keys, "count_only": True}).get("count", 0))

    def revision(self) -> int:
        """That of the last commit, or a later one of the server."""
        last = self._space.last_commit()
        self._changes.began(last)
        return last.now

    # -- commits --------------------------------------------------------------------------------

    def reading(self) -> AbstractContextManager[None]:
        """Nothing: each read is of its own moment."""
        return nullcontext()

    def together(self) -> AbstractContextManager[None]:
        """Nothing: each commit is made at once."""
        return nullcontext()

    def commit(self, commit: Commit) -> int:
        """The revision of this commit. Raises StoreConflict naming the failed condition's key."""
        return self.commit_leased(commit, 0)

    def commit_leased(self, commit: Commit, lease: int) -> int:
        """The same, and what is put goes with the lease (0: with none)."""
        return make(self._space, commit, lease)

    def changes(self, since: int, timeout_seconds: float = 0.0) -> list[Event] | None:
        """Events after revision `since`, in order; waits for the first up to the time-out."""
        return self._changes.after(since, timeout_seconds)

    # -- leases ---------------------------------------------------------------------------------

    def grant(self, ttl_seconds: float) -> int:
        """A new lease's id; etcd counts whole seconds, and at least some."""
        return int(self._space.ask(GRANT, {"TTL": str(max(1, math.ceil(ttl_seconds)))})["ID"])

    def keep_alive(self, lease: int) -> float:
        """Start the lease's time anew; how many seconds it is. Raises LeaseLost if it ended."""
        answer = self._space.ask(KEEP_ALIVE, {"ID": str(lease)})
        if "error" in answer:
            raise StoreUnavailable(
                f"{self._servers.name} can not keep leases alive now: {answer['error']}",
                "try again",
            )
        seconds = int(answer["result"].get("TTL", 0))
        if seconds <= 0:
            raise LeaseLost(lease)
        return float(seconds)

    def revoke(self, lease: int) -> None:
        """End the lease now; nothing happens if it ended before."""
        try:
            self._servers.ask(REVOKE, {"ID": str(lease)})
        except Refused as refused:
            if not refused.is_lost_lease:
                raise explained(self._servers.name, refused) from refused

    def leased(self, lease: int) -> LeasedView:
        """The same data; what is put through it goes with the lease."""
        return LeasedView(self, lease)

    def close(self) -> None:
        """Hang up, and wake who waits for changes."""
        self._servers.close()
        self._changes.close()

    def _pages(self, first: str, end: str, limit: int, reverse: bool) -> list[Record]:
        self._servers.check_open()
        found: list[Record] = []
        pinned: Json = {"sort_order": "DESCEND", "sort_target": "KEY"} if reverse else {}
        while keys := self._keys.range(first, end):
            size = min(_PAGE, limit - len(found)) if limit else _PAGE
            try:
                answer = self._servers.ask(RANGE, {**keys, **pinned, "limit": str(size)})
            except Refused as refused:
                if refused.is_out_of_range:
                    raise Compacted from refused
                raise explained(self._servers.name, refused) from refused
            found.extend(self._keys.record(pair) for pair in answer.get("kvs", ()))
            if not answer.get("more") or (limit and len(found) >= limit):
                self._space.note(answer)
                return found
            pinned["revision"] = str(self._space.note(answer))
            if reverse:
                end = found[-1].key
            else:
                first = found[-1].key + "\0"
        return found


class LeasedView:
    """An EtcdStore; what is put through it goes with a lease."""

    def __init__(self, store: EtcdStore, lease: int) -> None:
        self._store = store
        self._lease = lease
        self.get, self.range, self.count = store.get, store.range, store.count
        self.revision, self.changes = store.revision, store.changes
        self.reading, self.together = store.reading, store.together

    def commit(self, commit: Commit) -> int:
        """The revision of this commit. Raises LeaseLost if the lease ended."""
        return self._store.commit_leased(commit, self._lease)

    def close(self) -> None:
        """Nothing: the store is closed by whoever opened it."""
