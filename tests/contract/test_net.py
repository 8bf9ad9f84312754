"""What `Net` promises, on the fake host and on Linux."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Literal

import pytest
from support.verbs import records

from netlib import built_in
from netlib.apply import apply
from netlib.errors import (
    AddressTaken,
    AlreadyConnected,
    Conflict,
    Exhausted,
    InUse,
    InvalidAddress,
    InvalidName,
    InvalidOption,
    InvalidRequest,
    KernelError,
    NameTaken,
    NoSuchNetwork,
    NoSuchSandbox,
    NotConnected,
    NotPublished,
    PoolOverlap,
    PortTaken,
    UnknownDriver,
    Unsupported,
)
from netlib.kernel.fake import FakeKernel
from netlib.keys import network_key
from netlib.model import Endpoint, Network
from netlib.net import Net
from netlib.operation import Operation
from netlib.records import dump_network
from netlib.store import Commit, under
from netlib.store.memory import MemoryStore
from netlib.values import replace
from netlib.verbs.connect import connect
from netlib.verbs.update import update
from netlib.wiring import Address, Allow, Masquerade, Publish, Route, VethPair, Wiring

SUBNET = "198.51.100.0/24"


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.kernel)])
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """An empty host of each kind."""
    if request.param == "fake":
        with Net(store=MemoryStore(), kernel=FakeKernel()) as net:
            yield net
        return
    host = request.getfixturevalue("host")
    with Net(host.state_dir) as net:
        yield net


def own(net: Net) -> list[str]:
    """The networks that are not built in."""
    return [network.name for network in net.networks() if network.name not in built_in.NAMES]


def routes(net: Net, sandbox: str) -> dict[str, str]:
    """The default routes of a sandbox that are really there: device by destination."""
    found = {}
    for record in net.engine.state.endpoints_of(sandbox):
        for noun in net.engine.kernel.observe(record.wiring):
            if isinstance(noun, Route) and noun.destination.prefixlen == 0:
                found[str(noun.destination)] = noun.device
    return found


# -- networks -------------------------------------------------------------------------------------


def test_a_network_gets_a_subnet_of_its_own_and_its_first_address_as_gateway(net: Net) -> None:
    """Two networks made without any option do not overlap."""
    one, two = net.create("one"), net.create("two")

    assert not one.subnets[0].prefix.overlaps(two.subnets[0].prefix)
    assert one.subnets[0].gateway == one.subnets[0].prefix[1]
    assert own(net) == ["one", "two"]
    assert len(one.id) == 64
    assert one.driver == "bridge"


def test_a_network_with_ipv6_has_both_families(net: Net) -> None:
    """A unique local prefix is chosen (RFC 4193)."""
    network = net.create("both", ipv6=True)

    assert network.families() == (4, 6)
    assert network.subnets[1].prefix.subnet_of(ip_network("fd00::/8"))


def test_a_network_can_be_ipv6_only(net: Net) -> None:
    """No IPv4 subnet is added when it is not wanted."""
    assert net.create("six", ipv4=False, ipv6=True).families() == (6,)
    assert net.create("given", subnets=["2001:db8:1::/64"]).families() == (6,)


def test_ipv6_too_means_both_families_whichever_is_given(net: Net) -> None:
    """As with Docker and Podman: IPv4 is chosen beside an IPv6 prefix, too."""
    made = net.create("both", subnets=["2001:db8:1::/64"], ipv6=True)
    assert sorted(made.families()) == [4, 6]
    assert net.create("six", subnets=["2001:db8:2::/64"], ipv4=False, ipv6=True).families() == (6,)


def test_a_network_without_ipv4_takes_no_ipv4_prefix(net: Net) -> None:
    """Both can't be meant, so nothing is made."""
    with pytest.raises(InvalidRequest, match="without IPv4"):
        net.create("front", subnets=["192.0.2.0/24", "2001:db8:1::/64"], ipv4=False)
    assert all(network.name != "front" for network in net.networks())


