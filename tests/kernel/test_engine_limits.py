"""Bridges of others, clashes and impossible wishes, a change of backend: through the library."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_interface

import pytest
from support.engine import BACKENDS, FAMILIES, HOST, OUTSIDE, EngineHost, address, engine_host
from support.patience import eventually
from support.traffic import answered, reachable, unreachable

from netlib import Net
from netlib.errors import (
    Exhausted,
    InterfaceTaken,
    InvalidAddress,
    InvalidName,
    InvalidOption,
    InvalidRequest,
    NetError,
    PoolOverlap,
    PortTaken,
    RouteTaken,
    Unsupported,
)
from netlib.model import Family
from netlib.settings import Backend

pytestmark = pytest.mark.kernel

FRONT = ["198.51.100.0/24", "2001:db8:a::/64"]
BACK = ["203.0.113.0/24", "2001:db8:b::/64"]


@pytest.fixture(params=BACKENDS)
def made(request: pytest.FixtureRequest) -> Iterator[EngineHost]:
    """A host that the library looks after."""
    with engine_host(request.param) as made:
        yield made


@pytest.fixture
def one() -> Iterator[EngineHost]:
    """Likewise, where the backend says nothing."""
    with engine_host("nftables") as made:
        yield made


def refused(made: EngineHost, kind: type[NetError], match: str, act: Callable[[], object]) -> None:
    """Nothing changes, neither state nor host."""

    def seen() -> tuple[object, ...]:
        store = made.net.engine.state.store
        links = {link["ifname"] for link in json.loads(made.host.run("ip", "-j", "link").stdout)}
        rules = made.host.run("nft", "list", "ruleset").stdout
        return store.range(" ", "~"), links, rules

    made.net.engine.identify()
    before = seen()
    with pytest.raises(kind, match=match):
        act()
    assert seen() == before


# -- bridges of others ----------------------------------------------------------------------------


def test_a_bridge_of_others_is_used_and_left(made: EngineHost) -> None:
    """With its address as the gateway: members talk, ports are published, and it stays."""
    run = made.host.run
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "addr", "add", "198.51.100.1/24", "dev", "br0")
    run("ip", "addr", "add", "2001:db8:a::1/64", "dev", "br0", "nodad")
    run("ip", "link", "set", "br0", "up", "mtu", "1450")
    stranger = made.host.empty("stranger")
    run("ip", "link", "add", "v0", "address", "fa:00:5e:00:53:01", "master", "br0", "up",
        "type", "veth", "peer", "name", "eth0", "netns", stranger.netns.path)  # fmt: skip
    assert "fa:00:5e:00:53:01" in run("ip", "link", "show", "br0").stdout
    stranger.run("ip", "addr", "add", "198.51.100.9/24", "dev", "eth0")
    stranger.run("ip", "link", "set", "eth0", "up")
    before = run("ip", "-o", "addr", "show", "br0", "scope", "global").stdout

    network = made.net.create(
        "front", subnets=FRONT, options={"bridge.name": "br0"}, aux_addresses=["other=198.51.100.9"]
    )
    assert network.options["mtu"] == "1450"
    made.box("web", 80)
    peer = made.box("peer")
    endpoint = made.net.connect("front", "web", publish=["8080:80"])
    made.net.connect("front", "peer")
    for family in FAMILIES:
        assert reachable(peer, address(endpoint, family), 80)
        # Where the bridge is not ours, its link-local address is tentative at first.
        assert eventually(lambda f=family: reachable(made.outsider, HOST[f], 8080))
    assert reachable(stranger, address(endpoint, 4), 80)
    # A bridge takes the lowest of its ports' MAC addresses, and neighbours would lose the host.
    assert "fa:00:5e:00:53:01" in run("ip", "link", "show", "br0").stdout
    assert made.net.check() == ()
    assert made.net.collect_garbage() == ()
    made.net.remove("front", force=True)
    assert run("ip", "-o", "addr", "show", "br0", "scope", "global").stdout == before
    assert "v0" in run("ip", "link", "show", "master", "br0").stdout


@pytest.mark.parametrize("routed", [True, False])
def test_an_administrators_bridge_brings_its_subnets_along(one: EngineHost, routed: bool) -> None:
    """Its router, or else the host's address on it, is the gateway; nobody is given either."""
    run = one.host.run
    run("ip", "link", "add", "br0", "type", "bridge")
    run("ip", "addr", "add", "198.51.100.5/29", "dev", "br0")
    run("ip", "addr", "add", "2001:db8:a::5/64", "dev", "br0", "nodad")
    run("ip", "link", "set", "br0", "up")
    gateway = "198.51.100.5"
    if routed:
        gateway = "198.51.100.6"
        run("ip", "route", "replace", "default", "via", gateway, "dev", "br0")
    network = one.net.create("lan", ipv6=True, options={"bridge.name": "br0"})
    assert [(str(s.prefix), str(s.gateway)) for s in network.subnets] == [
        ("198.51.100.0/29", gateway),
        ("2001:db8:a::/64", "2001:db8:a::5"),
    ]
    taken = {network.subnets[0].gateway, ip_address("198.51.100.5")}
    for number in range(6 - len(taken)):
        box = one.box(f"box{number}")
        found = one.net.connect("lan", f"box{number}").addresses[0].ip
        assert found not in taken
        taken.add(found)
        if not routed:
            assert box.run("ping", "-c1", "-W2", gateway).returncode == 0
    one.box("late")
    with pytest.raises(Exhausted):
        one.net.connect("lan", "late")
    assert one.net.check() == ()
    one.net.remove("lan", force=True)
    # What is asked for goes before what is there.
    network = one.net.create("lan", subnets=["198.51.100.0/29"], gateways=["198.51.100.1"],
                             options={"bridge.name": "br0"})  # fmt: skip
    assert str(network.subnets[0].gateway) == "198.51.100.1"
    assert ip_address("198.51.100.5") in network.subnets[0].reserved.values()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_single_address_is_a_subnet(made: EngineHost, family: Family) -> None:
    """Its gateway is beyond it, on the same link: out, in, and by its own name for the peer."""
    own, way = (("203.0.113.7/32", "203.0.113.200"), ("2001:db8:b::7/128", "2001:db8:b::1"))[
        family == 6
    ]
    made.serve(made.outsider, 7000)
    made.net.create("front", subnets=[own], gateways=[way], ipv4=family == 4)
    web = made.box("web", 80)
    endpoint = made.net.connect("front", "web", publish=["8080:80"])
    assert address(endpoint, family) == own.split("/")[0]
    assert reachable(made.outsider, HOST[family], 8080)
    assert reachable(web, OUTSIDE[family], 7000)
    assert reachable(made.host, address(endpoint, family), 80)
    assert made.net.check() == ()
    made.net.remove("front", force=True)
    made.net.create("more", subnets=FRONT)
    made.net.update("more", subnets=[own])
    web = made.box("again", 80)
    endpoint = made.net.connect("more", "again", addresses=[own.split("/")[0]])
    assert reachable(web, OUTSIDE[family], 7000)
    assert made.net.check() == ()


