"""An overlay network by the library on one host: all verbs, names, repair, on Linux."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from support.frames import SILENCE, listening, says, send
from support.host import Host, Place
from support.names import query, values
from support.overlay import Placed
from support.patience import eventually
from support.resolving import ask
from support.traffic import reachable, serve

from netlib.names import bridge
from netlib.net import Net
from netlib.registry import Registry
from netlib.settings import Backend
from netlib.wiring import SourceGuard, Vxlan

pytestmark = pytest.mark.kernel

MARKS = (
    r"^route anycast",
    r"^nft table (inet netlib|bridge netlib|ip6? (filter|nat|raw))",
    "NETLIB-",
    r"^sysctl .*forwarding=1",
)


@pytest.fixture(params=["nftables", "iptables"])
def net(request: pytest.FixtureRequest, host: Host) -> Iterator[Net]:
    """The library, as on a host that is in a cluster; what it leaves is shared ground."""
    backend: Backend = request.param
    host.outsider()
    registry = Registry({"overlay": Placed()})
    with Net(host.state_dir, firewall=backend, registry=registry) as net:
        yield net
        assert net.check() == ()
        for network in net.networks():
            if network.name == "app":
                net.remove("app", force=True)
    assert not host.leftovers(allow=MARKS)


def boxes(host: Host, net: Net) -> Mapping[str, Place]:
    """Two sandboxes on the network."""
    net.create("app", driver="overlay", subnets=["198.51.100.0/24"], ipv6=True)
    found = {}
    for name in ("web", "db"):
        found[name] = host.sandbox(name)
        net.register_sandbox(name, found[name].netns)
        net.connect("app", name)
    return found


def test_members_find_each_other_by_name_at_the_gateway(host: Host, net: Net) -> None:
    """The resolver listens where the address is that all hosts share."""
    box = boxes(host, net)["web"]
    (db,) = net.endpoints("db")
    assert values(ask(box, query("db"), "198.51.100.1")) == [str(db.addresses[0].ip)]


def test_what_others_break_is_found_and_mended(host: Host, net: Net) -> None:
    """Rules, guards, a neighbour, a port's lock; and traffic goes on."""
    found = boxes(host, net)
    (web,), (db,) = net.endpoints("web"), net.endpoints("db")
    with serve(found["db"], 80):
        to = str(db.addresses[0].ip)
        eventually(lambda: reachable(found["web"], to, 80))
        host.run("nft", "flush", "ruleset")
        host.run("ip", "neigh", "flush", "dev", bridge(web.network), "nud", "permanent")
        port = f"nv-{web.id[:12]}"
        host.run("bridge", "link", "set", "dev", port, "locked", "off")
        assert net.check()
        assert net.repair().failed == ()
        assert net.check() == ()
        eventually(lambda: reachable(found["web"], to, 80))


def test_guards_are_told_among_the_rules_and_go_with_their_endpoint(host: Host, net: Net) -> None:
    """`net rules` says what they are for; what a crash left of them is collected."""
    found = boxes(host, net)
    guards = [fact for fact in net.facts("app") if isinstance(fact.noun, SourceGuard)]
    assert {fact.sandbox for fact in guards} == {"web", "db"}
    assert all(fact.presence == "present" for fact in guards)
    assert "may not send as another" in guards[0].reason

    left = "add element bridge netlib ports { nv-none }"
    host.run("nft", left)
    net.collect_garbage()
    assert "nv-none" not in host.run("nft", "list", "table", "bridge", "netlib").stdout
    net.disconnect("app", "db")
    table = host.run("nft", "list", "table", "bridge", "netlib").stdout
    assert str(net.endpoints("web")[0].addresses[0].ip) in table
    assert len([n for n in net.engine.kernel.marked() if isinstance(n, SourceGuard)]) == 1
    assert found


def test_a_disconnected_sandbox_leaves_its_address_free_for_another(host: Host, net: Net) -> None:
    """Who gets it has the same MAC, and is let through with it."""
    from scapy.all import IP, UDP, Ether

    found = boxes(host, net)
    (db,) = net.endpoints("db")
    net.disconnect("app", "db")
    new = host.sandbox("new")
    net.register_sandbox("new", new.netns)
    again = net.connect("app", "new", addresses=[str(db.addresses[0].ip)])
    (web,) = net.endpoints("web")
    assert again.mac == db.mac
    with listening(found["web"]) as ear:
        source, target = (str(e.addresses[0].ip) for e in (again, web))
        frame = Ether(src=again.mac, dst=web.mac) / IP(src=source, dst=target)
        frame /= UDP(sport=9, dport=9) / b"it is me"
        eventually(lambda: (send(new, frame), ear.hears(says("it is me"), SILENCE))[1])


@pytest.mark.parametrize(
    ("kind", "words"), [("external", "UDP port 4789"), ("id {vni}", "VNI"), ("id 77", "")]
)
def test_who_keeps_a_tunnel_from_being_made_is_named(
    host: Host, net: Net, kind: str, words: str
) -> None:
    """Another's device at the port: one with all VNIs, or with ours; not one beside it."""
    boxes(host, net)
    (tunnel,) = (n for r in net.engine.state.networks() for n in r.wiring if isinstance(n, Vxlan))
    host.run("ip", "link", "del", tunnel.name)
    what = kind.format(vni=tunnel.vni).split()
    host.run("ip", "link", "add", "theirs", "type", "vxlan", *what, "dstport", str(tunnel.port))
    host.run("ip", "link", "set", "theirs", "up")
    told = next(f for f in net.check() if f.subject == "network app")
    failed = net.repair().failed
    if words:
        assert told.note.startswith("the device theirs has")
        assert words in told.note
        assert any(error.hint.startswith(told.note) for _, error in failed)
    else:
        assert not told.note
        assert not failed
    host.run("ip", "link", "del", "theirs")
    net.repair()
