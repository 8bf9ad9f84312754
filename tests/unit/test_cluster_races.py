"""What another process, or another host, does in the middle of an operation on a cluster's network.

Nothing is left to chance: each comes in at a moment that the test chooses.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from support.fake_cluster import FakeCluster, FakeHost, Line, cluster_with_app

from netlib.cluster import keys as cluster_keys
from netlib.cluster import leaving
from netlib.cluster.copies import node_key, offer_key
from netlib.cluster.doors import Doors
from netlib.cluster.follower import Follower
from netlib.cluster.leaving import leave
from netlib.cluster.model import SharedEndpoint
from netlib.cluster.nodes import forget
from netlib.cluster.state import cluster_of
from netlib.cluster.status import rotated
from netlib.errors import (
    AddressTaken,
    Conflict,
    KernelError,
    NodePaused,
    NoSuchNetwork,
    PoolOverlap,
    StoreError,
)
from netlib.ipam import lease_key
from netlib.net import Net
from netlib.operation import Operation
from netlib.records import dump
from netlib.store import Commit, under
from netlib.verbs.peers import reconcile, sync

ADDRESS = "192.0.2.99"  # which is never chosen


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


@pytest.fixture
def beside(cluster: FakeCluster, two: FakeHost) -> Iterator[Net]:
    """Another process on the second host."""
    with Net(
        two.net.state_dir, kernel=two.kernel, open_cluster=lambda _: cluster.store.leased(0)
    ) as net:
        yield net


def once(
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    do: Callable[[], object],
    *,
    after: bool = False,
) -> None:
    """Have something done at the first call of a method: before it, or after it."""
    method = getattr(owner, name)
    calls: list[None] = []

    def calling(*arguments: Any, **named: Any) -> Any:
        calls.append(None)
        if len(calls) > 1:
            return method(*arguments, **named)
        if not after:
            do()
        result = method(*arguments, **named)
        if after:
            do()
        return result

    monkeypatch.setattr(owner, name, calling)


def network(host: FakeHost) -> str:
    """The network's id."""
    return host.net.inspect("app").network.id


def elsewhere(host: FakeHost) -> list[SharedEndpoint]:
    """What the cluster has of other hosts in the network."""
    there = host.net.engine.cluster
    everybody = [*there.endpoints(network(host)), *there.hosts(network(host))]
    return [one for one in everybody if one.node != host.node.id]


# -- who has an address ---------------------------------------------------------------------------


@pytest.mark.parametrize("told", ["news", "much", "all"])
def test_a_sandbox_that_comes_is_not_cut_off_by_who_had_its_address_for_a_moment(
    cluster: FakeCluster,
    one: FakeHost,
    two: FakeHost,
    beside: Net,
    monkeypatch: pytest.MonkeyPatch,
    told: str,
) -> None:
    """The agent is about to enter one elsewhere, which has left again meanwhile."""
    if told == "much":
        monkeypatch.setattr("netlib.peers._FEW", 0)
    gone = one.connect("app", "gone", ADDRESS)
    engine, there = two.net.engine, elsewhere(two)
    one.net.disconnect("app", "gone")
    beside.create_sandbox("heir")
    begun = []

    def prepare() -> Operation[None]:
        if told == "all":
            made = reconcile(engine, network(two), there)
        else:
            made = sync(engine, network(two), {one.id: one for one in there if one.id == gone.id})
        if not begun:
            begun.append(beside.connect("app", "heir", addresses=[ADDRESS]))
        return made

    engine.run(prepare)
    assert begun[0].mac == gone.mac
    assert gone.mac not in two.remotes()
    cluster.step()
    assert two.neighbours()[ADDRESS] == gone.mac
    assert two.subjects() == []