def test_a_network_without_a_gateway_keeps_none_free(one: EngineHost) -> None:
    """An isolated one gives all its addresses to members, also its only one or two."""
    isolated = {"gateway_mode": "isolated"}
    network = one.net.create("two", subnets=["203.0.113.6/31"], internal=True, options=isolated)
    assert network.subnets[0].gateway is None
    boxes = [one.box(name, 80) for name in ("a", "b")]
    found = [one.net.connect("two", name) for name in ("a", "b")]
    assert reachable(boxes[0], address(found[1], 4), 80)
    one.net.create("one", subnets=["203.0.113.9/32"], internal=True, options=isolated)
    assert str(one.net.connect("one", "a").addresses[0]) == "203.0.113.9/32"
    assert one.net.check() == ()


def test_what_a_borrowed_bridge_can_not_give_is_refused(one: EngineHost) -> None:
    """Rules for all of its ports; devices that are no bridge; another network's bridge."""
    one.host.run("ip", "link", "add", "br0", "type", "bridge")
    one.net.create("mine", options={"bridge.name": "mine0"})
    own = {"bridge.name": "br0"}

    def create(**options: object) -> Callable[[], object]:
        return lambda: one.net.create("front", **options)  # type: ignore[arg-type]

    refused(one, InvalidOption, "masquerade", create(options={**own, "masquerade": "false"}))
    refused(one, InvalidOption, "internal", create(options=own, internal=True))
    refused(one, InvalidOption, "veth", create(options={"bridge.name": "eth0"}))
    refused(one, InvalidOption, "no bridge", create(options={"bridge.name": "lo"}))
    refused(one, InterfaceTaken, "mine0", create(options={"bridge.name": "mine0"}))
    refused(one, PoolOverlap, "192.0.2.0/24", create(options=own, subnets=["192.0.2.0/24"]))
    one.host.run("ip", "addr", "add", "198.51.100.5/29", "dev", "br0")
    one.net.create("lan", options=own)
    refused(one, PoolOverlap, "of network lan", create(options=own))


