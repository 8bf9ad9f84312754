"""nf_tables spoken to directly: elements, a look at the base, and whose change it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from support.firewall_host import network_nouns
from support.host import Host

from netlib.frontends.daemon.news import RuleNews
from netlib.kernel.netfilter import detect
from netlib.kernel.netfilter.libnftables import NftFailed
from netlib.kernel.netfilter.nftables import Nftables
from netlib.plan import Change, Create, Delete, Ensure, Step
from netlib.wiring import Allow, DnsRedirect, FirewallBase, Noun, Open, Publish, Unmasked

pytestmark = pytest.mark.kernel

V4, V6 = ip_address("198.51.100.2"), ip_address("2001:db8::2")
SOURCES = (ip_network("192.0.2.0/24"),)
NOUNS: tuple[Noun, ...] = (
    *network_nouns(),
    *(
        Publish(family=family, protocol=protocol, host=host, port=port, count=count,
                target=target, target_port=inside, sources=sources)
        for family, target, source, own in (
            (4, V4, ip_network("192.0.2.0/24"), ip_address("192.0.2.1")),
            (6, V6, ip_network("2001:db8:2::/64"), ip_address("2001:db8:2::1")),
        )
        for protocol, host, port, count, inside, sources in (
            ("tcp", None, 8080, 1, 80, ()),
            ("udp", own, 8080, 1, 80, ()),
            ("sctp", None, 9000, 10, 9000, ()),
            ("tcp", own, 9100, 3, 100, ()),
            ("tcp", None, 9200, 1, 80, (source,)),
            ("tcp", None, 9300, 5, 9300, (source,)),
        )
    ),
    Open(protocol="tcp", target=V4, port=80, count=2, sources=SOURCES),
    Open(protocol="udp", target=V6, port=53, count=1, sources=()),
    Allow(source=V4, target=ip_address("198.51.100.3"), protocol="tcp", port=80, count=1),
    DnsRedirect(bridge="nl-a", gateway=ip_address("198.51.100.1"), port=5353),
    Unmasked(bridge="nl-a", prefix=ip_network("203.0.113.0/24")),
)  # fmt: skip


@pytest.fixture
def firewall(host: Host) -> Iterator[Nftables]:
    """Nftables with its base."""
    chosen = detect.choose("nftables", lock_dir=host.state_dir)
    assert isinstance(chosen, Nftables)
    chosen.do([Ensure(FirewallBase())])
    yield chosen
    chosen.close()


def handles(host: Host) -> set[tuple[str, int]]:
    """Which rules our table has: one that is made again has another handle."""
    listed = json.loads(host.run("nft", "-j", "list", "table", "inet", "netlib").stdout)
    rules = [thing["rule"] for thing in listed["nftables"] if "rule" in thing]
    return {(rule["chain"], rule["handle"]) for rule in rules}


def test_every_fact_is_packed_as_nft_reads_it(
    firewall: Nftables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No fact takes the slow road, and nft finds what it would have made."""

    def refuse(commands: str) -> None:
        raise NftFailed(f"nobody should have asked nft: {commands}")

    monkeypatch.setattr(firewall.nft, "run", refuse)
    for noun in NOUNS:
        firewall.do([Create(noun)])
        assert firewall.observe([noun]) == [noun]
        assert firewall.marked() == [noun]
        firewall.do([Delete(noun)])
        assert firewall.marked() == []


def test_a_refused_transaction_is_explained_and_does_nothing(firewall: Nftables) -> None:
    """All or none, and the next one goes well."""
    there, new, absent = NOUNS[-3:]
    firewall.do([Create(there)])
    with pytest.raises(Exception, match="is not there"):
        firewall.do([Create(new), Delete(absent)])
    assert firewall.marked() == [there]
    firewall.do([Create(new)])
    assert {type(noun) for noun in firewall.marked()} == {type(there), type(new)}


def test_hundreds_of_ports_are_one_transaction_whose_answers_find_room(firewall: Nftables) -> None:
    """Each message is acknowledged, and the receive buffer holds less than 300 of those."""
    ports: list[Step] = [
        Create(Publish(family=family, protocol="tcp", host=None, port=port, count=1,
                       target=target, target_port=80, sources=()))
        for port in range(9000, 9300)
        for family, target in ((4, V4), (6, V6))
    ]  # fmt: skip
    firewall.do(ports)
    assert len(firewall.marked()) == len(ports)
    firewall.do([Delete(step.noun) for step in ports])
    assert firewall.marked() == []


def test_others_rules_do_not_have_the_base_made_again(host: Host, firewall: Nftables) -> None:
    """Making it again would wait for every reader of the rules; a chain that drops is passed."""
    before = handles(host)
    firewall.do([Create(noun) for noun in network_nouns()])
    host.run("iptables-nft", "-A", "FORWARD", "-s", "203.0.113.0/24", "-j", "DROP")
    firewall.do([Ensure(FirewallBase())])
    assert "netlib" not in host.run("iptables-nft", "-S", "FORWARD").stdout
    for refusal in ("-P FORWARD DROP", "-A INPUT -j REJECT"):
        host.run("iptables-nft", *refusal.split())
        firewall.do([Ensure(FirewallBase())])
        chain = refusal.split()[1]
        assert "--comment netlib" in host.run("iptables-nft", "-S", chain).stdout
    assert handles(host) == before


@pytest.mark.parametrize(
    "damage",
    [
        "flush chain inet netlib forward",
        "delete chain inet netlib guard",
        "flush set inet netlib fingerprint",
        "flush ruleset",
        "add rule inet netlib forward counter drop",
        "chain inet netlib forward { policy drop; }",
    ],
)
def test_a_damaged_base_is_made_again(host: Host, firewall: Nftables, damage: str) -> None:
    """Whatever of it was touched."""
    host.run("nft", damage)
    firewall.do([Ensure(FirewallBase())])
    assert firewall.observe([FirewallBase()]) == [FirewallBase()]
    assert "counter drop" not in host.run("nft", "list", "table", "inet", "netlib").stdout


def test_the_administrators_chain_is_not_the_base(host: Host, firewall: Nftables) -> None:
    """What stands there is his business, and no reason to make anything again."""
    before = handles(host)
    host.run("nft", "add rule inet netlib NETLIB-USER counter")
    firewall.do([Ensure(FirewallBase())])
    assert before < handles(host)


def test_the_watch_knows_our_own_deletions(host: Host, firewall: Nftables) -> None:
    """Or each disconnect would have the daemon read all that there is."""
    news = host.call(RuleNews)
    noun, other = NOUNS[-2:]
    step: Step
    for step in (Create(noun), Change(noun, noun), Delete(noun)):
        firewall.do([step])
    assert not news.read(frozenset(), firewall.senders())
    firewall.do([Create(other)])
    host.run("nft", "flush set inet netlib unmasked4")
    assert news.read(frozenset(), firewall.senders())
    news.sock.close()
