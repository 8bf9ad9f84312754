"""The Store that many hosts share: etcd, of version 3.4 or newer, through its JSON gateway."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from netlib.errors import (
    CommitUnknown,
    InvalidRequest,
    LeaseLost,
    StoreConflict,
    StoreError,
    StoreUnavailable,
)
from netlib.store import Commit, Event, Record
from netlib.store.etcd_http import Lost, NotReached
from netlib.store.etcd_requests import Keys, decode, failed, transaction
from netlib.store.etcd_servers import Credentials, Refused, Servers, explained
from netlib.store.etcd_watch import Compacted, Watch

Json = dict[str, Any]

_PAGE = 1000  # records in one answer
_MAX_IDLE_WATCHES = 2
_VOID_SECONDS = 60  # far longer than a server holds what it was asked
_RANGE, _TXN = "/v3/kv/range", "/v3/kv/txn"
_GRANT, _KEEP_ALIVE, _REVOKE = "/v3/lease/grant", "/v3/lease/keepalive", "/v3/lease/revoke"


@dataclass(frozen=True, slots=True)
class _LastCommit:
    """Revision and mark of the last commit, and the server's own revision then."""

    revision: int
    mark: str
    now: int


class EtcdStore:
    """The state below `prefix` in the etcd at `endpoints`, for many hosts; with leases.

    `endpoints` are URLs of its members, in any order; one that answers is used until it does
    not. Every call ends within about `timeout_seconds`, twice that for a commit that has to be
    looked for, and `changes` that long after its own time or the loss of the servers.
    `quiet_seconds`: how long a watch may be silent before its server is asked whether there is
    news.

    A commit is done once or not at all: when its answer is lost, it is first voided, in case it
    is still under way, and looked for. Only if that fails as well, there is CommitUnknown.
    """

    def __init__(
        self,
        endpoints: Iterable[str],
        *,
        prefix: str = "/netlib/",
        credentials: Credentials | None = None,
        timeout_seconds: float = 1.5,
        quiet_seconds: float = 2.0,
    ) -> None:
        if not prefix:
            raise InvalidRequest("the keys of an etcd need a prefix", "take for example /netlib/")
        self._servers = Servers(endpoints, credentials or Credentials(), timeout_seconds)
        self._keys = Keys(prefix)
        self._quiet_seconds = quiet_seconds
        self._lock = threading.Lock()
        self._watches: list[Watch] = []  # that nobody waits for now
        self._pid = os.getpid()
        self._newest = 0  # the newest revision that a server told us
        self._known: _LastCommit | None = None  # by which this history is known again

    # -- reading --------------------------------------------------------------------------------

    def get(self, key: str) -> Record | None:
        """The record of a key."""
        found = self._ask(_RANGE, self._keys.one(key)).get("kvs")
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
        return int(self._ask(_RANGE, {**keys, "count_only": True}).get("count", 0))

    def revision(self) -> int:
        """That of the last commit, or a later one of the server."""
        last = self._last_commit()
        if self._known is None:
            self._known = last
        return last.now

    # -- commits --------------------------------------------------------------------------------

    def commit(self, commit: Commit) -> int:
        """The revision of this commit. Raises StoreConflict naming the failed condition's key."""
        return self.commit_leased(commit, 0)

    def commit_leased(self, commit: Commit, lease: int) -> int:
        """The same, and what is put goes with the lease (0: with none)."""
        floor = self._newest or self.revision()
        deadline = self._servers.deadline()
        while True:
            mark = os.urandom(8).hex()
            question = transaction(self._keys, commit, mark, lease)
            try:
                answer = self._servers.ask_once(_TXN, question, deadline)
            except Lost as lost:
                if revision := self._find_out(mark, floor, lost):
                    return revision
                if time.monotonic() >= deadline:
                    raise StoreUnavailable(
                        f"{self._servers.name} did not answer ({lost}), and nothing was changed",
                        "try again",
                    ) from lost
                continue
            except Refused as refusal:
                if "requested lease not found" in refusal.message:
                    raise LeaseLost(lease) from refusal
                raise explained(self._servers.name, refusal) from refusal
            revision = self._note(answer)
            if not answer.get("succeeded"):
                raise StoreConflict(failed(self._keys, commit, answer))
            return revision

    def _find_out(self, mark: str, floor: int, lost: Lost) -> int:
        """The revision of the commit of this mark, made after `floor`; 0: it never will be made."""
        try:
            lease = self._ask(_GRANT, {"TTL": str(_VOID_SECONDS)})["ID"]
            void = {"key": self._keys.void(mark), "value": "", "lease": lease}
            look = {"request_range": {"key": self._keys.commits}}
            # At once: what is under way comes before this, or finds itself voided.
            answer = self._ask(_TXN, {"success": [{"request_put": void}, look]})
            last = _last_commit(answer["responses"][1]["response_range"], self._newest)
            if last.mark == mark:
                return last.revision
            return self._look_for(mark, floor, last.revision)
        except (StoreError, Refused, Lost, Compacted) as error:
            self._servers.check_open()
            raise CommitUnknown(
                f"{self._servers.name} was lost before it answered ({lost}),"
                f" and whether the commit was made could not be found out: {error}",
                "look what there is before you try again",
            ) from error

    def _look_for(self, mark: str, floor: int, newest: int) -> int:
        """The revision after `floor` and up to `newest` whose commit has this mark, or 0."""
        if newest <= floor:
            return 0
        deadline = self._servers.deadline()
        keys = {"key": self._keys.commits}
        watch = Watch(self._servers, keys, floor, self._keys.event, deadline)
        try:
            while watch.newest < newest:
                if not watch.receive(deadline):
                    raise Lost("it does not tell what was committed")
            marks = {event.value: event.revision for event in watch.take(floor)}
            return marks.get(mark, 0)
        finally:
            watch.close()

    # -- changes --------------------------------------------------------------------------------

    def changes(self, since: int, timeout_seconds: float = 0.0) -> list[Event] | None:
        """Events after revision `since`, in order; waits for the first up to the time-out."""
        until = time.monotonic() + timeout_seconds
        give_up = 0.0
        while True:
            watch, began = None, time.monotonic()
            try:
                if (watch := self._idle_watch(since)) is not None:
                    wanted = 0 if timeout_seconds else self._last_commit().revision
                    events = self._await(watch, since, wanted, until, is_new=False)
                else:
                    wanted = self._check_history(since)
                    watch = self._watch(since)
                    events = self._await(watch, since, wanted, until, is_new=True)
            except Compacted:
                self._drop(watch)
                return None
            except (Lost, NotReached) as error:
                self._drop(watch)
                self._servers.check_open()
                now = time.monotonic()
                if not give_up or now - began > self._servers.timeout_seconds:
                    give_up = now + self._servers.timeout_seconds
                elif now > give_up:
                    raise StoreUnavailable(
                        f"{self._servers.name} ends every watch: {error}", "look at its log"
                    ) from error
            except Refused as refusal:
                self._drop(watch)
                raise explained(self._servers.name, refusal) from refusal
            except BaseException:
                self._drop(watch)
                raise
            else:
                self._keep(watch)
                return events

    def _await(
        self, watch: Watch, since: int, wanted: int, until: float, *, is_new: bool
    ) -> list[Event]:
        """What comes after `since`: as far as `wanted` at least, which there is already."""
        patience = self._servers.timeout_seconds
        overdue = time.monotonic() + patience
        while True:
            now = time.monotonic()
            is_behind = wanted > max(watch.newest, since)
            if not is_behind and (watch.has_after(since) or now >= until):
                return watch.take(since)
            if is_behind and now >= overdue:
                if is_new:
                    return watch.take(since)  # that commit changed nothing
                raise Lost("it tells no news")
            if watch.receive(min(overdue if is_behind else until, now + self._quiet_seconds)):
                continue
            if not is_behind and time.monotonic() < until:
                # Silence may be peace, or the loss of the server or of the network to it.
                wanted = self._ask_for_news(watch).revision
                overdue = time.monotonic() + patience

    def _ask_for_news(self, watch: Watch) -> _LastCommit:
        endpoint = watch.connection.endpoint
        try:
            answer = self._servers.ask_at(endpoint, _RANGE, {"key": self._keys.commits})
        except (Lost, NotReached):
            self._servers.avoid(endpoint)
            raise
        self._known = _last_commit(answer, self._note(answer))
        return self._known

    def _check_history(self, since: int) -> int:
        """The last commit's revision. Raises Compacted if `since` is not of this history.

        A state that was put back from a copy counts on from there: soon it has the same
        revisions, of other commits.
        """
        last, known = self._last_commit(), self._known
        self._known = last
        is_same = known is None or known.revision <= last.revision
        if is_same and known is not None and known.revision == last.revision:
            is_same = known.mark == last.mark
        elif is_same and known is not None and known.revision:
            is_same = self._mark_at(known.revision) == known.mark
        if not is_same:
            self._newest = last.now
            with self._lock:
                watches, self._watches = self._watches, []
            for watch in watches:
                watch.close()
        if not is_same or since > last.now:
            raise Compacted
        return last.revision

    def _mark_at(self, revision: int) -> str:
        """The mark of the last commit at that time; nothing if that was forgotten."""
        question = {"key": self._keys.commits, "revision": str(revision)}
        try:
            answer = self._servers.ask(_RANGE, question)
        except Refused as refusal:
            if refusal.is_out_of_range:
                return ""
            raise
        return _last_commit(answer, 0).mark

    def _watch(self, since: int) -> Watch:
        deadline = self._servers.deadline()
        try:
            return Watch(self._servers, self._keys.all, since, self._keys.event, deadline)
        except Refused:
            self._servers.renew()  # a watch does not say whether it was the token, or the right
            return Watch(self._servers, self._keys.all, since, self._keys.event, deadline)

    def _idle_watch(self, since: int) -> Watch | None:
        """One that has not told yet what came after `since`."""
        with self._lock:
            if self._pid != os.getpid():
                self._pid, self._watches = os.getpid(), []
            usable = [watch for watch in self._watches if watch.told <= since <= self._newest]
            if not usable:
                return None
            best = max(usable, key=lambda watch: watch.told)
            self._watches.remove(best)
            return best

    def _keep(self, watch: Watch) -> None:
        with self._lock:
            self._watches.append(watch)
            spare = self._watches[:-_MAX_IDLE_WATCHES]
            del self._watches[:-_MAX_IDLE_WATCHES]
        for old in spare:
            old.close()
        self._newest = max(self._newest, watch.told)

    @staticmethod
    def _drop(watch: Watch | None) -> None:
        if watch is not None:
            watch.close()

    # -- leases ---------------------------------------------------------------------------------

    def grant(self, ttl_seconds: float) -> int:
        """A new lease's id; etcd counts whole seconds, and at least some."""
        return int(self._ask(_GRANT, {"TTL": str(max(1, math.ceil(ttl_seconds)))})["ID"])

    def keep_alive(self, lease: int) -> float:
        """Start the lease's time anew; how many seconds it is. Raises LeaseLost if it ended."""
        answer = self._ask(_KEEP_ALIVE, {"ID": str(lease)})
        if "error" in answer:
            raise StoreError(f"{self._servers.name} refused: {answer['error']}", "look at its log")
        seconds = int(answer["result"].get("TTL", 0))
        if seconds <= 0:
            raise LeaseLost(lease)
        return float(seconds)

    def revoke(self, lease: int) -> None:
        """End the lease now; nothing happens if it ended before."""
        try:
            self._servers.ask(_REVOKE, {"ID": str(lease)})
        except Refused as refusal:
            if "requested lease not found" not in refusal.message:
                raise explained(self._servers.name, refusal) from refusal

    def leased(self, lease: int) -> LeasedView:
        """The same data; what is put through it goes with the lease."""
        return LeasedView(self, lease)

    def close(self) -> None:
        """Hang up, and wake who waits for changes."""
        self._servers.close()
        with self._lock:
            watches, self._watches = self._watches, []
        for watch in watches:
            watch.close()

    # -- asking ---------------------------------------------------------------------------------

    def _ask(self, path: str, question: Json) -> Json:
        try:
            answer = self._servers.ask(path, question)
        except Refused as refusal:
            raise explained(self._servers.name, refusal) from refusal
        self._note(answer)
        return answer

    def _note(self, answer: Json) -> int:
        """The revision of the server when it answered."""
        revision = int(answer.get("header", {}).get("revision", 0))
        self._newest = max(self._newest, revision)
        return revision

    def _last_commit(self) -> _LastCommit:
        answer = self._ask(_RANGE, {"key": self._keys.commits})
        return _last_commit(answer, self._note(answer))

    def _pages(self, first: str, end: str, limit: int, reverse: bool) -> list[Record]:
        self._servers.check_open()
        found: list[Record] = []
        pinned: Json = {"sort_order": "DESCEND", "sort_target": "KEY"} if reverse else {}
        while keys := self._keys.range(first, end):
            size = min(_PAGE, limit - len(found)) if limit else _PAGE
            try:
                answer = self._servers.ask(_RANGE, {**keys, **pinned, "limit": str(size)})
            except Refused as refusal:
                if refusal.is_out_of_range:
                    raise Compacted from refusal
                raise explained(self._servers.name, refusal) from refusal
            found.extend(self._keys.record(pair) for pair in answer.get("kvs", ()))
            if not answer.get("more") or (limit and len(found) >= limit):
                self._note(answer)
                return found
            pinned["revision"] = str(self._note(answer))
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

    def commit(self, commit: Commit) -> int:
        """The revision of this commit. Raises LeaseLost if the lease ended."""
        return self._store.commit_leased(commit, self._lease)

    def close(self) -> None:
        """Nothing: the store is closed by whoever opened it."""


def _last_commit(answer: Json, now: int) -> _LastCommit:
    found = answer.get("kvs")
    if not found:
        return _LastCommit(0, "", now)
    return _LastCommit(int(found[0]["mod_revision"]), decode(found[0]["value"]), now)
