"""The resolver's keeper has an heir as soon as it is killed, where a daemon runs.

Without one, the next operation that speaks to it starts another; until then nobody is told names.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from pathlib import Path

from netlib.dns.channel import Channel, connect
from netlib.dns.client import Resolver
from netlib.dns.held import noted
from netlib.dns.place import SOCKET
from netlib.errors import NetError

_POLL_SECONDS = 0.5


class Names:
    """Waits in a thread of its own for the end of the keeper that a state has."""

    def __init__(self, state_dir: Path, log: Callable[[str], None]) -> None:
        self._state_dir = state_dir
        self._log = log
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="netlib-names", daemon=True)

    def start(self) -> None:
        """Watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._ending.set()

    def _run(self) -> None:
        while not self._ending.wait(_POLL_SECONDS):
            try:
                channel = connect(self._state_dir / SOCKET, _POLL_SECONDS)
            except OSError:
                self._revive()
                continue
            try:
                self._wait(channel)
            finally:
                channel.close()

    def _wait(self, channel: Channel) -> None:
        """Until the other side goes away: it says nothing of its own accord."""
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        while not self._ending.is_set() and not poll.poll(_POLL_SECONDS * 1000):
            pass

    def _revive(self) -> None:
        try:
            if noted(self._state_dir):  # one that ends by itself leaves no note
                Resolver(self._state_dir).listening()
                self._log("the resolver's keeper was killed, and is there again")
        except (NetError, OSError, ValueError) as error:
            self._log(f"the resolver's keeper was killed: {error}")