def test_a_sandbox_takes_away_what_the_agent_enters_while_it_is_about_to_come(
    cluster: FakeCluster,
    one: FakeHost,
    two: FakeHost,
    beside: Net,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of one elsewhere that had its address for a moment, and that the agent hears of late."""
    gone = one.connect("app", "gone", ADDRESS)
    news = {one.id: one for one in elsewhere(two) if one.id == gone.id}
    one.net.disconnect("app", "gone")
    beside.create_sandbox("heir")
    engine = two.net.engine
    once(
        monkeypatch,
        beside.engine.meeting,
        "take",
        lambda: engine.run(lambda: sync(engine, network(two), news)),
    )
    beside.connect("app", "heir", addresses=[ADDRESS])
    assert gone.mac not in two.remotes()
    cluster.step()
    assert two.neighbours()[ADDRESS] == gone.mac
    assert two.subjects() == []


def test_who_gets_an_address_while_it_is_given_up_is_entered(
    cluster: FakeCluster,
    one: FakeHost,
    two: FakeHost,
    beside: Net,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cluster has it free a moment before this host has noted the end."""
    beside.create_sandbox("leaver")
    left = beside.connect("app", "leaver", addresses=[ADDRESS])
    cluster.step()

    def given_on() -> None:
        one.connect("app", "heir", ADDRESS)
        two.follower.step()

    once(monkeypatch, beside.engine.meeting, "let_go", given_on, after=True)
    beside.disconnect("app", "leaver")
    cluster.step()
    assert two.remotes()[left.mac] == one.node.data_address
    assert two.neighbours()[ADDRESS] == left.mac
    assert two.subjects() == []
    assert not two.net.engine.state.store.range(*under("look/"))


def test_who_could_not_take_over_an_address_leaves_nothing_of_who_had_it(
    cluster: FakeCluster,
    one: FakeHost,
    two: FakeHost,
    beside: Net,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That the one elsewhere is gone is told while its records are out of the way."""
    gone = one.connect("app", "gone", ADDRESS)
    cluster.step()
    assert gone.mac in two.remotes()
    one.net.disconnect("app", "gone")
    beside.create_sandbox("heir")
    once(monkeypatch, two.kernel, "do", two.follower.step)
    two.kernel.fail_at(4)
    with pytest.raises(KernelError):
        beside.connect("app", "heir", addresses=[ADDRESS])
    cluster.step()
    assert gone.mac not in two.remotes()
    assert "gone" not in [peer.endpoint.sandbox for peer in two.net.inspect("app").peers]
    assert two.subjects() == []


def test_an_address_that_an_agent_noted_and_died_is_free_when_the_next_one_has_looked(
    cluster: FakeCluster, two: FakeHost
) -> None:
    """Until then who asks for it waits: the entries may be there."""
    network = two.net.inspect("app").network.id
    noted = f"place/{network}/{lease_key(ip_address(ADDRESS))}"
    two.net.engine.state.store.commit(Commit(put={noted: "never entered"}))
    two.start_agent()
    two.step()
    assert two.net.engine.state.store.get(noted) is None
    assert str(two.connect("app", "late", ADDRESS).addresses[0].ip) == ADDRESS


# -- a network that changes while a host takes it up ----------------------------------------------


@pytest.mark.parametrize("removed", [False, True], ids=["changed", "removed"])
def test_what_becomes_of_a_network_while_a_host_takes_it_up_is_followed(
    cluster: FakeCluster,
    one: FakeHost,
    two: FakeHost,
    three: FakeHost,
    monkeypatch: pytest.MonkeyPatch,
    removed: bool,
) -> None:
    """The agent hears of both at once, as it does when it is busy."""
    meets, agent = threading.Event(), threading.Thread(target=three.follower.step)
    meet = Follower._meet

    def met(*arguments: Any) -> None:
        meets.set()
        meet(*arguments)  # waits for who takes it up

    def change() -> None:
        if removed:
            one.net.disconnect("app", "web")
            two.net.disconnect("app", "db")
            one.net.remove("app")
        else:
            one.net.update("app", labels={"tier": "front"})
        agent.start()
        assert meets.wait(5)

    monkeypatch.setattr(Follower, "_meet", met)
    once(monkeypatch, three.net.engine.meeting, "take", change, after=True)
    three.box("late")
    with suppress(NoSuchNetwork, Conflict):  # it is gone, or just going
        three.net.connect("app", "late")
    agent.join()
    cluster.step()
    if removed:
        assert "app" not in [listed.network.name for listed in three.net.listing()]
    else:
        assert three.net.inspect("app").network.labels == {"tier": "front"}
    assert three.subjects() == []


def test_a_network_that_others_change_and_remove_is_not_offered_here_as_it_was(
    cluster: FakeCluster, one: FakeHost, three: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent has noted the last word before whoever had the word before that notes his."""

    def last_word() -> None:
        one.net.update("app", labels={"word": "last"})
        three.follower.step()

    once(monkeypatch, three.net.engine.meeting, "take", last_word, after=True)
    three.net.update("app", labels={"word": "first"})
    cluster.step()
    assert three.net.inspect("app").network.labels == {"word": "last"}

    def remove() -> None:
        one.step()
        one.net.remove("late")
        three.follower.step()

    once(monkeypatch, three.net.engine.meeting, "take", remove, after=True)
    made = three.net.create("late", driver="overlay", attachable=True)
    cluster.step()
    assert three.net.engine.state.store.get(offer_key(made.id)) is None


# -- a host that is to take nothing more -------------------------------------------------------


@pytest.mark.parametrize("taken_up", [True, False], ids=["there", "new"])
def test_who_is_about_to_join_on_a_host_that_is_paused_does_not(
    cluster: FakeCluster,
    two: FakeHost,
    three: FakeHost,
    monkeypatch: pytest.MonkeyPatch,
    taken_up: bool,
) -> None:
    """Where it is drained, the agent has just taken all off, and would not look again."""
    host = two if taken_up else three
    host.box("late")
    paused = replace(host.node, availability="pause")

    def pause() -> None:
        cluster.store.commit(Commit(put={cluster_keys.node(paused.id): dump(paused)}))
        host.net.engine.state.store.commit(Commit(put={node_key(paused.id): dump(paused)}))

    once(monkeypatch, host.net.engine.meeting, "take", pause)
    with pytest.raises(NodePaused):
        host.net.connect("app", "late")
    held = [record.key for record in cluster.store.range(*under("host/"))]
    assert any(key.endswith(host.node.id) for key in held) == taken_up


def test_who_is_about_to_join_on_a_host_that_others_remove_does_not(
    cluster: FakeCluster, two: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would ever remove what a stranger has in the cluster."""
    two.box("late")
    meeting = two.net.engine.meeting
    once(monkeypatch, meeting, "take", lambda: forget(cluster.store, two.node))
    once(monkeypatch, meeting, "take_back", two.follower.step)
    with pytest.raises(StoreError):
        two.net.connect("app", "late")
    assert not [
        record.key
        for record in cluster.store.range(*under("endpoint/"))
        if two.node.id in record.value
    ]


def test_nothing_is_left_of_who_comes_while_a_host_leaves(
    cluster: FakeCluster, two: FakeHost, beside: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its sandboxes were taken off, and the others know nothing yet."""
    beside.create_sandbox("late")
    doors = Doors(
        engine=two.net.engine,
        state_dir=two.net.state_dir,
        open_store=lambda _: Line(cluster.store, two),  # type: ignore[arg-type, return-value]
    )
    once(monkeypatch, leaving, "_tell_others", lambda: beside.connect("app", "late"))
    leave(doors, force=True)
    assert two.net.endpoints() == ()
    assert "app" not in [listed.network.name for listed in two.net.listing()]
    assert not [noun for noun in two.kernel.wiring() if "nl-" in repr(noun)]
    assert not [
        record.key
        for folder in ("endpoint/", "host/")
        for record in cluster.store.range(*under(folder))
        if two.node.id in record.value
    ]


def test_what_others_built_on_a_change_stays_when_it_is_taken_back(
    cluster: FakeCluster, one: FakeHost, three: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever failed to make it may not give away what the network has by now."""
    one.kernel.fail_at(1)

    def change() -> None:
        three.net.update("app", labels={"tier": "front"})

    once(monkeypatch, one.net.engine.meeting, "take", change, after=True)
    with pytest.raises(KernelError):
        one.net.update("app", subnets=["203.0.113.0/24"])
    cluster.step()
    shared = three.net.engine.cluster.network(network(one))
    assert shared is not None
    assert [str(subnet.prefix) for subnet in shared.network.subnets][1:] == ["203.0.113.0/24"]
    with pytest.raises(PoolOverlap):
        three.net.create("other", driver="overlay", subnets=["203.0.113.0/24"])
    cluster.step()
    assert one.subjects() == []


def test_who_got_an_address_of_a_host_that_is_removed_keeps_it(
    cluster: FakeCluster, one: FakeHost, two: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host lives, and gives the address up just before it is taken away."""
    address = str(two.net.endpoints()[0].addresses[0].ip)
    commit, given_on = cluster.store.commit, []

    def committing(what: Commit) -> int:
        if any("endpoint/" in key for key in what.delete) and not given_on:
            given_on.append(address)
            two.net.disconnect("app", "db")
            one.connect("app", "heir", address)
        return commit(what)

    monkeypatch.setattr(cluster.store, "commit", committing)
    forget(cluster.store, two.node)
    assert given_on
    assert two.node.id not in str(cluster.store.range(*under("host/")))
    three = cluster.hosts[2]
    three.box("late")
    with pytest.raises(AddressTaken, match="heir on host1"):
        three.net.connect("app", "late", addresses=[address])


def test_two_managers_may_end_all_tokens_at_once(
    cluster: FakeCluster, one: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gets a token that is good after that, or is made later."""
    once(monkeypatch, cluster.store, "commit", lambda: rotated(cluster.store))
    made = rotated(cluster.store)
    assert made.generation == 2
    assert cluster_of(cluster.store)[0] == made
