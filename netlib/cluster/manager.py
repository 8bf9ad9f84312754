"""What a member's daemon does for its membership: follows the host's own state, and sees to it.

A manager's etcd is started, and started again when it ends; others are let in; and whoever has
an etcd of ours keeps up with which servers it has.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from netlib.cluster import files as names
from netlib.cluster import keys
from netlib.cluster.addresses import place
from netlib.cluster.admission import Admission
from netlib.cluster.doors import Doors
from netlib.cluster.listener import Listener
from netlib.cluster.model import JOIN_PORT, Membership, Node
from netlib.cluster.server import Server, client_url
from netlib.errors import NetError, StoreError
from netlib.keys import MEMBERSHIP_KEY
from netlib.records import dump, load_as
from netlib.store import Commit, Record, Unchanged, under
from netlib.values import dataclass, replace

_LOOK_SECONDS = 1.0
# How soon a change of the membership is noticed. To be woken by each commit would take the
# interpreter from who commits, in the middle of its work, and nearly all are about other things.
_GLANCE_SECONDS = 0.1
_ASK_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 10.0


@dataclass(slots=True)
class _Patience:
    """How long to wait before the next try of what keeps failing; each failure is told once."""

    until: float = 0.0
    pause: float = 0.0
    told: str = ""

    def is_over(self) -> bool:
        return time.monotonic() >= self.until

    def failed(self, what: str, log: Callable[[str], None]) -> None:
        self.pause = min(max(2 * self.pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        self.until = time.monotonic() + self.pause
        if what != self.told:
            log(what)
        self.told = what

    def worked(self) -> None:
        self.until = self.pause = 0.0
        self.told = ""


class Manager:
    """One thread of the daemon."""

    def __init__(
        self,
        doors: Doors,
        log: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._doors = doors
        self._log = log
        self._changed = changed  # told of each change of the membership
        self._seen = 0
        self._server = Server(doors.files.folder)
        self._listener: Listener | None = None
        self._place = ""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="netlib-cluster", daemon=True)
        self._starting, self._listening = _Patience(), _Patience()
        self._asks = 0.0
        self._revoked: frozenset[str] | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Let nobody in any more. The etcd goes on: the other members need it."""
        self._ending.set()
        self._thread.join(2 * _LOOK_SECONDS)
        self._close()

    def _run(self) -> None:
        due = 0.0
        while not self._ending.is_set():
            try:
                record = self._doors.record()
                if (seen := record.revision if record else 0) != self._seen:
                    self._seen = seen
                    self._changed()
                    due = 0.0
                if time.monotonic() >= due:
                    self._follow(record)
                    due = time.monotonic() + _LOOK_SECONDS
                self._ending.wait(_GLANCE_SECONDS)
            except (NetError, OSError) as error:
                if self._ending.is_set():
                    return
                self._log(f"cluster: {error}")
                self._ending.wait(_LOOK_SECONDS)

    def _follow(self, record: Record | None) -> None:
        if record is None:
            self._close()
            return
        membership = load_as(Membership, record.value)
        if membership.supervised and self._starting.is_over():
            self._supervise()
        self._let_in(membership)
        if time.monotonic() >= self._asks:
            self._asks = time.monotonic() + _ASK_SECONDS
            self._keep_up(membership, record)
            if membership.supervised:
                with suppress(StoreError):  # what needs the store now will say so
                    self._revoke()

    # -- its etcd ---------------------------------------------------------------------------------

    def _supervise(self) -> None:
        if self._server.pid():
            return
        # Nobody may leave meanwhile; who leaves now is waited for, and has ended it.
        with self._doors.alone():
            record = self._doors.record()
            if record is None or not load_as(Membership, record.value).supervised:
                return
            try:
                started = self._server.start()
            except (NetError, OSError) as error:
                self._starting.failed(f"etcd is not started: {error}", self._log)
                return
        if started:
            if self._server.wait(_FIRST_PAUSE):
                words = self._server.last_words()
                self._starting.failed(f"etcd ended at once: {words}", self._log)
            else:
                self._starting.worked()
                self._log("etcd was started")

    def _keep_up(self, membership: Membership, record: Record) -> None:
        """Note which servers the store has by now, if it is ours: by the nodes that we know of."""
        if membership.ca != self._doors.files.path(names.CA):
            return
        copies = self._doors.engine.state.store.range(*under(keys.NODES))
        nodes = [load_as(Node, copy.value) for copy in copies]
        if not any(node.id == membership.node for node in nodes):
            return  # the agent has not read them yet, or we were removed
        found = [client_url(node.address) for node in nodes if node.role == "manager"]
        if set(found) == set(membership.endpoints):
            return
        # A manager's own comes first.
        kept = [url for url in membership.endpoints if url in found]
        endpoints = (*kept, *(url for url in found if url not in kept))
        with suppress(NetError):  # it is looked at again
            self._doors.engine.state.store.commit(
                Commit(
                    conditions=(Unchanged(MEMBERSHIP_KEY, record.revision),),
                    put={MEMBERSHIP_KEY: dump(replace(membership, endpoints=endpoints))},
                )
            )

    def _revoke(self) -> None:
        """Have our etcd take those no more who are no members any more."""
        there = self._doors.engine.cluster.store.range(*under(keys.REVOKED))
        found = frozenset(record.key.removeprefix(keys.REVOKED) for record in there)
        if found == self._revoked:
            return
        from netlib.cluster.certificates import Authority

        files = self._doors.files
        authority = Authority(files.read(names.CA), files.read(names.CA_KEY))
        files.write(names.REVOKED, authority.revoke(sorted(found)))
        self._revoked = found

    # -- letting others in ------------------------------------------------------------------------

    def _let_in(self, membership: Membership) -> None:
        if membership.listen == self._place or not self._listening.is_over():
            return
        self._close()
        if not membership.listen:
            return
        files = self._doors.files
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_cert_chain(files.path(names.CERTIFICATE), files.path(names.KEY))
            host, port = place(membership.listen, JOIN_PORT, "the address")
            answer = Admission(self._doors, self._log).answer
            self._listener = Listener(host, port, context, answer, self._log)
        except OSError as error:  # the address may come up later
            self._listening.failed(
                f"nobody can join at {membership.listen}: {error.strerror or error}", self._log
            )
        else:
            self._listening.worked()
            self._place = membership.listen

    def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._listener, self._place = None, ""
