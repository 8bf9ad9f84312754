"""A cluster in memory: hosts that are only pretended, each with a state of its own on disk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from netlib import names
from netlib.cluster import keys as cluster_keys
from netlib.cluster.follower import SUSPECT_SECONDS, Follower
from netlib.cluster.keeper import Keeper
from netlib.cluster.model import Cluster, Membership, Node
from netlib.errors import StoreUnavailable
from netlib.kernel.fake import FakeKernel
from netlib.keys import MEMBERSHIP_KEY
from netlib.model import Endpoint, IPAddress
from netlib.net import Net
from netlib.records import dump
from netlib.store import Commit, LeasedStore, Store
from netlib.store.memory import MemoryStore, _Lease
from netlib.wiring import FdbEntry, Neighbour

LEASE_SECONDS = 10


@dataclass
class Clock:
    """Time as a test has it pass."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Now."""
        return self.now


class Line:
    """A host's way to the cluster's store, which can be cut."""

    def __init__(self, store: MemoryStore, host: FakeHost) -> None:
        self._store, self._host = store, host

    def leased(self, lease: int) -> Store:
        """The same with a lease."""
        return Line(self._store.leased(lease), self._host)  # type: ignore[return-value]

    def close(self) -> None:
        """Nothing is held."""

    def __getattr__(self, name: str) -> object:
        if self._host.cut:
            raise StoreUnavailable("no server of the cluster's store can be reached")
        if self._host.waits is not None:
            self._host.waits()
        return getattr(self._store, name)


@dataclass
class FakeHost:
    """One host: the library, its kernel, and its agent, which steps when it is told to."""

    name: str
    node: Node
    net: Net
    kernel: FakeKernel
    clock: Clock
    cut: bool = False
    waits: Callable[[], None] | None = None
    log: list[str] = field(default_factory=list)
    told: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start_agent()

    def start_agent(self) -> None:
        """A new agent, as after the old one was killed."""
        self.follower = Follower(
            self.net.engine, log=self.log.append, tell=self.told.append, clock=self.clock
        )
        self.keeper = Keeper(self.net.engine, lambda: self.follower.again(renewed=True))

    def keep(self) -> None:
        """The agent's first thread does its part."""
        self.keeper.keep()

    def step(self) -> None:
        """Both do, until there is no news."""
        self.keep()
        while True:
            before = self.net.engine.cluster.store.revision()
            self.follower.step()
            self.follower.step()
            if self.net.engine.cluster.store.revision() == before:
                return

    def later(self) -> None:
        """Likewise, when suspects are looked at."""
        self.step()
        self.clock.now += SUSPECT_SECONDS
        self.step()

    def box(self, name: str) -> str:
        """A sandbox."""
        self.net.create_sandbox(name)
        return name

    def connect(self, network: str, name: str, *addresses: str) -> Endpoint:
        """A new sandbox on a network."""
        return self.net.connect(network, self.box(name), addresses=addresses)

    def remotes(self) -> dict[str, IPAddress]:
        """Where frames for which MAC go."""
        return {n.mac: n.remote for n in self.kernel.wiring() if isinstance(n, FdbEntry)}

    def neighbours(self) -> dict[str, str]:
        """Which address has which MAC."""
        return {str(n.address): n.mac for n in self.kernel.wiring() if isinstance(n, Neighbour)}

    def subjects(self) -> list[str]:
        """What `net check` finds."""
        return [f"{finding.subject}: {finding.note}" for finding in self.net.check()]


@dataclass
class FakeCluster:
    """All hosts, and the store where they meet."""

    store: MemoryStore
    clock: Clock
    hosts: list[FakeHost]

    def step(self) -> None:
        """Every agent catches up, and answers what the others did."""
        for _ in range(2):
            for host in self.hosts:
                if not host.cut:
                    host.step()


@contextlib.contextmanager
def fake_cluster(folder: Path, count: int = 2) -> Iterator[FakeCluster]:
    """Some hosts that are members of one cluster, whose agents have looked once."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    cluster = Cluster(id=names.new_id(), realm=names.new_realm(), lease_seconds=LEASE_SECONDS)
    with contextlib.ExitStack() as stack:
        hosts = []
        puts = {cluster_keys.CLUSTER: dump(cluster)}
        for number in range(1, count + 1):
            node = Node(
                id=names.built_in_id(f"host{number}"),
                name=f"host{number}",
                address=ip_address(f"198.51.100.{number}"),
                data_address=ip_address(f"198.51.100.{number}"),
            )
            puts[cluster_keys.node(node.id)] = dump(node)
            hosts.append(_host(folder / node.name, node, cluster, store, clock, stack))
        store.commit(Commit(put=puts))
        made = FakeCluster(store, clock, hosts)
        made.step()
        yield made


@contextlib.contextmanager
def cluster_with_app(folder: Path) -> Iterator[FakeCluster]:
    """Three hosts with a network, `app`, and a sandbox on each of the first two.

    Of 192.0.2.0/24 it chooses addresses below .64, so that tests may ask for the others.
    """
    with fake_cluster(folder, 3) as cluster:
        one, two, _ = cluster.hosts
        one.net.create(
            "app",
            driver="overlay",
            subnets=["192.0.2.0/24"],
            ip_ranges=["192.0.2.0/26"],
            attachable=True,
        )
        cluster.step()
        one.connect("app", "web")
        two.connect("app", "db")
        cluster.step()
        yield cluster


def _host(
    folder: Path,
    node: Node,
    cluster: Cluster,
    store: MemoryStore,
    clock: Clock,
    stack: contextlib.ExitStack,
) -> FakeHost:
    kernel = FakeKernel()
    kernel.holding[node.data_address] = "eth0"
    found: list[FakeHost] = []

    def open_cluster(_: Membership) -> LeasedStore:
        return Line(store, found[0])  # type: ignore[return-value]

    net = stack.enter_context(Net(folder, kernel=kernel, open_cluster=open_cluster))
    membership = Membership(cluster=cluster.id, node=node.id, endpoints=())
    net.engine.state.store.commit(Commit(put={MEMBERSHIP_KEY: dump(membership)}))
    found.append(FakeHost(node.name, node, net, kernel, clock))
    return found[0]


class Snapshot:
    """What a store was, to be put back as from a copy of an etcd's data."""

    def __init__(self, store: MemoryStore) -> None:
        data = store._data
        self._records, self._keys = dict(data.records), list(data.keys)
        self._revision = data.revision
        self._leases = {i: (one.ttl_seconds, set(one.keys)) for i, one in data.leases.items()}

    def put_back(self, store: MemoryStore, clock: Clock) -> None:
        """All is as it was; leases begin anew, as those of an etcd that starts."""
        data = store._data
        with data.changed:
            data.records, data.keys = dict(self._records), list(self._keys)
            data.revision = data.forgotten = self._revision
            data.events.clear()
            data.leases = {
                i: _Lease(ttl, clock() + ttl, set(keys)) for i, (ttl, keys) in self._leases.items()
            }
            data.changed.notify_all()