def test_one_text_is_not_taken_for_several(net: Net) -> None:
    """Python would go through its letters: port 88 as port 8, twice."""
    net.create_sandbox("web")
    with pytest.raises(InvalidRequest, match=r"subnets.*several"):
        net.create("front", subnets="198.51.100.0/24")
    net.create("front")
    for verbs in (net, net.plan):
        with pytest.raises(InvalidRequest, match=r"publish.*several"):
            verbs.connect("front", "web", publish="88")
    with pytest.raises(InvalidRequest, match=r"aliases.*several"):
        net.connect("front", "web", aliases="db")
    net.connect("front", "web")
    for verb in (net.publish, net.plan.publish, net.unpublish, net.plan.unpublish):
        with pytest.raises(InvalidRequest, match=r"ports.*several"):
            verb("web", "88")
    with pytest.raises(InvalidRequest, match=r"filters.*several"):
        net.listing("driver=bridge")
    assert net.ports("web") == ()


def test_an_option_that_is_no_text_is_refused(net: Net) -> None:
    """With the text that is meant."""
    for value, text in ((1400, "'1400'"), (False, "'false'")):
        with pytest.raises(InvalidOption, match="no text") as caught:
            net.create("front", options={"mtu": value})  # type: ignore[dict-item]
        assert text in caught.value.hint


def test_a_name_that_is_taken_is_refused(net: Net) -> None:
    """The error names the network that has it."""
    net.create("front")
    with pytest.raises(NameTaken, match="front"):
        net.create("front")


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x" * 254, "é"])
def test_a_name_must_be_a_name(net: Net, name: str) -> None:
    """Names are what Docker takes for names."""
    with pytest.raises(InvalidName):
        net.create(name)


def test_a_subnet_that_overlaps_another_networks_is_refused(net: Net) -> None:
    """Inside it, around it or the same: the error names the other network."""
    net.create("front", subnets=[SUBNET])
    for subnet in (SUBNET, "198.51.100.128/25", "198.51.0.0/16"):
        with pytest.raises(PoolOverlap, match=r"front|198\.51\.100"):
            net.create("back", subnets=[subnet])
    net.create("back", subnets=["198.51.101.0/24"])
    for subnet in (SUBNET, "198.51.100.128/25", "198.51.100.0/23"):
        with pytest.raises(PoolOverlap, match="overlaps"):
            net.update("front", subnets=[subnet])


def test_an_unknown_driver_or_option_is_refused_with_the_known_ones(net: Net) -> None:
    """Nothing is made, and the error says what there is."""
    before = records(net)
    with pytest.raises(UnknownDriver, match="bridge"):
        net.create("x", driver="brigde")
    with pytest.raises(InvalidOption, match=r"did you mean mtu.*icc"):
        net.create("x", options={"mtuu": "1400"})
    with pytest.raises(InvalidOption, match="1280"):
        net.create("x", ipv6=True, options={"mtu": "1000"})
    assert records(net) == before


def test_a_network_is_found_by_name_id_and_prefix_of_its_id(net: Net) -> None:
    """As with Docker."""
    network = net.create("front")
    for reference in ("front", network.id, network.id[:5]):
        assert net.inspect(reference).network.id == network.id
    with pytest.raises(NoSuchNetwork, match="front"):
        net.inspect("nope")


def test_a_removed_network_leaves_nothing_in_the_state_and_the_kernel(net: Net) -> None:
    """Its name and its prefix can be used again."""
    before = records(net)
    net.create("front", subnets=[SUBNET])
    net.remove("front")

    assert records(net) == before
    assert not list(net.engine.kernel.marked())
    net.create("front", subnets=[SUBNET])


def test_a_network_in_use_is_not_removed_and_its_users_are_named(net: Net) -> None:
    """With force they are disconnected first."""
    net.create("front")
    net.create_sandbox("web")
    net.connect("front", "web")
    with pytest.raises(InUse, match="web"):
        net.remove("front")
    net.remove("front", force=True)
    assert net.endpoints("web") == ()


