"""Real packets through each backend's rules: one host with every kind of network."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from support.firewall_host import (
    FAMILIES,
    FAVOURED,
    FIRST,
    OUTSIDE,
    SECOND,
    FirewallHost,
    address,
    firewall_host,
    network_nouns,
    port_nouns,
)
from support.firewalls import BACKENDS, firewall
from support.forged import forged_to_loopback, sctp_arrives
from support.reach import Probe, ask, differences
from support.who_reaches_what import probes

from netlib.kernel.netfilter.iptables import Iptables
from netlib.kernel.netfilter.nftables import Nftables
from netlib.model import Family
from netlib.plan import Change, Create, Delete, Ensure
from netlib.wiring import FirewallBase, Forward, Publish

pytestmark = pytest.mark.kernel

Backend = Nftables | Iptables


@pytest.fixture(scope="module", params=BACKENDS)
def ruled(request: pytest.FixtureRequest) -> Iterator[tuple[FirewallHost, Backend]]:
    """A host with every kind of network, ruled by a backend; tests leave it as it was."""
    with firewall_host() as made, firewall(request.param, made.host.state_dir) as backend:
        backend.do([Ensure(FirewallBase())])
        backend.do([Create(noun) for noun in network_nouns()])
        yield made, backend


@pytest.fixture
def made(ruled: tuple[FirewallHost, Backend]) -> FirewallHost:
    """The host."""
    return ruled[0]


@pytest.fixture
def backend(ruled: tuple[FirewallHost, Backend]) -> Backend:
    """What rules it."""
    return ruled[1]


def test_who_reaches_what(made: FirewallHost) -> None:
    """Every row of the table in docs/rules.md, both families, TCP and UDP."""
    assert differences(probes(made)) == []


def test_without_rules_the_table_does_not_hold() -> None:
    """The probes see what rules do: without them nearly half of the answers differ."""
    with firewall_host() as made:
        wrong = differences(probes(made), patience=0.5)

    assert any("expected silence" in difference for difference in wrong)
    assert any("got      silence" in difference for difference in wrong)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_port_that_is_unpublished_is_closed(
    made: FirewallHost, backend: Backend, family: Family
) -> None:
    """And nothing else is."""
    port = next(n for n in port_nouns(family, "tcp") if isinstance(n, Publish) and n.port == 8080)
    probe = Probe("8080", made.outsider, "tcp", FIRST[family], 8080)
    control = replace(probe, port=8084, expect=f"b1:80 {OUTSIDE[family]}")
    backend.do([Delete(port)])
    try:
        assert differences([probe, control]) == []
    finally:
        backend.do([Create(port)])

    assert differences([replace(probe, expect=f"a1:80 {OUTSIDE[family]}"), control]) == []


def test_a_change_opens_a_network_and_closes_it(made: FirewallHost, backend: Backend) -> None:
    """One fact changes: an endpoint is reached directly, and then no more."""
    closed = Forward(bridge="nl-g")
    opened = replace(closed, inbound="allow")
    way = Probe("direct", made.outsider, "tcp", address("g1", 4), 80)
    backend.do([Change(closed, opened)])
    try:
        assert differences([replace(way, expect=f"g1:80 {OUTSIDE[4]}")]) == []
    finally:
        backend.do([Change(opened, closed)])
    assert differences([way]) == []


def test_the_administrator_has_the_last_word(made: FirewallHost, backend: Backend) -> None:
    """A drop in NETLIB-USER stops a published port, also when the base is loaded again."""
    port = Probe("8080", made.outsider, "tcp", FIRST[4], 8080)
    host = made.host
    if isinstance(backend, Nftables):
        add, flush = (
            "nft add rule inet netlib NETLIB-USER tcp dport 80 drop",
            "nft flush chain inet netlib NETLIB-USER",
        )
    else:
        program = f"iptables-{backend.variant}"
        add, flush = (
            f"{program} -A NETLIB-USER -p tcp --dport 80 -j DROP",
            f"{program} -F NETLIB-USER",
        )
    host.run(*add.split())
    try:
        assert ask([port]) == [""]
        backend.do([Ensure(FirewallBase())])
        assert ask([port]) == [""]
    finally:
        host.run(*flush.split())
    assert differences([replace(port, expect=f"a1:80 {OUTSIDE[4]}")]) == []


def test_the_administrator_may_let_in_more(made: FirewallHost, backend: Backend) -> None:
    """What NETLIB-USER sends to our `allow` passes, and is marked as allowed."""
    way = Probe("by the administrator", made.outsider, "tcp", address("a1", 4), 81)
    if isinstance(backend, Nftables):
        chain = "inet netlib NETLIB-USER"
        add, flush = f"nft add rule {chain} tcp dport 81 goto allow", f"nft flush chain {chain}"
    else:
        program = f"iptables-{backend.variant}"
        add = f"{program} -A NETLIB-USER -p tcp --dport 81 -j NETLIB-ALLOW"
        flush = f"{program} -F NETLIB-USER"
    made.host.run(*add.split())
    try:
        assert differences([replace(way, expect=f"a1:81 {OUTSIDE[4]}")]) == []
        flows = made.host.run("conntrack", "-L", "-p", "tcp", "--dport", "81").stdout
        assert "mark=4096" in flows
    finally:
        made.host.run(*flush.split())
    assert differences([way]) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_the_narrower_port_wins(made: FirewallHost, backend: Backend, family: Family) -> None:
    """One address before all of them, one port before a range; whatever came first."""
    g1 = ip_address(address("g1", family))

    def publish(port: int, **more: object) -> Publish:
        return Publish(
            family=family,
            protocol="tcp",
            port=port,
            target=g1,
            target_port=80,
            **more,  # type: ignore[arg-type]  # fields of Publish
        )

    narrow = [publish(8080, host=ip_address(SECOND[family])), publish(9005)]
    backend.do([Create(port) for port in narrow])
    try:
        out, where = OUTSIDE[family], made.outsider
        assert differences([
            Probe("all addresses", where, "tcp", FIRST[family], 8080, f"a1:80 {out}"),
            Probe("one address", where, "tcp", SECOND[family], 8080, f"g1:80 {out}"),
            Probe("the range", where, "tcp", FIRST[family], 9000, f"a1:9000 {out}"),
            Probe("one port of it", where, "tcp", FIRST[family], 9005, f"g1:80 {out}"),
        ]) == []  # fmt: skip
    finally:
        backend.do([Delete(port) for port in narrow])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_source_is_added_to_a_port(made: FirewallHost, backend: Backend, family: Family) -> None:
    """One more prefix may use it, and no other; then it may no more."""
    port = next(n for n in port_nouns(family, "tcp") if isinstance(n, Publish) and n.port == 8083)
    wider = replace(port, sources=(*port.sources, ip_network(OUTSIDE[family])))
    way = Probe("--from", made.outsider, "tcp", FIRST[family], 8083)
    favoured = replace(way, bind=FAVOURED[family], expect=f"a1:80 {FAVOURED[family]}")
    other = Probe("--from", made.place("e1"), "tcp", FIRST[family], 8083)
    backend.do([Change(port, wider)])
    try:
        assert differences([replace(way, expect=f"a1:80 {OUTSIDE[family]}"), favoured, other]) == []
    finally:
        backend.do([Change(wider, port)])
    assert differences([way, favoured, other]) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_find_their_way_back(made: FirewallHost, backend: Backend, family: Family) -> None:
    """The sandbox's ICMP error about a published port reaches who asked, as from the host."""
    port = Publish(
        family=family,
        protocol="udp",
        port=8090,
        target=ip_address(address("a1", family)),
        target_port=9999,
    )
    backend.do([Create(port)])
    try:
        with made.outsider.call(
            lambda: socket.socket(
                socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM
            )
        ) as client:
            client.settimeout(5)
            client.connect((FIRST[family], 8090))
            client.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                client.recv(16)
    finally:
        backend.do([Delete(port)])


