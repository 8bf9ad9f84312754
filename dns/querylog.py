"""A line of JSON for each query, for as long as somebody reads it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from dnslib import QTYPE

if TYPE_CHECKING:
    from netlib.dns.resolver import Resolver


class QueryLog:
    """Writes to pipes or files until the reader of each goes away; with the last it ends itself."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._numbers: list[int] = []

    def write_to(self, number: int) -> None:
        """Write there, too, and close it at the end."""
        os.set_blocking(number, False)
        self._numbers.append(number)
        self._resolver.log = self

    def __call__(self, asker: str, name: str, type_: int, outcome: str) -> None:
        """Log one query. A slow reader misses lines: it never holds the server."""
        kind = QTYPE.forward.get(type_, f"TYPE{type_}")
        line = {"asker": asker, "name": name, "kind": kind, "outcome": outcome}
        text = json.dumps(line).encode() + b"\n"
        for number in (*self._numbers,):
            try:
                os.write(number, text)
            except BlockingIOError:
                continue
            except OSError:
                self._numbers.remove(number)
                os.close(number)
        if not self._numbers:
            self._resolver.log = None
