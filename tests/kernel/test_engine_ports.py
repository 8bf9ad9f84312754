"""Published ports through the whole library: real packets, both backends, both families."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from support.engine import BACKENDS, FAMILIES, HOST, LOOPBACK, EngineHost, address, engine_host
from support.forged import sctp_lands
from support.host import HOST4, HOST6, OUTSIDER4, OUTSIDER6
from support.patience import eventually
from support.traffic import answered, ask, reachable, unreachable

from netlib.errors import Exhausted, PortTaken
from netlib.model import Family, bracketed
from netlib.ports import parse

pytestmark = pytest.mark.kernel

SUBNETS = ["198.51.100.0/24", "2001:db8:a::/64"]
OUTSIDE = {4: OUTSIDER4, 6: OUTSIDER6}


@pytest.fixture(params=BACKENDS)
def made(request: pytest.FixtureRequest) -> Iterator[EngineHost]:
    """A dual-stack network `front` with a server `web`, and the other network `back`."""
    with engine_host(request.param) as made:
        made.net.create("front", subnets=SUBNETS)
        made.net.create("back", subnets=["203.0.113.0/24", "2001:db8:b::/64"])
        yield made


def literal(text: str) -> str:
    """An address as it stands in a SPEC."""
    return bracketed(ip_address(text))


def test_a_wildcard_port_is_reached_from_everywhere(made: EngineHost) -> None:
    """Outside, the host by each of its addresses and loopback, peers, other networks, itself."""
    web, peer, other = made.box("web", 80), made.box("peer"), made.box("other")
    endpoint = made.net.connect("front", "web", publish=["8080:80"])
    made.net.connect("front", "peer")
    made.net.connect("back", "other")
    for family in FAMILIES:
        said = answered(made.outsider, HOST[family], 8080)
        assert said is not None, f"from outside by IPv{family}"
        assert said.source == OUTSIDE[family]  # the client's own address is kept
        for place in (made.host, web, peer, other):
            assert reachable(place, HOST[family], 8080), (place.name, family)
        assert reachable(made.host, LOOPBACK[family], 8080), family
        # Nobody gets past the published port.
        assert unreachable(other, address(endpoint, family), 80), family
        assert unreachable(made.outsider, HOST[family], 80), family


def test_ten_thousand_ports_in_one_call(made: EngineHost) -> None:
    """Also to other numbers, which are a fact each; and away again."""
    # One transaction is one message, and only root may send longer ones than
    # net.core.wmem_max says (socket(7), SO_SNDBUFFORCE).
    everybody = Path("/proc/self/uid_map").read_text().split()[2] == "4294967295"
    last = 9999 if everybody else 999
    moved = f"{HOST4}:20000-{20000 + last}:30000-{30000 + last}"
    made.box("web", 10500, 30500)
    # At an address: the relay would have a socket for each port of [::1] else.
    made.net.connect("front", "web", publish=[f"{HOST4}:10000-{10000 + last}:10000-{10000 + last}"])
    made.net.publish("web", [moved])
    for port in (10500, 20500):
        assert reachable(made.outsider, HOST4, port)
    assert made.net.check() == ()
    made.net.unpublish("web", [moved])
    assert unreachable(made.outsider, HOST4, 20500)


def test_facts_count_the_connections_that_met_them(made: EngineHost) -> None:
    """Each published port its own, whatever form it has; --from also those that it refused."""
    made.box("web", 80, 81, 82)
    made.net.connect(
        "front", "web", publish=["8080:80", "8081:80", "9080-9082:80-82",
                                 parse("8082:80", sources=["203.0.113.0/24"])],
    )  # fmt: skip

    def met() -> dict[str, int]:
        return {
            fact.what.split(" ")[1]: fact.met.packets
            for fact in made.net.facts("front")
            if fact.what.startswith("publish") and fact.met is not None
            and fact.noun.family == 4  # type: ignore[attr-defined]
        }  # fmt: skip

    names = ["*:8080/tcp", "*:8081/tcp", "*:8082/tcp", "*:9080-9082/tcp"]
    assert met() == dict.fromkeys(names, 0)
    for port, answers in ((8080, True), (8080, True), (9081, True), (8082, False)):
        assert reachable(made.outsider, HOST4, port) == answers
    (joined,) = made.net.ports("web")
    shown = {(str(p.host_address), p.host_port) for p in joined.ports}
    assert ("0.0.0.0", 8082) in shown
    assert ("::", 8082) not in shown  # no IPv6 source may use it
    seen = met()
    assert seen.pop("*:8082/tcp") >= 1  # it was tried again
    assert seen == {"*:8080/tcp": 2, "*:8081/tcp": 0, "*:9080-9082/tcp": 1}
    (passing,) = [f for f in made.net.facts("front") if f.what.startswith("forward")]
    assert passing.met is not None
    assert passing.met.packets > 0
    assert passing.met.bytes > passing.met.packets
    # A change of others counts nothing anew.
    made.net.publish("web", ["8089:80"])
    assert met()["*:8080/tcp"] == 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_loopback_port_is_the_hosts_alone(made: EngineHost, family: Family, kind: str) -> None:
    """127.0.0.1 by the kernel, [::1] by the relay; nobody else gets there."""
    web = made.box("web", (80, kind))
    made.net.connect("front", "web", publish=[f"{literal(LOOPBACK[family])}:8080:80/{kind}"])
    assert eventually(lambda: reachable(made.host, LOOPBACK[family], 8080, kind))
    assert unreachable(made.host, HOST[family], 8080, kind)
    assert unreachable(made.outsider, HOST[family], 8080, kind)
    assert unreachable(web, HOST[family], 8080, kind)
    made.net.disconnect("front", "web")
    assert unreachable(made.host, LOOPBACK[family], 8080, kind)
    assert made.net.check() == ()


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_each_family_of_the_host_leads_to_a_sandbox_of_the_other(
    made: EngineHost, kind: str
) -> None:
    """IPv6 to an IPv4-only sandbox by wildcard or address, IPv4 to an IPv6-only one by address."""
    made.net.create("four", subnets=["198.51.101.0/24"])
    made.net.create("six", subnets=["2001:db8:c::/64"], ipv4=False)
    made.box("web4", (80, kind))
    made.box("web6", (80, kind))
    made.net.connect("four", "web4", publish=[f"8080:80/{kind}", f"[{HOST6}]:8081:80/{kind}"])
    made.net.connect("six", "web6", publish=[f"8090:80/{kind}", f"{HOST4}:8091:80/{kind}"])
    for name, where, port in (
        ("web4", HOST6, 8080), ("web4", HOST6, 8081), ("web4", HOST4, 8080),
        ("web6", HOST6, 8090), ("web6", HOST4, 8091),
    ):  # fmt: skip
        said = answered(made.outsider, where, port, kind)
        assert said is not None, (name, where, port)
        assert said.server == name
    assert answered(made.host, "::1", 8080, kind) is not None
    made.net.unpublish("web4", [f"8080:80/{kind}"])
    assert ask(made.outsider, HOST6, 8080, kind) is None
    assert answered(made.outsider, HOST6, 8081, kind) is not None
    assert made.net.check() == ()


def test_a_range_leads_port_to_port(made: EngineHost) -> None:
    """Also where the ranges begin at different numbers; and nothing beside them."""
    made.box("web", 9000, 9002, 9003)
    made.net.connect("front", "web", publish=["7000-7002:9000-9002"])
    for family in FAMILIES:
        for number in (0, 2):
            assert reachable(made.outsider, HOST[family], 7000 + number), (family, number)
        assert unreachable(made.outsider, HOST[family], 7003)
    assert reachable(made.host, "::1", 7002)
    made.net.unpublish("web", ["7000-7002:9000-9002"])
    assert unreachable(made.outsider, HOST4, 7000)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_sources_that_were_named_get_in(made: EngineHost, family: Family) -> None:
    """`--from`: another source is refused, from outside and on the host."""
    from netlib.ports import parse

    made.box("web", 80)
    mine, others = {
        4: ("192.0.2.0/24", "203.0.113.0/24"),
        6: ("2001:db8:2::/64", "2001:db8:b::/64"),
    }[family]
    made.net.connect(
        "front", "web",
        publish=[parse("8080:80", sources=[mine]), parse("8081:80", sources=[others])],
    )  # fmt: skip
    assert reachable(made.outsider, HOST[family], 8080)
    assert unreachable(made.outsider, HOST[family], 8081)
    other = made.box("other")
    made.net.connect("back", "other")
    assert reachable(other, HOST[family], 8081)
    assert unreachable(other, HOST[family], 8080)


@pytest.mark.parametrize("family", FAMILIES)
def test_udp_flows_follow_their_port(made: EngineHost, family: Family) -> None:
    """One client socket all along: before, while and after the port is published, and moved."""
    seen = made.serve(made.box("web"), 53, "udp")
    other = made.serve(made.box("other"), 53, "udp")
    made.net.connect("front", "web")
    made.net.connect("front", "other")
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    client = made.outsider.call(lambda: socket.socket(kind, socket.SOCK_DGRAM))
    with client:
        client.settimeout(0.3)
        client.bind((OUTSIDE[family], 4000))
        client.connect((HOST[family], 5353))

        def answered() -> str:
            for _ in range(2):  # the first may meet the refusal of the one before
                try:
                    client.send(b"?")
                    return str(client.recv(512))
                except OSError:
                    continue
            return ""

        assert answered() == ""  # and conntrack knows the flow as one to the host
        made.net.publish("web", ["5353:53/udp"])
        assert "web" in answered()
        assert seen
        made.net.unpublish("web", ["5353:53/udp"])
        assert answered() == ""
        made.net.publish("other", ["5353:53/udp"])
        assert "other" in answered()
        made.net.disconnect("front", "other")
        assert answered() == ""
        assert len(other) == 1
        made.net.publish("web", ["5353:53/udp"])
        assert "web" in answered()


def test_a_port_is_published_and_taken_back_while_connections_last(made: EngineHost) -> None:
    """A connection through another port of the sandbox survives; the closed port's ends."""
    made.box("web", 80, 81)
    endpoint = made.net.connect("front", "web", publish=["8080:80"])
    made.net.publish("web", ["8081:81", "127.0.0.1:8082:81"])
    with made.outsider.call(lambda: socket.create_connection((HOST4, 8080), 2)) as kept:
        assert reachable(made.outsider, HOST4, 8081)
        assert reachable(made.host, "127.0.0.1", 8082)
        made.net.unpublish("web", ["8081:81", "127.0.0.1:8082:81"])
        assert unreachable(made.outsider, HOST4, 8081)
        assert unreachable(made.host, "127.0.0.1", 8082)
        kept.settimeout(2)
        kept.sendall(b"?\n")
        assert b"web" in kept.recv(512)
    assert made.net.endpoints("web")[0].ports == endpoint.ports
    assert made.net.check() == ()


