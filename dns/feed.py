"""What the keeper knows of names: read from a source, kept for new servers, passed on."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable

from netlib.dns.complaint import complain
from netlib.dns.facts import EndpointNames, NetworkNames, Update
from netlib.dns.loop import Loop
from netlib.dns.source import ZoneSource
from netlib.errors import NetError

POLL_SECONDS = 1.0


class Feed:
    """All facts at one revision; `pass_on` gets each update that leads to a later one."""

    def __init__(self, source: ZoneSource | None, pass_on: Callable[[Update], None]) -> None:
        self.revision = 0
        self.source = source
        self._pass_on = pass_on
        self._networks: dict[str, NetworkNames] = {}
        self._endpoints: dict[str, EndpointNames] = {}

    def everything(self) -> Update:
        """All that a new server must know."""
        return Update(
            revision=self.revision,
            full=True,
            networks=tuple(self._networks.values()),
            endpoints=tuple(self._endpoints.values()),
        )

    def take(self, update: Update) -> None:
        """Note an update and pass it on, unless it is known already or leaves a gap."""
        if update.full:
            put_back = update.revision < update.since <= self.revision  # an older state
            if update.revision < self.revision and not put_back:
                return
            self._networks, self._endpoints = {}, {}
        elif not update.since <= self.revision < update.revision:
            return
        for gone in update.gone:
            self._networks.pop(gone, None)
            self._endpoints.pop(gone, None)
        self._networks.update({network.id: network for network in update.networks})
        self._endpoints.update({endpoint.id: endpoint for endpoint in update.endpoints})
        self.revision = update.revision
        self._pass_on(update)

    def namespace_of(self, sandbox: str) -> tuple[str, int] | None:
        """Path and inode of a sandbox's network namespace, if it has servers of its own."""
        known = (e for e in self._endpoints.values() if e.sandbox == sandbox and e.netns)
        return next(((e.netns, e.inode) for e in known), None)

    def read(self) -> None:
        """Take what the source has by now. Raises NetError."""
        if self.source is not None:
            update = self.source(self.revision, 0.0)
            if update is not None:
                self.take(update)

    def follow(self, loop: Loop, ended: threading.Event) -> None:
        """Watch the source in a thread until `ended`: it waits, the loop does not."""
        source = self.source
        if source is None:
            return
        since = self.revision
        news: queue.SimpleQueue[Update] = queue.SimpleQueue()
        bell, ring = socket.socketpair()

        def watch(since: int) -> None:
            while not ended.is_set():
                try:
                    # What was read meanwhile counts, too: a state that is put back must be older
                    # than that, and may be as old as what this thread had seen.
                    update = source(max(since, self.revision), POLL_SECONDS)
                except NetError as error:
                    complain(error)
                    ended.wait(POLL_SECONDS)
                    continue
                if update is not None:
                    since = update.revision
                    news.put(update)
                    ring.send(b"!")
                if not since:  # an empty state: everything is read at once, each time
                    ended.wait(POLL_SECONDS)

        def take_all(_events: int) -> None:
            bell.recv(4096)
            while not news.empty():
                self.take(news.get())

        loop.watch(bell, take_all)
        threading.Thread(target=watch, args=(since,), name="names-source", daemon=True).start()
