"""The common query: its answer is a look-up of the packed question, in the zone or the cache.

This is the road of nearly every datagram, so it is one function without calls of ours.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from netlib.dns import wire
from netlib.dns.zone import Asker, Sets, Zone

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


def _header(query: bytes, count: int) -> bytes:
    """An authoritative answer's header after its id."""
    flags = wire.reply_flags(int.from_bytes(query[:2]), wire.NOERROR, authoritative=True)
    return flags.to_bytes(2) + b"\0\1" + count.to_bytes(2) + b"\0\0\0" + query[-1:]


_HEADERS = {query: [_header(query, count) for count in range(_MANY)] for query in _PLAIN}


def quick_road(
    resolver: Resolver,
    askers_of: Callable[[Zone], Callable[[bytes], Asker | None]],
    slow: Respond,
) -> Respond:
    """Answers over UDP what needs no thought, and leaves all else to `slow`.

    Where it answers, it answers as `Resolver.respond` would. A question that is found needs
    no parsing: what it is looked up in has well-formed keys.
    """
    zone = resolver.zone
    asker_at = askers_of(zone)
    kept, tally, count_first = resolver.cache.parts, resolver.stats.names, resolver.stats.name
    host_servers = resolver.host_servers.recent
    plain, opts, headers, shuffled = _PLAIN, _OPTS, _HEADERS, random.sample

    def respond(message: bytes, source: bytes, slot: int) -> bytes | None:  # noqa: PLR0912 - no calls
        nonlocal zone, asker_at
        if resolver.zone is not zone:
            zone = resolver.zone
            asker_at = askers_of(zone)
        asker = asker_at(source)
        head = message[2:12]
        extra = plain.get(head)
        if asker is None or extra is None or resolver.log is not None:
            return slow(message, source, slot)
        if extra:
            limit = opts.get(message[-11:], 0)
            question, opt = message[12:-11], _OUR_OPT
        else:
            limit = 512
            question, opt = message[12:], b""
        name, wanted = question[:-4].lower(), question[-4:]
        found: Sets | None = None
        names = zone.names
        for network in asker.networks:
            sets = names[network].get(name)
            if sets is not None:
                if found is not None:  # known on several networks: merging takes its time
                    return slow(message, source, slot)
                found = sets
        if found is not None:
            records = found.get(wanted)
            if records is None or len(records) >= _MANY:
                return slow(message, source, slot)
            count = len(records)
            body = records[0] if count == 1 else b"".join(shuffled(records, count))
            answer = message[:2] + headers[head][count] + question + body + opt
        else:
            # With AD set the client wants to know what AD is: only RD.
            if head[:2] != b"\1\0" or not asker.forwards:
                return slow(message, source, slot)
            parts = kept((name + wanted, 0, False, asker.servers or host_servers()))
            if parts is None:
                return slow(message, source, slot)
            answer = message[:2] + parts[0][extra] + question + parts[1] + opt
        if len(answer) > limit:
            return slow(message, source, slot)
        if name in tally:
            tally[name] += 1
        else:
            count_first(name)
        return answer

    return respond
