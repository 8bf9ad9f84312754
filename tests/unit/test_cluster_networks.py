"""Networks of a cluster, on hosts that are only pretended and a store in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.fake_cluster import FakeCluster, FakeHost, fake_cluster

from netlib.errors import (
    AddressTaken,
    AgentDown,
    InUse,
    InvalidOption,
    KernelError,
    NameTaken,
    NoSuchNetwork,
    NotAMember,
    NotAttachable,
    PoolOverlap,
    StoreUnavailable,
)
from netlib.kernel.fake import FakeKernel
from netlib.keys import network_key
from netlib.net import Net
from netlib.operation import Operation
from netlib.store import Commit, Store, under
from netlib.store.memory import MemoryStore
from netlib.verbs.shared import let_go

SUBNET = "192.0.2.0/24"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """Three hosts."""
    with fake_cluster(tmp_path, 3) as cluster:
        yield cluster


@pytest.fixture
def one(cluster: FakeCluster) -> FakeHost:
    """The first host."""
    return cluster.hosts[0]


@pytest.fixture
def two(cluster: FakeCluster) -> FakeHost:
    """The second host."""
    return cluster.hosts[1]


def make(host: FakeHost, name: str = "app", subnet: str = SUBNET) -> str:
    """A network of the cluster's."""
    return host.net.create(name, driver="overlay", subnets=[subnet], attachable=True).id


def keys(cluster: FakeCluster, folder: str) -> list[str]:
    """The keys of a folder of the cluster's store."""
    return [record.key for record in cluster.store.range(*under(folder))]


def test_a_network_of_the_clusters_needs_a_cluster() -> None:
    """And it is said how to get one."""
    with (
        Net(store=MemoryStore(), kernel=FakeKernel()) as net,
        pytest.raises(NotAMember, match="net cluster init"),
    ):
        net.create("app", driver="overlay")


