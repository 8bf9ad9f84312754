"""Notices what others do to our links and rules, and puts back what they took.

The kernel tells of each change (rtnetlink(7), nfnetlink); of legacy iptables it does not, so
that is looked at now and then.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from netlib.apply import apply
from netlib.errors import NetError
from netlib.frontends.daemon.news import ForwardingNews, LinkNews, RuleNews
from netlib.model import Family
from netlib.names import MARK
from netlib.net import Net
from netlib.plan import Plan
from netlib.records import EndpointRecord, NetworkRecord, load_endpoint
from netlib.store import under
from netlib.verbs.check import examine, missing
from netlib.wiring import FirewallBase, Forwarding, Layer, Link, Noun, Wiring

Tell = Callable[[dict[str, object]], None]

_IPTABLES = frozenset({"filter", "nat", "raw", "mangle"})
# Changes come in bursts, and our own removals end within this time.
_SETTLE_SECONDS = 0.1
_POLL_SECONDS = 5.0
# What can't be mended, now that somebody else is at it say, is tried again.
_FIRST_RETRY, _LONGEST_RETRY = 1.0, 60.0


class Watch:
    """Three sockets and one thread. `poll_seconds`: how often iptables is looked at."""

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
        self._links, self._rules, self._forwarding = LinkNews(), RuleNews(), ForwardingNews()
        self._heard = (self._links.sock, self._rules.sock, self._forwarding.sock)
        self._thread = threading.Thread(target=self._run, name="netlib-watch", daemon=True)
        self._ending = threading.Event()
        self._failures: set[str] = set()  # of this look

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, when what is being mended is."""
        self._ending.set()
        self._waker.send(b"!")
        self._thread.join(10)
        for sock in (self._wake, self._waker, *self._heard):
            sock.close()

    def _run(self) -> None:
        import select

        poller = select.poll()
        for sock in (self._wake, *self._heard):
            poller.register(sock, select.POLLIN)
        told: set[str] = set()
        pause = 0.0  # until what could not be mended is tried again
        while not self._ending.is_set():
            waits = [*([self._poll_seconds] if self._polls() else []), *([pause] if pause else [])]
            ready = bool(poller.poll(min(waits) * 1000 if waits else None))
            if self._ending.is_set():
                return
            if ready:
                time.sleep(_SETTLE_SECONDS)
            is_again = not ready and bool(pause)
            self._failures.clear()
            self._look(rules=not ready, everywhere=is_again)
            for text in sorted(self._failures - told):
                self._log(text)
            told |= self._failures
            if self._failures:
                pause = min(max(2 * pause, _FIRST_RETRY), _LONGEST_RETRY)
            elif is_again:
                told.clear()
                pause = 0.0

    def _polls(self) -> bool:
        return self._net.engine.kernel.firewall == "iptables"

    def _look(self, *, rules: bool, everywhere: bool) -> None:
        """Mend what is told of by now; rules, or all there is, also where nothing is told."""
        off, links = self._forwarding.read(), self._links.read()
        touched = self._rules.read(_IPTABLES if self._polls() else frozenset(), self._own_ports())
        try:
            if off:
                self._mend_forwarding(off)
            if links.marks:
                self._mend_links(links.marks)
            if links.damaged:
                self._mend_changed(links.damaged)
            if rules or touched:
                self._mend_rules()
            if everywhere or links.missed:
                self._mend_all()
        except NetError as error:
            self._failures.add(f"not mended: {error}")

    # -- mending ----------------------------------------------------------------------------------

    def _mend_forwarding(self, families: set[Family]) -> None:
        """Switch it on again where a network needs it."""
        engine = self._net.engine
        with engine.lock.shared():
            needed = {
                noun.key(): noun
                for record in engine.state.networks()
                if record.network.state == "ready"
                for noun in record.wiring
                if isinstance(noun, Forwarding) and noun.family in families
            }
            for noun in needed.values():
                plan = missing(Wiring([noun]), engine.kernel.observe(Wiring([noun])))
                if plan:
                    self._apply(f"IPv{noun.family} forwarding", plan)

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
            self._failures.add(f"not mended: {subject}: {error}")
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
