"""nf_tables spoken to directly: what every operation asks, in 10 to 100 us each time.

libnftables lists all tables, chains and sets before whatever it is told, and the elements of
those sets that are concerned. It stays the one that makes the base, reads facts and explains
refusals (docs/decisions/0023).
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from netlib.errors import KernelError, NotThere
from netlib.firewall.facts import Element
from netlib.firewall.nftables_base import FINGERPRINT, TABLE, USER_CHAIN
from netlib.kernel import netlink
from netlib.kernel.errnos import Refusal, refused
from netlib.kernel.netfilter import elements
from netlib.kernel.netfilter.program import Place
from netlib.kernel.netlink import DUMP, Request, attributes, string, text

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_SUBSYSTEM = 10 << 8
_GET_TABLE, _GET_CHAIN, _GET_RULE = _SUBSYSTEM | 1, _SUBSYSTEM | 4, _SUBSYSTEM | 7
_GET_SET, _GET_ELEMENTS, _GET_GENERATION = _SUBSYSTEM | 10, _SUBSYSTEM | 13, _SUBSYSTEM | 16
_FAMILIES = {"inet": 1, "ip": 2, "ip6": 10}
_HEADER = 4  # struct nfgenmsg: its last half is a part of the generation
_IN_TABLE, _IN_SET = 1, 2  # of chains, rules, sets and lists of elements alike
_CHAIN_HANDLE, _CHAIN_NAME, _HOOK, _POLICY, _CHAIN_TYPE = 2, 3, 4, 5, 7
_HOOK_NUMBER = 1
_RULE_CHAIN, _RULE_EXPRESSIONS = 2, 4
_EXPRESSION, _NAME, _DETAILS = 1, 1, 2
_IMMEDIATE_DATA, _VERDICT, _CODE, _TARGET_NAME = 2, 2, 1, 1
# Half of what a socket may send at once unless it asks for more (net.core.wmem_default).
_MOST_BYTES = 100_000
_CHAIN_LASTING = (_CHAIN_HANDLE, _CHAIN_NAME, _HOOK, _POLICY, _CHAIN_TYPE)
# A set's name, flags, types and handle, but not how many elements it has.
_SET_LASTING = (2, 3, 4, 5, 6, 7, 16)
_HOOKS = {1: "input", 2: "forward"}
_DROP = 0
_PORTS = 8


class Chain(NamedTuple):
    """A chain of any table; `hook` of a base chain only, and only those that we ask for."""

    family: str
    table: str
    name: str
    type: str
    hook: str
    drops: bool  # by policy


class Rule(NamedTuple):
    """A rule's chain, and its expressions: their names with what belongs to them."""

    chain: str
    expressions: tuple[tuple[str, bytes], ...]