def test_a_network_made_on_one_host_is_offered_on_all(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Nothing is made of it anywhere before somebody is connected."""
    before = len(two.kernel.wiring())
    made = make(one)
    cluster.step()

    for host in cluster.hosts:
        (seen,) = host.net.listing(["driver=overlay"])
        assert (seen.network.id, seen.scope) == (made, "global")
        assert host.net.inspect("app").network.vni == seen.network.vni > 4096
    assert len(two.kernel.wiring()) == before


def test_endpoints_on_two_hosts_know_each_other(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Each by its MAC and its host, as soon as the agents have looked; names too."""
    make(one)
    cluster.step()
    web = one.connect("app", "web")
    db = two.connect("app", "db")
    assert one.neighbours().get(str(db.addresses[0].ip)) is None
    assert two.remotes()[web.mac] == one.node.data_address  # it came with the network
    cluster.step()

    assert one.remotes()[db.mac] == two.node.data_address
    assert one.neighbours()[str(db.addresses[0].ip)] == db.mac
    peers = one.net.inspect("app").peers
    assert [(p.endpoint.sandbox, p.node) for p in peers] == [("db", "host2"), ("host2", "host2")]
    assert one.net.check() == two.net.check() == ()


def test_nothing_is_left_when_an_endpoint_goes(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Neither in the cluster nor on other hosts."""
    make(one)
    cluster.step()
    one.connect("app", "web")
    cluster.step()
    two.connect("app", "db")
    before = set(two.kernel.wiring())
    other = one.connect("app", "other")
    cluster.step()
    assert other.mac in two.remotes()
    one.net.disconnect("app", "other")
    cluster.step()

    assert set(two.kernel.wiring()) == before
    assert not [key for key in keys(cluster, "endpoint/") if other.id in key]
    assert len(keys(cluster, "lease/")) == 4  # two endpoints, two hosts


def test_no_address_is_given_twice(cluster: FakeCluster) -> None:
    """Each host asks the cluster, not itself."""
    make(cluster.hosts[0], subnet="192.0.2.0/28")
    cluster.step()
    given = []
    for number in range(3):
        for host in cluster.hosts:
            given.append(host.connect("app", f"box{number}").addresses[0].ip)
    own = [
        subnet.own for host in cluster.hosts for subnet in host.net.inspect("app").network.subnets
    ]
    assert len({*given, *own}) == 12


def test_an_address_that_is_held_elsewhere_is_refused_with_its_holder(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """By sandbox and host."""
    make(one)
    cluster.step()
    one.connect("app", "web", "192.0.2.77")
    with pytest.raises(AddressTaken, match="held by web on host1"):
        two.connect("app", "db", "192.0.2.77")


def test_a_name_is_given_once_in_the_cluster(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Also when the other host has not heard of it yet; and no local network gets it then."""
    make(one)
    with pytest.raises(NameTaken):
        make(two, subnet="198.51.100.0/24")
    cluster.step()
    with pytest.raises(NameTaken):
        two.net.create("app")
    assert keys(cluster, "name/") == ["name/app"]
    assert len(keys(cluster, "vni/")) == len(keys(cluster, "network/")) == 1


def test_a_network_of_longer_packets_than_the_underlay_carries_is_not_made(
    cluster: FakeCluster, one: FakeHost
) -> None:
    """It is said what could be; later, on whichever host, it may be changed all the same."""
    with pytest.raises(InvalidOption, match=r"mtu=1450|can carry 1450") as caught:
        one.net.create("app", driver="overlay", options={"mtu": "1451"})
    assert "mtu=1450" in caught.value.hint
    assert not keys(cluster, "network/")
    one.net.create("app", driver="overlay", options={"mtu": "1450"})


def test_a_prefix_is_given_once_in_the_cluster(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Asked for or chosen."""
    make(one)
    with pytest.raises(PoolOverlap):
        make(two, "other", "192.0.2.128/25")
    chosen = [
        host.net.create(f"net{n}", driver="overlay").subnets[0].prefix
        for n, host in enumerate(cluster.hosts)
    ]
    assert len(set(chosen)) == 3


def test_a_network_for_services_is_joined_by_no_sandbox(
    cluster: FakeCluster, one: FakeHost
) -> None:
    """Until it is made attachable, everywhere."""
    one.net.create("app", driver="overlay", subnets=[SUBNET])
    cluster.step()
    two = cluster.hosts[1]
    two.box("web")
    with pytest.raises(NotAttachable, match="net update --attachable app"):
        two.net.connect("app", "web")
    assert not two.net.engine.state.networks()
    one.net.update("app", attachable=True)
    cluster.step()
    two.net.connect("app", "web")


def test_a_network_in_use_elsewhere_is_not_removed(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Who uses it is told; then it goes from all hosts."""
    make(one)
    cluster.step()
    one.connect("app", "web")
    two.connect("app", "db")
    two.net.disconnect("app", "db")
    with pytest.raises(InUse, match="web on host1"):
        two.net.remove("app")
    assert two.net.prune() == ()
    one.net.disconnect("app", "web")
    two.net.remove("app")
    with pytest.raises(NoSuchNetwork):
        two.net.inspect("app")
    cluster.step()

    for host in cluster.hosts:
        assert not [n for n in host.kernel.wiring() if not n.shared and "nl-" in repr(n)]
        assert not host.net.listing(["driver=overlay"])
    assert [key for key in keys(cluster, " ") if not key.startswith(("node", "alive"))] == []
    left = [record.key for record in cluster.store.range(" ", "~")]
    assert {key.partition("/")[0] for key in left} == {"cluster", "node", "alive", "cursor"}


def test_a_removed_network_that_somebody_here_changes_meanwhile_goes(
    cluster: FakeCluster, one: FakeHost, two: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent looks at it again; or finds that it is gone already."""
    engine, network = two.net.engine, make(one)
    run = engine.run

    def late(act: Callable[[], object]) -> None:
        """The agent's next operation, after which somebody here does something first."""

        def first(prepare: Callable[[], Operation[object]]) -> object:
            monkeypatch.setattr(engine, "run", run)
            operation = prepare()
            act()
            rest = iter((operation,))
            return run(lambda: next(rest, None) or prepare())

        two.connect("app", "box")
        two.net.disconnect("app", "box")
        two.net.remove_sandbox("box")
        one.net.remove("app")
        monkeypatch.setattr(engine, "run", first)

    key = network_key(network)
    cluster.step()
    late(lambda: engine.state.store.commit(touched(engine.state.store, key)))
    two.step()
    assert not two.log
    assert engine.state.store.get(key) is None

    key = network_key(make(one))
    cluster.step()
    late(lambda: run(lambda: let_go(engine, engine.state.network("app"))))
    two.step()
    assert not two.log
    assert engine.state.store.get(key) is None


def touched(store: Store, key: str) -> Commit:
    """A record written again, as it is."""
    record = store.get(key)
    assert record is not None
    return Commit(put={key: record.value})


def test_prune_removes_what_nobody_uses_anywhere(cluster: FakeCluster, one: FakeHost) -> None:
    """Also what this host has not taken up."""
    make(one)
    make(one, "other", "198.51.100.0/25")
    cluster.step()
    cluster.hosts[1].connect("app", "web")
    assert cluster.hosts[2].net.prune() == ("other",)


def test_a_change_is_made_on_all_hosts(cluster: FakeCluster, one: FakeHost, two: FakeHost) -> None:
    """A further subnet, where each host gets an address of its own."""
    make(one)
    cluster.step()
    one.connect("app", "web")
    two.connect("app", "db")
    cluster.step()
    one.net.update("app", subnets=["198.51.100.128/25"], labels={"team": "blue"})
    cluster.step()

    own = set()
    for host in (one, two):
        network = host.net.inspect("app").network
        assert [str(s.prefix) for s in network.subnets] == [SUBNET, "198.51.100.128/25"]
        assert network.labels == {"team": "blue"}
        own.add(network.subnets[1].own)
        assert host.net.check() == ()
    assert len(own) == 2
    assert None not in own
    assert len(cluster.hosts[2].net.inspect("app").network.subnets) == 2


def test_what_needs_the_cluster_fails_at_once_when_it_is_away(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """With exit status 7 and nothing half done; what is local goes on."""
    make(one)
    cluster.step()
    make(one, "spare", "203.0.113.0/24")
    one.connect("app", "web")
    cluster.step()
    one.box("late")
    one.cut = True
    before = set(one.kernel.wiring())
    records = one.net.engine.state.store.range(" ", "~")
    for attempt in (
        lambda: one.net.connect("app", "late"),
        lambda: make(one, "other", "198.51.100.0/25"),
        lambda: one.net.remove("spare"),
        lambda: one.net.update("app", labels={"a": "b"}),
    ):
        with pytest.raises(StoreUnavailable) as refused:
            attempt()
        assert refused.value.exit_status == 7
    assert set(one.kernel.wiring()) == before
    assert one.net.engine.state.store.range(" ", "~") == records
    assert one.net.check() == ()
    one.net.create("local")
    one.net.connect("local", "late")
    assert one.net.inspect("app").peers == ()


def test_a_sandbox_can_be_taken_off_while_the_cluster_is_away(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """It must be possible to end; the agent tells the cluster when it is back."""
    make(one)
    cluster.step()
    web = one.connect("app", "web")
    two.connect("app", "db")
    cluster.step()
    one.cut = True
    one.net.disconnect("app", "web")
    assert web.mac not in {n.mac for n in one.kernel.wiring() if hasattr(n, "mac")}
    assert web.mac in two.remotes()
    one.cut = False
    one.follower.again()
    one.later()
    cluster.step()
    assert web.mac not in two.remotes()
    two.connect("app", "other", str(web.addresses[0].ip))


def test_without_an_agent_nothing_is_claimed(cluster: FakeCluster, one: FakeHost) -> None:
    """A host that nobody keeps alive is one that others would silence."""
    make(one)
    cluster.clock.now += 60
    one.box("web")
    with pytest.raises(AgentDown, match="net daemon"):
        one.net.connect("app", "web")
    assert not keys(cluster, "endpoint/")
    assert not keys(cluster, "host/")
    assert not [n for n in one.kernel.wiring() if "nl-" in repr(n)]
    one.step()
    one.net.connect("app", "web")


def test_a_failure_in_the_kernel_takes_the_claim_back(cluster: FakeCluster, one: FakeHost) -> None:
    """Neither the network nor the endpoint stays claimed, at whichever step it fails."""
    make(one)
    one.box("web")
    number, taken_up = 1, False
    while number < 100:
        one.kernel.fail_at(number)
        try:
            one.net.connect("app", "web")
        except KernelError:
            assert not keys(cluster, "endpoint/")
            assert len(keys(cluster, "lease/")) == len(keys(cluster, "host/"))
            assert one.net.check() == ()
        else:
            break
        # The network is made first, and stays made when the endpoint is what fails.
        number = 1 if keys(cluster, "host/") and not taken_up else number + 1
        taken_up = bool(keys(cluster, "host/"))
    assert taken_up
    assert number > 3
    one.kernel.failing = None
    assert one.net.check() == ()


def test_who_needs_no_cluster_does_not_wait_for_one_that_hangs(
    cluster: FakeCluster, one: FakeHost
) -> None:
    """While another thread of the same process waits for its answer."""
    make(one)
    cluster.step()
    one.connect("app", "web")
    one.net.create("local", subnets=["198.51.100.0/25"])
    for name in ("far", "near"):
        one.box(name)
    hangs, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        hangs.set()
        assert go_on.wait(20)

    one.waits = wait
    thread = threading.Thread(target=lambda: one.net.connect("app", "far"))
    thread.start()
    try:
        assert hangs.wait(20)
        began = time.monotonic()
        one.net.connect("local", "near")
        assert time.monotonic() - began < 1.5  # a turn is waited for for two seconds
        assert [e.sandbox.name for e in one.net.endpoints()] == ["web", "near"]
    finally:
        go_on.set()
        thread.join(20)
    assert [e.sandbox.name for e in one.net.endpoints()] == ["web", "near", "far"]


def test_every_change_can_be_planned(cluster: FakeCluster, one: FakeHost, two: FakeHost) -> None:
    """The plan tells what the host would do, and nothing is changed here or in the cluster."""
    make(one)
    cluster.step()
    one.connect("app", "web")
    two.box("db")
    cluster.step()

    def everything() -> list[object]:
        hosts = [
            (set(h.kernel.wiring()), h.net.engine.state.store.range(" ", "~")) for h in (one, two)
        ]
        return [cluster.store.range(" ", "~"), *hosts]

    before = everything()
    joining = two.net.plan.connect("app", "db").text()
    assert "type vxlan id 4097" in joining  # the network, with all that is on it elsewhere,
    assert one.net.endpoints()[0].mac in joining
    assert "type veth" in joining  # and the sandbox
    assert not one.net.plan.create("other", driver="overlay")
    assert "ip link del nv-" in one.net.plan.disconnect("app", "web").text()
    assert one.net.plan.update("app", subnets=["198.51.100.0/25"])
    with pytest.raises(InUse):
        two.net.plan.remove("app")
    assert not one.net.plan.prune()
    assert everything() == before


def test_a_host_whose_port_53_is_published_asks_its_resolver_elsewhere(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """That is this host's affair: on the others, the network's names stay where they are."""
    made = make(one)
    for host, name in ((one, "web"), (two, "db")):
        host.net.create_sandbox(name)
        cluster.step()
        host.net.connect("app", name)
    cluster.step()
    one.net.publish("web", ["53:53/udp"])
    cluster.step()

    assert one.net.inspect(made).network.dns_port == 5301
    assert two.net.inspect(made).network.dns_port == 53
    for host in (one, two):
        assert host.net.check() == ()
        assert [peer.node for peer in host.net.inspect(made).peers if not peer.endpoint.is_host]
    one.net.unpublish("web", ["53:53/udp"])
    one.net.disconnect("app", "web")
    cluster.step()
    assert one.net.check() == two.net.check() == ()
