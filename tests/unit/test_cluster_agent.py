"""The agent: what one host makes of what others do, and of what becomes of the cluster's store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_cluster import (
    LEASE_SECONDS,
    FakeCluster,
    FakeHost,
    Snapshot,
    cluster_with_app,
    fake_cluster,
)
from support.patience import eventually

from netlib import names
from netlib.cluster import follower
from netlib.cluster import keys as cluster_keys
from netlib.cluster.agent import Agent
from netlib.cluster.copies import AWAY_KEY, LEASE_KEY, SEEN_KEY, node_key, peer_key
from netlib.cluster.follower import Follower
from netlib.cluster.mirror import read
from netlib.cluster.model import SharedEndpoint
from netlib.cluster.nodes import forget
from netlib.cluster.own import republish
from netlib.cluster.records import dump_endpoint, load_shared
from netlib.cluster.state import ClusterState
from netlib.dns.source import store_source
from netlib.errors import KernelError, NodePaused, StoreError, StoreUnavailable
from netlib.keys import MEMBERSHIP_KEY
from netlib.model import HOST, IPInterface, interface
from netlib.net import Net
from netlib.operation import Operation
from netlib.plan import Create as CreateStep
from netlib.plan import Delete as DeleteStep
from netlib.plan import Plan, Stage
from netlib.records import dump, load
from netlib.store import Commit, under
from netlib.verbs.peers import be_member, be_nobody, has_of_a_membership, reconcile, sync
from netlib.verbs.shared import let_go
from netlib.wiring import Bridge, FdbEntry, Layer, VxlanMember

SUBNET = "192.0.2.0/24"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """Three hosts with a network, and a sandbox on each of the first two."""
    with cluster_with_app(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def one(cluster: FakeCluster) -> FakeHost:
    """The first host, with web."""
    return cluster.hosts[0]


@pytest.fixture
def two(cluster: FakeCluster) -> FakeHost:
    """The second host, with db."""
    return cluster.hosts[1]


@pytest.fixture
def three(cluster: FakeCluster) -> FakeHost:
    """The third host, which has nothing of the network yet."""
    return cluster.hosts[2]


def network(host: FakeHost) -> str:
    """The network's id."""
    return host.net.inspect("app").network.id


def peers(host: FakeHost) -> list[str]:
    """The sandboxes elsewhere that a host knows."""
    return [p.endpoint.sandbox for p in host.net.inspect("app").peers if not p.endpoint.is_host]


def served(host: FakeHost) -> list[str]:
    """The names that a host's resolver has."""
    update = store_source(host.net.engine.state.store)(0, 0.0)
    assert update is not None
    return sorted(endpoint.names()[0] for endpoint in update.endpoints)


def owned(cluster: FakeCluster, host: FakeHost) -> dict[str, str]:
    """What stands in the cluster for a host's endpoints and own addresses."""
    return {
        record.key: record.value
        for folder in ("endpoint/", "host/", "lease/")
        for record in cluster.store.range(*under(folder))
        if host.node.id in record.value or f"on {host.name}" in record.value
    }


def expire(cluster: FakeCluster, *gone: FakeHost) -> None:
    """Time passes; who is gone does not renew its lease."""
    for _ in range(3):
        cluster.clock.now += LEASE_SECONDS / 2
        for host in cluster.hosts:
            if host not in gone:
                host.keep()
    for host in cluster.hosts:
        if host not in gone:
            host.step()


# -- what happens between what an agent has in mind and what it does --------------------------


@pytest.mark.parametrize("everything", [False, True], ids=["news", "all"])
def test_who_takes_over_an_address_keeps_it_while_the_agent_is_about_to_take_it_from_the_last(
    cluster: FakeCluster, one: FakeHost, two: FakeHost, everything: bool
) -> None:
    """Another process connects a sandbox, between an agent's plan for who left and its doing it.

    The MAC is that of the address, so both have the same neighbour entry.
    """
    address = "192.0.2.99"
    gone = one.connect("app", "gone", address)
    cluster.step()
    assert gone.mac in two.remotes()
    one.net.disconnect("app", "gone")
    engine, network_id = two.net.engine, network(two)
    hosts = engine.cluster.hosts(network_id)
    elsewhere = [host for host in hosts if host.node != two.node.id]
    with Net(
        two.net.state_dir, kernel=two.kernel, open_cluster=lambda _: cluster.store.leased(0)
    ) as another:
        another.create_sandbox("heir")
        begun = []

        def prepare() -> Operation[None]:
            if everything:
                made = reconcile(engine, network_id, elsewhere)
            else:
                made = sync(engine, network_id, {gone.id: None})
            if not begun:
                begun.append(another.connect("app", "heir", addresses=[address]))
            return made

        engine.run(prepare)
    assert begun[0].mac == gone.mac
    assert two.neighbours()[address] == gone.mac
    cluster.step()
    assert two.subjects() == []


