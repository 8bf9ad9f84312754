"""What follows a change: at once for people, in the background for runtimes.

A container that is just being attached runs nothing yet: by the time it asks for names, the
resolver has read them from the state, and its files are written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from netlib.errors import NetError
from netlib.frontends.cni.attaching import KIND
from netlib.model import Sandbox
from netlib.net import Net
from netlib.sandbox_files import refresh


class Follower:
    """Takes the place of the engine's `committed`."""

    def __init__(self, net: Net, log: Callable[[str], None]) -> None:
        self._net = net
        self._log = log
        self._now = net.engine.committed
        self._queue: SimpleQueue[Sandbox | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="netlib-following", daemon=True)
        self._thread.start()
        net.engine.committed = self.committed

    def committed(self, revision: int, box: Sandbox | None) -> None:
        """A change was made, to a sandbox if one is named."""
        if box is not None and box.kind == KIND:
            self._queue.put(box)
        elif self._now is not None:
            self._now(revision, box)

    def stop(self) -> None:
        """Do what waits, and end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while True:
            boxes: dict[str, Sandbox] = {}
            box = self._queue.get()
            with suppress(Empty):
                while box is not None:
                    boxes[box.name] = box
                    box = self._queue.get_nowait()
            for each in boxes.values():
                try:
                    refresh(self._net.engine.state, self._net.state_dir, each)
                except (NetError, OSError) as error:
                    self._log(f"files of {each.name} are not up to date: {error}")
            if box is None:
                return
