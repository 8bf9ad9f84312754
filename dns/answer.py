"""The answer is a function of the query, of who asks, and of the zone.

Pure, but for the order of several addresses, which is a fresh one each time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from netlib.dns import wire
from netlib.dns.zone import LOCALHOST, LOOPBACK, LOOPBACK_POINTERS, Asker, Sets, Zone
from netlib.values import dataclass

# Transfers and what is only ever between servers or inside a message (RFC 6895 section 3.1).
_TRANSFERS = frozenset((251, 252))
_META = frozenset((wire.OPT, 249, 250, 253, 254))
_LONGEST_CHAIN = 8

Group = tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What we know ourselves. `groups` of records, those of the asker's own network first.

    `chain` are the CNAMEs that lead from the question's name to the records' owner.
    """

    rcode: int = wire.NOERROR
    groups: tuple[Group, ...] = ()
    chain: Group = ()
    authoritative: bool = True

    def packed(self, query: wire.Query) -> bytes:
        """The message, without an OPT record; each group in random order."""
        records = [*self.chain]
        for group in self.groups:
            records += random.sample(group, len(group)) if len(group) > 1 else group
        return wire.reply(query, self.rcode & 0xF, tuple(records), aa=self.authoritative)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A question for other servers (`servers` empty: the host's), after our own `chain`.

    `within` names the sandbox from where they are asked; empty: the host.
    `exists`: the name has names of ours below it, so nobody may say that it does not exist.
    """

    question: bytes
    servers: tuple[str, ...] = ()
    within: str = ""
    chain: Group = ()
    exists: bool = False


def answer(query: wire.Query, asker: Asker | None, zone: Zone) -> Answer | Forward:
    """What the asker may learn: names on its own networks, or where to ask next."""
    refusal = _refusal(query, asker)
    if asker is None or refusal:
        return Answer(rcode=refusal, authoritative=False)
    name = query.name
    chain: Group = ()
    while True:
        found = list(_lookup(name, asker, zone))
        if not any(found):
            break
        groups = _groups(found, query)
        alias = _alias(found, query)
        if groups or alias is None or len(chain) >= _LONGEST_CHAIN:
            owned = tuple(tuple(_owned(r, name, chain) for r in group) for group in groups)
            return Answer(groups=owned, chain=chain)
        chain = (*chain, _owned(alias, name, chain))
        name = alias[12:].lower()
    if asker.forwards:
        question = name + query.wanted if chain else query.question
        return Forward(
            question=question,
            servers=asker.servers,
            within=asker.within,
            chain=chain,
            exists=bool(found),
        )
    rcode = wire.NOERROR if found else wire.NXDOMAIN
    return Answer(rcode=rcode, chain=chain, authoritative=bool(found or chain))


def _refusal(query: wire.Query, asker: Asker | None) -> int:
    """The response code of what is not answered, else 0."""
    if query.opcode:  # NOTIFY, UPDATE and so on
        return wire.NOTIMP
    if query.edns is not None and query.edns.version:
        return wire.BADVERS
    if asker is None or query.class_ != wire.IN or query.type in _TRANSFERS:
        return wire.REFUSED
    return wire.NOTIMP if query.type in _META else 0


def _lookup(name: bytes, asker: Asker, zone: Zone) -> Iterator[Sets]:
    """The RRsets of a name on each network where it exists, the asker's own first.

    A wildcard stands for what is missing below the nearest parent that exists (RFC 4592). Names of
    the loopback are everybody's own, and nobody else is asked for them (RFC 6761 section 6.3).
    """
    tables = [zone.names[network] for network in asker.networks]
    known = [table[name] for table in tables if name in table]
    loopback = None if any(known) else _loopback(name)
    if loopback is not None:
        yield loopback
        return
    if known:
        yield from known
        return
    at = 0
    while name[at]:
        at += name[at] + 1
        parent = name[at:]
        wildcard = b"\x01*" + parent
        known = [table[wildcard] for table in tables if wildcard in table]
        if known or any(parent in table for table in tables):
            yield from known
            return


def _loopback(name: bytes) -> Sets | None:
    """The RRsets of `localhost`, of a name below it, or of the reverse name of its address."""
    if name in LOOPBACK_POINTERS:
        return LOOPBACK_POINTERS[name]
    if not name.endswith(LOCALHOST):  # also of a name where that is in the middle of a label
        return None
    at = 0
    while name[at:] != LOCALHOST:
        if not name[at]:
            return None
        at += name[at] + 1
    return LOOPBACK


def _groups(found: list[Sets], query: wire.Query) -> tuple[Group, ...]:
    """The records asked for, one group for each network, none of them twice."""
    groups: list[Group] = []
    seen: set[bytes] = set()
    for sets in found:
        if query.type == wire.ANY:
            records = tuple(record for group in sets.values() for record in group)
        else:
            records = sets.get(query.wanted, ())
        fresh = tuple(record for record in records if record not in seen)
        seen.update(fresh)
        if fresh:
            groups.append(fresh)
    return tuple(groups)


def _alias(found: list[Sets], query: wire.Query) -> bytes | None:
    """The CNAME record to follow, if that is what the name has instead."""
    cname = wire.CNAME.to_bytes(2) + wire.IN.to_bytes(2)
    return next((sets[cname][0] for sets in found if cname in sets), None)


def _owned(record: bytes, name: bytes, chain: Group) -> bytes:
    """A record under its owner: the question's name, or one that a chain of CNAMEs led to."""
    return name + record[2:] if chain else record