# -- what happens while an agent looks at everything -----------------------------------------


def test_a_network_that_is_made_during_a_look_at_everything_stays_known(
    one: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever made it can connect at once, though the agent has not heard of it yet."""
    read_all, copy = follower._texts, Follower._copy
    known: list[set[str]] = []

    def read_and_make(cluster: ClusterState, folder: str) -> dict[str, str]:
        found = read_all(cluster, folder)
        if folder == "network/":
            one.net.create("late", driver="overlay", subnets=["198.51.100.0/24"], attachable=True)
        return found

    def copy_and_look(follower: Follower, *arguments: Any) -> None:
        copy(follower, *arguments)
        known.append({listed.network.name for listed in one.net.listing()})

    monkeypatch.setattr(follower, "_texts", read_and_make)
    monkeypatch.setattr(Follower, "_copy", copy_and_look)
    one.follower.again()
    one.follower.step()
    assert len(known) == 1
    assert "late" in known[0]


def test_a_new_lease_during_a_look_that_fails_is_not_forgotten(
    one: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next look claims anew what stands by the old one."""
    looks: list[bool] = []

    def fail(cluster: ClusterState, *, renewed: bool) -> None:
        looks.append(renewed)
        if len(looks) == 1:
            one.follower.again(renewed=True)  # as the agent's other thread says
        raise StoreUnavailable("no server of the cluster's store can be reached")

    monkeypatch.setattr(one.follower, "_sync", fail)
    one.follower.again()
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            one.follower.step()
    assert looks == [False, True, True]


# -- hosts that go and come ---------------------------------------------------------------------


def test_names_elsewhere_are_served_here(cluster: FakeCluster, one: FakeHost) -> None:
    """Of endpoints, not of hosts; and they go with them."""
    assert served(one) == ["db", "web"]
    cluster.hosts[1].net.disconnect("app", "db")
    cluster.step()
    assert served(one) == ["web"]


def test_a_dead_host_is_gone_everywhere_within_its_lease(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Entries, names and addresses; first nothing is sent there any more."""
    order: list[str] = []
    forget, remove = one.kernel.forget_vtep, one.kernel.remove
    one.kernel.forget_vtep = lambda d, a: (order.append("silence"), forget(d, a))[1]  # type: ignore[method-assign]
    one.kernel.remove = lambda stage: (order.append("entries"), remove(stage))[1]  # type: ignore[method-assign]
    address = two.net.endpoints()[0].addresses[0]
    expire(cluster, two)

    assert peers(one) == []
    assert served(one) == ["web"]
    assert two.node.data_address not in one.remotes().values()
    assert str(address.ip) not in one.neighbours()
    assert order[:2] == ["silence", "entries"]
    assert [e["node"] for e in one.told if e["event"] == "node-down"] == ["host2"]
    assert one.net.check() == ()
    assert one.connect("app", "heir", str(address.ip)).addresses == (address,)


def test_a_host_that_was_cut_off_comes_back(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """It keeps what it has meanwhile; then it stands in the cluster again, with all it has."""
    before, known = owned(cluster, two).keys(), two.remotes()
    two.cut = True
    expire(cluster, two)
    assert peers(one) == []
    assert two.remotes() == known

    two.cut = False
    cluster.step()
    assert peers(one) == ["db"]
    assert owned(cluster, two).keys() == before
    assert one.net.check() == two.net.check() == ()
    expire(cluster)
    assert peers(one) == ["db"]  # it stands by the new lease


def test_an_agent_that_comes_back_soon_is_not_missed(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """It goes on with the lease, and writes nothing anew."""
    records = cluster.store.range(" ", "~")
    cluster.clock.now += LEASE_SECONDS * 0.8
    one.keep()
    two.start_agent()  # the old one was killed
    cluster.step()
    assert cluster.store.range(" ", "~") == records
    expire(cluster)
    assert peers(one) == ["db"]


def test_an_address_that_was_given_away_meanwhile_is_reported(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """By an event and by check; nothing of the other's is touched, and it ends when one goes."""
    address = two.net.endpoints()[0].addresses[0].ip
    two.cut = True
    expire(cluster, two)
    one.connect("app", "thief", str(address))
    two.cut = False
    cluster.step()

    assert [e["sandbox"] for e in two.told if e["event"] == "clash"] == ["db"]
    (finding,) = two.net.check()
    assert "was given to thief on host1" in finding.note
    assert peers(one) == []
    assert str(address) in two.neighbours()  # its own endpoint is not cut off
    one.net.disconnect("app", "thief")
    two.later()
    cluster.step()
    assert two.net.check() == ()
    assert peers(one) == ["db"]


def test_who_gives_way_to_the_other_holder_of_its_address_reaches_it(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """While both had it the other was not entered here, and nobody tells of that one again."""
    address = two.net.endpoints()[0].addresses[0].ip
    two.cut = True
    expire(cluster, two)
    thief = one.connect("app", "thief", str(address))
    two.cut = False
    cluster.step()
    assert thief.mac not in two.remotes()

    two.net.disconnect("app", "db")
    two.step()
    assert two.remotes()[thief.mac] == one.node.data_address
    assert two.net.check() == ()
    assert not two.net.engine.state.store.range(*under("look/"))


def test_what_could_not_be_told_is_told_by_an_agent_that_missed_nothing(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """The cluster was away for just as long as the sandbox was taken off."""
    two.cut = True
    two.net.disconnect("app", "db")
    two.cut = False
    assert any("endpoint/" in key for key in owned(cluster, two))
    cluster.step()
    assert not any("endpoint/" in key for key in owned(cluster, two))
    assert peers(one) == []
    assert not two.net.engine.state.store.range(*under("look/"))


def test_a_network_that_could_not_be_let_go_in_the_cluster_is_by_the_agent(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Also where the host has nothing of it any more."""
    record = two.net.engine.state.network("app")
    two.net.disconnect("app", "db")
    going = let_go(two.net.engine, record)
    two.cut = True
    two.net.engine.meeting.let_go(going.releases)
    two.cut = False
    two.net.engine.run(lambda: replace(let_go(two.net.engine, record), releases=()))
    cluster.step()
    assert owned(cluster, two) == {}


def test_a_host_whose_own_address_was_given_away_takes_another(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Nobody but the host itself uses it, so nobody has to be told."""
    own = two.net.inspect("app").network.subnets[0].own
    two.cut = True
    expire(cluster, two)
    one.connect("app", "thief", str(own))
    two.cut = False
    cluster.step()

    new = two.net.inspect("app").network.subnets[0].own
    assert new not in (None, own)
    assert two.net.check() == ()
    cluster.step()
    assert peers(one) == ["db"]
    assert two.remotes().keys() >= {e.mac for e in one.net.endpoints()}
    assert str(new) in one.neighbours()
    assert one.net.check() == ()


def test_an_endpoint_moves_with_its_address(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """To a host that has not heard that it left the other; all third hosts follow."""
    third = cluster.hosts[2]
    third.connect("app", "client")
    cluster.step()
    web = one.net.endpoints()[0]
    address = str(web.addresses[0].ip)
    assert two.remotes()[web.mac] == one.node.data_address
    one.net.disconnect("app", "web")
    moved = two.connect("app", "web", address)

    assert moved.mac == web.mac
    assert moved.mac not in two.remotes()
    assert two.neighbours()[address] == web.mac
    cluster.step()
    for host in (one, third):
        assert host.remotes()[web.mac] == two.node.data_address
    assert two.neighbours()[address] == web.mac
    for host in cluster.hosts:
        assert host.net.check() == ()


# -- what is half done --------------------------------------------------------------------------


def test_a_claim_whose_process_died_is_released(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """After a moment, since whoever claims notes it here a little later."""
    web = one.net.engine.state.endpoints()[0].endpoint
    orphan = replace(web, id=names.new_id(), addresses=())
    from netlib.sharing import published

    key = f"endpoint/{web.network}/{orphan.id}"
    cluster.store.commit(Commit(put={key: dump(published(orphan, one.node))}))
    one.step()
    assert cluster.store.get(key) is not None
    one.later()
    assert cluster.store.get(key) is None
    assert peers(two) == ["web"]


def test_what_was_taken_from_the_cluster_is_put_back(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """An endpoint that is here stands there, whoever removed it."""
    mine = owned(cluster, one)
    cluster.store.commit(Commit(put={}, delete=tuple(mine)))
    cluster.step()
    assert peers(two) == []
    one.later()
    cluster.step()
    assert owned(cluster, one).keys() == mine.keys()
    assert peers(two) == ["web"]


def test_a_host_that_missed_too_much_reads_everything(tmp_path: Path) -> None:
    """As after a compaction: the same as if it had seen it all."""
    with fake_cluster(tmp_path, 2) as cluster:
        one, two = cluster.hosts
        one.net.create("app", driver="overlay", subnets=[SUBNET], attachable=True)
        cluster.step()
        one.connect("app", "web")
        cluster.step()
        two.connect("app", "db")
        cluster.step()
        for number in range(5):
            one.connect("app", f"box{number}")
        one.net.disconnect("app", "web")
        cluster.store._data.forgotten = cluster.store.revision()
        cluster.store._data.events.clear()
        two.step()
        assert peers(two) == [f"box{n}" for n in range(5)]
        assert two.net.check() == ()


def test_what_nobody_knows_is_removed_and_what_is_missing_made(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Check names it, repair mends it, and so does the agent whenever it looks at everything."""
    known = set(one.kernel.wiring())
    device = names.vxlan(network(one))
    stray = FdbEntry(device=device, mac="02:00:5e:00:53:01", remote=ip_address("203.0.113.9"))
    lost = next(n for n in known if isinstance(n, FdbEntry))

    def spoil() -> None:
        one.kernel.do(Stage(Layer.ADDRESS, stray.netns, (CreateStep(stray), DeleteStep(lost))))

    spoil()
    assert one.subjects() == ["what is elsewhere on app: "]
    assert one.net.repair().failed == ()
    assert set(one.kernel.wiring()) == known
    spoil()
    one.follower.again()
    one.step()
    assert set(one.kernel.wiring()) == known
    assert one.net.check() == ()


def test_after_a_boot_all_is_made_again_without_the_cluster(
    cluster: FakeCluster, one: FakeHost
) -> None:
    """By the copies: the network, members, and who is elsewhere."""
    before = one.remotes(), members(one)
    one.cut = True
    one.kernel.reboot()
    with Net(one.net.state_dir, kernel=one.kernel) as net:
        assert net.repair().failed == ()
        assert [f.note for f in net.check()] == ["the sandbox has ended; net gc removes it"]
        assert (one.remotes(), members(one)) == before
        net.collect_garbage()
        assert net.check() == ()


def test_a_batch_that_meets_something_unexpected_is_looked_at_anew(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """An entry that was there already, which nobody wrote down."""
    new = two.connect("app", "new")
    device = names.vxlan(network(one))
    early = FdbEntry(device=device, mac=new.mac, remote=ip_address("203.0.113.9"))
    one.kernel.do(Stage(Layer.ADDRESS, early.netns, (CreateStep(early),)))
    one.step()
    assert one.remotes()[new.mac] == two.node.data_address
    assert one.net.check() == ()


def test_a_network_that_can_not_be_served_keeps_no_other_from_it(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """It is tried again by itself, later and later, and what is wrong is said once."""
    one.net.create("other", driver="overlay", attachable=True)
    cluster.step()
    one.net.connect("other", "web")
    bad = names.bridge(network(one))
    one.kernel.failing = lambda what: KernelError("it is full") if bad in str(what) else None
    new, fine = two.connect("app", "new"), two.connect("other", "fine")
    one.step()
    assert fine.mac in one.remotes()
    assert str(new.addresses[0].ip) not in one.neighbours()
    more = two.net.connect("other", two.box("more"))
    one.later()
    assert more.mac in one.remotes()
    (finding,) = [f for f in one.net.check() if f.note]
    assert (finding.subject, "it is full" in finding.note) == ("network app", True)
    said = [line for line in one.log if "it is full" in line]
    assert len(said) == len(set(said)) > 0

    one.kernel.failing = None
    for _ in range(3):
        one.later()
    assert str(new.addresses[0].ip) in one.neighbours()
    assert one.net.check() == ()
    assert "done" in one.log[-1]


def test_a_change_that_can_not_be_made_here_is_told_until_it_is(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """A prefix that the cluster had free, and this host not."""
    two.net.create("mine", subnets=["203.0.113.0/24"])
    one.net.update("app", subnets=["203.0.113.0/24"])
    cluster.step()
    (told,) = two.subjects()
    assert told.startswith("network app: it is not as the cluster has it: 203.0.113.0/24 overlaps")
    two.net.remove("mine")
    two.later()
    two.later()
    assert two.subjects() == []
    assert len(two.net.inspect("app").network.subnets) == 2


def test_hosts_that_read_everything_at_once_do_it_apart_the_next_time(
    cluster: FakeCluster,
) -> None:
    """A thousand that begin together, when their store is back, would burden it for ever."""
    dues = {host.follower._full_at for host in cluster.hosts}
    assert len(dues) == len(cluster.hosts)


# -- the cluster's store, put back from a copy ----------------------------------------------------


def test_a_restored_store_gets_back_what_hosts_have(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Networks, endpoints and own addresses that are younger than the copy; nobody loses any."""
    third = cluster.hosts[2]
    copy = Snapshot(cluster.store)
    two.net.create("young", driver="overlay", subnets=["198.51.100.0/25"], attachable=True)
    cluster.step()
    two.connect("young", "deep")
    third.connect("young", "sea")
    third.connect("app", "client")
    one.net.disconnect("app", "web")
    cluster.step()
    before = {host.name: set(host.kernel.wiring()) for host in cluster.hosts}

    copy.put_back(cluster.store, cluster.clock)
    for _ in range(3):
        for host in cluster.hosts:
            host.later()
    assert {host.name: set(host.kernel.wiring()) for host in cluster.hosts} == before
    assert peers(one) == ["client", "db"]
    for host in cluster.hosts:
        assert host.net.check() == ()
    endpoints = [record.key for record in cluster.store.range(*under("endpoint/"))]
    assert len(endpoints) == 4
    expire(cluster)
    assert peers(one) == ["client", "db"]


def test_who_puts_a_lost_network_back_second_finds_it_there(
    cluster: FakeCluster, one: FakeHost
) -> None:
    """What is in the way is the network's own: two hosts that are on it look at the same time."""
    assert republish(one.net.engine.cluster, one.net.inspect("app").network)
    stranger = replace(one.net.inspect("app").network, id="f" * 64)
    assert not republish(one.net.engine.cluster, stranger)


def test_a_host_that_is_younger_than_the_copy_is_a_member_still(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """It puts its own record back."""
    copy = Snapshot(cluster.store)
    cluster.store.commit(Commit(put={"node/extra": cluster.store.get(  # type: ignore[union-attr]
        cluster_keys.node(two.node.id)).value.replace(two.node.id, "extra")}))  # fmt: skip
    cluster.step()
    copy._records.pop(cluster_keys.node(two.node.id))
    copy._keys.remove(cluster_keys.node(two.node.id))
    copy.put_back(cluster.store, cluster.clock)
    two.later()
    assert cluster.store.get(cluster_keys.node(two.node.id)) is not None


# -- members ------------------------------------------------------------------------------------


def test_a_host_that_is_younger_than_the_copy_comes_back_after_others_went_on(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """By then the store's revision is no sign any more that it was put back."""
    copy = Snapshot(cluster.store)
    known = (
        cluster_keys.node(two.node.id),
        cluster_keys.node_name(two.node.name),
        cluster_keys.data_address(two.node.data_address),
    )
    seen = int(two.net.engine.state.store.get(SEEN_KEY).value)  # type: ignore[union-attr]
    for key in known:
        copy._records.pop(key, None)
    copy._keys.remove(known[0])
    copy.put_back(cluster.store, cluster.clock)
    while cluster.store.revision() <= seen:
        cluster.store.commit(Commit(put={"node/extra": str(cluster.store.revision())}))
    cluster.store.commit(Commit(put={}, delete=("node/extra",)))
    two.follower.again()  # as by an etcd, which tells another history from its own
    two.later()
    assert all(cluster.store.get(key) is not None for key in known)
    assert two.net.check() == ()


def members(host: FakeHost) -> set[str]:
    """Whose tunnelled frames a host takes."""
    return {str(n.address) for n in host.kernel.wiring() if isinstance(n, VxlanMember)}


def test_a_host_whose_address_is_gone_is_told(cluster: FakeCluster, two: FakeHost) -> None:
    """All that is its own looks well, but nothing reaches it."""
    del two.kernel.holding[two.node.data_address]
    (found,) = two.subjects()
    assert f"does not have the address {two.node.data_address} any more" in found


def test_a_host_whose_device_carries_less_than_before_is_told(
    cluster: FakeCluster, two: FakeHost
) -> None:
    """As one would be that is about to take part: bridges lose what is too long in silence."""
    two.kernel.add_device("eth9", mtu=1400)
    two.kernel.holding[two.node.data_address] = "eth9"
    (found,) = two.subjects()
    assert "app has MTU 1450" in found
    assert "with MTU 1400, can carry 1350 at most" in found


def test_a_host_that_others_have_removed_is_told(
    cluster: FakeCluster, one: FakeHost, two: FakeHost
) -> None:
    """Its sandboxes go on by themselves, and nobody else hears them."""
    forget(cluster.store, two.node)
    one.step()
    two.follower.again()
    with pytest.raises(StoreError, match="net cluster leave -f"):
        two.follower.step()
    assert any("other members have removed this host" in found for found in two.subjects())
    assert one.subjects() == []


def test_only_members_are_heard(cluster: FakeCluster, one: FakeHost, two: FakeHost) -> None:
    """Those that there are now; who dies stays one."""
    everybody = {"198.51.100.1", "198.51.100.2", "198.51.100.3"}
    assert members(one) == everybody
    expire(cluster, two)
    assert members(one) == everybody
    forget(cluster.store, two.node)
    one.step()
    assert members(one) == everybody - {"198.51.100.2"}
    assert one.net.check() == ()
    two.keep()
    with pytest.raises(StoreError, match="net cluster leave -f"):
        two.follower.step()
    assert members(two) == everybody  # it is not open to everybody until it leaves


def test_who_is_taken_for_a_member_and_is_none_is_told_and_shut_out(
    cluster: FakeCluster, one: FakeHost
) -> None:
    """Whoever let him in; but where another state has links, he may be a member of its cluster."""
    stranger = VxlanMember(address=ip_address("203.0.113.7"), port=4789)
    before = members(one)
    owner = names.owner(names.new_id(names.new_realm()))
    theirs = Bridge(name="br-theirs", owner=owner, mtu=1500, mac="02:00:00:00:00:99")
    one.kernel.do(Stage(Layer.FIREWALL, HOST, (CreateStep(stranger),)))
    one.kernel.do(Stage(Layer.LINK, HOST, (CreateStep(theirs),)))
    assert one.net.check() == ()
    one.kernel.do(Stage(Layer.LINK, HOST, (DeleteStep(theirs),)))

    (finding,) = one.net.check()
    assert finding.subject == "membership of the cluster"
    assert "others than its members" in finding.note
    one.net.repair()
    assert members(one) == before
    assert one.net.check() == ()


@pytest.mark.parametrize("lost", ["endpoint", "network"])
def test_what_a_state_from_a_copy_does_not_know_is_told_and_removed(
    cluster: FakeCluster, three: FakeHost, lost: str
) -> None:
    """Of a host that has none but the cluster's networks, too."""
    store = three.net.engine.state.store
    if lost == "endpoint":
        three.connect("app", "old")
    three.box("young")
    before = store.range(" ", "~")
    three.net.connect("app", "young")
    known = {record.key for record in before}
    store.commit(
        Commit(
            put={record.key: record.value for record in before},
            delete=tuple(r.key for r in store.range(" ", "~") if r.key not in known),
        )
    )
    assert ("host", "nothing in the state owns it") in [
        (finding.subject, finding.note) for finding in three.net.check()
    ]
    three.net.collect_garbage()
    three.follower.again()
    three.later()
    cluster.step()
    assert three.subjects() == []
    young = three.net.connect("app", "young")
    cluster.step()
    assert young.mac in cluster.hosts[0].remotes()
    assert three.subjects() == []


def test_what_was_under_way_when_a_host_left_is_cleared_away(
    cluster: FakeCluster,
) -> None:
    """Its agent may note what it has just heard after that; no network is offered by it."""
    three = cluster.hosts[2]
    engine = three.net.engine
    engine.state.store.commit(Commit(put={}, delete=(MEMBERSHIP_KEY,)))
    assert [seen.scope for seen in three.net.listing(["name=app"])] == ["global"]

    assert has_of_a_membership(engine)
    engine.run(lambda: be_nobody(engine))
    assert not has_of_a_membership(engine)
    assert not three.net.listing(["name=app"])
    assert not members(three)


def test_a_host_that_joins_again_while_it_clears_away_keeps_what_is_new(
    cluster: FakeCluster, two: FakeHost
) -> None:
    """Its agent saw that it was no member, and then had to wait."""
    engine, store = two.net.engine, two.net.engine.state.store
    mine = store.get(MEMBERSHIP_KEY)
    assert mine is not None
    store.commit(Commit(put={}, delete=(MEMBERSHIP_KEY,)))

    def prepare_and_join() -> Operation[None]:
        found = be_nobody(engine)
        store.commit(Commit(put={MEMBERSHIP_KEY: mine.value}))
        return found

    engine.run(prepare_and_join)
    assert store.get(LEASE_KEY)
    assert store.get(SEEN_KEY)
    assert two.net.listing(["name=app"])
    assert len(members(two)) == 3


def test_what_members_have_is_made_again_where_it_was_given_back_meanwhile(
    cluster: FakeCluster, two: FakeHost
) -> None:
    """Who becomes a member while what it was is cleared away has what members have."""
    engine, store = two.net.engine, two.net.engine.state.store
    mine = store.get(MEMBERSHIP_KEY)
    assert mine is not None
    copies = {record.key: record.value for record in store.range(*under("node/"))}
    prepared: list[Operation[None]] = []

    def prepare_late() -> Operation[None]:
        prepared.append(be_member(engine))
        if len(prepared) == 1:
            store.commit(Commit(put={}, delete=(MEMBERSHIP_KEY,)))
            engine.run(lambda: be_nobody(engine))
            store.commit(Commit(put={MEMBERSHIP_KEY: mine.value, **copies}))
        return prepared[-1]

    cluster.store.commit(Commit(put={}, delete=(cluster_keys.node(cluster.hosts[0].node.id),)))
    del copies[node_key(cluster.hosts[0].node.id)]
    store.commit(Commit(put={}, delete=(node_key(cluster.hosts[0].node.id),)))
    engine.run(prepare_late)
    assert members(two) == {"198.51.100.2", "198.51.100.3"}


def test_the_lease_is_noted_again_where_the_note_was_lost(two: FakeHost) -> None:
    """As of a state that was put back from a copy: without it nothing here could be claimed."""
    store = two.net.engine.state.store
    noted = store.get(LEASE_KEY)
    assert noted is not None
    store.commit(Commit(put={}, delete=(LEASE_KEY,)))
    two.keep()
    again = store.get(LEASE_KEY)
    assert again is not None
    assert again.value == noted.value


def test_an_agent_that_is_told_looks_at_once(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that becomes a member waits for nothing before it can use the networks."""
    monkeypatch.setattr("netlib.cluster.agent._LOOK_SECONDS", 600.0)
    one = cluster.hosts[2]
    agent = Agent(one.net.engine)
    store = one.net.engine.state.store
    mine = store.get(MEMBERSHIP_KEY)
    assert mine is not None
    store.commit(Commit(put={}, delete=(MEMBERSHIP_KEY,)))
    agent.start()
    try:
        eventually(lambda: not has_of_a_membership(one.net.engine))
        store.commit(Commit(put={MEMBERSHIP_KEY: mine.value}))
        agent.look()
        eventually(lambda: store.get(LEASE_KEY) and store.get(SEEN_KEY))
    finally:
        agent.stop()


def test_a_host_that_does_not_reach_the_cluster_is_told(cluster: FakeCluster) -> None:
    """As soon as that is no moment any more, and until it does."""
    three = cluster.hosts[2]
    agent, store = Agent(three.net.engine), three.net.engine.state.store
    three.cut = True
    agent.start()
    try:
        since, why = load(eventually(lambda: store.get(AWAY_KEY)).value)
        assert three.subjects() == []
        store.commit(Commit(put={AWAY_KEY: dump([since - 60, why])}))
        (told,) = three.subjects()
        assert "s the cluster could not be told that this host lives (no server" in told
        three.cut = False
        eventually(lambda: three.subjects() == [])
    finally:
        agent.stop()


@pytest.mark.parametrize("availability", ["pause", "drain"])
def test_a_node_that_is_not_active_takes_no_endpoint(
    cluster: FakeCluster, one: FakeHost, two: FakeHost, availability: str
) -> None:
    """And one that is drained gives away those it has; active again, it takes part again."""

    def set_to(value: str) -> None:
        node = replace(two.node, availability=value)  # type: ignore[arg-type]
        cluster.store.commit(Commit(put={cluster_keys.node(node.id): dump(node)}))
        cluster.step()

    set_to(availability)
    two.box("late")
    with pytest.raises(NodePaused, match="net node update --availability active host2"):
        two.net.connect("app", "late")
    assert peers(one) == (["db"] if availability == "pause" else [])
    assert bool(owned(cluster, two)) == (availability == "pause")
    set_to("active")
    two.net.connect("app", "late")
    cluster.step()
    assert peers(one)[-1] == "late"


# -- whatever happens ---------------------------------------------------------------------------

Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["connect", "disconnect", "move", "watch", "die", "again", "compact"]),
        st.integers(0, 1),
        st.integers(0, 3),
    ),
    max_size=20,
)


@given(steps=STEPS)
@settings(max_examples=40)
def test_a_host_that_follows_ends_where_one_that_reads_everything_does(steps: list[Step]) -> None:
    """However its looks divide what others do; kernel, copies and cluster say the same."""
    with (
        tempfile.TemporaryDirectory(dir="/run") as folder,
        fake_cluster(Path(folder), 3) as cluster,
    ):
        *others, watcher = cluster.hosts
        others[0].net.create("app", driver="overlay", subnets=["192.0.2.0/27"], attachable=True)
        cluster.step()
        watcher.connect("app", "watcher")
        for host in others:
            for number in range(4):
                host.box(f"box{number}")
        for what, which, number in steps:
            _do(what, others[which], others[1 - which], watcher, number, cluster)
        watcher.step()

        there = {one.id: one for one in _everybody(cluster, watcher)}
        assert _copies(watcher.net) == {key: dump(one) for key, one in there.items()}
        net = network(watcher)
        assert reconcile(watcher.net.engine, net, there.values()).plan == Plan()
        assert set(watcher.remotes()) == {one.mac for one in there.values()}
        assert watcher.net.check() == ()


def _do(
    what: str, host: FakeHost, other: FakeHost, watcher: FakeHost, number: int, cluster: FakeCluster
) -> None:
    box = f"box{number}"
    on = [e.sandbox.name for e in host.net.endpoints()]
    if what == "connect" and box not in on:
        host.net.connect("app", box)
    elif what == "disconnect" and box in on:
        host.net.disconnect("app", box)
    elif what == "move" and box in on and not other.net.endpoints(box):
        (endpoint,) = host.net.endpoints(box)
        host.net.disconnect("app", box)
        other.net.connect("app", box, addresses=[endpoint.addresses[0].ip])
    elif what == "watch":
        watcher.follower.step()
    elif what == "die":
        cluster.clock.now += LEASE_SECONDS / 2
        for one in (watcher, other):
            one.keep()
        cluster.clock.now += LEASE_SECONDS / 2 + 0.1
        for one in (watcher, other):
            one.keep()
        host.step()
    elif what == "again":
        watcher.follower.again()
        watcher.follower.step()
    elif what == "compact":
        data = cluster.store._data
        data.forgotten = data.revision
        data.events.clear()


def _everybody(cluster: FakeCluster, watcher: FakeHost) -> list[object]:
    state = watcher.net.engine.cluster
    found = [*state.endpoints(network(watcher)), *state.hosts(network(watcher))]
    return [one for one in found if one.node != watcher.node.id]  # type: ignore[return-value]


def _copies(net: Net) -> dict[str, str]:
    prefix = peer_key(net.inspect("app").network.id, "")
    records = net.engine.state.store.range(*under(prefix))
    return {record.key.removeprefix(prefix): record.value for record in records}


def test_of_each_thing_the_last_word_counts() -> None:
    """What came and went between two looks leaves no more than that it is gone."""
    from netlib.store import Event

    news = read(
        [Event("alive/n", "1", 5), Event("alive/n", None, 6), Event("alive/n", "2", 7)], "me"
    )
    assert (news.died, news.revision) == (set(), 7)


@given(
    st.lists(st.ip_addresses().map(lambda a: interface(a, min(64, a.max_prefixlen))), max_size=3),
    st.lists(st.text(), max_size=2),
)
def test_an_endpoint_is_written_as_all_values_are_and_read_as_it_was(
    addresses: list[IPInterface], aliases: list[str]
) -> None:
    """By hand, because a thousand may come at once."""
    mapped = ip_network("::/8")  # of some of these the C library makes another text
    addresses = [a for a in addresses if a.version == 4 or a.ip not in mapped]
    one = SharedEndpoint(
        id="1f" * 32,
        network="2f" * 32,
        node="3f" * 32,
        host=ip_address("2001:db8::1"),
        mac="02:00:00:00:00:01",
        addresses=tuple(addresses),
        aliases=tuple(aliases),
    )

    assert dump_endpoint(one) == dump(one)
    assert load_shared(" " + dump(one)) == one  # one space, and it is not the text of a value


def test_a_record_that_can_not_be_read_is_shown() -> None:
    """Whoever wrote it."""
    with pytest.raises(StoreError, match="can't be read"):
        load_shared('{"id":"a","network":"b","node":"c","host":"::1","mac":"","addresses":["x/1"]}')
