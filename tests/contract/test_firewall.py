"""What every firewall backend promises, on a real kernel."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from support.firewall_host import network_nouns
from support.firewalls import BACKENDS, EVERY_WAY, firewall
from support.host import Host
from support.netns import call_in, new_namespace

from netlib.errors import AlreadyThere, InvalidName, KernelError, NotThere
from netlib.kernel.netfilter.iptables import Iptables
from netlib.kernel.netfilter.nftables import Nftables
from netlib.plan import Change, Create, Delete, Ensure, diff
from netlib.wiring import (
    Allow,
    DnsRedirect,
    FirewallBase,
    Forward,
    Masquerade,
    Noun,
    Open,
    Publish,
    Segment,
    Unmasked,
    VxlanMember,
    VxlanPort,
    Wiring,
)

pytestmark = pytest.mark.kernel

Backend = Nftables | Iptables


@pytest.fixture(params=EVERY_WAY)
def bare(request: pytest.FixtureRequest, host: Host) -> Iterator[Backend]:
    """A backend on a host where it never was."""
    with firewall(request.param, host.state_dir) as made:
        yield made


@pytest.fixture
def backend(bare: Backend) -> Backend:
    """A backend with its base."""
    bare.do([Ensure(FirewallBase())])
    return bare


def port(number: int = 8080, target: str = "198.51.100.2", to: int = 80, **more: object) -> Publish:
    """A published TCP port."""
    address = ip_address(target)
    return Publish(
        family=4 if address.version == 4 else 6,
        protocol="tcp",
        port=number,
        target=address,
        target_port=to,
        **more,  # type: ignore[arg-type]  # fields of Publish
    )


FROM = (ip_network("192.0.2.0/26"), ip_network("203.0.113.7/32"))
NOUNS: list[Noun] = [
    Forward(bridge="nl-a"),
    Forward(bridge="nl-b", within="published", inbound="routed", isolated=False),
    Forward(bridge="nl-c", inbound="drop", outbound="drop", host="gateway"),
    Forward(bridge="nl-d", inbound="allow", inbound6="routed", host="closed"),
    Segment(
        bridge="nl-a",
        prefix=ip_network("198.51.100.0/28"),
        gateway=ip_address("198.51.100.1"),
    ),
    Segment(bridge="nl-a", prefix=ip_network("198.51.100.16/28")),
    Segment(
        bridge="nl-a", prefix=ip_network("2001:db8:a::/64"), gateway=ip_address("2001:db8:a::1")
    ),
    Masquerade(bridge="nl-a", family=4),
    Masquerade(bridge="nl-a", family=6, source=ip_address("2001:db8::9")),
    Unmasked(bridge="nl-a", prefix=ip_network("203.0.113.0/24")),
    Unmasked(bridge="nl-a", prefix=ip_network("2001:db8:c::/64")),
    Unmasked(bridge="nl-c", prefix=ip_network("203.0.113.0/24")),
    Allow(
        source=ip_address("198.51.100.2"), target=ip_address("198.51.100.3"), protocol="tcp", port=5
    ),
    Allow(
        source=ip_address("2001:db8:a::2"),
        target=ip_address("2001:db8:a::3"),
        protocol="udp",
        port=7,
        count=3,
    ),
    port(),
    port(8081, host=ip_address("127.0.0.1")),
    port(8080, "2001:db8:a::2"),
    port(8081, "2001:db8:a::2", host=ip_address("2001:db8::1")),
    port(8082, sources=FROM),
    port(9000, to=9000, count=16),
    port(9100, to=9200, count=4),
    port(9100, "2001:db8:a::2", 9200, count=4),
    port(9300, to=9300, count=10, sources=FROM),
    port(9400, to=80, count=2, sources=FROM, host=ip_address("192.0.2.1")),
    Publish(family=4, protocol="udp", port=53, target=ip_address("198.51.100.2"), target_port=53),
    Publish(family=4, protocol="sctp", port=53, target=ip_address("198.51.100.2"), target_port=53),
    Open(protocol="tcp", target=ip_address("198.51.100.2"), port=80),
    Open(protocol="udp", target=ip_address("2001:db8:a::2"), port=80, count=3),
    Open(protocol="tcp", target=ip_address("198.51.100.3"), port=1, count=65535, sources=FROM),
    DnsRedirect(bridge="nl-a", gateway=ip_address("198.51.100.1"), port=5353),
    DnsRedirect(bridge="nl-a", gateway=ip_address("2001:db8:a::1"), port=5353),
    VxlanPort(port=4789),
    VxlanPort(port=8472),
    VxlanMember(address=ip_address("192.0.2.1"), port=4789),
    VxlanMember(address=ip_address("192.0.2.2"), port=4789),
    VxlanMember(address=ip_address("2001:db8::2"), port=4789),
]


def test_every_noun_is_there_as_it_was_made(backend: Backend) -> None:
    """What was created is observed as it is, and known without being named."""
    assert backend.observe(NOUNS) == []

    backend.do([Create(noun) for noun in NOUNS])

    assert backend.observe(NOUNS) == NOUNS
    assert {noun.key(): noun for noun in backend.marked()} == {n.key(): n for n in NOUNS}


def test_nothing_is_left_when_every_noun_is_deleted(backend: Backend) -> None:
    """Deleting what was created leaves the base as it was."""
    backend.do([Create(noun) for noun in NOUNS])

    backend.do([Delete(noun) for noun in reversed(NOUNS)])

    assert backend.marked() == []
    assert backend.observe([FirewallBase()]) == [FirewallBase()]


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: f"{type(noun).__name__}")
def test_one_noun_goes_without_its_neighbours(backend: Backend, noun: Noun) -> None:
    """Each noun comes and goes by itself, and can be made again."""
    rest = [other for other in NOUNS if other != noun]
    backend.do([Create(other) for other in NOUNS])

    backend.do([Delete(noun)])
    assert backend.observe(NOUNS) == rest

    backend.do([Create(noun)])
    assert {n.key() for n in backend.observe(NOUNS)} == {n.key() for n in NOUNS}


def test_without_a_base_nothing_can_be_made(bare: Backend) -> None:
    """The error says how to get the base back."""
    with pytest.raises(KernelError, match="gone") as caught:
        bare.do([Create(port())])

    assert "net repair" in caught.value.hint
    assert bare.observe([FirewallBase(), port()]) == []
    assert bare.marked() == []


def test_removing_without_a_base_is_fine(bare: Backend) -> None:
    """What is gone is gone, however it went."""
    bare.remove([Delete(noun) for noun in NOUNS])
    bare.remove_all()


def test_a_fact_with_another_value_is_refused(backend: Backend) -> None:
    """A live port is never led elsewhere by a Create; all of the transaction is refused."""
    backend.do([Create(port())])

    with pytest.raises(AlreadyThere, match="8080"):
        backend.do([Create(Forward(bridge="nl-z")), Create(port(target="198.51.100.3"))])

    assert backend.observe([port(), Forward(bridge="nl-z")]) == [port()]


def test_deleting_what_is_absent_is_refused(backend: Backend) -> None:
    """All of the transaction is refused."""
    backend.do([Create(port())])

    with pytest.raises(NotThere, match="8081"):
        backend.do([Delete(port()), Delete(port(8081))])

    assert backend.observe([port()]) == [port()]


def test_changing_what_is_absent_is_refused(backend: Backend) -> None:
    """A change is of something."""
    with pytest.raises(NotThere, match="8081"):
        backend.do([Change(port(8081), port(8081, "198.51.100.3"))])

    assert backend.marked() == []


def test_a_removal_takes_what_is_there(backend: Backend) -> None:
    """Some of the nouns are gone already."""
    backend.do([Create(noun) for noun in NOUNS[::2]])

    backend.remove([Delete(noun) for noun in NOUNS])

    assert backend.marked() == []


CHANGES = [
    (port(), port(target="198.51.100.3")),
    (port(), port(sources=FROM)),
    (port(sources=FROM), port(sources=FROM[:1])),
    (port(9000, to=9000, count=4), port(9000, to=9000, count=8)),
    (port(9000, to=9000, count=4), port(9000, to=9100, count=3)),
    (
        Forward(bridge="nl-a"),
        Forward(bridge="nl-a", within="published", inbound="routed", isolated=False),
    ),
    (
        Forward(bridge="nl-a", inbound="drop", outbound="drop", host="gateway"),
        Forward(bridge="nl-a"),
    ),
    (
        Masquerade(bridge="nl-a", family=4),
        Masquerade(bridge="nl-a", family=4, source=ip_address("192.0.2.10")),
    ),
    (
        Open(protocol="tcp", target=ip_address("198.51.100.2"), port=80),
        Open(protocol="tcp", target=ip_address("198.51.100.2"), port=80, sources=FROM),
    ),
    (
        Segment(bridge="nl-a", prefix=ip_network("198.51.100.0/28")),
        Segment(
            bridge="nl-a",
            prefix=ip_network("198.51.100.0/28"),
            gateway=ip_address("198.51.100.1"),
        ),
    ),
]


@pytest.mark.parametrize(("old", "new"), CHANGES, ids=lambda noun: type(noun).__name__)
def test_a_change_is_made_and_taken_back(backend: Backend, old: Noun, new: Noun) -> None:
    """Nothing of the old stays, nothing of the new is missing; both ways."""
    backend.do([Create(old)])

    backend.do([Change(old, new)])
    assert backend.observe([old]) == [new]
    assert backend.marked() == [new]

    backend.do([Change(new, old)])
    assert backend.marked() == [old]


def test_what_lost_a_part_can_be_repaired(backend: Backend, host: Host) -> None:
    """Diff of observed and wanted leads to what is wanted, whatever was taken away."""
    wanted = network_nouns()
    backend.do([Create(noun) for noun in wanted])
    if isinstance(backend, Nftables):
        host.run("nft", "delete element inet netlib same { nl-b . nl-b }")
        host.run("nft", "delete element inet netlib inbound { ipv4 . nl-e }")
        host.run("nft", "flush set inet netlib guard4")
        host.run("nft", "flush map inet netlib range6")
    else:
        program = f"iptables-{backend.variant}"
        host.run(program, "-F", "NETLIB-SAME")
        host.run(program, "-D", "NETLIB-TO", "-o", "nl-e", "-j", "NETLIB-ROUTED")
        host.run(program, "-t", "nat", "-F", "NETLIB-RANGES")
        host.run(program, "-t", "nat", "-F", "NETLIB-TCP-1f9")
    there = backend.observe(wanted)
    assert there != wanted

    for stage in diff(have=Wiring(there), want=Wiring(wanted)).stages:
        backend.do(stage.steps)

    assert set(backend.observe(wanted)) == set(wanted)


def test_the_base_is_seen_to_be_broken_and_made_again(backend: Backend, host: Host) -> None:
    """A chain that somebody emptied is noticed; facts and NETLIB-USER survive the repair."""
    backend.do([Create(noun) for noun in NOUNS])
    if isinstance(backend, Nftables):
        host.run("nft", "add rule inet netlib NETLIB-USER ip saddr 203.0.113.9 drop")
        host.run("nft", "flush chain inet netlib allow")
    else:
        program = f"iptables-{backend.variant}"
        host.run(program, "-A", "NETLIB-USER", "-s", "203.0.113.9", "-j", "DROP")
        host.run(program, "-F", "NETLIB-ALLOW")
    assert backend.observe([FirewallBase()]) == []

    backend.do([Ensure(FirewallBase())])

    assert backend.observe([FirewallBase()]) == [FirewallBase()]
    assert backend.observe(NOUNS) == NOUNS
    assert "203.0.113.9" in _rules(backend, host)


def test_ensuring_twice_changes_nothing(backend: Backend, host: Host) -> None:
    """The base is shared: everybody ensures it."""
    backend.do([Create(noun) for noun in NOUNS])
    before = _rules(backend, host)

    backend.do([Ensure(FirewallBase())])

    assert _rules(backend, host) == before


def test_an_uninstall_leaves_what_the_administrator_wrote(backend: Backend, host: Host) -> None:
    """All that is ours goes, but rules in NETLIB-USER and what they lead to."""
    backend.do([Create(noun) for noun in NOUNS])
    if isinstance(backend, Nftables):
        host.run("nft", "add rule inet netlib NETLIB-USER ip saddr 203.0.113.9 goto allow")
    else:
        host.run(
            f"iptables-{backend.variant}",
            "-A",
            "NETLIB-USER",
            "-s",
            "203.0.113.9",
            "-j",
            "NETLIB-ALLOW",
        )

    backend.remove_all()
    assert "203.0.113.9" in _rules(backend, host)
    assert backend.marked() == []

    if isinstance(backend, Nftables):
        host.run("nft", "flush chain inet netlib NETLIB-USER")
    else:
        host.run(f"iptables-{backend.variant}", "-F", "NETLIB-USER")
    backend.remove_all()
    assert not backend.is_there()
    assert "netlib" not in _rules(backend, host).lower()


def test_it_acts_where_it_was_made(backend: Backend) -> None:
    """Whatever namespace the calling thread is in."""
    elsewhere = new_namespace()

    call_in(elsewhere, lambda: backend.do([Create(port())]))

    assert backend.observe([port()]) == [port()]
    assert call_in(elsewhere, lambda: backend.observe([port()])) == [port()]


def test_many_threads_may_use_it(backend: Backend) -> None:
    """No change is lost, and none is done twice."""
    ports = [port(8080 + i) for i in range(32)]
    failures: list[BaseException] = []

    def work(mine: list[Publish]) -> None:
        try:
            for one in mine:
                backend.do([Create(one)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(ports[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert set(backend.marked()) == set(ports)


@pytest.mark.parametrize("name", BACKENDS)
def test_two_processes_share_the_chains(host: Host, name: str) -> None:
    """Two backends of one host see and keep each other's facts."""
    with firewall(name, host.state_dir) as one, firewall(name, host.state_dir) as other:
        one.do([Ensure(FirewallBase())])
        one.do([Create(port(8080))])
        other.do([Create(port(8081))])
        one.do([Delete(port(8080))])

        assert other.marked() == [port(8081)]


def test_a_device_that_means_several_is_refused(backend: Backend) -> None:
    """`br+` and `br*` would match other devices too."""
    for name in ("br+", "br*", 'b"r', "-br", "b r"):
        with pytest.raises(InvalidName):
            backend.do([Create(Forward(bridge=name))])


def _rules(backend: Backend, host: Host) -> str:
    if isinstance(backend, Nftables):
        return host.run("nft", "list", "ruleset").stdout
    rows = [
        row
        for program in ("iptables", "ip6tables")
        for row in host.run(f"{program}-{backend.variant}-save").stdout.splitlines()
    ]
    return "\n".join(row.split(" [")[0] for row in rows if not row.startswith("#"))