def test_a_port_held_by_a_program_is_refused_by_its_name(made: EngineHost) -> None:
    """Before anything changes; the chosen ports avoid it too."""
    made.box("web", 80)
    made.net.connect("front", "web")
    for address_, spec in (("0.0.0.0", "8080:80"), ("::", "8080:80"), ("127.0.0.1", "8080:80"),
                           ("::", f"{HOST4}:8080:80"), (HOST4, f"{HOST4}:8080:80")):  # fmt: skip
        family = socket.AF_INET6 if ":" in address_ else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as held:
            held.bind((address_, 8080))
            held.listen()
            before = made.net.plan.publish("web", ["8088:80"])
            with pytest.raises(PortTaken, match=r"pid \d+"):
                made.net.publish("web", [spec])
            assert made.net.plan.publish("web", ["8088:80"]) == before
            (chosen,) = made.net.publish("web", ["8080-8081:80"])
            assert chosen.host_port == 8081
            made.net.unpublish("web", ["80"])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((HOST4, 8080))
        made.net.publish("web", ["127.0.0.1:8080:80/udp", "8080:80"])  # neither is in the way
    assert reachable(made.outsider, HOST4, 8080)


def test_chosen_ports_are_the_hosts_ephemeral_ones(made: EngineHost) -> None:
    """From net.ipv4.ip_local_port_range, each once; then none is left."""
    made.host.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40002")
    made.box("web", 80)
    made.net.connect("front", "web")
    ports = made.net.publish("web", ["80", "81", "82"])
    assert sorted(port.host_port for port in ports) == [40000, 40001, 40002]
    with pytest.raises(Exhausted):
        made.net.publish("web", ["83"])
    assert reachable(made.outsider, HOST4, ports[0].host_port)


