"""Notices what others do to our links and rules, and puts back what they took.

The kernel tells of each change (rtnetlink(7), nfnetlink); of legacy iptables it does not, so
that is looked at now and then.
"""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from netlib.apply import apply
from netlib.errors import NetError
from netlib.kernel.netlink import attributes, string
from netlib.names import MARK
from netlib.net import Net
from netlib.plan import Plan
from netlib.state import EndpointRecord, NetworkRecord, load_endpoint
from netlib.store import under
from netlib.verbs.check import examine, missing
from netlib.wiring import FirewallBase, Layer, Link, Noun, Wiring

Tell = Callable[[dict[str, object]], None]

_ROUTE, _NETFILTER = 0, 12
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_GROUP_NFTABLES = 7  # NFNLGRP_NFTABLES
_GROUPS_ROUTE = (1, 5, 9)  # RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR
_NEW_LINK, _DELETE_LINK, _DELETE_ADDRESS = 16, 17, 21
_LINK_UP = 1  # IFF_UP
_FAMILY_BRIDGE = 7  # AF_BRIDGE: a port leaves its bridge, and the device stays
_IFALIAS = 20
_SUBSYSTEM_NFTABLES = 10
# Deletions of tables, chains, rules, sets and elements (linux/netfilter/nf_tables.h).
_DELETIONS = frozenset({2, 5, 8, 11, 14})
_IPTABLES = frozenset({"filter", "nat", "raw", "mangle"})
_OUR_TABLE, _CHAIN_PREFIX = "netlib", "NETLIB-"
_HEADER = struct.Struct("=IHHII")
# The beginnings of ifinfomsg and ifaddrmsg (rtnetlink(7)).
_LINK, _ADDRESS = struct.Struct("=BxHiI"), struct.Struct("=BBBBi")
_BUFFER_BYTES = 4 << 20
# Changes come in bursts, and our own removals end within this time.
_SETTLE_SECONDS = 0.1
_POLL_SECONDS = 5.0


class Watch:
    """Two sockets and one thread. `poll_seconds`: how often iptables is looked at."""

    def __init__(
        self,
        net: Net,
        log: Callable[[str], None],
        tell: Tell = lambda event: None,
        poll_seconds: float = _POLL_SECONDS,
        own_ports: Callable[[], frozenset[int]] = frozenset,
    ) -> None:
        """`own_ports`: the netlink ports that this process changes the firewall from."""
        self._net = net
        self._log = log
        self._tell = tell
        self._poll_seconds = poll_seconds
        self._own_ports = own_ports
        self._wake, self._waker = socket.socketpair()
        self._links = _subscribed(_ROUTE, *_GROUPS_ROUTE)
        self._rules = _subscribed(_NETFILTER, _GROUP_NFTABLES)
        self._thread = threading.Thread(target=self._run, name="netlib-watch", daemon=True)
        self._ending = threading.Event()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, when what is being mended is."""
        self._ending.set()
        self._waker.send(b"!")
        self._thread.join(10)
        for sock in (self._wake, self._waker, self._links, self._rules):
            sock.close()

    def _run(self) -> None:
        import select

        poller = select.poll()
        for sock in (self._wake, self._links, self._rules):
            poller.register(sock, select.POLLIN)
        polls = self._net.engine.kernel.firewall == "iptables"
        while not self._ending.is_set():
            ready = {fd for fd, _ in poller.poll(self._poll_seconds * 1000 if polls else None)}
            if self._ending.is_set():
                return
            rules = not ready and polls
            deleted: set[str] = set()
            changed: set[int] = set()
            is_blind = False
            if ready:
                time.sleep(_SETTLE_SECONDS)
                if self._links.fileno() in ready:
                    deleted, changed, is_blind = _lost(self._links)
                if self._rules.fileno() in ready:
                    tables = _IPTABLES if polls else frozenset()
                    rules = _touches_us(self._rules, tables, self._own_ports())
            try:
                if deleted:
                    self._mend_links(deleted)
                if changed:
                    self._mend_changed(changed)
                if is_blind:
                    self._mend_all()
                if rules:
                    self._mend_rules()
            except NetError as error:
                self._log(f"not mended: {error}")

    # -- mending ----------------------------------------------------------------------------------

    def _mend_links(self, marks: set[str]) -> None:
        """Put back links that are wanted still, with what rode on them."""
        for mark in sorted(marks):
            if self._of_mark(mark) is not None:
                with self._net.engine.lock.alone():
                    found = self._of_mark(mark)  # is it wanted still?
                    if found is not None:
                        self._mend([found[0]], found[1])

    def _mend_changed(self, indexes: set[int]) -> None:
        """Likewise, of links that are there, what was taken from them."""
        named: list[str] = []
        for index in sorted(indexes):
            with suppress(OSError):  # it is gone, as is what it had
                named.append(socket.if_indextoname(index))
        devices = self._net.engine.facts(named).devices if named else {}
        for name in named:
            ours = name in devices and devices[name].ours
            if ours and self._is_damaged(self._of_name(name)):  # nobody is made to wait for a look
                with self._net.engine.lock.alone():
                    self._mend(*self._of_name(name))

    def _mend_all(self) -> None:
        """Likewise, where more happened than the kernel could tell."""
        if self._is_damaged(self._everything()):
            with self._net.engine.lock.alone():
                self._mend(*self._everything())

    def _everything(self) -> tuple[list[NetworkRecord], list[EndpointRecord]]:
        """All that is made and wanted."""
        state = self._net.engine.state
        return (
            [r for r in state.networks() if r.network.state == "ready"],
            [r for r in state.endpoints() if r.endpoint.state == "ready"],
        )

    def _of_name(self, name: str) -> tuple[list[NetworkRecord], list[EndpointRecord]]:
        """Whose a link of the host is: one network's or one endpoint's, if anybody's."""
        state = self._net.engine.state

        def has(record: NetworkRecord | EndpointRecord) -> bool:
            return any(
                isinstance(noun, Link) and noun.name == name and not noun.netns.path
                for noun in record.wiring
            )

        networks = [r for r in state.networks() if r.network.state == "ready" and has(r)]
        if networks:
            return networks, []
        return [], [r for r in state.endpoints() if r.endpoint.state == "ready" and has(r)]

    def _is_damaged(self, owner: tuple[list[NetworkRecord], list[EndpointRecord]]) -> bool:
        return any(found.plan for found in examine(self._net.engine, *owner))

    def _of_mark(self, mark: str) -> tuple[NetworkRecord, list[EndpointRecord]] | None:
        """Whose a link is, if anybody wants it: a network's with all on it, or an endpoint's."""
        store = self._net.engine.state.store
        network_id, _, endpoint_id = mark.removeprefix(MARK).partition("/")
        record = self._net.engine.state.find_network(network_id)
        if record is None or record.network.state != "ready":
            return None
        found = store.range(*under(f"endpoint/{record.network.id}/{endpoint_id}"))
        endpoints = [load_endpoint(one.value, one.revision) for one in found]
        ready = [one for one in endpoints if one.endpoint.state == "ready"]
        return None if endpoint_id and not ready else (record, ready)

    def _mend(self, networks: list[NetworkRecord], endpoints: list[EndpointRecord]) -> None:
        for finding in examine(self._net.engine, networks, endpoints):
            if finding.plan:
                self._apply(finding.subject, finding.plan)

    def _mend_rules(self) -> None:
        """Compare all that the firewall is told with what it has, and add what it lacks."""
        # Nobody is made to wait for the first look.
        if self._missing_rules():
            with self._net.engine.lock.alone():
                plan = self._missing_rules()
                if plan:
                    self._apply("firewall", plan)

    def _missing_rules(self) -> Plan:
        engine = self._net.engine
        networks, endpoints = self._everything()
        records: list[NetworkRecord | EndpointRecord] = [*networks, *endpoints]
        wanted = Wiring(_firewall_nouns(noun for r in records for noun in r.wiring))
        return missing(wanted, engine.kernel.observe(wanted)) if wanted else Plan()

    def _apply(self, subject: str, plan: Plan) -> None:
        try:
            apply(plan, self._net.engine.kernel)
        except NetError as error:
            self._log(f"not mended: {subject}: {error}")
        else:
            self._log(f"mended: {subject}")
            self._tell({"time": time.time(), "event": "repair", "subject": subject})


