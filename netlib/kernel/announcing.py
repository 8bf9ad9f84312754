"""Announcements that would be lost are sent a little later, by a thread of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from contextlib import suppress

from netlib.errors import NetError
from netlib.kernel.netns import Namespaces
from netlib.kernel.session import Session
from netlib.wiring import Announce

_POLL_SECONDS = 0.005
_PATIENCE_SECONDS = 2.0


class Announcements:
    """A thread, while there are announcements that would be lost still.

    A bridge's port forwards once the kernel has taken note of its carrier, which it does in
    the background: mostly at once, but after whoever changes links just then, and up to a
    second late (net/core/link_watch.c). Nobody waits for it.
    """

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._lock = threading.Lock()
        self._waiting: list[tuple[float, Announce]] = []
        self._thread: threading.Thread | None = None

    def add(self, effects: Iterable[Announce]) -> None:
        """Have these sent as soon as their ports forward, or when it takes too long."""
        until = time.monotonic() + _PATIENCE_SECONDS
        with self._lock:
            self._waiting += [(until, effect) for effect in effects]
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="netlib-announcing", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """Wait for what is under way."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None
                    return
                waiting, self._waiting = self._waiting, []
            try:
                late = self._send_ready(waiting)
            except NetError:
                late = []  # the host's namespace can't be looked into: it ends
            with self._lock:
                self._waiting += late
            if late:
                time.sleep(_POLL_SECONDS)

    def _send_ready(self, waiting: list[tuple[float, Announce]]) -> list[tuple[float, Announce]]:
        from netlib.kernel.announce import announce

        now = time.monotonic()
        with self._namespaces.host_socket() as rtnetlink:
            ready = [e for until, e in waiting if until < now or rtnetlink.is_running(e.port)]
        with Session(self._namespaces, {effect.netns for effect in ready}) as session:
            for effect in ready:
                with suppress(NetError):  # the sandbox ended, or its interface went
                    announce(effect, session)
        return [(until, effect) for until, effect in waiting if effect not in ready]
