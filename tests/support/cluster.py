"""A cluster on real packets: hosts of network namespaces on one Ethernet, one etcd, a daemon each.

    lan (the test's own namespace, a bridge, the etcd) --- eth0 [host1] nl-... --- sandboxes
                                                       --- eth0 [host2] ...

Each host has a state, a daemon and a resolver of its own. The tests call the library in their
own process, inside the host's namespace; the daemon is another process, which can be killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

from netlib import names
from netlib.cluster import keys as cluster_keys
from netlib.cluster.copies import LEASE_KEY, SEEN_KEY
from netlib.cluster.model import Cluster, Membership, Node
from netlib.frontends.daemon.starting import running
from netlib.keys import MEMBERSHIP_KEY
from netlib.model import Endpoint
from netlib.net import Net
from netlib.records import dump
from netlib.settings import Backend
from netlib.store import Commit, under
from netlib.store.etcd import EtcdStore
from netlib.wiring import FdbEntry, Neighbour
from support.etcd import Member, answers
from support.host import Host, Place
from support.patience import eventually

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
# The shortest that etcd grants lasts about that long (minLeaseTTL follows the election time-out).
LEASE_SECONDS = 3
STORE = "198.51.100.254"


def lan_address(number: int) -> str:
    """A host's address on the underlay."""
    return f"198.51.100.{number}"


