"""What happens in an etcd, as it happens: watches that outlive servers, connections, forks."""

from __future__ import annotations

import math
import os
import threading
import time

from netlib.errors import StoreUnavailable
from netlib.store import Event, Record
from netlib.store.etcd_http import Lost, NotReached
from netlib.store.etcd_refusals import Refused, explained
from netlib.store.etcd_space import RANGE, LastCommit, Space, last_commit
from netlib.store.etcd_watch import Compacted, Watch

_KNOWN_SECONDS = 60.0
_PAUSE_SECONDS = 0.05
_MAX_IDLE = 2  # watches that are kept for the next to ask


class Changes:
    """Asks for changes again and again are one watch, as long as each begins where the last ended.

    `quiet_seconds`: how long a watch may be silent before its server is asked whether there is
    news.
    """

    def __init__(self, space: Space, quiet_seconds: float) -> None:
        self._space = space
        self._quiet_seconds = quiet_seconds
        self._lock = threading.Lock()
        self._watches: list[Watch] = []  # that nobody waits for now
        self._pid = os.getpid()
        self._silent = 0  # the revision of a commit of which nothing is told
        self._known: LastCommit | None = None  # by which this history is known again
        self._known_at = 0.0
        self._told: Event | None = None  # the newest one: it is of this history, too

    def after(self, since: int, timeout_seconds: float) -> list[Event] | None:
        """Events after revision `since`, in order; waits for the first up to the time-out."""
        servers = self._space.servers
        until = time.monotonic() + timeout_seconds
        give_up = 0.0
        while True:
            watch, opened = None, math.inf
            try:
                if (watch := self._idle_watch(since)) is not None:
                    opened = time.monotonic()
                    wanted = 0 if timeout_seconds else self._space.last_commit().revision
                    events = self._await(watch, since, wanted, until, is_new=False)
                else:
                    watch = self._watch(since)
                    opened = time.monotonic()
                    # Not before: were this history replaced in between, a watch of the next one
                    # would wait for revisions that are long ago. From now on, that ends the watch.
                    wanted = self._check_history(since)
                    events = self._await(watch, since, wanted, until, is_new=True)
            except Compacted:
                self._drop(watch)
                return None
            except (Lost, NotReached) as error:
                self._drop(watch)
                servers.check_open()
                now = time.monotonic()
                # One that lasted was no failure: from now on there is as much time as at first.
                if not give_up or now - opened > servers.timeout_seconds:
                    give_up = now + servers.timeout_seconds
                elif now > give_up:
                    raise StoreUnavailable(
                        f"{servers.name} does not answer: {error}", "try again; look at its log"
                    ) from error
                time.sleep(_PAUSE_SECONDS)
            except Refused as refused:
                self._drop(watch)
                raise explained(servers.name, refused) from refused
            except BaseException:
                self._drop(watch)
                raise
            else:
                self._keep(watch)
                if events and (self._told is None or events[-1].revision > self._told.revision):
                    self._told = events[-1]
                return events

    def _await(
        self, watch: Watch, since: int, wanted: int, until: float, *, is_new: bool
    ) -> list[Event]:
        """What comes after `since`: as far as `wanted` at least, which there is already."""
        patience = self._space.servers.timeout_seconds
        overdue = time.monotonic() + patience
        while True:
            now = time.monotonic()
            is_behind = wanted > max(watch.newest, since, self._silent)
            if is_behind and now >= overdue:
                if is_new:  # that commit changed nothing that is told
                    self._silent = wanted
                    return watch.take(since)
                raise Lost("it tells no news")
            if not is_behind:
                has_news = watch.has_after(since)
                # Silence may be peace, or the loss of the server or of the network to it. And
                # the commit by which we know this history again must not grow too old.
                if now >= (self._known_at + _KNOWN_SECONDS if has_news else self._quiet_end(watch)):
                    wanted, overdue = self._ask_for_news(watch), time.monotonic() + patience
                    continue
                if has_news or now >= until:
                    watch.receive_rest()
                    return watch.take(since)
            watch.receive(overdue if is_behind else min(until, self._quiet_end(watch)))

    def _quiet_end(self, watch: Watch) -> float:
        return watch.heard + self._quiet_seconds

    def _ask_for_news(self, watch: Watch) -> int:
        """The revision of the last commit, as the server knows it whose watch it is."""
        endpoint = watch.connection.endpoint
        question = {"key": self._space.keys.commits}
        try:
            answer = self._space.servers.ask_at(endpoint, RANGE, question)
        except (Lost, NotReached):
            self._space.servers.avoid(endpoint)
            raise
        last = last_commit(answer, self._space.note(answer))
        if not watch.connection.has_more:  # nor an end: it is the server that it was
            self._know(last)
        watch.heard = time.monotonic()
        return last.revision

    def _know(self, last: LastCommit) -> None:
        self._known, self._known_at = last, time.monotonic()

    def _check_history(self, since: int) -> int:
        """The last commit's revision. Raises Compacted if `since` is not of this history.

        A state that was put back from a copy counts on from there: soon it has the same
        revisions, of other commits. So both must be in it: the commit by which the history was
        known, and what was told last, which may be younger than the copy.
        """
        last, known = self._space.last_commit(), self._known
        is_same = known is None or known.revision <= last.revision
        if is_same and known is not None and known.revision == last.revision:
            is_same = known.mark == last.mark
        elif is_same and known is not None and known.revision:
            is_same = self._mark_at(known.revision) == known.mark
        is_same = is_same and (self._told is None or self._stands(self._told))
        self._know(last)  # now: had that question failed, the next ask must put it again
        if not is_same:
            self._space.newest = last.now
            self._told = None
            self.close()
        if not is_same or since > last.now:
            raise Compacted
        return last.revision

    def _mark_at(self, revision: int) -> str:
        """The mark of the last commit at that time; nothing if that was forgotten."""
        question = {"key": self._space.keys.commits, "revision": str(revision)}
        try:
            answer = self._space.servers.ask(RANGE, question)
        except Refused as refused:
            if refused.is_out_of_range:
                return ""
            raise
        return last_commit(answer, 0).mark

    def _stands(self, event: Event) -> bool:
        """Whether it was so at that time; also where that was forgotten."""
        try:
            then = self._at(event.key, event.revision)
            if event.value is not None:
                return then == Record(event.key, event.value, event.revision)
            # What never was is not there either, and tells nothing of its removal.
            return then is None and self._at(event.key, event.revision - 1) is not None
        except Refused as refused:
            # Of what is to come a server says likewise that it is not there.
            if refused.is_out_of_range:
                return event.revision <= self._space.last_commit().now
            raise

    def _at(self, key: str, revision: int) -> Record | None:
        """The record of a key as it was at that time."""
        keys = self._space.keys
        question = {**keys.one(key), "revision": str(revision)}
        found = self._space.servers.ask(RANGE, question).get("kvs")
        return keys.record(found[0]) if found else None

    def _watch(self, since: int) -> Watch:
        servers, keys = self._space.servers, self._space.keys
        deadline = servers.deadline()
        try:
            return Watch(servers, keys.told, since, keys.event, deadline)
        except Refused:
            # A watch does not say whether it was the token that it did not like, or the right.
            servers.renew()
            return Watch(servers, keys.told, since, keys.event, deadline)

    def _idle_watch(self, since: int) -> Watch | None:
        """One that has not told yet what came after `since`."""
        if self._pid != os.getpid():  # forked: they, and who holds the lock, are the parent's
            self._pid, self._lock, self._watches = os.getpid(), threading.Lock(), []
        with self._lock:
            usable = [watch for watch in self._watches if watch.told <= since <= self._space.newest]
            if not usable:
                return None
            best = max(usable, key=lambda watch: watch.told)
            self._watches.remove(best)
            return best

    def _keep(self, watch: Watch) -> None:
        with self._lock:
            self._watches.append(watch)
            spare = self._watches[:-_MAX_IDLE]
            del self._watches[:-_MAX_IDLE]
        for old in spare:
            old.close()
        if self._space.servers.is_closed:
            self.close()
        self._space.newest = max(self._space.newest, watch.told)

    @staticmethod
    def _drop(watch: Watch | None) -> None:
        if watch is not None:
            watch.close()

    def began(self, last: LastCommit) -> None:
        """Somebody reads everything from here on: it is this history that they know."""
        if self._known is None:
            self._know(last)

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            watches, self._watches = self._watches, []
        for watch in watches:
            watch.close()
