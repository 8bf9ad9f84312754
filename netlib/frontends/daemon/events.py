"""What happens, as it happens: changes of the state, told in the words of the model."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from netlib.errors import StoreError
from netlib.frontends.daemon.messages import Channel, Lost, connect
from netlib.records import load, reading
from netlib.store import Event, Store, under

_POLL_SECONDS = 0.5
Told = dict[str, Any]


class Bus:
    """Hands what the state does not tell (repairs) to all who follow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: list[SimpleQueue[Told]] = []

    def tell(self, event: Told) -> None:
        """Tell all."""
        with self._lock:
            for each in self._queues:
                each.put(event)

    @contextmanager
    def following(self) -> Iterator[SimpleQueue[Told]]:
        """A queue that gets what is told until the block ends."""
        mine: SimpleQueue[Told] = SimpleQueue()
        with self._lock:
            self._queues.append(mine)
        try:
            yield mine
        finally:
            with self._lock:
                self._queues.remove(mine)


def follow(store: Store, bus: Bus, channel: Channel, ending: threading.Event) -> None:
    """Send an event for each change from now on, until the client goes or the daemon ends."""
    with bus.following() as told:
        try:
            events = stream(store, ending)
            channel.send({"ok": True})  # not before: who hears it may change something at once
            for event in events:
                while not told.empty():
                    channel.send({"event": told.get()})
                channel.send({"event": event} if event else {})
        except Lost:
            return


class Repairs:
    """What the daemon of a state mends, for as long as there is one, and of the next one too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._channel: Channel | None = None

    def told(self) -> Iterator[Told]:
        """The repairs since the last time."""
        try:
            if self._channel is None:
                self._channel = connect(self._folder, _POLL_SECONDS)
                if self._channel is not None:
                    self._channel.call({"do": "events"})
            while self._channel is not None and self._channel.is_ready():
                event = self._channel.receive().document.get("event")
                if event and event["event"] == "repair":
                    yield event
        except Lost:
            self.close()

    def close(self) -> None:
        """Follow no more."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def __enter__(self) -> Repairs:
        """Nothing to wait for: what is told is what came since."""
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def stream(store: Store, ending: threading.Event) -> Iterator[Told]:
    """Events from this call on, as they come.

    An empty one now and then, so that a reader who is gone is noticed.
    """
    # The revision first: what is committed while the teller reads comes again as a change.
    revision = store.revision()
    return _stream(store, ending, revision, Teller(store))


def _stream(store: Store, ending: threading.Event, revision: int, teller: Teller) -> Iterator[Told]:
    while not ending.is_set():
        changes = store.changes(revision, _POLL_SECONDS)
        if changes is None:  # more happened than is remembered
            revision = store.revision()
            teller = Teller(store)
            yield {"time": time.time(), "event": "missed"}
            continue
        found = list(changes)
        if not found:
            yield {}
        for change in found:
            revision = max(revision, change.revision)
            yield from teller.tell(change)


class Teller:
    """Knows what was there, so that it can say what is new."""

    def __init__(self, store: Store) -> None:
        self._known: dict[str, Any] = {}
        for first in ("network/", "endpoint/"):
            for record in store.range(*under(first)):
                with suppress(StoreError):
                    self._known[record.key] = load(record.value)

    def tell(self, change: Event) -> Iterator[Told]:
        """What a change of one key means: nothing, or an event or two."""
        kind = change.key.partition("/")[0]
        if kind not in ("network", "endpoint"):
            return
        before = self._known.pop(change.key, None)
        try:
            with reading(change.value or ""):
                after: Any = None if change.value is None else load(change.value)
                was = None if before is None else before[kind]
                now = None if change.value is None else after[kind]
                of_kind = _of_network if kind == "network" else self._of_endpoint
                told = list(of_kind(was, now))
        except StoreError:  # others' records are told of all the same
            yield _event("unreadable", {"key": change.key})
            return
        if after is not None:
            self._known[change.key] = after
        yield from told

    def _of_endpoint(self, was: Told | None, now: Told | None) -> Iterator[Told]:
        some = now or was
        if some is None:  # it came and went before there was anybody to tell
            return
        network = self._known.get(f"network/{some['network']}")
        base = {
            "network": network["network"]["name"] if network else some["network"],
            "sandbox": some["sandbox"]["name"],
            "interface": some["ifname"],
        }
        if now is None:
            yield _event("disconnect", base)
        elif now["state"] == "ready":
            if was is None or was["state"] != "ready":
                more = {key: now[key] for key in ("addresses", "mac", "ports")}
                yield _event("connect", {**base, **more})
                return
            if now["addresses"] != was["addresses"]:
                yield _event("update", {**base, "addresses": now["addresses"]})
            new = [port for port in now["ports"] if port not in was["ports"]]
            gone = [port for port in was["ports"] if port not in now["ports"]]
            if new:
                yield _event("publish", {**base, "ports": new})
            if gone:
                yield _event("unpublish", {**base, "ports": gone})


def _of_network(was: Told | None, now: Told | None) -> Iterator[Told]:
    if now is None:
        if was is not None:
            yield _event("remove", {"network": was["name"]})
    elif now["state"] == "ready" and (was is None or was["state"] != "ready"):
        yield _event("create", {"network": now["name"], "driver": now["driver"]})
    elif was is not None and now["state"] == "ready" and now != was:
        yield _event("update", {"network": now["name"]})


def _event(name: str, more: Told) -> Told:
    return {"time": time.time(), "event": name, **more}
