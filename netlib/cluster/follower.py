"""Makes this host follow the cluster: step by step, without a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from netlib import keys
from netlib.cluster import keys as cluster_keys
from netlib.cluster import mirror
from netlib.cluster.copies import LOOKS, SEEN_KEY, behind_key, clash_key, node_key, offer_key
from netlib.cluster.model import Node
from netlib.cluster.own import LOST, republish, sweep
from netlib.cluster.records import as_shared
from netlib.cluster.state import ClusterState
from netlib.engine import Engine
from netlib.errors import LeftOver, NetError, StoreConflict, StoreError
from netlib.operation import Operation
from netlib.peers import tunnels
from netlib.plan import Plan
from netlib.records import NetworkRecord, load_as
from netlib.sharing import is_shared
from netlib.store import Absent, Commit, Event, Unchanged, under
from netlib.values import dataclass
from netlib.verbs.departing import leave
from netlib.verbs.peers import be_member, reconcile, sync, taken_up
from netlib.verbs.shared import follow, let_go, settle_anew

Tell = Callable[[dict[str, object]], None]


@dataclass(slots=True)
class _Failure:
    """What could not be done for a network, and when that is tried again."""

    due: float = 0.0
    pause: float = 0.0
    told: str = ""
    again: bool = False


# An operation claims before it notes here what it does, and lets go before it notes the end: what
# is without a counterpart for longer than this belongs to one that died.
SUSPECT_SECONDS = 1.0
# A look at everything, in case something was missed that nobody told of: between one and two of
# these apart, on each host another, or all would read everything at once for ever after they did so
# by chance.
_FULL_SECONDS = 300.0
# A network where something can't be done is looked at again, and the others don't wait for that.
_FIRST_RETRY, _LONGEST_RETRY = 1.0, 60.0


class Follower:
    """What `step` does is done when it returns; `again` asks it to look at everything next time."""

    def __init__(
        self,
        engine: Engine,
        *,
        log: Callable[[str], None] = lambda line: None,
        tell: Tell = lambda event: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._log = log
        self._tell = tell
        self._clock = clock
        self._cluster: ClusterState | None = None
        self._since: int | None = None
        self._full_at = 0.0
        self._asked = threading.Event()
        self._asking = threading.Lock()
        self._renewed = False
        self._suspects: dict[str, float] = {}
        self._failing: dict[str, _Failure] = {}

    def again(self, *, renewed: bool = False) -> None:
        """Look at everything at the next step; `renewed`: what is here stands by no lease yet."""
        with self._asking:
            self._renewed |= renewed
        self._asked.set()

    def step(self, timeout_seconds: float = 0.0) -> None:
        """Do what is due, and wait up to so long for the next news. Raises NetErrors."""
        cluster = self._engine.cluster
        if cluster is not self._cluster:
            # Another membership, or the same by other servers of the store.
            self.again(renewed=self._cluster is not None and self._cluster.node != cluster.node)
            self._cluster = cluster
        if self._asked.is_set() or self._since is None or self._clock() > self._full_at:
            self._asked.clear()
            self._since = None
            self._look_at_everything(cluster)
        assert self._since is not None
        self._look_where_asked(cluster)
        retries = (failure.due for failure in self._failing.values())
        due = min((self._full_at, *self._suspects.values(), *retries)) - self._clock()
        events = cluster.store.changes(self._since, max(0.0, min(timeout_seconds, due)))
        if events is None:
            self._since = None
            return
        try:
            self._take(cluster, list(events))
            self._look_at_suspects(cluster)
            self._try_again(cluster)
        except NetError:
            self._since = None  # something of it may not be done
            raise

    # -- news -------------------------------------------------------------------------------------

    def _take(self, cluster: ClusterState, events: list[Event]) -> None:
        if not events:
            return
        news = mirror.read(events, cluster.node)
        for node in news.died - {cluster.node}:
            self._silence(node)
        puts = {node_key(i): text for i, text in news.nodes.items() if text is not None}
        puts |= {offer_key(i): text for i, text in news.networks.items() if text is not None}
        gone = [node_key(i) for i, text in news.nodes.items() if text is None]
        gone += [offer_key(i) for i, text in news.networks.items() if text is None]
        self._engine.state.store.commit(
            Commit(put={**puts, SEEN_KEY: str(news.revision)}, delete=tuple(gone), durable=False)
        )
        if news.nodes:
            self._engine.run(lambda: be_member(self._engine))
            self._drain_if_asked(cluster)
        for network_id in news.networks:
            removed = news.networks[network_id] is None
            with self._alone(network_id):
                self._follow_network(cluster, network_id, removed=removed)
        for network_id, changes in news.peers.items():
            if network_id not in news.joined and network_id not in self._failing:
                prepare = partial(sync, self._engine, network_id, changes)
                with self._alone(network_id):
                    self._run_peers(cluster, network_id, prepare)
        for network_id in news.joined:
            removed = news.networks.get(network_id, "") is None
            with self._alone(network_id):
                self._meet(cluster, network_id)
                # Until now it may not have been here yet.
                self._follow_network(cluster, network_id, removed=removed)
        self._suspect(news)
        self._since = news.revision

    def _silence(self, node: str) -> None:
        """Send nothing more to a host that is gone: what is entered of it goes after that."""
        copy = self._engine.state.store.get(node_key(node))
        if copy is None:
            return
        known = load_as(Node, copy.value)
        for record in self._taken_up():
            for device in tunnels(record):
                self._engine.kernel.forget_vtep(device, known.data_address)
        self._log(f"cluster: {known.name} is gone")
        self._tell({"time": time.time(), "event": "node-down", "node": known.name})

    def _suspect(self, news: mirror.News) -> None:
        store = self._engine.state.store
        for network_id in {*news.appeared, *news.vanished}:
            here = {
                *(e for e in news.appeared.get(network_id, ())
                  if store.get(keys.endpoint_key(network_id, e)) is None),
                *(e for e in news.vanished.get(network_id, ())
                  if store.get(keys.endpoint_key(network_id, e)) is not None),
            }  # fmt: skip
            node = self._engine.cluster.node
            here.discard(node)
            if node in news.vanished.get(network_id, ()):
                here.add(node)
            clashes = store.range(*under(clash_key(network_id, "")), limit=1)
            if here or (clashes and news.vanished.get(network_id)):
                self._suspects[network_id] = self._clock() + SUSPECT_SECONDS

    def _look_at_suspects(self, cluster: ClusterState) -> None:
        now = self._clock()
        for network_id in [n for n, due in self._suspects.items() if due <= now]:
            del self._suspects[network_id]
            self._sweep(cluster, network_id)

    def _look_where_asked(self, cluster: ClusterState) -> None:
        """What an operation could not bring to an end by itself is left to this host's agent."""
        store = self._engine.state.store
        for word in store.range(*under(LOOKS)):
            network_id = word.key.removeprefix(LOOKS)
            with self._alone(network_id):
                self._copy_offer(cluster, network_id)
                if self._here(network_id) is None:
                    self._sweep(cluster, network_id)
                else:
                    self._look_at(cluster, network_id, again=False)
            with suppress(StoreConflict):  # there is more by now
                seen = (Unchanged(word.key, word.revision),)
                store.commit(Commit(conditions=seen, put={}, delete=(word.key,)))

    # -- everything -------------------------------------------------------------------------------

    def _look_at_everything(self, cluster: ClusterState) -> None:
        with self._asking:
            renewed, self._renewed = self._renewed, False
        try:
            self._sync(cluster, renewed=renewed)
        except NetError:
            self.again(renewed=renewed)
            raise

    def _sync(self, cluster: ClusterState, *, renewed: bool) -> None:
        store = self._engine.state.store
        # Before what the cluster has: who makes or removes a network meanwhile notes that himself.
        copies = self._copies()
        revision = cluster.store.revision()
        seen = store.get(SEEN_KEY)
        restored = seen is not None and int(seen.value) > revision
        if restored:
            self._log("cluster: its store was put back to an earlier state")
        nodes = _texts(cluster, cluster_keys.NODES)
        mine = store.get(node_key(cluster.node))
        if cluster.node not in nodes and mine is not None and not _was_removed(cluster):
            nodes[cluster.node] = self._come_back(cluster, mine.value)
        networks = _texts(cluster, "network/")
        self._copy(copies, nodes, networks, revision)
        self._engine.run(lambda: be_member(self._engine))
        self._failing.clear()
        for record in self._taken_up():
            with self._alone(record.network.id, again=renewed):
                self._look_at(cluster, record.network.id, again=renewed, restored=restored)
        here = {record.network.id for record in self._taken_up()}
        for network_id in networks:
            taking = cluster_keys.host(network_id, cluster.node)
            if network_id not in here and cluster.store.get(taking):
                self._suspects[network_id] = self._clock() + SUSPECT_SECONDS
        self._drain_if_asked(cluster)
        self._since = revision
        apart = 1 + int(cluster.node[:4], 16) / 0xFFFF
        self._full_at = self._clock() + _FULL_SECONDS * apart

    def _copy_offer(self, cluster: ClusterState, network_id: str) -> None:
        """What is noted of a network may be older than the last word, which was told before."""
        store, key = self._engine.state.store, offer_key(network_id)
        there, known = cluster.store.get(keys.network_key(network_id)), store.get(key)
        if there is None and known is not None:
            store.commit(Commit(put={}, delete=(key,), durable=False))
        elif there is not None and (known is None or known.value != there.value):
            store.commit(Commit(put={key: there.value}, durable=False))

    def _copies(self) -> dict[str, str]:
        store = self._engine.state.store
        return {
            record.key: record.value
            for folder in (node_key(""), offer_key(""))
            for record in store.range(*under(folder))
        }

    def _copy(
        self,
        have: dict[str, str],
        nodes: dict[str, str],
        networks: dict[str, str],
        revision: int,
    ) -> None:
        wanted = {node_key(i): text for i, text in nodes.items()}
        wanted |= {offer_key(i): text for i, text in networks.items()}
        changed = {key: text for key, text in wanted.items() if have.get(key) != text}
        self._engine.state.store.commit(
            Commit(
                put={**changed, SEEN_KEY: str(revision)},
                delete=tuple(key for key in have if key not in wanted),
                durable=False,
            )
        )

    def _come_back(self, cluster: ClusterState, text: str) -> str:
        """Stand in the cluster again, whose store was put back to before this host joined."""
        node = load_as(Node, text)
        names = (cluster_keys.node_name(node.name), cluster_keys.data_address(node.data_address))
        free = [key for key in names if cluster.store.get(key) is None]
        known = cluster_keys.node(node.id)
        cluster.store.commit(
            Commit(
                conditions=tuple(map(Absent, (known, *free))),
                put={known: text, **dict.fromkeys(free, node.id)},
            )
        )
        self._log(f"cluster: it knows {node.name} again, which it had lost")
        return text

    # -- one network ------------------------------------------------------------------------------

    @contextmanager
    def _alone(self, network_id: str, *, again: bool = False) -> Iterator[None]:
        """Nothing else fails, or waits, with what can't be done for this network.

        StoreErrors are raised all the same: without the cluster nothing can be done for any.
        """
        try:
            yield
        except NetError as error:
            if isinstance(error, StoreError) and not isinstance(error, StoreConflict):
                raise
            failure = self._failing.setdefault(network_id, _Failure())
            failure.pause = min(2 * failure.pause or _FIRST_RETRY, _LONGEST_RETRY)
            failure.due = self._clock() + failure.pause
            failure.again |= again
            if failure.told != error.message:
                self._log(f"cluster: network {network_id[:12]}: {error}")
            failure.told = error.message
            self._note(network_id, error.message)

    def _note(self, network_id: str, why: str = "") -> None:
        """Have `net check` tell why a network here is not as the cluster has it, if it is not."""
        store, key = self._engine.state.store, behind_key(network_id)
        known = store.get(key)
        if why and self._here(network_id) and (known is None or known.value != why):
            store.commit(Commit(put={key: why}, durable=False))
        elif known is not None and not why:
            store.commit(Commit(put={}, delete=(key,), durable=False))

    def _try_again(self, cluster: ClusterState) -> None:
        now = self._clock()
        for network_id in [n for n, failure in self._failing.items() if failure.due <= now]:
            failure = self._failing[network_id]
            with self._alone(network_id):
                self._look_at(cluster, network_id, again=failure.again)
                del self._failing[network_id]
                self._log(f"cluster: network {network_id[:12]}: done, after {failure.told}")

    def _look_at(
        self, cluster: ClusterState, network_id: str, *, again: bool, restored: bool = False
    ) -> None:
        """Have a network that is here be as the cluster has it; `again`: and be claimed anew."""
        record = self._here(network_id)
        if record is None:
            return
        known = cluster.network(network_id) is not None
        if not known and not self._lost(cluster, record, restored=restored):
            return
        self._follow_network(cluster, network_id)
        self._meet(cluster, network_id)
        self._sweep(cluster, network_id, again=again)
        self._note(network_id)

    def _follow_network(
        self, cluster: ClusterState, network_id: str, *, removed: bool = False
    ) -> None:
        """Change a network that is here as the cluster did, or take it away."""
        record = self._here(network_id)
        if record is None:
            return
        if removed:
            self._lost(cluster, record, restored=False)
            return
        shared = cluster.network(network_id)
        if shared is None or as_shared(record.network) == shared.network:
            return

        def prepare() -> Operation[Any]:
            now = cluster.network(network_id)
            here = self._here(network_id)
            if now is None or here is None:
                return _nothing()
            return follow(self._engine, here, now)

        self._engine.run(prepare)

    def _lost(self, cluster: ClusterState, record: NetworkRecord, *, restored: bool) -> bool:
        """Deal with a network that the cluster has no more; whether it has it again.

        Nobody can remove one that is in use. So if this one is, the cluster lost it, or it was
        removed while this host was cut off: sandboxes go on, and the cluster gets it back.
        """
        network_id, name = record.network.id, record.network.name
        if not restored and not self._engine.state.has_endpoints(network_id):
            self._engine.run(partial(self._letting_go, network_id, gone=True))
            return False
        if republish(cluster, record.network):
            self._log(f"cluster: it has {name} again, which it had lost")
            return True
        self._log(f"cluster: {name} is lost there, and its name or numbers are another's now")
        return False

    def _meet(self, cluster: ClusterState, network_id: str) -> None:
        """Have exactly those peers that the cluster has."""
        everybody = [*cluster.endpoints(network_id), *cluster.hosts(network_id)]
        peers = [one for one in everybody if one.node != cluster.node]
        self._engine.run(lambda: reconcile(self._engine, network_id, peers))

    def _run_peers(
        self, cluster: ClusterState, network_id: str, prepare: Callable[[], Operation[None]]
    ) -> None:
        try:
            self._engine.run(prepare)
        except LeftOver as error:
            # What is there is not what is written down: so look.
            self._log(f"cluster: {error.message}; it is looked at anew")
            self._meet(cluster, network_id)

    def _sweep(self, cluster: ClusterState, network_id: str, *, again: bool = False) -> None:
        events = list(sweep(self._engine, cluster, network_id, again=again))
        for event in events:
            self._log(f"cluster: {event.pop('text')}")
            self._tell({"time": time.time(), **event})
        if any(event["event"] == LOST for event in events):
            self._engine.run(partial(self._settling_anew, cluster, network_id))

    def _settling_anew(self, cluster: ClusterState, network_id: str) -> Operation[Any]:
        """Take part in a network with other addresses of this host's own."""
        shared, here = cluster.network(network_id), self._here(network_id)
        if shared is None or here is None:
            return _nothing()
        return settle_anew(self._engine, here, shared)

    # -- availability -----------------------------------------------------------------------------

    def _drain_if_asked(self, cluster: ClusterState) -> None:
        """Give away all endpoints on the cluster's networks, and the networks."""
        copy = self._engine.state.store.get(node_key(cluster.node))
        if copy is None or load_as(Node, copy.value).availability != "drain":
            return
        for record in self._taken_up():
            for endpoint in self._engine.state.endpoints(record.network.id):
                name = endpoint.endpoint.sandbox.name

                def prepare(name: str = name, record: NetworkRecord = record) -> Operation[None]:
                    found = self._engine.state.endpoint(record.network, name)
                    return leave(self._engine, found, force=True)

                self._engine.run(prepare)
                self._log(f"cluster: drained: {name} is off {record.network.name}")
            self._engine.run(partial(self._letting_go, record.network.id))

    # -- what is here -----------------------------------------------------------------------------

    def _letting_go(self, network_id: str, *, gone: bool = False) -> Operation[None]:
        """Somebody here may be quicker, or change it meanwhile: so it is looked at in here."""
        record = self._here(network_id)
        return let_go(self._engine, record, gone=gone) if record else _nothing()

    def _here(self, network_id: str) -> NetworkRecord | None:
        record = taken_up(self._engine, network_id)
        return record if record and is_shared(record.network) else None

    def _taken_up(self) -> list[NetworkRecord]:
        return [
            record
            for record in self._engine.state.networks()
            if is_shared(record.network) and record.network.state == "ready"
        ]


def _was_removed(cluster: ClusterState) -> bool:
    """Whether this host was taken off the cluster, or all of that ended; else it was forgotten."""
    store = cluster.store
    removed = store.get(cluster_keys.revoked(cluster.node)) is not None
    return removed or store.get(cluster_keys.CLUSTER) is None


def _nothing() -> Operation[Any]:
    return Operation(subject="nothing", plan=Plan(), result=None)


def _texts(cluster: ClusterState, folder: str) -> dict[str, str]:
    records = cluster.store.range(*under(folder))
    return {record.key.removeprefix(folder): record.value for record in records}