def test_who_removes_second_is_told_and_removes_no_other(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name that was given; a new network of that name stays."""
    net.create("front")
    run = net.engine.run

    def late(*arguments: Any) -> Any:
        monkeypatch.undo()
        net.remove("front")
        net.create("front")
        return run(*arguments)

    monkeypatch.setattr(net.engine, "run", late)
    with pytest.raises(NoSuchNetwork, match="network front was removed meanwhile"):
        net.remove("front")
    assert net.inspect("front").network.name == "front"


def test_prune_removes_only_networks_without_endpoints(net: Net) -> None:
    """What is used stays."""
    net.create("used")
    net.create("unused")
    net.create_sandbox("web")
    net.connect("used", "web")

    assert net.prune() == ("unused",)
    assert own(net) == ["used"]


# -- endpoints ------------------------------------------------------------------------------------


def test_a_connected_sandbox_has_address_route_and_a_clean_check(net: Net) -> None:
    """The first endpoint gets the first address after the gateway, and the default route."""
    net.create("front", subnets=[SUBNET])
    net.create_sandbox("web")
    endpoint = net.connect("front", "web")

    assert endpoint.addresses == (ip_interface("198.51.100.2/24"),)
    assert endpoint.ifname == "eth0"
    assert endpoint.gateway_for == (4,)
    assert routes(net, "web") == {"0.0.0.0/0": "eth0"}
    assert net.check() == ()
    assert net.endpoints("web")[0].state == "ready"


def test_disconnect_gives_back_all_that_connect_took(net: Net) -> None:
    """State and kernel are as before; the address is not the next one given."""
    net.create("front", subnets=[SUBNET])
    net.create_sandbox("web")
    before, there = records(net), net.engine.kernel.marked()
    net.connect("front", "web", publish=["8080:80"])
    net.disconnect("front", "web")

    assert records(net) == before
    assert net.engine.kernel.marked() == there
    assert net.connect("front", "web").addresses[0] == ip_interface("198.51.100.3/24")


def test_connecting_twice_is_refused(net: Net) -> None:
    """An endpoint joins a sandbox to a network once."""
    net.create("front")
    net.create_sandbox("web")
    net.connect("front", "web")
    with pytest.raises(AlreadyConnected):
        net.connect("front", "web")


def test_what_does_not_exist_is_named(net: Net) -> None:
    """Network, sandbox, endpoint and port."""
    net.create("front")
    net.create_sandbox("web")
    with pytest.raises(NoSuchSandbox, match="nobody"):
        net.connect("front", "nobody")
    with pytest.raises(NoSuchNetwork, match="nope"):
        net.connect("nope", "web")
    with pytest.raises(NotConnected):
        net.disconnect("front", "web")
    net.connect("front", "web")
    with pytest.raises(NotPublished):
        net.unpublish("web", ["8080:80"])


def test_the_default_route_moves_to_the_next_network_and_back(net: Net) -> None:
    """The oldest endpoint has it, unless another has a higher priority."""
    for name in ("one", "two", "three"):
        net.create(name)
    net.create_sandbox("web")
    net.connect("one", "web")
    net.connect("two", "web")
    assert routes(net, "web") == {"0.0.0.0/0": "eth0"}
    net.connect("three", "web", gateway_priority=10)
    assert routes(net, "web") == {"0.0.0.0/0": "eth2"}
    net.disconnect("three", "web")
    assert routes(net, "web") == {"0.0.0.0/0": "eth0"}
    net.disconnect("one", "web")
    assert routes(net, "web") == {"0.0.0.0/0": "eth1"}
    assert net.check() == ()


def test_each_family_has_its_own_way_out(net: Net) -> None:
    """A later IPv6 network gives the route that an IPv4 one can't."""
    net.create("four")
    net.create("six", ipv4=False, ipv6=True)
    net.create_sandbox("web")
    net.connect("four", "web")
    net.connect("six", "web")
    assert routes(net, "web") == {"0.0.0.0/0": "eth0", "::/0": "eth1"}


def test_an_internal_network_gives_no_default_route(net: Net) -> None:
    """Nor can its ports be published."""
    net.create("inside", internal=True)
    net.create_sandbox("web")
    assert net.connect("inside", "web").gateway_for == ()
    with pytest.raises(Unsupported, match="internal"):
        net.publish("web", ["8080:80"])


def test_an_address_can_be_asked_for_once(net: Net) -> None:
    """The holder is named; the gateway's and foreign ones are refused."""
    net.create("front", subnets=[SUBNET], ipv6=True)
    net.create_sandbox("web")
    net.create_sandbox("db")
    endpoint = net.connect("front", "web", addresses=["198.51.100.50"], mac="02-00-5E-00-53-01")
    assert endpoint.addresses[0].ip == ip_address("198.51.100.50")
    assert endpoint.mac == "02:00:5e:00:53:01"
    with pytest.raises(AddressTaken, match="web"):
        net.connect("front", "db", addresses=["198.51.100.50"])
    with pytest.raises(AddressTaken, match=r"02:00:5e:00:53:01 on front is held by web"):
        net.connect("front", "db", mac="02:00:5e:00:53:01")
    for wrong in ("198.51.100.1", "203.0.113.9", "198.51.100.255", "x"):
        with pytest.raises(InvalidAddress):
            net.connect("front", "db", addresses=[wrong])


def test_a_full_subnet_says_so_and_takes_nothing(net: Net) -> None:
    """A /30 has room for one endpoint beside the gateway; more room can be added."""
    net.create("small", subnets=["198.51.100.0/30"])
    for name in ("web", "db"):
        net.create_sandbox(name)
    net.connect("small", "web")
    before = records(net)
    with pytest.raises(Exhausted, match="small"):
        net.connect("small", "db")
    assert records(net) == before
    net.update("small", subnets=["198.51.100.64/30"])
    assert net.connect("small", "db").addresses == (ip_interface("198.51.100.66/30"),)
    assert net.check() == ()


def test_inspect_counts_what_is_used(net: Net) -> None:
    """The gateway is not for endpoints."""
    net.create("front", subnets=["198.51.100.0/29"])
    net.create_sandbox("web")
    net.connect("front", "web")
    (use,) = net.inspect("front").use
    assert (use.usable, use.used, use.free) == (5, 1, 4)


# -- published ports ------------------------------------------------------------------------------


def test_a_host_port_has_one_holder(net: Net) -> None:
    """Wildcard and specific addresses clash; another protocol or address does not."""
    net.create("front")
    for name in ("web", "db"):
        net.create_sandbox(name)
    net.connect("front", "web", publish=["8080:80", "127.0.0.1:9000:90"])
    net.connect("front", "db")
    before = records(net)
    for spec in ("8080:1", "127.0.0.1:8080:1", "8000-8100:1-101", "9000:1"):
        with pytest.raises(PortTaken, match="web"):
            net.publish("db", [spec])
    assert records(net) == before
    net.publish("db", ["8080:80/udp", "127.0.0.2:9000:90"])
    assert net.check() == ()


def test_a_host_port_is_chosen_where_none_is_given(net: Net) -> None:
    """From the ephemeral range, or from the range that was given."""
    net.create("front")
    net.create_sandbox("web")
    (port,) = net.connect("front", "web", publish=["80"]).ports
    assert 32768 <= port.host_port <= 60999
    first, second = net.publish("web", ["7000-7001:81", "7000-7001:82"])
    assert (first.host_port, second.host_port) == (7000, 7001)
    with pytest.raises(Exhausted):
        net.publish("web", ["7000-7001:83"])


def test_unpublish_frees_the_port(net: Net) -> None:
    """By the whole spec, or by the sandbox's port alone."""
    net.create("front")
    net.create_sandbox("web")
    net.connect("front", "web", publish=["8080:80", "8081:80", "8443:443"])
    net.unpublish("web", ["8443:443"])
    net.unpublish("web", ["80"])
    assert net.endpoints("web")[0].ports == ()
    assert not net.engine.state.store.range(*under("port/"))
    net.publish("web", ["8080:80"])
    assert net.check() == ()


# -- plans, failures, repair ----------------------------------------------------------------------


def test_a_plan_is_handed_back_instead_of_done(net: Net) -> None:
    """Nothing changes; the text reads like commands."""
    net.create("front", subnets=[SUBNET])
    net.create_sandbox("web")
    before, there = records(net), net.engine.kernel.marked()
    text = net.plan.connect("front", "web", publish=["8080:80"]).text()
    assert "ip link add" in text
    assert "8080" in text
    net.plan.create("back")
    net.plan.remove("front")
    assert records(net) == before
    assert net.engine.kernel.marked() == there


def test_repair_puts_back_what_others_took_away(net: Net) -> None:
    """Check names it, repair mends it, and then there is nothing to name."""
    net.create("front", subnets=[SUBNET])
    net.create_sandbox("web")
    net.connect("front", "web", publish=["8080:80"])
    wiring = net.engine.state.endpoints_of("web")[0].wiring
    from netlib.apply import tear_down
    from netlib.plan import diff

    lost = [n for n in wiring if isinstance(n, VethPair | Publish)]
    tear_down(diff(have=Wiring(lost), want=Wiring()), net.engine.kernel, "web")

    findings = net.check()
    assert [f.subject for f in findings] == ["web on front"]
    report = net.repair()
    assert [f.subject for f in report.mended] == ["web on front"]
    assert report.failed == ()
    assert net.check() == ()


def test_update_changes_live_what_can_change(net: Net) -> None:
    """The rest is refused, with what can change."""
    net.create("front", subnets=[SUBNET])
    net.create_sandbox("web")
    net.connect("front", "web")
    net.update("front", options={"mtu": "1400", "icc": "false", "masquerade": "no"},
               labels={"tier": "web"})  # fmt: skip
    details = net.inspect("front")
    assert details.network.options["mtu"] == "1400"
    assert details.network.labels == {"tier": "web"}
    assert not any(isinstance(noun, Masquerade) for noun in details.wiring)
    assert net.check() == ()
    with pytest.raises(InvalidOption, match="can't change"):
        net.update("front", options={"gateway_mode": "routed"})


@pytest.mark.parametrize(("state", "doing"), [("pending", "made"), ("removing", "removed")])
def test_a_network_that_is_half_done_is_neither_joined_nor_changed(
    net: Net, state: Literal["pending", "removing"], doing: str
) -> None:
    """A conflict, which may be over soon, and nothing wrong with what was asked for."""
    front = net.create("front", subnets=[SUBNET])
    net.create_sandbox("web")
    wiring = net.engine.state.network("front").wiring
    half_done = dump_network(replace(front, state=state), wiring)
    net.engine.state.store.commit(Commit(put={network_key(front.id): half_done}))

    for ask in (
        lambda: net.connect("front", "web"),
        lambda: net.update("front", labels={"a": "b"}),
    ):
        with pytest.raises(Conflict, match=f"front is being {doing}") as caught:
            ask()
        assert "net repair" in caught.value.hint
    net.repair()
    assert own(net) == []


@pytest.mark.parametrize("meanwhile", ["joins", "leaves", "is half way"])
def test_who_comes_while_a_network_changes_is_as_it_is_then(net: Net, meanwhile: str) -> None:
    """What was thought through before somebody joined or left is thought through again."""
    engine = net.engine
    somebody = Net(store=engine.state.store, kernel=engine.kernel)
    net.create("front", subnets=[SUBNET])
    for name in ("web", "db"):
        net.create_sandbox(name)
    somebody.connect("front", "db")
    prepared: list[object] = []
    half_way: list[Operation[Endpoint]] = []
    if meanwhile == "is half way":
        half_way.append(connect(engine, "front", "web"))
        assert half_way[0].begin is not None
        engine.state.store.commit(half_way[0].begin)

    def prepare_slowly() -> Operation[Network]:
        found = update(engine, "front", options={"mtu": "1400"})
        prepared.append(found)
        if len(prepared) == 1:
            if meanwhile == "joins":
                somebody.connect("front", "web")
            elif meanwhile == "leaves":
                somebody.disconnect("front", "db")
            else:
                apply(half_way[0].plan, engine.kernel)
                assert half_way[0].done is not None
                engine.state.store.commit(half_way[0].done)
        return found

    engine.run(prepare_slowly)
    there = {"joins": ["db", "web"], "leaves": [], "is half way": ["db", "web"]}[meanwhile]
    assert [endpoint.sandbox.name for endpoint in net.endpoints()] == there
    links = [n for e in engine.state.endpoints() for n in e.wiring if isinstance(n, VethPair)]
    assert [link.mtu for link in links] == [1400] * len(there)
    assert net.check() == ()


@pytest.mark.parametrize("first", ["web", "db"])
@pytest.mark.parametrize("how", ["between", "half way"])
def test_a_link_opens_whoever_of_two_that_come_at_once_is_first(
    net: Net, first: str, how: str
) -> None:
    """Each is described when the other one is there already, or is seen by it."""
    engine = net.engine
    somebody = Net(store=engine.state.store, kernel=engine.kernel)
    net.create("front", subnets=[SUBNET], options={"icc": "false"})
    for name in ("web", "db"):
        net.create_sandbox(name)
    # With addresses, or a conflict about the next free one would have the second see the first.
    wanted: dict[str, dict[str, object]] = {
        "web": {"links": {"db": "sql"}, "addresses": ["198.51.100.8"]},
        "db": {"options": {"expose": "5432"}, "addresses": ["198.51.100.9"]},
    }
    second = {"web": "db", "db": "web"}[first]
    prepared: list[object] = []

    def prepare_slowly() -> Operation[Endpoint]:
        if how == "half way" and not prepared:
            half = connect(engine, "front", first, **wanted[first])  # type: ignore[arg-type]
            assert half.begin is not None
            assert half.done is not None
            engine.state.store.commit(half.begin)
        found = connect(engine, "front", second, **wanted[second])  # type: ignore[arg-type]
        prepared.append(found)
        if len(prepared) == 1:
            if how == "half way":
                apply(half.plan, engine.kernel)
                engine.state.store.commit(half.done)
            else:
                somebody.connect("front", first, **wanted[first])  # type: ignore[arg-type]
        return found

    engine.run(prepare_slowly)
    (opened,) = [n for r in engine.state.endpoints() for n in r.wiring if isinstance(n, Allow)]
    assert opened.port == 5432
    assert net.check() == ()


def test_many_threads_get_different_addresses(net: Net) -> None:
    """Eight sandboxes connect at once; nothing clashes and nothing is lost."""
    net.create("front", subnets=[SUBNET])
    for number in range(8):
        net.create_sandbox(f"box{number}")
    found: list[Endpoint] = []
    failures: list[BaseException] = []

    def join(name: str) -> None:
        try:
            found.append(net.connect("front", name))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=join, args=(f"box{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len({endpoint.addresses for endpoint in found}) == 8
    assert net.check() == ()


def test_garbage_of_vanished_sandboxes_is_collected(net: Net) -> None:
    """A namespace that ended without a disconnect: its lease and ports come free."""
    net.create("front", subnets=[SUBNET])
    box = net.create_sandbox("web")
    net.connect("front", "web", publish=["8080:80"])
    net.engine.kernel.drop_namespace(box.netns)

    assert "ended" in net.check()[0].note
    assert [b.name for b in net.collect_garbage()] == ["web"]
    assert net.endpoints() == ()
    assert net.sandboxes() == ()
    assert not net.engine.state.store.range(*under("port/"))
    assert net.check() == ()


@pytest.mark.parametrize("step", range(1, 11))
def test_a_connect_that_fails_leaves_everything_as_before(step: int) -> None:
    """Whichever step fails, state and kernel are as they were."""
    kernel = FakeKernel()
    with Net(store=MemoryStore(), kernel=kernel) as net:
        net.create("front", subnets=[SUBNET])
        net.create_sandbox("web")
        before, there = records(net), kernel.marked()
        plan = net.plan.connect("front", "web", publish=["8080:80"])
        assert len([*plan.steps(), *plan.after]) >= step
        kernel.fail_at(step)
        with pytest.raises(KernelError):
            net.connect("front", "web", publish=["8080:80"])
        assert records(net) == before
        assert kernel.marked() == there
        net.connect("front", "web", publish=["8080:80"])


def test_the_host_is_no_sandbox(net: Net) -> None:
    """Nobody else can be called as it is."""
    with pytest.raises(InvalidName, match="host itself"):
        net.create_sandbox("host")
    with pytest.raises(InvalidName, match="host itself"):
        net.register_sandbox("host", net.engine.kernel.make_namespace("other"))
    assert net.sandboxes() == ()


def test_wiring_speaks_of_the_sandbox_it_is_for(net: Net) -> None:
    """Addresses are made in the sandbox's namespace, not in the host's."""
    net.create("front")
    box = net.create_sandbox("web")
    net.connect("front", "web")
    wiring = net.engine.state.endpoints_of("web")[0].wiring
    assert {n.netns for n in wiring if isinstance(n, Address)} == {box.netns}