class Ruleset:
    """One socket in one network namespace; for many threads, one after the other.

    It is kept: closing it waits 10 ms or more for all that was deleted before.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._lock = threading.Lock()
        self._socket: netlink.Socket | None = None
        self._ports: deque[int] = deque(maxlen=_PORTS)
        self._closed = False
        self._chains: tuple[int, list[Chain]] = -1, []  # and the generation that they are of

    def close(self) -> None:
        """Give the socket back; once more is no failure."""
        with self._lock:
            self._closed = True
            self._drop()

    def senders(self) -> frozenset[int]:
        """The netlink ports that changes were made from, the last ones at least."""
        return frozenset(self._ports)

    def change(self, gone: Sequence[Element], come: Sequence[Element]) -> bool:
        """Delete and add elements of our table, all or none; False if the kernel refused.

        Why it did, libnftables tells who asks it the same. It takes what is too much for a
        socket's buffer, too: it makes its own larger.
        """
        requests = elements.requests(gone, come)
        if sum(len(request.body) for request in requests) > _MOST_BYTES:
            return False
        with self._lock:
            done = False
            try:
                done = self._open().transaction(elements.BEGIN, requests, elements.END)
            finally:
                if not done:  # answers may be under way
                    self._drop()
            return done

    def generation(self) -> int:
        """A number that every transaction raises by one."""
        (answer,) = self._asked(_GET_GENERATION, "", 0)
        return int.from_bytes(attributes(answer, _HEADER)[1], "big")

    def has_table(self) -> bool:
        """Whether our table is there."""
        try:
            family, _, name = TABLE.partition(" ")
            return bool(self._asked(_GET_TABLE, family, 0, text(_IN_TABLE, name)))
        except NotThere:
            return False

    def chains(self) -> list[Chain]:
        """The chains of all tables of the families that we know."""
        now = self.generation()
        known_at, known = self._chains
        if known_at == now:
            return known
        names = {number: name for name, number in _FAMILIES.items()}
        found = [
            _chain(names[body[0]], attributes(body, _HEADER))
            for body in self._asked(_GET_CHAIN, "", DUMP)
            if body[0] in names
        ]
        self._chains = now, found  # what came since then has made another generation
        return found

    def rules(self, table: str) -> list[Rule]:
        """The rules of a table: `ip filter`."""
        family, _, name = table.partition(" ")
        bodies = self._asked(_GET_RULE, family, DUMP, text(_IN_TABLE, name))
        return [_rule(attributes(body, _HEADER)) for body in bodies]

    def own_base(self) -> int | None:
        """A number that stands for our table without its facts, as it is now; None: it is gone.

        What the administrator has in his chain does not count.
        """
        try:
            return hash(tuple(self._own_parts()))
        except NotThere:
            return None

    def _own_parts(self) -> Iterator[bytes]:
        family, _, name = TABLE.partition(" ")
        table = text(_IN_TABLE, name)
        for body in self._asked(_GET_CHAIN, family, DUMP):
            found = attributes(body, _HEADER)
            if string(found.get(_IN_TABLE)) == name:
                yield from (found.get(key, b"") for key in _CHAIN_LASTING)
        # The kernel begins with table and chain (nf_tables_fill_rule_info): to read all that
        # follows, of hundreds of rules, would take a millisecond.
        users = table + text(_RULE_CHAIN, USER_CHAIN)
        for body in self._asked(_GET_RULE, family, DUMP, table):
            if not body.startswith(users, _HEADER):
                yield body[_HEADER:]
        for body in self._asked(_GET_SET, family, DUMP, table):
            found = attributes(body, _HEADER)
            yield from (found.get(key, b"") for key in _SET_LASTING)
        for body in self._asked(_GET_ELEMENTS, family, DUMP, table, text(_IN_SET, FINGERPRINT)):
            yield body[_HEADER:]

    def _asked(self, kind: int, family: str, flags: int, *attrs: bytes) -> list[bytes]:
        header = struct.pack("=BBH", _FAMILIES.get(family, 0), 0, 0)
        with self._lock:
            try:
                found = self._open().try_to_ask(Request(kind, flags, header + b"".join(attrs)))
            except BaseException:
                self._drop()
                raise
        if isinstance(found, Refusal):
            raise refused(found, "the rules of nftables can't be read")
        return found

    def _open(self) -> netlink.Socket:
        if self._closed:
            raise KernelError("this firewall is closed")
        if self._socket is None:
            self._socket = self._place.call(lambda: netlink.Socket(netlink.NETFILTER))
            self._ports.append(self._socket.port())
        return self._socket

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _chain(family: str, found: dict[int, bytes]) -> Chain:
    hook = attributes(found.get(_HOOK, b"")).get(_HOOK_NUMBER, b"")
    return Chain(
        family=family,
        table=string(found.get(_IN_TABLE)),
        name=string(found.get(_CHAIN_NAME)),
        type=string(found.get(_CHAIN_TYPE)),
        hook=_HOOKS.get(int.from_bytes(hook, "big"), "") if hook else "",
        drops=_POLICY in found and int.from_bytes(found[_POLICY], "big") == _DROP,
    )


def verdict(name: str, details: bytes) -> str:
    """What a rule's last expression does: `drop`, or what iptables calls its target."""
    if name == "target":
        return string(attributes(details).get(_TARGET_NAME))
    if name == "immediate":
        data = attributes(attributes(details).get(_IMMEDIATE_DATA, b""))
        code = attributes(data.get(_VERDICT, b"")).get(_CODE)
        return "drop" if code == bytes(4) else ""
    return ""


def _rule(found: dict[int, bytes]) -> Rule:
    expressions = [
        attributes(one) for one in netlink.members(found.get(_RULE_EXPRESSIONS, b""), _EXPRESSION)
    ]
    return Rule(
        string(found.get(_RULE_CHAIN)),
        tuple((string(e.get(_NAME)), e.get(_DETAILS, b"")) for e in expressions),
    )
