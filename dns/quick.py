"""The common query: its answer is a look-up of the packed question."""

from __future__ import annotations

import random

from netlib.dns import wire
from netlib.dns.zone import Asker, Zone

# A plain query's header after its id → whether an OPT record follows.
_PLAIN_QUERIES = {
    flags.to_bytes(2) + b"\0\1\0\0\0\0\0" + bytes([extra]): bool(extra)
    for flags in (wire.RD, wire.RD | wire.AD, 0)
    for extra in (0, 1)
}
_MANY = 24  # more answers than that may need truncation
_HEADERS = {
    query: [
        wire.reply_flags(int.from_bytes(query[:2]), 0, authoritative=True).to_bytes(2)
        + b"\0\1"
        + count.to_bytes(2)
        + b"\0\0\0"
        + query[-1:]
        for count in range(_MANY)
    ]
    for query in _PLAIN_QUERIES
}
_EMPTY_OPT = b"\0\0\x29"
_OPT_BYTES = 11
_OUR_OPT = wire.opt_record(wire.UDP_PAYLOAD_BYTES)
_SMALL = wire.PLAIN_UDP_BYTES


def quick(  # noqa: PLR0912 - calls would cost more
    message: bytes, asker: Asker, zone: Zone, tally: dict[bytes, int] | None = None
) -> bytes | None:
    """The packed answer to the common query, by looking up the packed question; else None.

    It equals that of `netlib.dns.answer` wherever it is not None. A question that is found needs no
    parsing: the table's keys are well-formed. `tally` counts the names found.
    """
    head = message[2:12]
    extra = _PLAIN_QUERIES.get(head)
    if extra is None:
        return None
    if extra:
        opt = message[-_OPT_BYTES:]
        # An OPT without options, version 0, no flags; sizes below 512 count as 512.
        if opt[:3] != _EMPTY_OPT or opt[5:] != b"\0\0\0\0\0\0":
            return None
        question = message[12:-_OPT_BYTES]
    else:
        question = message[12:]
    name, wanted = question[:-4].lower(), question[-4:]
    names = zone.names
    records: tuple[bytes, ...] | None = None
    for network in asker.networks:
        sets = names[network].get(name)
        if sets is not None:
            if records is not None:
                return None  # known on several networks: merging takes its time
            records = sets.get(wanted)
            if records is None:
                return None
    if records is None:
        return None
    count = len(records)
    if count == 1:
        body = records[0]
    elif count < _MANY:
        body = b"".join(random.sample(records, count))
    else:
        return None
    if extra:
        body += _OUR_OPT
    if len(question) + len(body) > _SMALL - 12:
        return None
    if tally is not None:
        tally[name] = tally.get(name, 0) + 1
    return b"".join((message[:2], _HEADERS[head][count], question, body))