def test_a_listener_in_a_sandbox_is_known_as_ours(one: EngineHost) -> None:
    """Garbage collection leaves it alone, and names go on resolving."""
    one.net.create("front", subnets=FRONT, internal=True, options={"gateway_mode": "isolated"})
    web = one.box("web")
    one.net.connect("front", "web")
    assert one.net.check() == ()
    one.net.collect_garbage()
    listening = web.run("ss", "-Hlnu").stdout
    assert "127.0.0.11:53" in listening


# -- clashes and impossible wishes ----------------------------------------------------------------


def test_one_route_has_one_way_in_a_sandbox(one: EngineHost) -> None:
    """Two networks with the same static route clash, unless their metrics differ."""
    to = "10.9.0.0/16 via"
    one.net.create("front", subnets=FRONT, options={"routes": f"{to} 198.51.100.1"})
    one.net.create("back", subnets=BACK, options={"routes": f"{to} 203.0.113.1"})
    one.net.create("third", subnets=["198.51.101.0/24"],
                   options={"routes": f"{to} 198.51.101.1 metric 9"})  # fmt: skip
    web = one.box("web")
    one.net.connect("front", "web")
    refused(one, RouteTaken, "front", lambda: one.net.connect("back", "web"))
    refused(one, RouteTaken, "front", lambda: one.net.connect("back", "web", gateway_priority=9))
    one.net.connect("third", "web")
    assert len(web.run("ip", "route", "show", "10.9.0.0/16").stdout.splitlines()) == 2
    one.net.disconnect("front", "web")
    one.net.connect("back", "web")
    assert one.net.check() == ()


def test_options_that_can_not_be_name_themselves(one: EngineHost) -> None:
    """And say what could be; nothing is made."""

    def create(**options: str) -> Callable[[], object]:
        return lambda: one.net.create("x", subnets=FRONT, options=options)

    for match, options in (
        (r"colour.*valid are.*gateway_mode", {"colour": "red"}),
        ("mtu.*1280", {"mtu": "100"}),
        ("icc.*true, false", {"icc": "perhaps"}),
        ("gateway_mode.*routed", {"gateway_mode": "bridged"}),
        ("host_binding_ipv4", {"host_binding_ipv4": "2001:db8::1"}),
        ("outbound_ipv6", {"outbound_ipv6": "192.0.2.1"}),
        ("routes.*PREFIX via", {"routes": "10.0.0.0/8"}),
        ("routes.*no subnet", {"routes": "10.0.0.0/8 via 192.0.2.200"}),
        ("routes.*twice", {"routes": "10.0.0.0/8 via 198.51.100.1,10.0.0.0/8 via 198.51.100.2"}),
        ("metric", {"metric": "-1"}),
        ("isolated.*--internal", {"com.docker.network.bridge.gateway_mode_ipv6": "isolated"}),
    ):
        refused(one, InvalidOption, match, create(**options))
    refused(one, InvalidName, "a/b", create(iface_prefix="a/b"))
    refused(one, InvalidName, "much-too", create(**{"bridge.name": "much-too-long-a-name"}))