def test_nobody_forges_the_loopback_address(made: FirewallHost) -> None:
    """Frames to or from 127.0.0.1 that come by a cable reach no service and no published port."""
    assert forged_to_loopback(made) == []


def test_nor_where_the_uplink_takes_loopback_addresses(made: FirewallHost) -> None:
    """Somebody set route_localnet there: his services are his affair, our ports stay closed."""
    setting = "net.ipv4.conf.eth0.route_localnet"
    made.host.run("sysctl", "-qw", f"{setting}=1")
    try:
        assert forged_to_loopback(made, ports_only=True) == []
    finally:
        made.host.run("sysctl", "-qw", f"{setting}=0")


@pytest.mark.parametrize("family", FAMILIES)
def test_sctp_is_published(made: FirewallHost, backend: Backend, family: Family) -> None:
    """An SCTP INIT to a published port arrives at the sandbox's port, another does not."""
    port = Publish(
        family=family,
        protocol="sctp",
        port=8080,
        target=ip_address(address("a1", family)),
        target_port=80,
    )
    backend.do([Create(port)])
    try:
        assert sctp_arrives(made, family, 8080) == 80
        assert sctp_arrives(made, family, 8081) is None
    finally:
        backend.do([Delete(port)])
    assert sctp_arrives(made, family, 8080) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_routed_endpoint_can_be_pinged(made: FirewallHost, family: Family) -> None:
    """Echo requests pass to routed endpoints, not to those behind NAT."""
    ping = ("ping", f"-{family}", "-n", "-c", "1", "-W", "1")

    assert made.outsider.run(*ping, address("e1", family), check=False).returncode == 0
    assert made.outsider.run(*ping, address("a1", family), check=False).returncode != 0


def test_an_endpoint_that_was_allowed_is_marked(made: FirewallHost) -> None:
    """Connections that we let through carry our bit, those of others do not."""
    assert ask([Probe("in", made.outsider, "tcp", FIRST[4], 8080)]) != [""]
    assert ask([Probe("foreign", made.outsider, "tcp", address("x1", 4), 80)]) != [""]

    flows = made.host.run("conntrack", "-L", "-p", "tcp").stdout.splitlines()

    ours = [f for f in flows if f"src={OUTSIDE[4]} dst={FIRST[4]}" in f and "dport=8080" in f]
    others = [f for f in flows if f"dst={address('x1', 4)} " in f and f"src={OUTSIDE[4]}" in f]
    assert ours
    assert all("mark=4096" in flow for flow in ours)
    assert others
    assert all("mark=0" in flow for flow in others)
