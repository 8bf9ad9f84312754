"""Connections are forgotten in the background: the kernel walks its whole table to find them.

That takes 10 ms and more, whatever is in it. Those of several ports are found in one walk, so a
walk waits a little for more.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable

from netlib.errors import NetError
from netlib.kernel.netns import Namespaces
from netlib.wiring import ForgetFlows

_LINGER_SECONDS = 0.1


class FlowsToForget:
    """A thread that is there while there is something to forget."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._lock = threading.Lock()
        self._waiting: list[ForgetFlows] = []
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def add(self, effects: Iterable[ForgetFlows]) -> None:
        """Have these forgotten soon."""
        with self._lock:
            self._waiting += effects
            if self._waiting and self._thread is None:
                self._thread = threading.Thread(target=self._work, name="netlib-flows", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Wait for what is under way."""
        self._closing.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        from netlib.kernel import conntrack

        while True:
            self._closing.wait(_LINGER_SECONDS)
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._thread = None
                    return
            try:
                conntrack.forget(batch, self._namespaces)
            except NetError as error:  # nobody waits for it
                print(f"netlib: {error}", file=sys.stderr, flush=True)
