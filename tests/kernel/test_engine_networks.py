"""What a network's options do to packets, through the whole library."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest
from support.engine import BACKENDS, FAMILIES, HOST, OUTSIDE, EngineHost, address, engine_host
from support.host import Place
from support.patience import eventually
from support.traffic import answered, reachable, unreachable

from netlib.binding import ANY
from netlib.errors import InvalidOption
from netlib.model import Family
from netlib.ports import parse

pytestmark = pytest.mark.kernel

FRONT = ["198.51.100.0/24", "2001:db8:a::/64"]
BACK = ["203.0.113.0/24", "2001:db8:b::/64"]
SECOND: dict[Family, str] = {4: "192.0.2.10", 6: "2001:db8:2::10"}


@pytest.fixture(params=BACKENDS)
def made(request: pytest.FixtureRequest) -> Iterator[EngineHost]:
    """A host with a second address, and an outsider that knows the way to all networks."""
    with engine_host(request.param) as made:
        made.host.run("ip", "addr", "add", f"{SECOND[4]}/24", "dev", "eth0")
        made.host.run("ip", "addr", "add", f"{SECOND[6]}/64", "dev", "eth0", "nodad",
                      "preferred_lft", "0")  # fmt: skip
        for prefix in (*FRONT, *BACK):
            made.outsider.run("ip", "route", "add", prefix, "via", HOST[6 if ":" in prefix else 4])
        yield made


@contextlib.contextmanager
def session(client: Place, where: str, port: int) -> Iterator[None]:
    """A TCP connection that must still carry what is said at the end of the block."""
    with client.call(lambda: socket.create_connection((where, port), 2)) as connection:
        yield
        connection.settimeout(2)
        connection.sendall(b"?\n")
        assert connection.recv(512), "the connection did not survive"


def source_seen(client: Place, family: Family) -> str | None:
    """The address that the outsider sees a sandbox with."""
    said = answered(client, OUTSIDE[family], 7000)
    return said.source if said else None


# -- ways in and out ------------------------------------------------------------------------------


def test_a_nat_network_leaves_with_the_hosts_address(made: EngineHost) -> None:
    """Or, by option, with another one of the host's; nobody gets in but to published ports."""
    made.serve(made.outsider, 7000)
    made.net.create("front", subnets=FRONT)
    made.net.create(
        "back",
        subnets=BACK,
        options={"outbound_ipv4": SECOND[4], "com.docker.network.host_ipv6": SECOND[6]},
    )
    web, other = made.box("web", 80), made.box("other")
    endpoint = made.net.connect("front", "web")
    made.net.connect("back", "other")
    for family in FAMILIES:
        assert source_seen(web, family) == HOST[family]
        assert source_seen(other, family) == SECOND[family]
        assert unreachable(made.outsider, address(endpoint, family), 80)
        assert unreachable(other, address(endpoint, family), 80)


def test_a_routed_network_is_reached_by_its_own_addresses(made: EngineHost) -> None:
    """At published ports only, from outside and other networks; it leaves with its own too."""
    made.serve(made.outsider, 7000)
    made.net.create("front", subnets=FRONT, options={"gateway_mode": "routed"})
    made.net.create("back", subnets=BACK)
    web, other = made.box("web", 80, 81), made.box("other")
    endpoint = made.net.connect("front", "web", publish=["8080:80"])
    made.net.connect("back", "other")
    for family in FAMILIES:
        own = address(endpoint, family)
        said = answered(made.outsider, own, 80)
        assert said is not None
        assert said.source == OUTSIDE[family]
        assert reachable(other, own, 80)
        assert unreachable(made.outsider, own, 81)
        assert unreachable(made.outsider, HOST[family], 8080)
        assert source_seen(web, family) == own
    made.net.unpublish("web", ["8080:80"])
    assert unreachable(made.outsider, address(endpoint, 4), 80)
    made.net.publish("web", [parse("8080:80", sources=["192.0.2.0/24"])])
    assert reachable(made.outsider, address(endpoint, 4), 80)
    # A source of one family opens nothing to the other.
    assert unreachable(made.outsider, address(endpoint, 6), 80)
    assert made.net.check() == ()


