"""What the resolver counts: `net dns stats` shows it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from netlib.dns import wire

MOST_NAMES = 5000


class Stats:
    """Counts since the server started. `names` are in wire form and lower case."""

    def __init__(self) -> None:
        self.datagrams = 0
        self.slow = 0  # of these, the ones that took more than a look-up
        self.dropped = 0
        self.forwarded = 0
        self.codes: Counter[int] = Counter()
        self.names: dict[bytes, int] = {}

    def name(self, name: bytes) -> None:
        """Count a query for a name; clients can't make this grow for ever."""
        if name in self.names or len(self.names) < MOST_NAMES:
            self.names[name] = self.names.get(name, 0) + 1

    def to_json(self, most: int = 100) -> dict[str, Any]:
        """Plain values, with the `most` asked names."""
        codes = self.codes + Counter({wire.NOERROR: self.datagrams - self.slow})
        names = sorted(self.names.items(), key=lambda item: (-item[1], item[0]))[:most]
        return {
            "queries": codes.total() + self.dropped,
            "dropped": self.dropped,
            "forwarded": self.forwarded,
            "answers": {wire.rcode_text(code): count for code, count in sorted(codes.items())},
            "names": {wire.name_text(name): count for name, count in names},
        }
