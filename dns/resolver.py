"""From a packed query to a packed answer, now or later: zone, then cache, then other servers."""

from __future__ import annotations

from collections.abc import Callable

from netlib.dns import wire
from netlib.dns.answer import Answer, Forward, answer
from netlib.dns.cache import Cache
from netlib.dns.facts import Update
from netlib.dns.forward import Forwarder, Question
from netlib.dns.loop import Loop
from netlib.dns.quick import Known
from netlib.dns.stats import Stats
from netlib.dns.upstream import HostServers, Server
from netlib.dns.within import Open, Within
from netlib.dns.zone import Asker, Zone
from netlib.values import dataclass, replace

# Stubs with a cache (c-ares, systemd-resolved) keep that a name is missing, too.
LONGEST_MISSING_SECONDS = 5

Later = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class _Case:
    """A query, who asks it, and how many bytes the answer may have."""

    query: wire.Query
    asker: Asker | None
    limit: int


def who(asker: Asker | None) -> str:
    """The sandbox that asks; "" is the host, "?" a stranger."""
    return asker.sandbox if asker is not None else "?"


class Resolver:
    """Answers for one zone, as it is.

    `log`, when set, gets each query's asker, name, type and what became of it.
    """

    def __init__(
        self,
        loop: Loop,
        is_ours: Callable[[Server | Within], bool] = lambda _: False,
        resolv_conf: str = "/etc/resolv.conf",
        open_within: Open = lambda _, done: done(None),
    ) -> None:
        self.zone = Zone()
        self.again: dict[bytes, Known] = {}  # see netlib.dns.quick
        self.stats = Stats()
        self.cache = Cache()
        self.forwarder = Forwarder(loop, is_ours, open_within)
        self.host_servers = HostServers(resolv_conf, changed=self._elsewhere)
        self.log: Callable[[str, str, int, str], None] | None = None

    def swap(self, zone: Zone) -> None:
        """Answer by another zone from the next query on."""
        self.zone = zone
        self.again = {}

    def change(self, update: Update) -> None:
        """Answer by what an update says from the next query on.

        What others said is kept, but where it may be ours now, or another namespace's.
        """
        if update.full:
            self.swap(Zone.build(update.networks, update.endpoints, update.revision))
            self.cache.clear()
            return
        endpoints = self.zone.endpoints
        left = {endpoints[gone].sandbox for gone in update.gone if gone in endpoints}
        within = {asker.within for s in left if (asker := self.zone.sandboxes.get(s)) is not None}
        self.zone.change(update)
        self.again = {}
        if update.networks:
            self.cache.clear()  # a wildcard of theirs may stand for what was asked of others
        elif within - {""}:
            self.cache.forget(lambda key: key[-1] in within)

    def _elsewhere(self) -> None:
        """The host has other servers, perhaps since it is on another network."""
        self.cache.clear()
        self.forwarder.standing.clear()

    def respond(
        self, message: bytes, asker: Asker | None, later: Later, *, tcp: bool = False
    ) -> bytes | None:
        """The packed answer; None: none at all, or `later` is called with it once."""
        if len(message) < wire.HEADER_BYTES or message[2] & 0x80:
            self.stats.dropped += 1  # not even a header, or an answer: answering it makes a loop
            return None
        if message[2] & 0x78:
            return self._error(message, wire.NOTIMP)  # what else it holds depends on the opcode
        try:
            query = wire.parse_query(message)
        except wire.Malformed:
            return self._error(message, wire.FORMERR)
        limit = wire.TCP_BYTES if tcp else query.udp_limit()
        return self._decide(_Case(query, asker, limit), later)

    def _decide(self, case: _Case, later: Later) -> bytes | None:
        query, asker = case.query, case.asker
        found = answer(query, asker, self.zone)
        self.stats.name(query.name)
        if isinstance(found, Answer):
            return self._finish(case, found.packed(query), "here", found.rcode)

        dnssec = query.edns.wants_dnssec if query.edns is not None else None
        servers, within = self._others(found, asker)
        question = Question(found.question, query.flags, dnssec, servers, within)
        kept = self.cache.get(question.key)
        if kept is not None:
            return self._finish(case, grafted(query, found, kept), "cache")

        def done(message: bytes | None, records: list[wire.Record]) -> None:
            if message is None:
                later(self._finish(case, wire.reply(query, wire.SERVFAIL), "nobody"))
                return
            if _is_of_one_label(question.packed):
                message, records = briefly(message, records)
            if question.key not in self.cache:  # one who asked the same may have been first
                self.cache.put(question.key, message, records)
            later(self._finish(case, grafted(query, found, message), "forward"))

        if self.forwarder.ask(question, who(case.asker), done):
            self.stats.forwarded += 1
            return None
        return self._finish(case, wire.reply(query, wire.REFUSED), "too many")

    def _others(self, found: Forward, asker: Asker | None) -> tuple[tuple[str, ...], str]:
        """Whom to ask, and from within which sandbox.

        Servers that are all ourselves say no more than that we are to be asked (`--dns GATEWAY`):
        then it is for us to know whom else to ask, as if there were none.
        """
        if found.servers and self.forwarder.usable(found.servers, found.within):
            return found.servers, found.within
        if found.servers and asker is not None:
            for network in map(self.zone.networks.__getitem__, asker.networks):
                if not network.internal and self.forwarder.usable(network.servers, ""):
                    return network.servers, ""
        return self.host_servers(), ""

    def _finish(self, case: _Case, message: bytes, how: str, rcode: int | None = None) -> bytes:
        """The message as an answer to this very query, with OPT if it had one, and not too long."""
        query = case.query
        if rcode is None:
            rcode = message[3] & 0xF
        flags = int.from_bytes(message[2:4]) & ~(wire.RD | wire.CD) | wire.QR | wire.RA
        flags |= query.flags & (wire.RD | wire.CD)
        dnssec = query.edns is not None and query.edns.wants_dnssec
        if how != "here":
            flags &= ~wire.AA
        if not (dnssec or query.flags & wire.AD):  # RFC 6840 section 5.8
            flags &= ~wire.AD
        opt = b""
        if query.edns is not None:
            opt = wire.opt_record(wire.UDP_PAYLOAD_BYTES, rcode, dnssec=dnssec)
        # The question as it was asked: the same name may have come in another case.
        head = query.id + flags.to_bytes(2) + b"\0\1" + message[6:12] + query.question
        end = wire.HEADER_BYTES + (len(query.question) if message[4:6] == b"\0\1" else 0)
        self.stats.codes[rcode] += 1
        if self.log is not None:
            outcome = f"{how} {wire.rcode_text(rcode)}"
            self.log(who(case.asker), wire.name_text(query.name), query.type, outcome)
        return wire.fitted(head + message[end:], case.limit, opt)

    def _error(self, message: bytes, rcode: int) -> bytes | None:
        self.stats.codes[rcode] += 1
        return wire.error_reply(message, rcode)


