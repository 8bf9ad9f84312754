"""What the drivers that ship with netlib promise, on the fake host and on Linux."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from support.verbs import records

from netlib import built_in, names
from netlib.errors import (
    BuiltInNetwork,
    Conflict,
    InUse,
    InvalidAddress,
    InvalidName,
    InvalidOption,
    InvalidPort,
    InvalidRequest,
    NamespaceGone,
    NetWarning,
    NoSuchDevice,
    NoSuchSandbox,
    PoolOverlap,
    SingleNetwork,
    Unsupported,
)
from netlib.kernel.fake import FakeKernel
from netlib.model import HOST, Endpoint, Netns, Sandbox
from netlib.net import Net
from netlib.operation import Operation
from netlib.store.memory import MemoryStore
from netlib.verbs.connect import connect
from netlib.wiring import (
    Address,
    Allow,
    Dummy,
    Ipvlan,
    Macvlan,
    Neighbour,
    Noun,
    Route,
    Sysctl,
    Vlan,
    Wiring,
)

pytestmark = pytest.mark.filterwarnings("ignore:nobody beyond")

LAN = "192.0.2.0/24"
ROUTER = "192.0.2.100"


@pytest.fixture
def fake() -> FakeKernel:
    """A host in memory: eth0 on the LAN, and a macvlan of somebody else's."""
    kernel = FakeKernel()
    kernel.add_device(
        "eth0", addresses=[ip_interface("192.0.2.1/24")], routers=[ip_address(ROUTER)]
    )
    kernel.add_device("eth1", kind="veth", mtu=1400)
    kernel.add_device("mv0", kind="macvlan")
    kernel.routed += [ip_network(LAN), ip_network("192.0.2.1/32")]
    return kernel


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.kernel)])
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """A host of each kind: eth0 leads to a LAN (192.0.2.1/24 is the host's), eth1 elsewhere."""
    if request.param == "fake":
        with Net(store=MemoryStore(), kernel=request.getfixturevalue("fake")) as net:
            yield net
        return
    host = request.getfixturevalue("host")
    host.outsider()
    host.neighbour("other", "eth1", (), ())
    host.run("ip", "link", "set", "eth1", "mtu", "1400")
    host.run("ip", "link", "add", "link", "eth1", "name", "mv0", "type", "macvlan")
    with Net(host.state_dir) as net:
        yield net


@pytest.fixture
def fake_net(fake: FakeKernel) -> Iterator[Net]:
    """A host in memory, for what this kernel may lack."""
    with Net(store=MemoryStore(), kernel=fake) as net:
        yield net


def wiring(net: Net, sandbox: str) -> Wiring:
    """All that a sandbox's endpoints are."""
    records = net.engine.state.endpoints_of(sandbox)
    return Wiring(noun for record in records for noun in record.wiring)


def only(net: Net, sandbox: str, kind: type[Noun]) -> Noun:
    """The one noun of a kind that a sandbox's endpoints have."""
    (noun,) = (noun for noun in wiring(net, sandbox) if isinstance(noun, kind))
    return noun


# -- none, host, container: -----------------------------------------------------------------------


def test_on_none_a_sandbox_has_nothing_but_loopback_and_may_join_others_later(net: Net) -> None:
    """No interface, no address, no MAC; a later network gives all three."""
    net.create_sandbox("web")
    endpoint = net.connect("none", "web")

    assert (endpoint.ifname, endpoint.mac, endpoint.addresses) == ("", "", ())
    assert net.check() == ()
    net.create("front")
    assert net.connect("front", "web").ifname == "eth0"
    assert len(net.endpoints("web")) == 2
    net.disconnect("none", "web")
    assert net.check() == ()


def test_a_sandbox_that_is_on_networks_can_not_join_none(net: Net) -> None:
    """No network and some network is a contradiction; nothing changes."""
    net.create("front")
    for name in ("web", "db"):
        net.create_sandbox(name)
    net.connect("front", "web")
    net.connect("none", "db")
    before = records(net)
    with pytest.raises(Conflict, match="disconnect"):
        net.connect("none", "web")
    assert records(net) == before