@pytest.mark.parametrize("family", FAMILIES)
def test_sctp_is_published_beside_tcp(made: EngineHost, family: Family) -> None:
    """A port of another protocol is another port."""
    web = made.box("web", 80)
    endpoint = made.net.connect("front", "web", publish=["8080:80/sctp", "8080:80/tcp"])
    target = address(endpoint, family)

    def lands(port: int) -> int | None:
        return sctp_lands(made.host, made.outsider, web, target, family, port)

    assert reachable(made.outsider, HOST[family], 8080)
    assert lands(8080) == 80
    assert made.net.check() == ()
    made.net.unpublish("web", ["8080:80/sctp"])
    assert lands(8080) is None
    assert reachable(made.outsider, HOST[family], 8080)


@pytest.mark.parametrize("family", FAMILIES)
def test_published_ports_outlive_a_move_of_the_default_route(
    made: EngineHost, family: Family
) -> None:
    """Answers leave by the other network then, and reach the client all the same."""
    web = made.box("web", 80)
    endpoint = made.net.connect("front", "web", publish=["8080:80", "5353:53/udp"])
    made.serve(web, 53, "udp", address=address(endpoint, family))
    made.net.connect("back", "web", gateway_priority=5, publish=["8081:80"])
    for _ in range(2):
        for port, kind in ((8080, "tcp"), (5353, "udp")):
            assert reachable(made.outsider, HOST[family], port, kind), kind
            assert reachable(made.host, LOOPBACK[family], port, kind), kind
        if made.net.endpoints("web")[-1].ports[0].host_port == 8081:
            assert reachable(made.outsider, HOST[family], 8081)
            made.net.disconnect("back", "web")
            assert unreachable(made.outsider, HOST[family], 8081)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_sandbox_reaches_itself_with_bridge_netfilter(backend: str, family: Family) -> None:
    """Bridged packets pass the firewall then, so its port of the bridge is a hairpin."""
    with engine_host(backend, bridge_netfilter=True) as made:  # type: ignore[arg-type]
        made.net.create("front", subnets=SUBNETS)
        web, peer = made.box("web", 80, (53, "udp")), made.box("peer")
        made.net.connect("front", "web", publish=["8080:80", "5353:53/udp"])
        made.net.connect("front", "peer")
        for place in (web, peer, made.host, made.outsider):
            assert reachable(place, HOST[family], 8080), place.name
            assert reachable(place, HOST[family], 5353, "udp"), place.name
