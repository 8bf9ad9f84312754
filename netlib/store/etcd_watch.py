"""A watch of etcd: the events of a range of keys from a revision on, as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from netlib.store import Event
from netlib.store.etcd_http import Connection, Lost
from netlib.store.etcd_refusals import refusal_in_stream
from netlib.store.etcd_servers import Servers, document

Json = dict[str, Any]


class Compacted(Exception):
    """What was to be told was forgotten by the server."""


class Watch:
    """All events after `since`, in order, those of a revision together and by key.

    For one thread at a time. `told`: the revision up to which they were taken, or passed over.
    """

    def __init__(
        self,
        servers: Servers,
        keys: Json,
        since: int,
        read_event: Callable[[Json], Event],
        deadline: float,
    ) -> None:
        self.told = since
        self.heard = time.monotonic()  # when its server last showed that it is there
        self._read_event = read_event
        self._servers = servers
        self._waiting: list[Event] = []
        question = {"create_request": {**keys, "start_revision": str(since + 1)}}
        self._connection = servers.stream("/v3/watch", question, deadline)
        try:
            if not self.receive(deadline):
                raise Lost("it does not answer")
        except BaseException:
            self.close()
            raise

    @property
    def connection(self) -> Connection:
        """Where its events come from."""
        return self._connection

    @property
    def newest(self) -> int:
        """The revision of the last event that came, taken or not."""
        return self._waiting[-1].revision if self._waiting else self.told

    def take(self, since: int) -> list[Event]:
        """The events after `since` that are here."""
        self.told = max(self.told, since)
        events = [event for event in self._waiting if event.revision > since]
        self._waiting.clear()
        if events:
            self.told = events[-1].revision
        return events

    def has_after(self, since: int) -> bool:
        """Whether an event after `since` is here."""
        return bool(self._waiting) and self._waiting[-1].revision > since

    def receive_rest(self) -> None:
        """Read what has come already."""
        while self._connection.has_more and self.receive(time.monotonic()):
            pass

    def close(self) -> None:
        """Hang up."""
        self._servers.end(self._connection)

    def receive(self, deadline: float) -> bool:
        """Whether a message came until then.

        Raises Lost, Refused, and Compacted when events between were forgotten.
        """
        line = self._connection.line(deadline)
        if line is None:
            return False
        self.heard = time.monotonic()
        message = document(line)
        if "error" in message:
            raise refusal_in_stream(message["error"])
        result = message["result"]
        if int(result.get("compact_revision", 0)):
            raise Compacted
        if result.get("canceled"):
            raise refusal_in_stream({"code": 7, "message": result.get("cancel_reason", "")})
        events = [self._read_event(event) for event in result.get("events", ())]
        events.sort(key=lambda event: (event.revision, event.key))
        self._waiting.extend(events)
        return True