@pytest.mark.parametrize("network", ["host", "none"])
def test_networks_without_options_say_so(net: Net, network: str) -> None:
    """Not that `none` is valid, which is a network."""
    with pytest.raises(InvalidOption) as refused:
        net.update(network, options={"icc": "false"})
    assert refused.value.hint == "it has no options at all"


@pytest.mark.parametrize("network", ["none", "host"])
def test_there_is_one_network_of_its_kind(net: Net, network: str) -> None:
    """Made or not yet, it is the only one of its driver."""
    with pytest.raises(SingleNetwork, match=f"there is {network}"):
        net.create("mine", driver=network)


def test_none_takes_neither_names_addresses_nor_ports(net: Net) -> None:
    """There is no interface that they could belong to."""
    net.create_sandbox("web")
    for wrong in (
        {"ifname": "eth0"},
        {"mac": "02:00:5e:00:53:01"},
        {"publish": ["8080:80"]},
    ):
        with pytest.raises(Unsupported):
            net.connect("none", "web", **wrong)
    with pytest.raises(InvalidAddress):
        net.connect("none", "web", addresses=["192.0.2.9"])
    assert net.endpoints("web") == ()


def host_sandbox(net: Net) -> str:
    """A sandbox that is the host: on Linux this very process."""
    kernel = net.engine.kernel
    if isinstance(kernel, FakeKernel):
        kernel._host.add_namespace(replace(HOST, path="/proc/1/ns/net", inode=kernel.facts().netns))
        return "pid:1"
    return f"pid:{os.getpid()}"


def test_publishing_on_host_is_a_warning_and_no_rule(net: Net) -> None:
    """What listens in the sandbox listens on the host; the port is not claimed."""
    box = host_sandbox(net)
    with pytest.warns(NetWarning, match="needless"):
        endpoint = net.connect("host", box, publish=["8080:80"])

    assert endpoint.ports == ()
    assert not list(wiring(net, box))
    with pytest.warns(NetWarning, match="listens on the host"):
        assert net.publish(box, ["8080:80"]) == ()
    assert net.check() == ()
    net.disconnect("host", box)
    assert net.endpoints() == ()


def test_warnings_go_where_the_caller_wants_them(fake: FakeKernel) -> None:
    """A program that is no script gets them as calls."""
    told: list[str] = []
    with Net(store=MemoryStore(), kernel=fake, warn=told.append) as net, warnings.catch_warnings():
        warnings.simplefilter("error")
        net.connect("host", host_sandbox(net), publish=["8080:80"])
    assert len(told) == 1


def test_a_sandbox_with_a_stack_of_its_own_can_not_be_on_host_and_the_host_only_there(
    net: Net,
) -> None:
    """Nobody moves a running process to another namespace."""
    net.create("front")
    net.create_sandbox("web")
    with pytest.raises(Unsupported, match="net run --network host"):
        net.connect("host", "web")
    with pytest.raises(InvalidRequest, match="host's own"):
        net.connect("front", host_sandbox(net))


def test_many_sandboxes_can_be_the_host(fake_net: Net) -> None:
    """They share its namespace, and none of them owns it."""
    netns = fake_net.engine.kernel.enter("", "host")
    for name in ("one", "two"):
        fake_net.register_sandbox(name, netns)
        fake_net.connect("host", name)
    fake_net.remove_sandbox("one")
    assert [e.sandbox.name for e in fake_net.endpoints()] == ["two"]
    assert fake_net.check() == ()


def test_who_shares_a_stack_has_the_same_endpoints_and_no_new_lease(net: Net) -> None:
    """Whatever name is used, there is one stack."""
    net.create("front")
    web = net.create_sandbox("web")
    endpoint = net.connect("front", "container:web")
    before = records(net)
    sidecar = net.register_sandbox("sidecar", web.netns)

    assert sidecar.shares == "web"
    assert net.endpoints("sidecar") == net.endpoints("web") == (endpoint,)
    assert {k for k in records(net) if k not in before} == {"sandbox/sidecar"}
    net.create("back")
    assert net.connect("back", "sidecar").sandbox.name == "web"
    net.remove_sandbox("sidecar")
    assert len(net.endpoints("web")) == 2
    assert net.check() == ()


