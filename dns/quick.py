"""The common query: its answer is a look-up of the packed question, in the zone or the cache."""

from __future__ import annotations

import random
from collections.abc import Callable

from netlib.dns import wire
from netlib.dns.cache import Cache
from netlib.dns.zone import Asker, Zone

# A plain query's header after its id → whether an OPT record follows.
_PLAIN = {
    flags.to_bytes(2) + b"\0\1\0\0\0\0\0" + bytes([extra]): bool(extra)
    for flags in (wire.RD, wire.RD | wire.AD, 0)
    for extra in (0, 1)
}
# An OPT record without flags or options, as stubs send it → the size that the client takes.
_OPTS = {
    wire.opt_record(size): min(size, wire.UDP_PAYLOAD_BYTES)
    for size in (512, 1200, 1220, 1232, 1280, 1400, 1410, 1432, 1452, 1472, 2048, 4000, 4096, 65535)
}
_OPT_BYTES = 11
_OUR_OPT = wire.opt_record(wire.UDP_PAYLOAD_BYTES)
_MANY = 24  # more answers than that may need truncation


def _header(query: bytes, count: int) -> bytes:
    """An authoritative answer's header after its id."""
    flags = wire.reply_flags(int.from_bytes(query[:2]), wire.NOERROR, authoritative=True)
    return flags.to_bytes(2) + b"\0\1" + count.to_bytes(2) + b"\0\0\0" + query[-1:]


_HEADERS = {query: [_header(query, count) for count in range(_MANY)] for query in _PLAIN}


class Quick:
    """Answers what needs no thought. It equals the whole road wherever it answers.

    A question that is found needs no parsing: what it is looked up in has well-formed keys.
    `tally` counts the names found; `host_servers` are asked where a network has none.
    """

    def __init__(
        self, cache: Cache, tally: dict[bytes, int], host_servers: Callable[[], tuple[str, ...]]
    ) -> None:
        self._cache = cache
        self._tally = tally
        self._host_servers = host_servers

    def __call__(self, message: bytes, asker: Asker, zone: Zone) -> bytes | None:
        """The packed answer over UDP; None: it takes more than a look-up."""
        head = message[2:12]
        extra = _PLAIN.get(head)
        if extra:
            limit = _OPTS.get(message[-_OPT_BYTES:], 0)
            question = message[12:-_OPT_BYTES]
            opt = _OUR_OPT
        elif extra is None:
            return None
        else:
            limit = wire.PLAIN_UDP_BYTES
            question = message[12:]
            opt = b""
        name, wanted = question[:-4].lower(), question[-4:]
        found = None
        names = zone.names
        for network in asker.networks:
            sets = names[network].get(name)
            if sets is not None:
                if found is not None:
                    return None  # known on several networks: merging takes its time
                found = sets
        if found is None:
            # AD would want to know what AD is: only RD.
            if head[:2] != b"\1\0" or not asker.forwards:
                return None
            servers = asker.servers or self._host_servers()
            parts = self._cache.parts((name + wanted, 0, False, servers))
            if parts is None:
                return None
            answer = b"".join((message[:2], parts[0][extra], question, parts[1], opt))
        else:
            records = found.get(wanted)
            if records is None or len(records) >= _MANY:
                return None
            count = len(records)
            body = records[0] if count == 1 else b"".join(random.sample(records, count))
            answer = b"".join((message[:2], _HEADERS[head][count], question, body, opt))
        if len(answer) > limit:
            return None
        tally = self._tally
        tally[name] = tally.get(name, 0) + 1
        return answer