def test_dockers_names_for_the_gateway_mode(made: EngineHost) -> None:
    """One for each family."""
    prefix = "com.docker.network.bridge.gateway_mode"
    made.net.create(
        "front", subnets=FRONT, options={f"{prefix}_ipv{f}": "routed" for f in FAMILIES}
    )
    made.net.create("back", subnets=BACK[:1], options={f"{prefix}_ipv4": "routed"})
    for name, families in (("front", FAMILIES), ("back", (4,))):
        made.box(name, 80)
        endpoint = made.net.connect(name, name, publish=["80"])
        for family in families:
            assert reachable(made.outsider, address(endpoint, family), 80)
    made.net.update("front", options={"mtu": "1400"})
    assert made.net.check() == ()


def test_each_family_has_a_gateway_mode_of_its_own(made: EngineHost) -> None:
    """Behind the host's address by IPv4 and by their own with IPv6, and the other way round."""
    modes: tuple[tuple[str, list[str], Family, Family], ...]
    modes = (("front", FRONT, 4, 6), ("back", BACK, 6, 4))
    for name, subnets, nat, routed in modes:
        options = {f"gateway_mode_ipv{routed}": "routed", f"gateway_mode_ipv{nat}": "nat"}
        made.net.create(name, subnets=subnets, options=options)
        made.box(name, 80, 81)
        port = 8080 + nat
        endpoint = made.net.connect(name, name, publish=[f"{port}:80"])
        own = address(endpoint, routed)
        assert reachable(made.outsider, HOST[nat], port)
        assert unreachable(made.outsider, HOST[routed], port)
        assert unreachable(made.outsider, address(endpoint, nat), 80)
        assert reachable(made.outsider, own, 80)
        assert unreachable(made.outsider, own, 81)
        (joined,) = made.net.ports(name)
        assert {(str(p.host_address), p.host_port) for p in joined.ports} == {
            (str(ANY[nat]), port),
            (own, 80),
        }
    assert made.net.check() == ()


def test_unprotected_endpoints_are_reached_by_whoever_has_a_route(made: EngineHost) -> None:
    """At all their ports; what they send out has the host's address all the same."""
    made.serve(made.outsider, 7000)
    made.net.create("front", subnets=FRONT, options={"gateway_mode": "nat-unprotected"})
    web = made.box("web", 80)
    endpoint = made.net.connect("front", "web", publish=["8080:80"])
    for family in FAMILIES:
        assert reachable(made.outsider, address(endpoint, family), 80)
        assert reachable(made.outsider, HOST[family], 8080)
        assert source_seen(web, family) == HOST[family]


def test_an_address_that_moved_is_known_to_neighbours_at_once(made: EngineHost) -> None:
    """Who talked to its last holder reaches the new one without asking, over both families."""
    made.net.create("front", subnets=FRONT)
    peer = made.box("peer")
    made.net.connect("front", "peer")
    wanted = ["198.51.100.77", "2001:db8:a::77"]
    for number in range(3):
        name, mac = f"web{number}", f"02:00:00:00:00:0{number}"
        made.box(name, 80)
        made.net.connect("front", name, addresses=wanted, mac=mac)
        if number:
            eventually(lambda mac=mac: [macs_of(peer, a) for a in wanted] == [[mac], [mac]])  # type: ignore[misc]
        for where in wanted:
            assert reachable(peer, where, 80)
        made.net.disconnect("front", name)


def macs_of(place: Place, where: str) -> list[str]:
    """What a place knows of a neighbour, without asking it."""
    shown = json.loads(place.run("ip", "-j", "neigh", "show", where).stdout)
    return [entry["lladdr"] for entry in shown if "lladdr" in entry]


def test_a_bridge_is_quiet_and_as_wide_as_the_uplink(made: EngineHost) -> None:
    """Its MAC is fixed, spanning tree and router advertisements off, replies find their way."""
    made.host.run("ip", "link", "set", "eth0", "mtu", "1420")
    made.net.create("front", subnets=FRONT, options={"bridge.name": "front0"})
    web = made.box("web")

    def bridge() -> dict[str, object]:
        (found,) = json.loads(made.host.run("ip", "-d", "-j", "link", "show", "front0").stdout)
        assert isinstance(found, dict)
        return found

    mac = bridge()["address"]
    endpoint = made.net.connect("front", "web", mac="02:00:00:00:00:01")
    assert endpoint.mac == "02:00:00:00:00:01"
    assert (bridge()["address"], bridge()["mtu"]) == (mac, 1420)
    data = bridge()["linkinfo"]
    assert isinstance(data, dict)
    assert data["info_data"]["stp_state"] == 0
    (link,) = json.loads(web.run("ip", "-j", "link", "show", "eth0").stdout)
    assert (link["address"], link["mtu"]) == (endpoint.mac, 1420)
    for place, device in ((made.host, "front0"), (web, "eth0")):
        values = place.run("sysctl", "-n", f"net.ipv4.conf.{device}.rp_filter",
                           f"net.ipv6.conf.{device}.accept_ra").stdout.split()  # fmt: skip
        assert values == ["2", "0"]