@dataclass
class ClusterHost:
    """One host. `net` is the library there: call it by `do`, in the host's namespace."""

    number: int
    lan: Host
    place: Place
    node: Node
    state_dir: Path
    net: Net
    firewall: Backend
    boxes: dict[str, Place] = field(default_factory=dict)
    daemon: subprocess.Popen[str] | None = None

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    def do(self, function: Callable[[Net], T]) -> T:
        """What the library says, or does, here."""
        return self.place.call(lambda: function(self.net))

    def box(self, name: str) -> Place:
        """A sandbox."""
        place = self.boxes[name] = self.lan.empty(name)
        self.do(lambda net: net.register_sandbox(name, place.netns))
        return place

    def connect(self, network: str, name: str, *addresses: str) -> Endpoint:
        """A sandbox, a new one if need be, on a network."""
        if name not in self.boxes:
            self.box(name)
        return self.do(lambda net: net.connect(network, name, addresses=addresses))

    def disconnect(self, network: str, name: str) -> None:
        """Take it off."""
        self.do(lambda net: net.disconnect(network, name))

    def remotes(self, network: str = "app") -> dict[str, str]:
        """Which MACs are behind which host, as the kernel has it."""

        def look(net: Net) -> dict[str, str]:
            device = names.vxlan(net.inspect(network).network.id)
            entries = net.engine.kernel.entries(device)
            return {n.mac: str(n.remote) for n in entries if isinstance(n, FdbEntry)}

        return self.do(look)

    def neighbours(self, network: str = "app") -> dict[str, str]:
        """Which address has which MAC, as the kernel has it."""

        def look(net: Net) -> dict[str, str]:
            device = names.bridge(net.inspect(network).network.id)
            entries = net.engine.kernel.entries(device)
            return {str(n.address): n.mac for n in entries if isinstance(n, Neighbour)}

        return self.do(look)

    def peers(self, network: str = "app") -> list[str]:
        """The sandboxes on other hosts that this host knows."""
        found = self.do(lambda net: net.inspect(network).peers)
        return [one.endpoint.sandbox for one in found if not one.endpoint.is_host]

    def offered(self, network: str = "app") -> bool:
        """Whether this host knows of a network."""
        return any(one.network.name == network for one in self.do(lambda net: net.listing()))

    def problems(self) -> list[str]:
        """What `net check` finds."""
        found = self.do(lambda net: net.check())
        return [f"{one.subject} {one.note} {one.plan.text()}" for one in found]

    def asked(self, name: str, sandbox: str) -> list[str]:
        """What a sandbox is told when it asks for a name."""
        return [r.data for r in self.do(lambda net: net.ask(name, sandbox=sandbox)).answers]

    # -- its daemon -------------------------------------------------------------------------------

    def start_daemon(self) -> None:
        """Start it and wait until it answers."""
        log = (self.state_dir.parent / f"{self.name}.log").open("ab")
        with log:
            self.daemon = self.place.popen(
                sys.executable, "-m", "netlib", "daemon",
                env={
                    **os.environ, "NETLIB_STATE_DIR": str(self.state_dir),
                    "NETLIB_FIREWALL": self.firewall, "PYTHONPATH": str(ROOT),
                },
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        eventually(lambda: running(self.state_dir), 20, what=f"a daemon of {self.name}")

    def end_daemon(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it by a signal, and wait until it has."""
        assert self.daemon is not None
        self.daemon.send_signal(number)
        self.daemon.wait(20)

    def said(self) -> str:
        """What it printed."""
        return (self.state_dir.parent / f"{self.name}.log").read_text()

    # -- its cables -------------------------------------------------------------------------------

    def unplug(self) -> None:
        """Cut it off from everybody."""
        self.lan.run("ip", "link", "set", f"port{self.number}", "down")

    def plug(self) -> None:
        """Put the cable back."""
        self.lan.run("ip", "link", "set", f"port{self.number}", "up")

    def lose_store(self) -> None:
        """Cut it off from the etcd alone: what it sends there is lost."""
        self.lan.run("nft", "add", "table", "ip", "cut")
        self.lan.run(
            "nft", "add", "chain", "ip", "cut", "in", "{ type filter hook input priority 0; }"
        )
        self.lan.run(
            "nft", "add", "rule", "ip", "cut", "in", "ip", "saddr", lan_address(self.number), "drop"
        )

    def find_store(self) -> None:
        """Heal that."""
        self.lan.run("nft", "delete", "table", "ip", "cut")


@dataclass
class RealCluster:
    """All hosts, and their etcd."""

    etcd: Member
    store: EtcdStore
    hosts: list[ClusterHost]
    lan: Host

    def make(self, name: str = "app", subnet: str = "10.10.0.0/24", **named: object) -> str:
        """A network, made on the first host and known to all."""
        made = self.hosts[0].do(
            lambda net: net.create(
                name,
                driver="overlay",
                subnets=[subnet],
                attachable=True,
                **named,  # type: ignore[arg-type]
            )
        )
        for host in self.hosts:
            eventually(lambda h=host: h.offered(name), what=f"{name} on {host.name}")  # type: ignore[misc]
        return made.id

    def alive(self) -> set[str]:
        """The names of the nodes whose agents live."""
        living = {
            record.key.removeprefix(cluster_keys.ALIVE)
            for record in self.store.range(*under(cluster_keys.ALIVE))
        }
        return {host.name for host in self.hosts if host.node.id in living}

    def all_agree(self) -> None:
        """Wait until every host has what it should have, and nothing else."""
        for host in self.hosts:

            def agrees(host: ClusterHost = host) -> bool:
                problems = host.problems()
                assert not problems, problems
                return True

            eventually(agrees, what=f"nothing wrong on {host.name}")


@contextlib.contextmanager
def real_cluster(
    lan: Host, folder: Path, count: int = 2, *, firewall: Backend = "nftables", ipv6: bool = False
) -> Iterator[RealCluster]:
    """Hosts whose daemons have looked once."""
    lan.run("ip", "-batch", "-", stdin=(
        "link add lan type bridge mcast_snooping 0\nlink set lan up\n"
        f"addr add {STORE}/24 dev lan\naddr add 2001:db8:100::fe/64 dev lan nodad\n"
    ))  # fmt: skip
    with contextlib.ExitStack() as stack:
        member = Member(
            folder, address=STORE, options=("--heartbeat-interval=50", "--election-timeout=500")
        )
        member.start()
        stack.callback(member.kill)
        answers(member)
        store = EtcdStore([member.url], untold=cluster_keys.UNTOLD)
        stack.callback(store.close)
        cluster = Cluster(id=names.new_id(), realm=names.new_realm(), lease_seconds=LEASE_SECONDS)
        store.commit(Commit(put={cluster_keys.CLUSTER: dump(cluster)}))
        hosts = [
            _host(lan, folder, number, cluster, member, firewall, stack, ipv6=ipv6)
            for number in range(1, count + 1)
        ]
        store.commit(Commit(put={
            key: value
            for host in hosts
            for key, value in (
                (cluster_keys.node(host.node.id), dump(host.node)),
                (cluster_keys.node_name(host.name), host.node.id),
            )
        }))  # fmt: skip
        made = RealCluster(member, store, hosts, lan)
        for host in hosts:
            host.start_daemon()
        for host in hosts:
            eventually(lambda h=host: h.do(  # type: ignore[misc]
                lambda net: net.engine.state.store.get(LEASE_KEY)
                and net.engine.state.store.get(SEEN_KEY)
            ), 10, what=f"the agent of {host.name}")  # fmt: skip
        yield made


def _host(
    lan: Host, folder: Path, number: int, cluster: Cluster, etcd: Member, firewall: Backend,
    stack: contextlib.ExitStack, *, ipv6: bool,
) -> ClusterHost:  # fmt: skip
    place = lan.empty(f"host{number}")
    lan.run("ip", "-batch", "-", stdin=(
        f"link add port{number} index {100 + number} type veth peer name eth0 "
        f"netns {place.netns.path}\nlink set port{number} master lan up\n"
    ))  # fmt: skip
    six = f"2001:db8:100::{number}"
    place.run("ip", "-batch", "-", stdin=(
        f"addr add {lan_address(number)}/24 dev eth0\naddr add {six}/64 dev eth0 nodad\n"
        f"link set eth0 up\nroute add default via {STORE}\n"
    ))  # fmt: skip
    node = Node(
        id=names.new_id(),
        name=f"host{number}",
        address=ip_address(lan_address(number)),
        data_address=ip_address(six if ipv6 else lan_address(number)),
    )
    state_dir = folder / node.name
    net = stack.enter_context(Net(state_dir, firewall=firewall))
    membership = Membership(cluster=cluster.id, node=node.id, endpoints=(etcd.url,))
    net.engine.state.store.commit(Commit(put={MEMBERSHIP_KEY: dump(membership)}))
    return ClusterHost(number, lan, place, node, state_dir, net, firewall)
