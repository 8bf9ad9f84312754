"""Answers of other servers, for as long as their TTLs allow (RFC 2181 section 8, RFC 2308)."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from netlib.dns import wire
from netlib.values import dataclass

LONGEST_SECONDS = 86400
LONGEST_NEGATIVE_SECONDS = 900
# A longer answer is rare, and asked for again: else who owns a domain could fill our memory.
LARGEST_BYTES = 4096


@dataclass(slots=True)
class _Entry:
    message: bytes
    ttls: tuple[tuple[int, int], ...]  # offset, value
    stored: float
    expires: float
    shown: bytes  # the message as it is at `shown_age`
    shown_age: int = 0
    parts: Parts | None = None  # likewise


# For a plain query with RD: the answer's header after the id, without and with an OPT record
# to come; all that follows the question; and until when that is so.
Parts = tuple[tuple[bytes, bytes], bytes, float]


class Cache:
    """Least recently used out first. `clock` gives seconds that never go back."""

    def __init__(self, size: int = 2000, clock: Callable[[], float] = time.monotonic) -> None:
        self.hits = 0
        self._size = size
        self._clock = clock
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.expires > self._clock()

    def get(self, key: Hashable) -> bytes | None:
        """The message kept under a key, its TTLs less its age."""
        entry = self._fresh(key)
        return entry.shown if entry is not None else None

    def parts(self, key: Hashable) -> Parts | None:
        """Likewise, cut up for a new question and id."""
        entry = self._fresh(key)
        if entry is None:
            return None
        if entry.parts is None:
            until = min(entry.stored + entry.shown_age + 1, entry.expires)
            entry.parts = _parts(entry.shown, until)
        return entry.parts

    def _fresh(self, key: Hashable) -> _Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        now = self._clock()
        if entry.expires <= now:
            del self._entries[key]
            return None
        self.hits += 1
        self._entries.move_to_end(key)
        age = int(now - entry.stored)
        if age != entry.shown_age:
            entry.shown, entry.shown_age = wire.aged(entry.message, entry.ttls, age), age
            entry.parts = None
        return entry

    def put(self, key: Hashable, message: bytes, found: list[wire.Record]) -> None:
        """Keep a message without OPT record, if it may be kept; `found` are its records."""
        lifetime = lifetime_seconds(message, found)
        if lifetime <= 0 or len(message) > LARGEST_BYTES:
            return
        ttls = tuple((record.ttl_at, record.ttl) for record in found)
        now = self._clock()
        self._entries[key] = _Entry(message, ttls, now, now + lifetime, message)
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def forget(self, is_stale: Callable[[Any], bool]) -> None:
        """Forget some, by their keys."""
        for key in [key for key in self._entries if is_stale(key)]:
            del self._entries[key]

    def clear(self) -> None:
        """Forget all: the servers changed."""
        self._entries.clear()


def _parts(message: bytes, until: float) -> Parts:
    flags = int.from_bytes(message[2:4]) & ~(wire.AA | wire.CD | wire.AD)
    head = (flags | wire.QR | wire.RD | wire.RA).to_bytes(2) + message[4:10]
    extra = int.from_bytes(message[10:12])
    heads = head + extra.to_bytes(2), head + (extra + 1).to_bytes(2)
    return heads, message[wire.question_end(message) :], until


def lifetime_seconds(message: bytes, found: list[wire.Record]) -> int:
    """How long an answer may be kept; 0: not at all.

    A negative one as long as its SOA record says (RFC 2308 section 5), so without one not.
    """
    flags = int.from_bytes(message[2:4])
    rcode = flags & 0xF
    if flags & wire.TC or rcode not in (wire.NOERROR, wire.NXDOMAIN):
        return 0
    question_type = int.from_bytes(message[wire.question_end(message) - 4 :][:2])
    answers = [record for record in found if record.section == 1]
    positive = any(question_type in (r.type, wire.ANY) for r in answers)
    if positive and rcode == wire.NOERROR:
        return min(LONGEST_SECONDS, *(_ttl(record) for record in found))
    for record in found:
        if record.section == 2 and record.type == wire.SOA:
            minimum = int.from_bytes(message[record.end - 4 : record.end])
            shortest = min((_ttl(answer) for answer in answers), default=minimum)
            return min(LONGEST_NEGATIVE_SECONDS, _ttl(record), minimum, shortest)
    return 0


def _ttl(record: wire.Record) -> int:
    """A TTL with its highest bit set counts as 0 (RFC 2181 section 8)."""
    return record.ttl if record.ttl < 1 << 31 else 0
