"""A line of JSON for each query, for as long as somebody reads it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from dnslib import QTYPE

if TYPE_CHECKING:
    from netlib.dns.resolver import Resolver


class QueryLog:
    """Writes to a pipe or file until its reader goes away; then it ends itself."""

    def __init__(self, resolver: Resolver, number: int) -> None:
        os.set_blocking(number, False)
        self._resolver = resolver
        self._number = number

    def __del__(self) -> None:
        os.close(self._number)

    def __call__(self, asker: str, name: str, type_: int, outcome: str) -> None:
        """Log one query. A slow reader misses lines: it never holds the server."""
        kind = QTYPE.forward.get(type_, f"TYPE{type_}")
        line = {"asker": asker, "name": name, "kind": kind, "outcome": outcome}
        try:
            os.write(self._number, json.dumps(line).encode() + b"\n")
        except BlockingIOError:
            return
        except OSError:
            self._resolver.log = None
