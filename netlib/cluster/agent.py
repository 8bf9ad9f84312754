"""The agent: what a member's daemon does for the cluster, in two threads.

One keeps the host's lease alive, whatever the other is at; the other follows what happens.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from contextlib import suppress

from netlib.cluster.copies import AWAY_KEY
from netlib.cluster.follower import Follower, Tell
from netlib.cluster.keeper import Keeper
from netlib.engine import Engine
from netlib.errors import NetError, NotAMember, StoreError
from netlib.records import dump
from netlib.store import Commit
from netlib.verbs.peers import be_nobody, has_of_a_membership

# How soon a host that becomes a member is served, and one that stops is noticed.
_LOOK_SECONDS = 1.0
# How long the end of the daemon waits for one that waits for news.
_NEWS_SECONDS = 0.5
# While the cluster can't be reached.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0


class Agent:
    """Begins when the host becomes a member, and waits again when it is one no more."""

    def __init__(
        self,
        engine: Engine,
        log: Callable[[str], None] = lambda line: None,
        tell: Tell = lambda event: None,
    ) -> None:
        self._engine = engine
        self._log = log
        self._ending = threading.Event()
        self._keeping, self._following = threading.Event(), threading.Event()  # look now
        self._alive = threading.Event()  # the lease is known to every process here
        self._follower = Follower(engine, log=log, tell=tell)
        self._keeper = Keeper(engine, lambda: self._follower.again(renewed=True))
        self._threads = [
            threading.Thread(target=self._keep, name="netlib-lease", daemon=True),
            threading.Thread(target=self._follow, name="netlib-follow", daemon=True),
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and leave the lease as it is: an agent that comes back soon goes on with it."""
        self._ending.set()
        self.look()
        for thread in self._threads:
            thread.join(10 * _LOOK_SECONDS)

    def look(self) -> None:
        """Whether this host is a member, or of what, has changed: see to it now."""
        self._keeping.set()
        self._following.set()

    @staticmethod
    def _wait(event: threading.Event, seconds: float) -> None:
        event.wait(seconds)
        event.clear()

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._ending.is_set():
            try:
                wait = self._keeper.keep()
                self._note_away("")
                self._alive.set()
                pause = _FIRST_PAUSE
            except NotAMember:
                self._alive.clear()
                wait = _LOOK_SECONDS
            except NetError as error:  # the other thread says so
                self._note_away(error.message)
                wait, pause = pause, min(2 * pause, _LONGEST_PAUSE)
            except Exception:
                self._log(f"cluster: {traceback.format_exc()}")
                wait = _LONGEST_PAUSE
            self._wait(self._keeping, wait)

    def _note_away(self, why: str) -> None:
        """Have `net check` tell since when, and why, the others hear nothing of this host."""
        with suppress(NetError):  # nor can anything else be written here
            store = self._engine.state.store
            known = store.get(AWAY_KEY)
            if why and known is None:
                since = dump([self._engine.clock(), why])
                store.commit(Commit(put={AWAY_KEY: since}, durable=False))
            elif known is not None and not why:
                store.commit(Commit(put={}, delete=(AWAY_KEY,), durable=False))

    def _follow(self) -> None:
        pause, told = _FIRST_PAUSE, ""
        while not self._ending.is_set():
            try:
                if self._engine.meeting.membership() is None:
                    self._rest()
                    continue
                if not self._alive.wait(_LOOK_SECONDS):
                    continue
                self._follower.step(_NEWS_SECONDS)
                if told:
                    self._log("cluster: it can be reached again")
                pause, told = _FIRST_PAUSE, ""
            except NetError as error:
                if self._ending.is_set():
                    return
                if isinstance(error, StoreError):
                    self._follower.again()
                if error.message != told:
                    self._log(f"cluster: {error}")
                told = error.message
                self._wait(self._following, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except Exception:
                self._log(f"cluster: {traceback.format_exc()}")
                self._follower.again()
                self._ending.wait(_LONGEST_PAUSE)

    def _rest(self) -> None:
        """A host that is a member of nothing has nothing for it.

        What was under way here when it left may have been written after that.
        """
        self._follower.again(renewed=True)
        if has_of_a_membership(self._engine):
            self._engine.run(lambda: be_nobody(self._engine))
        self._wait(self._following, _LOOK_SECONDS)