def test_an_internal_network_has_no_way_out_or_in(made: EngineHost) -> None:
    """Its members reach each other and their gateway, and of the host nothing else."""
    made.serve(made.outsider, 7000)
    made.serve(made.host, 7001)
    made.net.create("front", subnets=FRONT, internal=True)
    made.net.create("back", subnets=BACK)
    made.box("web", 80)
    peer, other = made.box("peer"), made.box("other")
    endpoint = made.net.connect("front", "web")
    made.net.connect("front", "peer")
    made.net.connect("back", "other")
    for family in FAMILIES:
        own, gateway = address(endpoint, family), ("198.51.100.1", "2001:db8:a::1")[family == 6]
        assert reachable(peer, own, 80)
        assert reachable(made.host, own, 80)
        # Also where a sandbox gives itself a route.
        peer.run("ip", "route", "add", "default", "via", gateway)
        assert unreachable(peer, OUTSIDE[family], 7000)
        assert reachable(peer, gateway, 7001)
        assert unreachable(peer, HOST[family], 7001)
        assert unreachable(made.outsider, own, 80)
        assert unreachable(other, own, 80)


def test_an_isolated_gateway_keeps_the_host_out_too(made: EngineHost) -> None:
    """The host has no address there: only members reach each other."""
    made.net.create("front", subnets=FRONT, internal=True, options={"gateway_mode": "isolated"})
    made.box("web", 80)
    peer = made.box("peer")
    endpoint = made.net.connect("front", "web")
    made.net.connect("front", "peer")
    for family in FAMILIES:
        assert reachable(peer, address(endpoint, family), 80)
        assert unreachable(made.host, address(endpoint, family), 80)
    assert "198.51.100.1" not in made.host.run("ip", "addr").stdout
    with pytest.raises(InvalidOption, match="isolated"):
        made.net.create("back", options={"gateway_mode": "isolated"})


def test_members_that_may_not_talk_reach_published_ports_only(made: EngineHost) -> None:
    """icc=false, by Docker's name for it."""
    made.net.create(
        "front", subnets=FRONT, options={"com.docker.network.bridge.enable_icc": "false"}
    )
    peer = made.box("peer")
    made.box("web", 80, 81)
    endpoint = made.net.connect("front", "web", publish=["8080:80"])
    made.net.connect("front", "peer")
    for family in FAMILIES:
        assert unreachable(peer, address(endpoint, family), 80)
        assert reachable(peer, HOST[family], 8080)
        assert reachable(made.outsider, HOST[family], 8080)
        assert reachable(made.host, address(endpoint, family), 81)


def test_networks_that_are_not_isolated_reach_each_other(made: EngineHost) -> None:
    """Both must agree."""
    made.net.create("front", subnets=FRONT, options={"isolate": "false"})
    made.net.create("back", subnets=BACK, options={"isolate": "false"})
    made.net.create("third", ipv6=True)
    made.box("web", 80)
    back, third = made.box("back"), made.box("third")
    endpoint = made.net.connect("front", "web")
    made.net.connect("back", "back")
    made.net.connect("third", "third")
    for family in FAMILIES:
        assert reachable(back, address(endpoint, family), 80)
        assert unreachable(third, address(endpoint, family), 80)


def test_ports_are_published_where_the_network_says(made: EngineHost) -> None:
    """A host binding address stands in for all of the host's addresses of its family."""
    options = {"host_binding": SECOND[4], "host_binding_ipv6": SECOND[6]}
    made.net.create("front", subnets=FRONT, options=options)
    made.box("web", 80)
    made.net.connect("front", "web", publish=["8080:80", "0.0.0.0:8081:80"])
    for family in FAMILIES:
        assert reachable(made.outsider, SECOND[family], 8080)
        assert unreachable(made.outsider, HOST[family], 8080)
    assert reachable(made.outsider, HOST[4], 8081)


# -- net update -----------------------------------------------------------------------------------


