"""A port that our daemon holds is let go a moment after the endpoint that had it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from netlib.errors import PortHeld
from netlib.kernel.listeners import is_held
from netlib.kernel.netns import Namespaces
from netlib.plan import Step, subject
from netlib.wiring import Relay

# The daemon follows the state, and others may keep it busy.
_SECONDS = 3.0
_POLL_SECONDS = 0.01


def once_let_go(namespaces: Namespaces, steps: Sequence[Step], do: Callable[[], None]) -> None:
    """Do relays' steps that were refused, as soon as the daemon holds none of their ports.

    Raises PortHeld where it is somebody else who has one, or the daemon keeps it.
    """
    relays = [noun for noun in map(subject, steps) if isinstance(noun, Relay)]
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and any(_is_held(namespaces, relay) for relay in relays):
        try:
            do()
        except PortHeld:
            time.sleep(_POLL_SECONDS)
        else:
            return
    do()  # it may have been let go before it was looked at


def _is_held(namespaces: Namespaces, relay: Relay) -> bool:
    return is_held(namespaces, relay.protocol, relay.host.version, relay.port, relay.count)
