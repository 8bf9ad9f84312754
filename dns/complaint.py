"""A line for the log, where there is room for it: nothing that is served depends on that."""

from __future__ import annotations

import sys
from contextlib import suppress


def complain(what: object) -> None:
    """Say what went wrong; in silence where even that can't be done (a disk that is full)."""
    with suppress(OSError):
        print(f"names: {what}", file=sys.stderr, flush=True)