def test_a_port_that_nobody_could_use_is_refused(one: EngineHost) -> None:
    """What only a relay could do for SCTP, sources of a family that the sandbox lacks."""
    one.net.create("four", subnets=["198.51.101.0/24"])
    one.box("web")
    one.net.connect("four", "web")
    for spec in ("[::1]:8080:80/sctp", "[2001:db8:2::1]:8080:80/sctp"):
        refused(one, Unsupported, "SCTP", lambda spec=spec: one.net.publish("web", [spec]))
    one.net.publish("web", ["8080:80/sctp"])


def test_a_binding_moves_only_to_where_its_ports_are_free(one: EngineHost) -> None:
    """Neither another endpoint's nor a program's port is taken over by an update."""
    one.host.run("ip", "addr", "add", "192.0.2.10/24", "dev", "eth0")
    one.net.create("front", subnets=FRONT, options={"host_binding_ipv4": "192.0.2.10"})
    one.net.create("back", subnets=BACK)
    one.box("web", 80)
    one.box("db", 80)
    one.net.connect("front", "web", publish=["8080:80"])
    one.net.connect("back", "db", publish=["192.0.2.1:8080:80"])

    def move(to: str) -> object:
        return one.net.update("front", options={"host_binding_ipv4": to})

    refused(one, PortTaken, "sandbox db", lambda: move("192.0.2.1"))
    refused(one, PortTaken, "sandbox db", lambda: move(""))
    one.serve(one.host, 8080, address="127.0.0.2")
    refused(one, PortTaken, "pid", lambda: move("127.0.0.2"))
    move("127.0.0.1")
    assert reachable(one.host, "127.0.0.1", 8080)
    assert one.net.check() == ()


def test_a_host_without_ipv6_is_told(one: EngineHost) -> None:
    """Networks of IPv4 alone work there, others are refused."""
    one.host.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    refused(one, Unsupported, "IPv6", lambda: one.net.create("front", ipv6=True))
    one.net.create("front")
    one.box("web", 80)
    one.net.connect("front", "web", publish=["8080:80"])
    assert reachable(one.outsider, HOST[4], 8080)
    assert one.net.check() == ()


def test_a_host_interface_has_one_holder(one: EngineHost) -> None:
    """A device of the host, or another endpoint's end."""
    one.net.create("front", subnets=FRONT)
    one.box("web")
    one.box("db")

    def join(name: str, host_ifname: str) -> object:
        return one.net.connect("front", name, options={"host_interface_name": host_ifname})

    refused(one, InterfaceTaken, "eth0", lambda: join("web", "eth0"))
    join("web", "web0")
    refused(one, InterfaceTaken, "web0", lambda: join("db", "web0"))


def test_an_update_refuses_what_it_can_not_do(one: EngineHost) -> None:
    """What can't change, subnets that overlap, gateways of subnets that are there."""
    one.net.create("front", subnets=FRONT)
    one.net.create("back", subnets=BACK)
    update = one.net.update
    refused(one, InvalidOption, r"gateway_mode.*these can.*mtu",
            lambda: update("front", options={"gateway_mode": "routed"}))  # fmt: skip
    refused(one, InvalidOption, "1280", lambda: update("front", options={"mtu": "1000"}))
    refused(one, PoolOverlap, "back", lambda: update("front", subnets=["203.0.113.0/25"]))
    refused(one, PoolOverlap, "front", lambda: update("front", subnets=["198.51.100.0/25"]))
    refused(one, InvalidRequest, "subnet", lambda: update("front", gateways=["198.51.100.9"]))
    assert not one.net.plan.update("front", options={"gateway_mode": "nat", "icc": "true"})


# -- addresses ------------------------------------------------------------------------------------


