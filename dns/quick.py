"""The common query: its answer is a look-up of the packed question, in the zone or the cache.

Nearly every datagram takes this road, and most are just like an earlier one.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from netlib.dns import wire
from netlib.dns.zone import Asker, Zone

if TYPE_CHECKING:
    from netlib.dns.resolver import Resolver

# The message, the packed source address and where the datagram lies → the answer, or None:
# none, or later.
Respond = Callable[[bytes, bytes, int], bytes | None]

# A plain query's header after its id → whether an OPT record follows.
_PLAIN = {
    flags.to_bytes(2) + b"\0\1\0\0\0\0\0" + bytes([extra]): extra
    for flags in (wire.RD, wire.RD | wire.AD, 0)
    for extra in (0, 1)
}
# An OPT record without flags or options, as stubs send it → the size that the client takes.
_OPTS = {
    wire.opt_record(size): min(size, wire.UDP_PAYLOAD_BYTES)
    for size in (512, 1200, 1220, 1232, 1280, 1400, 1410, 1432, 1452, 1472, 2048, 4000, 4096, 65535)
}
_OUR_OPT = wire.opt_record(wire.UDP_PAYLOAD_BYTES)
_MANY = 24  # more answers than that may need truncation
_MOST_AGAIN = 5000
_PARTS = itertools.count()

# The answer after the id, the name in lower case, and until when that is the answer: 0 is for
# as long as the zone is this one, -1 this once.
Known = tuple[bytes, bytes, float]


def _header(query: bytes, count: int) -> bytes:
    """An authoritative answer's header after its id."""
    flags = wire.reply_flags(int.from_bytes(query[:2]), wire.NOERROR, authoritative=True)
    return flags.to_bytes(2) + b"\0\1" + count.to_bytes(2) + b"\0\0\0" + query[-1:]


_HEADERS = {query: [_header(query, count) for count in range(_MANY)] for query in _PLAIN}


def quick_road(
    resolver: Resolver,
    askers_of: Callable[[Zone], Callable[[bytes], Asker | None]],
    slow: Respond,
    now: Callable[[], float] = time.monotonic,
) -> Respond:
    """Answers over UDP what needs no thought, and leaves all else to `slow`.

    Where it answers, it answers as `Resolver.respond` would. What was answered to the very
    same bytes from the same source is answered again, until the zone changes or a TTL does.
    """
    seen = resolver.again
    asker_at = askers_of(resolver.zone)
    # Each listener has its own part of what is answered again: sources alone don't tell them
    # apart, as every sandbox asks from its loopback.
    part = next(_PARTS).to_bytes(4)
    cache, count, tally = resolver.cache, resolver.stats.name, resolver.stats.names

    def respond(message: bytes, source: bytes, slot: int) -> bytes | None:
        nonlocal seen, asker_at
        again = resolver.again
        if again is not seen:  # the zone changed
            seen = again
            asker_at = askers_of(resolver.zone)
        key = part + source + message[2:]
        known = again.get(key)
        if known is None or resolver.log is not None or 0 < known[2] <= now():
            asker = asker_at(source) if resolver.log is None else None
            known = _look_up(resolver, asker, message) if asker is not None else None
            if known is None:
                return slow(message, source, slot)
            if known[2] >= 0:
                if len(again) >= _MOST_AGAIN:
                    again.clear()
                again[key] = known
        elif known[2]:
            cache.hits += 1
        name = known[1]
        if name in tally:
            tally[name] += 1
        else:
            count(name)
        return message[:2] + known[0]

    return respond


def _look_up(resolver: Resolver, asker: Asker, message: bytes) -> Known | None:
    """The answer by the packed question; None: it takes more thought.

    A question that is found needs no parsing: what it is looked up in has well-formed keys.
    """
    head = message[2:12]
    extra = _PLAIN.get(head)
    if extra is None:
        return None
    if extra:
        limit = _OPTS.get(message[-11:], 0)
        question, opt = message[12:-11], _OUR_OPT
    else:
        limit = wire.PLAIN_UDP_BYTES
        question, opt = message[12:], b""
    name, wanted = question[:-4].lower(), question[-4:]
    tables = (resolver.zone.names[network] for network in asker.networks)
    found = [table[name] for table in tables if name in table]
    if len(found) == 1:
        records = found[0].get(wanted)
        if records is None or len(records) >= _MANY:
            return None
        count = len(records)
        body = b"".join(random.sample(records, count) if count > 1 else records)
        answer = _HEADERS[head][count] + question + body + opt
        until = -1.0 if count > 1 else 0.0
    elif found or head[:2] != b"\1\0" or not asker.forwards:
        # Known on several networks: merging takes its time. AD would want to know what AD is.
        return None
    elif any(resolver.zone.wildcards[network] for network in asker.networks):
        # One of them may stand for the name here, while others had it answered from outside.
        return None
    else:
        servers = asker.servers or resolver.host_servers.recent()
        kept = resolver.cache.parts((name + wanted, 0, False, servers, asker.within))
        if kept is None:
            return None
        heads, rest, until = kept
        answer = heads[extra] + question + rest + opt
    return (answer, name, until) if len(answer) + 2 <= limit else None