def test_an_update_takes_effect_while_connections_last(made: EngineHost) -> None:
    """MTU, icc, masquerade, isolation, outbound and binding address; each there and back."""
    made.serve(made.outsider, 7000)
    made.serve(made.outsider, 7001)
    made.net.create("front", subnets=FRONT)
    made.net.create("back", subnets=BACK, options={"isolate": "false"})
    web, peer, other = made.box("web", 80, 81), made.box("peer"), made.box("other")
    endpoint = made.net.connect("front", "web", publish=["8080:80"])
    made.net.connect("front", "peer")
    made.net.connect("back", "other")

    def update(**options: str) -> None:
        plan = made.net.plan.update("front", options=options)
        assert plan
        made.net.update("front", options=options)
        assert made.net.check() == ()

    def mtu(place: Place) -> int:
        (link,) = json.loads(place.run("ip", "-j", "link", "show", "eth0").stdout)
        return int(link["mtu"])

    with (
        session(made.outsider, HOST[4], 8080),
        session(web, OUTSIDE[4], 7001),
        session(made.host, address(endpoint, 6), 81),
    ):
        update(mtu="1400")
        assert (mtu(web), mtu(peer)) == (1400, 1400)
        bridge = made.host.run("ip", "-o", "link", "show", "type", "bridge").stdout
        assert "mtu 1400" in bridge

        update(masquerade="false")
        assert source_seen(web, 4) == address(endpoint, 4)
        assert source_seen(web, 6) == address(endpoint, 6)
        update(masquerade="true", outbound_ipv4=SECOND[4], outbound_ipv6=SECOND[6])
        assert source_seen(web, 4) == SECOND[4]
        assert source_seen(web, 6) == SECOND[6]
        update(outbound_ipv4="", outbound_ipv6="")
        assert source_seen(web, 4) == HOST[4]

    for family in FAMILIES:
        own = address(endpoint, family)
        assert reachable(peer, own, 80)
        update(icc="false")
        assert unreachable(peer, own, 80)
        update(icc="true")
        assert reachable(peer, own, 80)

        assert unreachable(other, own, 80)
        update(isolate="false")
        assert reachable(other, own, 80)
        update(isolate="true")
        assert unreachable(other, own, 80)

    update(host_binding_ipv4=SECOND[4])
    assert reachable(made.outsider, SECOND[4], 8080)
    assert unreachable(made.outsider, HOST[4], 8080)
    update(host_binding_ipv4="")
    assert reachable(made.outsider, HOST[4], 8080)


def test_more_subnets_come_live(made: EngineHost) -> None:
    """Also of a family that the network did not have: those who join get addresses of both."""
    made.serve(made.outsider, 7000)
    made.net.create("front", subnets=["198.51.100.0/31"])
    made.box("web", 80)
    endpoint = made.net.connect("front", "web", publish=["8080:80"])
    made.net.update("front", subnets=["198.51.100.64/29", "2001:db8:a::/64"])
    peer = made.box("peer", 80)
    joined = made.net.connect("front", "peer", publish=["8081:80"])
    assert address(joined, 4) == "198.51.100.66"
    assert reachable(peer, address(endpoint, 4), 80)
    assert source_seen(peer, 4) == HOST[4]
    assert source_seen(peer, 6) == HOST[6]
    assert reachable(made.outsider, HOST[6], 8081)
    assert reachable(made.outsider, HOST[4], 8080)
    assert made.net.check() == ()


# -- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subnets", "families"),
    [
        (["198.51.100.8/31"], (4,)),
        (["2001:db8:a::8/127"], (6,)),
        (["2001:db8:a::/64"], (6,)),
        (["198.51.100.8/31", "2001:db8:a::8/127"], (4, 6)),
        (["198.51.100.8/30", "2001:db8:a::8/126"], (4, 6)),
    ],
    ids=str,
)
def test_the_smallest_subnets_carry_packets(
    made: EngineHost, subnets: list[str], families: tuple[Family, ...]
) -> None:
    """Point-to-point prefixes (RFC 3021, RFC 6164), and networks of IPv6 alone."""
    made.serve(made.outsider, 7000)
    made.net.create("front", subnets=subnets)
    web = made.box("web", 80)
    made.net.connect("front", "web", publish=["8080:80"])
    for family in families:
        assert source_seen(web, family) == HOST[family]
        assert reachable(made.outsider, HOST[family], 8080)
        assert reachable(web, HOST[family], 8080)
    assert made.net.check() == ()