def test_ranges_gateways_and_reserved_addresses_hold(one: EngineHost) -> None:
    """Of both families under one name; static addresses may lie outside the range."""
    one.net.create(
        "front",
        subnets=FRONT,
        gateways=["198.51.100.254", "2001:db8:a::fe"],
        ip_ranges=["198.51.100.10-198.51.100.12", "2001:db8:a::8/125"],
        aux_addresses=["router=198.51.100.11", "router=2001:db8:a::8"],
    )
    for name in ("one", "two", "three"):
        one.box(name)
    first = one.net.connect("front", "one")
    second = one.net.connect("front", "two")
    assert [address(e, 4) for e in (first, second)] == ["198.51.100.10", "198.51.100.12"]
    assert address(first, 6) == "2001:db8:a::9"
    refused(one, Exhausted, "2 by endpoints.*1 reserved", lambda: one.net.connect("front", "three"))
    refused(one, InvalidAddress, "router",
            lambda: one.net.connect("front", "three", addresses=["198.51.100.11"]))  # fmt: skip
    static = one.net.connect("front", "three", addresses=["198.51.100.99"])
    assert static.addresses[0] == ip_interface("198.51.100.99/24")
    use = one.net.inspect("front").use[0]
    assert (use.usable, use.used, use.free) == (2, 2, 0)


def test_an_address_comes_back_last(one: EngineHost) -> None:
    """Of five addresses the freed one is given after all others were."""
    one.net.create("front", subnets=["198.51.100.0/29"])
    one.box("web")
    given = []
    for _ in range(6):
        given.append(one.net.connect("front", "web").addresses[0].ip)
        one.net.disconnect("front", "web")
    assert given == [ip_address(f"198.51.100.{n}") for n in (2, 3, 4, 5, 6, 2)]


def test_a_lease_tells_who_and_since_which_boot(one: EngineHost) -> None:
    """So that after a reboot a stale one is known as such."""
    one.net.create("front", subnets=FRONT)
    one.box("web")
    endpoint = one.net.connect("front", "web")
    leases = one.net.inspect("front").leases
    assert {lease.address for lease in leases} == {a.ip for a in endpoint.addresses}
    boot_id = one.net.engine.facts().boot_id
    assert {(held.lease.sandbox, held.lease.boot_id) for held in leases} == {("web", boot_id)}


# -- the firewall's backend -----------------------------------------------------------------------


@pytest.mark.parametrize("after", [*BACKENDS, "none"])
def test_another_backend_takes_over(made: EngineHost, after: Backend) -> None:
    """Ports stay open, the other backend's rules go; `none` leaves no rule at all."""
    made.net.create("front", subnets=FRONT)
    web = made.box("web", 80)
    made.net.connect("front", "web", publish=["8080:80"])
    made.serve(made.outsider, 7000)
    made.net.close()
    with Net(made.host.state_dir, firewall=after) as net:
        net.create("back", subnets=BACK)
        for family in FAMILIES:
            assert reachable(made.outsider, HOST[family], 8080) == (after != "none")
            said = answered(web, {4: "192.0.2.100", 6: "2001:db8:2::100"}[family], 7000)
            if after != "none":
                assert said is not None
                assert said.source == HOST[family]
        assert net.check() == ()
    rules = made.host.run("nft", "list", "ruleset").stdout
    assert ("table inet netlib" in rules) == (after == "nftables")
    legacy = "".join(made.host.run(f"{p}-save").stdout for p in ("iptables", "ip6tables"))
    assert ("NETLIB-" in legacy) == (after == "iptables")


def test_the_administrators_chain_comes_first_and_stays(made: EngineHost) -> None:
    """NETLIB-USER is asked before our rules, and kept by all that the library does."""
    made.net.create("front", subnets=FRONT)
    made.box("web", 80, 81)
    made.net.connect("front", "web", publish=["8080:80", "8081:81"])
    if made.net.engine.kernel.firewall == "nftables":
        rule = ("nft", "add", "rule", "inet", "netlib", "NETLIB-USER", "tcp", "dport", "80", "drop")
        made.host.run(*rule)
    else:
        for program in ("iptables", "ip6tables"):
            made.host.run(program, "-A", "NETLIB-USER", "-p", "tcp", "--dport", "80", "-j", "DROP")
    for _ in range(2):
        for family in FAMILIES:
            assert unreachable(made.outsider, HOST[family], 8080)
            assert reachable(made.outsider, HOST[family], 8081)
        made.net.unpublish("web", ["8081:81"])
        made.net.publish("web", ["8081:81"])
        made.net.repair()