def _firewall_nouns(nouns: Iterable[Noun]) -> Iterator[Noun]:
    seen: set[tuple[object, ...]] = set()
    for noun in nouns:
        is_firewall = isinstance(noun, FirewallBase) or noun.layer is Layer.FIREWALL
        if is_firewall and noun.key() not in seen:
            seen.add(noun.key())
            yield noun


def _subscribed(protocol: int, *groups: int) -> socket.socket:
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, protocol
    )
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    sock.bind((0, 0))
    for group in groups:
        sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    return sock


def _lost(sock: socket.socket) -> tuple[set[str], set[int], bool]:
    """The marks of our links that went away; which links were left down, or lost something.

    And whether there was more to tell than there was room for. Links come and go all the time:
    only of those that are gone is more read than the beginning.
    """
    marks: set[str] = set()
    gone: set[int] = set()
    lost: set[int] = set()
    is_up: dict[int, bool] = {}
    is_blind = False
    for kind, body, _ in _messages(sock):
        if kind == 0:
            is_blind = True
        elif kind == _DELETE_LINK:
            family, _, index, _ = _LINK.unpack_from(body)
            if family == _FAMILY_BRIDGE:
                lost.add(index)
                continue
            gone.add(index)
            mark = string(attributes(body, 16).get(_IFALIAS))
            if mark.startswith(MARK):
                marks.add(mark)
        elif kind == _NEW_LINK:
            family, _, index, flags = _LINK.unpack_from(body)
            if not family:
                is_up[index] = bool(flags & _LINK_UP)
        elif kind == _DELETE_ADDRESS:
            lost.add(_ADDRESS.unpack_from(body)[4])
    changed = (lost | {index for index, up in is_up.items() if not up}) - gone
    return marks, changed, is_blind


def _touches_us(sock: socket.socket, tables: frozenset[str], own: frozenset[int]) -> bool:
    """Whether something of ours was deleted: in our table, or our chains in iptables' `tables`.

    By others: what came from one of our `own` ports was meant, and reading all that is there
    takes longer the more there is.
    """
    found = False
    for kind, body, port in _messages(sock):
        if kind == 0:
            found = True  # some were lost
        elif port in own:
            continue
        elif kind >> 8 == _SUBSYSTEM_NFTABLES and kind & 0xFF in _DELETIONS and not found:
            names = attributes(body, 4)
            table, chain = string(names.get(1)), string(names.get(2))
            found = chain.startswith(_CHAIN_PREFIX) if table in tables else table == _OUR_TABLE
    return found


def _messages(sock: socket.socket) -> Iterator[tuple[int, bytes, int]]:
    """All messages that wait: type, body, whose port; type 0 where the kernel dropped some."""
    while True:
        try:
            data = sock.recv(1 << 17)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield 0, b"", 0
            continue
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, _, port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                break
            yield kind, data[offset + _HEADER.size : offset + length], port
            offset += length + 3 & ~3