def test_neighbours_learn_at_once_who_has_an_address_now(made: EngineHost) -> None:
    """Gratuitous ARP and unsolicited NA: a peer's table has the new MAC without asking."""
    made.net.create("front", subnets=FRONT)
    peer = made.box("peer")
    made.net.connect("front", "peer")
    wanted = ["198.51.100.50", "2001:db8:a::50"]

    def known() -> dict[str, str]:
        found = json.loads(peer.run("ip", "-j", "neigh").stdout)
        return {n["dst"]: n.get("lladdr", "") for n in found if n["dst"] in wanted}

    for name in ("one", "two"):
        made.box(name, 80)
        endpoint = made.net.connect("front", name, addresses=wanted)
        if name == "two":
            eventually(lambda mac=endpoint.mac: set(known().values()) == {mac}, 2)
        for one in wanted:
            assert reachable(peer, one, 80)
        assert known() == dict.fromkeys(wanted, endpoint.mac)
        made.net.disconnect("front", name)


# -- the sandbox's side ---------------------------------------------------------------------------


def test_the_default_route_moves_and_carries_on(made: EngineHost) -> None:
    """The way out is another network's after each change, and `net check` agrees."""
    made.serve(made.outsider, 7000)
    for name, subnets, own in (("front", FRONT, {}), ("back", BACK, SECOND)):
        options = {f"outbound_ipv{family}": text for family, text in own.items()}
        made.net.create(name, subnets=subnets, options=options)
    web = made.box("web")
    made.net.connect("front", "web")
    made.net.connect("back", "web")
    for family in FAMILIES:
        assert source_seen(web, family) == HOST[family]
    made.net.disconnect("front", "web")
    for family in FAMILIES:
        assert source_seen(web, family) == SECOND[family]
    made.net.connect("front", "web", gateway_priority=1)
    for family in FAMILIES:
        assert source_seen(web, family) == HOST[family]
    assert made.net.check() == ()


def test_routes_metric_and_names_are_as_asked(made: EngineHost) -> None:
    """Static routes, their metric, no default route; interface names on both sides."""
    made.net.create(
        "front",
        subnets=FRONT,
        options={
            "metric": "50",
            "com.docker.network.container_iface_prefix": "net",
            "routes": "192.0.2.0/24 via 198.51.100.1, 2001:db8:9::/48 via 2001:db8:a::1 metric 7",
        },
    )
    made.net.create("back", subnets=BACK, options={"no_default_route": "true"})
    web = made.box("web")
    made.net.connect("back", "web", ifname="lan0")
    endpoint = made.net.connect("front", "web", options={"host_ifname": "web-front"})
    assert endpoint.ifname == "net0"
    routes = web.run("ip", "route").stdout
    assert "default via 198.51.100.1 dev net0 proto static metric 50" in routes
    assert "192.0.2.0/24 via 198.51.100.1 dev net0 proto static metric 50" in routes
    routes6 = web.run("ip", "-6", "route").stdout
    assert "2001:db8:9::/48 via 2001:db8:a::1 dev net0 proto static metric 7" in routes6
    assert "master nl-" in made.host.run("ip", "link", "show", "web-front").stdout
    made.net.disconnect("front", "web")
    assert "default" not in web.run("ip", "route").stdout
    assert made.host.run("ip", "link", "show", "web-front", check=False).returncode
    assert made.net.check() == ()


def test_sysctls_of_an_endpoint_are_set_and_others_refused(made: EngineHost) -> None:
    """Only those of the interface itself; the name IFNAME stands for it."""
    made.net.create("front", subnets=FRONT)
    web = made.box("web")
    key = "com.docker.network.endpoint.sysctls"
    for bad in ("net.ipv4.ip_forward=1", "kernel.hostname=x", "net.ipv4.conf.eth0.forwarding=1",
                "net.ipv4.conf.IFNAME.../../x=1", "net.ipv4.conf.IFNAME.forwarding"):  # fmt: skip
        with pytest.raises(InvalidOption):
            made.net.connect("front", "web", options={key: bad})
    wanted = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2"
    made.net.connect("front", "web", options={key: wanted})
    for name, value in (("ipv4.conf.eth0.log_martians", "1"), ("ipv6.conf.eth0.accept_ra", "2")):
        assert web.run("sysctl", "-n", f"net.{name}").stdout.strip() == value
    assert made.net.check() == ()