def _is_of_one_label(question: bytes) -> bool:
    return question[0] > 0 and question[question[0] + 1] == 0


def briefly(message: bytes, found: list[wire.Record]) -> tuple[bytes, list[wire.Record]]:
    """What others said does not exist, for a few seconds only: with the next connect it may."""
    if any(record.section == 1 for record in found):
        return message, found
    short = [
        replace(record, ttl=min(record.ttl, LONGEST_MISSING_SECONDS))
        if record.type == wire.SOA
        else record
        for record in found
    ]
    ttls = tuple((record.ttl_at, record.ttl) for record in short)
    return wire.aged(message, ttls, 0), short


def grafted(query: wire.Query, forward: Forward, message: bytes) -> bytes:
    """What others said of a question of ours: behind our CNAMEs, and true of names of ours."""
    rcode = message[3] & 0xF
    if forward.exists and rcode == wire.NXDOMAIN:
        rcode = wire.NOERROR
        message = message[:3] + bytes([message[3] & 0xF0]) + message[4:]
    if not forward.chain:
        return message
    sections: list[list[bytes]] = [[*forward.chain], []]
    try:
        for record in wire.records(message, wire.question_end(message)):
            if record.section < 3:
                sections[record.section - 1].append(wire.uncompressed(message, record))
    except wire.Malformed:
        return wire.reply(query, wire.SERVFAIL)
    answers, authority = sections
    whole = wire.reply(query, rcode, (*answers, *authority))
    whole = whole[:2] + bytes([whole[2] | message[2] & wire.TC >> 8]) + whole[3:]
    return whole[:6] + len(answers).to_bytes(2) + len(authority).to_bytes(2) + whole[10:]