def test_a_namespace_that_took_the_place_of_another_is_not_taken_for_it(fake_net: Net) -> None:
    """`ip netns del` and `add`, or a number of a process given again: it is on no network."""
    kernel = fake_net.engine.kernel
    fake_net.create("front")
    fake_net.create("back")
    first = kernel.add_namespace("pod")  # type: ignore[attr-defined]
    fake_net.connect("front", "netns:pod")
    kernel.remove_namespace(first)  # type: ignore[attr-defined]
    kernel.add_namespace("pod")  # type: ignore[attr-defined]
    for network in ("front", "back"):
        with pytest.raises(InUse, match="earlier netns:pod, which has ended"):
            fake_net.connect(network, "netns:pod")
    fake_net.collect_garbage()
    fake_net.connect("front", "netns:pod")


def test_who_comes_to_a_stack_at_the_same_moment_shares_it(
    fake_net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two programs give one namespace two names at once: the later one's is the sidecar's."""
    state = fake_net.engine.state
    netns = fake_net.engine.kernel.add_namespace("pod")  # type: ignore[attr-defined]
    look = state.sandbox_in

    def look_slowly(inode: int) -> Sandbox | None:
        found = look(inode)
        monkeypatch.undo()
        fake_net.register_sandbox("web", netns)
        return found

    monkeypatch.setattr(state, "sandbox_in", look_slowly)
    assert fake_net.register_sandbox("sidecar", netns).shares == "web"
    assert fake_net.engine.sandbox("sidecar").name == "web"


def test_a_namespace_without_its_inode_is_told_from_others(fake_net: Net) -> None:
    """It is looked up; one that is not there is not taken down."""
    kernel = fake_net.engine.kernel
    for name in ("web", "db"):
        there = kernel.make_namespace(name)
        box = fake_net.register_sandbox(name, Netns(name=name, path=there.path))
        assert (box.netns.inode, box.shares) == (there.inode, "")
    assert fake_net.register_sandbox("sidecar", Netns(name="x", path=there.path)).shares == "db"
    with pytest.raises(NamespaceGone):
        fake_net.register_sandbox("gone", Netns(name="gone", path="/run/netns/gone"))
    assert "gone" not in {box.name for box in fake_net.sandboxes()}


# -- the default network --------------------------------------------------------------------------


def test_built_in_networks_are_there_before_they_are_made_and_are_never_removed(net: Net) -> None:
    """They are listed and inspected; making, removing and pruning them is refused."""
    assert [network.name for network in net.networks()] == list(built_in.NAMES)
    assert net.inspect("bridge").network.driver == "bridge"
    assert not records(net)
    known = net.inspect("none").network.id
    assert net.inspect(known[:12]).network.name == "none"
    for name in built_in.NAMES:
        with pytest.raises(BuiltInNetwork):
            net.create(name)
        with pytest.raises(BuiltInNetwork):
            net.remove(name, force=True)
    assert net.prune() == ()


def test_the_default_network_is_made_when_it_is_first_used(net: Net) -> None:
    """Its device is net0, it has a free prefix, and keeps the id that it always had."""
    known = net.inspect("bridge").network.id
    net.create_sandbox("web")
    planned = list(net.plan.connect("bridge", "web").steps())
    assert not net.engine.state.networks()
    endpoint = net.connect("bridge", "web", publish=["8080:80"])

    assert planned
    assert endpoint.network == known
    network = net.inspect("bridge").network
    assert network.subnets
    assert network.options["bridge.name"] == "net0"
    assert "net0" in net.engine.facts(["net0"]).devices
    net.disconnect("bridge", "web")
    assert net.prune() == ()
    assert net.check() == ()


# -- macvlan --------------------------------------------------------------------------------------


def test_a_macvlan_hangs_off_the_default_routes_device(net: Net) -> None:
    """With the parent's MTU, the LAN's router as gateway, and a MAC that stays."""
    network = net.create("lan", driver="macvlan", subnets=[LAN], gateways=[ROUTER])
    assert network.options["parent"] == "eth0"
    assert network.options["mtu"] == "1500"
    net.create_sandbox("web")
    endpoint = net.connect("lan", "web")

    device = only(net, "web", Macvlan)
    assert isinstance(device, Macvlan)
    assert (device.parent, device.mode, device.mac) == ("eth0", "bridge", endpoint.mac)
    assert endpoint.mac == names.mac_of(endpoint.id)
    assert only(net, "web", Route) == Route(
        netns=endpoint.sandbox.netns,
        device="eth0",
        destination=ip_network("0.0.0.0/0"),
        via=ip_address(ROUTER),
    )
    assert net.check() == ()
    net.disconnect("lan", "web")
    net.remove("lan")
    assert "interface" not in " ".join(records(net))
    assert not list(net.engine.kernel.marked())


def test_the_router_of_a_lan_is_the_gateway_of_a_network_there(net: Net) -> None:
    """Unless another is asked for. A subnet that the router is not in has its first address."""
    for number, (subnet, gateways, expected) in enumerate(
        (
            (LAN, [], ROUTER),
            (LAN, ["192.0.2.7"], "192.0.2.7"),
            ("198.51.100.0/24", [], "198.51.100.1"),
        )
    ):
        for options in ({}, {"parent": "eth0"}):
            name = f"lan{number}"
            net.create(name, driver="macvlan", subnets=[subnet], gateways=gateways, options=options)
            (found,) = net.inspect(name).network.subnets
            assert str(found.gateway) == expected
            net.remove(name)


def test_ports_that_are_answered_past_the_host_are_warned_of(fake_net: Net) -> None:
    """Whichever comes first: the default route by the LAN's router, or the port."""
    net = fake_net
    net.create("front")
    net.create("lan", driver="macvlan", subnets=[LAN])
    net.create_sandbox("web")
    past = r"publishes on front is answered by way of lan.*no_default_route"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.connect("front", "web", publish=["8080:80"])
        net.connect("lan", "web")
        net.publish("web", ["8081:81"])
        net.disconnect("lan", "web")
    with pytest.warns(NetWarning, match=past):
        net.connect("lan", "web", gateway_priority=1)
    with pytest.warns(NetWarning, match=past):
        net.publish("web", ["8082:82"])
    net.disconnect("front", "web")
    with pytest.warns(NetWarning, match=past):
        net.connect("front", "web", publish=["8080:80"])


def test_the_host_itself_is_no_gateway_of_a_network_on_its_lan(net: Net) -> None:
    """No sandbox of a macvlan reaches it, so its address is passed over: the first one, here."""
    net.create("lan", driver="macvlan", subnets=[LAN], options={"parent": "eth1"})
    (found,) = net.inspect("lan").network.subnets
    assert str(found.gateway) == "192.0.2.2"


def test_on_a_lan_a_prefix_that_was_chosen_is_warned_of(net: Net) -> None:
    """Nobody there knows it. Internal networks are meant to lead nowhere."""
    with pytest.warns(NetWarning, match=r"nobody beyond eth0 knows .*--subnet"):
        net.create("lan", driver="macvlan")
    net.create("told", driver="macvlan", subnets=[LAN])
    net.create("inside", driver="macvlan", internal=True, options={"parent": "eth0"})


def test_no_sandbox_gets_the_hosts_own_address_on_the_lan(net: Net) -> None:
    """It is the first of the subnet, and would be the first that is given."""
    net.create("lan", driver="macvlan", subnets=[LAN], gateways=[ROUTER])
    net.create_sandbox("web")
    assert net.connect("lan", "web").addresses == (ip_interface("192.0.2.2/24"),)
    net.create_sandbox("db")
    with pytest.raises(InvalidAddress, match="host-1"):
        net.connect("lan", "db", addresses=["192.0.2.1"])


def test_addresses_on_a_lan_can_be_pooled_static_and_reserved(net: Net) -> None:
    """As with every network: ranges, what is kept out, and what is asked for."""
    net.create(
        "lan",
        driver="macvlan",
        subnets=[LAN],
        gateways=[ROUTER],
        ip_ranges=["192.0.2.64/30"],
        aux_addresses=["printer=192.0.2.64"],
    )
    for name in ("web", "db"):
        net.create_sandbox(name)
    assert net.connect("lan", "web").addresses == (ip_interface("192.0.2.65/24"),)
    found = net.connect("lan", "db", addresses=["192.0.2.9"], mac="02:00:5e:00:53:01")
    assert found.addresses == (ip_interface("192.0.2.9/24"),)
    assert found.mac == "02:00:5e:00:53:01"
    assert net.check() == ()


def test_two_networks_on_one_parent_share_no_address(net: Net) -> None:
    """On another parent the same prefix is another LAN."""
    net.create("lan", driver="macvlan", subnets=[LAN], gateways=[ROUTER])
    with pytest.raises(PoolOverlap, match="lan"):
        net.create("more", driver="macvlan", subnets=["192.0.2.128/25"])
    net.create("there", driver="macvlan", subnets=[LAN], options={"parent": "eth1"})
    net.create("more", driver="macvlan", subnets=["198.51.100.0/24"])


def test_a_macvlan_needs_a_parent_that_can_be_one(net: Net) -> None:
    """Errors name the device and what to do; nothing is made."""
    before = records(net)
    for parent, error in {
        "eth9": NoSuchDevice,
        "eth9.30": NoSuchDevice,
        "eth0.0": InvalidOption,
        "eth0.4095": InvalidOption,
        "mv0": InvalidOption,
        "lo": InvalidOption,
        "no/device": InvalidName,
    }.items():
        with pytest.raises(error):
            net.create("lan", driver="macvlan", subnets=[LAN], options={"parent": parent})
    assert records(net) == before


def test_an_mtu_is_bounded_by_the_parents(net: Net) -> None:
    """The parent's is the default, and more is refused."""
    net.create("a", driver="macvlan", subnets=[LAN], options={"parent": "eth1"})
    assert net.inspect("a").network.options["mtu"] == "1400"
    with pytest.raises(InvalidOption, match="1400"):
        net.create("b", driver="macvlan", options={"parent": "eth1", "mtu": "1401"})
    net.create("b", driver="macvlan", options={"parent": "eth1", "mtu": "1300"})


def test_settings_of_a_lan_stay_and_it_is_said_how_to_have_others(net: Net) -> None:
    """Of a driver on a parent only the MTU changes live."""
    net.create("lan", driver="macvlan", subnets=[LAN])
    with pytest.raises(InvalidOption) as refused:
        net.update("lan", options={"mode": "private"})
    assert refused.value.hint == "these can: mtu; for others make a new network"
    net.update("lan", options={"mtu": "1400"})


@pytest.mark.parametrize("driver", ["bridge", "ptp", "macvlan"])
def test_an_mtu_below_the_least_of_ipv6_is_for_ipv4_alone(net: Net, driver: str) -> None:
    """Linux has no IPv6 settings on such a device (RFC 8200 section 5); they come with the MTU."""
    net.create("thin", driver=driver, options={"mtu": "1279"})
    net.create_sandbox("web")
    net.connect("thin", "web")
    assert not [n for n in wiring(net, "web") if isinstance(n, Sysctl) and "ipv6" in n.path]
    assert net.check() == ()
    for mtu in ("1280", "1000"):
        net.update("thin", options={"mtu": mtu})
        assert net.check() == ()
    with pytest.raises(InvalidOption, match="mtu"):
        net.create("six", driver=driver, ipv6=True, options={"mtu": "1279"})


def test_passthru_shares_its_parent_with_none(net: Net) -> None:
    """Whoever comes first; the error names the network that has it."""
    net.create("one", driver="macvlan", options={"parent": "eth0"})
    with pytest.raises(Conflict, match="all would have it for itself alone, and network one"):
        net.create("all", driver="macvlan", options={"parent": "eth0", "mode": "passthru"})
    net.remove("one")
    net.create("all", driver="macvlan", options={"parent": "eth0", "mode": "passthru"})
    with pytest.raises(Conflict, match="network all has it for itself alone"):
        net.create("two", driver="macvlan", options={"parent": "eth0"})
    with pytest.raises(Conflict, match="all"):
        net.create("two", driver="macvlan", options={"parent": "eth0", "mode": "passthru"})


def test_a_network_for_one_sandbox_takes_the_first_of_two_at_once(fake_net: Net) -> None:
    """The second, whose look came before the first one was there, is told who has it."""
    engine = fake_net.engine
    somebody = Net(store=engine.state.store, kernel=engine.kernel)
    options = {"parent": "eth0", "mode": "passthru"}
    fake_net.create("all", driver="macvlan", subnets=[LAN], gateways=[ROUTER], options=options)
    for name in ("web", "db"):
        fake_net.create_sandbox(name)
    tries: list[None] = []

    def prepare_slowly() -> Operation[Endpoint]:
        found = connect(engine, "all", "db", addresses=["192.0.2.9"])
        tries.append(None)
        if len(tries) == 1:
            somebody.connect("all", "web")
        return found

    with pytest.raises(Conflict, match="for one sandbox alone, and web is on it"):
        engine.run(prepare_slowly)
    assert [endpoint.sandbox.name for endpoint in fake_net.endpoints()] == ["web"]


def test_different_drivers_can_not_share_a_parent(net: Net) -> None:
    """A device hands its frames to one kind of child."""
    net.create("mac", driver="macvlan")
    with pytest.raises(Conflict, match="network mac has it by driver macvlan"):
        net.create("ip", driver="ipvlan")


def test_options_of_a_macvlan_are_checked(net: Net) -> None:
    """Modes, queue lengths and shims that can not be."""
    for options in (
        {"mode": "bridged"},
        {"bcqueuelen": "many"},
        {"bcqueuelen": "0"},
        {"host_shim": "yes please"},
        {"host_shim": "203.0.113.1"},
        {"host_shim": ROUTER},
        {"host_shim": "192.0.2.7,192.0.2.8"},
        {"host_shim": "true", "mode": "private"},
        {"mtu": "67"},
        {"metric": "-1"},
        {"routes": "somewhere"},
    ):
        with pytest.raises(InvalidOption):
            net.create("lan", driver="macvlan", subnets=[LAN], gateways=[ROUTER], options=options)
    with pytest.raises(InvalidOption, match="IPv4"):
        net.create("six", driver="macvlan", ipv4=False, ipv6=True, options={"host_shim": "true"})
    assert not net.engine.state.networks()


def test_ports_of_a_macvlan_are_not_published_and_it_is_said_why(net: Net) -> None:
    """At connect and later."""
    net.create("lan", driver="macvlan", subnets=[LAN])
    net.create_sandbox("web")
    with pytest.raises(Unsupported, match="on the LAN"):
        net.connect("lan", "web", publish=["8080:80"])
    net.connect("lan", "web")
    with pytest.raises(Unsupported, match="on the LAN"):
        net.publish("web", ["8080:80"])


@pytest.mark.parametrize("shim", ["true", "192.0.2.50"])
def test_with_a_host_shim_the_host_has_a_way_to_each_sandbox(net: Net, shim: str) -> None:
    """A route and the MAC for each address go with the endpoint, the shim with its network."""
    net.create(
        "lan", driver="macvlan", subnets=[LAN], gateways=[ROUTER], options={"host_shim": shim}
    )
    device = names.shim(net.inspect("lan").network.id)
    net.create_sandbox("web")
    endpoint = net.connect("lan", "web", addresses=["192.0.2.9"])

    assert Route(device=device, destination=ip_network("192.0.2.9/32")) in wiring(net, "web")
    known = Neighbour(device=device, address=ip_address("192.0.2.9"), mac=endpoint.mac)
    assert known in wiring(net, "web")
    held = [n for n in net.inspect("lan").wiring if isinstance(n, Address)]
    assert [str(n.address) for n in held] == ([] if shim == "true" else ["192.0.2.50/32"])
    assert net.check() == ()
    if shim != "true":
        net.create_sandbox("db")
        with pytest.raises(InvalidAddress, match="reserved"):
            net.connect("lan", "db", addresses=[shim])
    net.disconnect("lan", "web")
    net.remove("lan")
    assert not list(net.engine.kernel.marked())


def test_an_internal_macvlan_has_a_parent_that_leads_nowhere(fake_net: Net) -> None:
    """A dummy, made and removed with the network; there is no default route."""
    network = fake_net.create("inside", driver="macvlan", internal=True)
    fake_net.create_sandbox("web")
    endpoint = fake_net.connect("inside", "web")
    (dummy,) = fake_net.inspect("inside").wiring
    assert isinstance(dummy, Dummy)
    assert dummy.name == network.options["parent"] == names.dummy(network.id)
    assert endpoint.gateway_for == ()
    assert fake_net.check() == ()
    fake_net.remove("inside", force=True)
    assert not list(fake_net.engine.kernel.marked())


def test_a_vlan_is_made_and_removed_by_us_only_if_we_made_it(
    fake_net: Net, fake: FakeKernel
) -> None:
    """One that was there is used and stays; another network can't lean on ours."""
    fake_net.create("made", driver="macvlan", options={"parent": "eth0.30"})
    (vlan,) = fake_net.inspect("made").wiring
    assert vlan == Vlan(
        name="eth0.30",
        owner=names.owner(fake_net.inspect("made").network.id),
        mtu=1500,
        parent="eth0",
        vlan_id=30,
    )
    fake_net.create_sandbox("web")
    fake_net.connect("made", "web")
    with pytest.raises(Conflict, match="another network"):
        fake_net.create("more", driver="macvlan", options={"parent": "eth0.30"})
    assert fake_net.update("made", labels={"a": "b"}).borrowed == ("eth0",)
    assert fake_net.inspect("made").wiring.get(vlan.key()) == vlan
    fake_net.remove("made", force=True)
    assert "eth0.30" not in fake.facts(["eth0.30"]).devices

    fake.add_device("eth0.40", kind="vlan")
    for name in ("one", "two"):
        fake_net.create(name, driver="macvlan", options={"parent": "eth0.40"})
    for name in ("one", "two"):
        assert not list(fake_net.inspect(name).wiring)
        fake_net.remove(name)
    assert "eth0.40" in fake.facts(["eth0.40"]).devices


# -- ipvlan ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_an_ipvlan_has_its_parents_mac_and_its_modes_way_out(fake_net: Net, mode: str) -> None:
    """l2 asks the LAN's router; the others need no gateway and announce nothing."""
    fake_net.create("lan", driver="ipvlan", subnets=[LAN], gateways=[ROUTER],
                    options={"ipvlan_mode": mode, "flag": "private"})  # fmt: skip
    fake_net.create_sandbox("web")
    with pytest.raises(Unsupported, match="MAC"):
        fake_net.connect("lan", "web", mac="02:00:5e:00:53:01")
    assert fake_net.connect("lan", "web").mac == ""

    device, route, address = (only(fake_net, "web", kind) for kind in (Ipvlan, Route, Address))
    assert isinstance(device, Ipvlan)
    assert isinstance(route, Route)
    assert isinstance(address, Address)
    assert (device.mode, device.flag, device.parent) == (mode, "private", "eth0")
    assert route.via == (ip_address(ROUTER) if mode == "l2" else None)
    assert address.announce == (mode == "l2")
    assert fake_net.check() == ()
    with pytest.raises(Unsupported, match="past the host"):
        fake_net.publish("web", ["8080:80"])
    fake_net.remove("lan", force=True)
    assert not list(fake_net.engine.kernel.marked())


def test_ipvlans_of_one_parent_have_one_mode_and_one_flag(fake_net: Net) -> None:
    """Linux keeps both for the parent, and the last who sets them wins."""
    fake_net.create("one", driver="ipvlan", options={"mode": "l3"})
    for options in ({"mode": "l2"}, {"mode": "l3", "flag": "private"}):
        with pytest.raises(Conflict, match="network one has it by mode l3, flag bridge"):
            fake_net.create("two", driver="ipvlan", options=options)
    fake_net.create("two", driver="ipvlan", options={"mode": "l3"})


# -- ptp ------------------------------------------------------------------------------------------


def test_a_ptp_endpoint_is_alone_with_the_host(net: Net) -> None:
    """One address without a LAN, the gateway at the other end, a route on the host."""
    net.create("links", driver="ptp", subnets=["198.51.100.0/24"], ipv6=True)
    for name in ("web", "db"):
        net.create_sandbox(name)
    endpoint = net.connect("links", "web", publish=["8080:80"])
    net.connect("links", "db")

    mine = endpoint.sandbox.netns
    held = [n for n in wiring(net, "web") if isinstance(n, Address)]
    assert all(n.address.network.num_addresses == 1 for n in held)
    assert next(str(n.address) for n in held if n.netns == mine) == "198.51.100.2/32"
    assert next(str(n.address) for n in held if n.netns != mine) == "198.51.100.1/32"
    assert net.check() == ()
    net.update("links", options={"icc": "false", "masquerade": "no"})
    assert net.check() == ()
    net.remove("links", force=True)
    assert not list(net.engine.kernel.marked())


def test_options_of_a_ptp_network_are_checked(net: Net) -> None:
    """Addresses of the wrong family, and names that no device can have."""
    for options in ({"host_binding_ipv4": "::1"}, {"mtu": "nine"}, {"icc": "maybe"}):
        with pytest.raises(InvalidOption):
            net.create("links", driver="ptp", options=options)
    with pytest.raises(InvalidName):
        net.create("links", driver="ptp", options={"iface_prefix": "much-too-long-"})


# -- links ----------------------------------------------------------------------------------------


def variables(net: Net, sandbox: str = "web") -> dict[str, str]:
    """What links tell a sandbox."""
    return net.link_environment(sandbox)


def test_a_link_tells_one_of_the_other_and_not_the_other_way(net: Net) -> None:
    """Address, ports and environment; until the other one leaves, and again when it is back."""
    net.create_sandbox("db", environment={"USER": "postgres", "PATH": "/bin"})
    net.create_sandbox("web")
    first = net.connect("bridge", "db", options={"expose": "5432"})
    net.connect("bridge", "web", links={"db": "database"})

    assert variables(net)["DATABASE_PORT_5432_TCP_ADDR"] == str(first.addresses[0].ip)
    assert variables(net)["DATABASE_ENV_USER"] == "postgres"
    assert "DATABASE_ENV_PATH" not in variables(net)
    assert variables(net, "db") == {}
    net.disconnect("bridge", "db")
    assert variables(net) == {}
    again = net.connect("bridge", "db", options={"expose": "5432"})
    assert again.addresses != first.addresses
    assert variables(net)["DATABASE_PORT_5432_TCP_ADDR"] == str(again.addresses[0].ip)
    assert net.check() == ()


def test_a_link_opens_its_ports_where_members_may_not_talk(net: Net) -> None:
    """As long as both are there, and as the other one's ports change."""
    net.create("quiet", options={"icc": "false"})
    for name in ("web", "db"):
        net.create_sandbox(name)
    net.connect("quiet", "web", links={"db": "db"})
    net.connect("quiet", "db", options={"expose": "5432"})

    def opened() -> list[int]:
        return sorted(noun.port for noun in wiring(net, "web") if isinstance(noun, Allow))

    assert opened() == [5432]
    net.publish("db", ["8080:80"])
    assert opened() == [80, 5432]
    net.unpublish("db", ["80"])
    assert opened() == [5432]
    assert net.check() == ()
    net.disconnect("quiet", "db")
    assert opened() == []
    assert net.check() == ()
    net.disconnect("quiet", "web")
    assert "linked" not in " ".join(records(net))


def test_a_link_leads_to_a_sandbox_that_exists_under_a_name_that_can_be(net: Net) -> None:
    """And what it exposes can be read."""
    net.create_sandbox("web")
    net.create_sandbox("db")
    with pytest.raises(NoSuchSandbox, match="nobody"):
        net.connect("bridge", "web", links={"nobody": "x"})
    with pytest.raises(InvalidName):
        net.connect("bridge", "web", links={"db": "no name"})
    with pytest.raises(InvalidPort):
        net.connect("bridge", "web", options={"expose": "http"})
    with pytest.raises(InvalidRequest, match="itself"):
        net.connect("bridge", "web", links={"web": "me"})
    net.create_sandbox("other")
    with pytest.raises(InvalidRequest, match="other:x has"):
        net.connect("bridge", "web", links={"db": "x", "other": "x"})
    assert net.endpoints() == ()
