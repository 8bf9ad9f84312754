"""The whole: what connect and disconnect do shows in the next query."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal, TypeVar

import pytest
from support.host import OUTSIDER4, Host
from support.names import query, rcode, values
from support.patience import eventually
from support.resolving import ask, ask_tcp
from support.traffic import Somewhere
from support.upstream import Behaviour, echo, records, upstream

from netlib import Net
from netlib.dns.client import Resolver
from netlib.errors import InvalidOption, NoSuchSandbox, PortTaken
from netlib.kernel.linux import LinuxKernel
from netlib.model import Endpoint, Network
from netlib.plan import Stage, Step
from netlib.records import EndpointRecord
from netlib.state import State

pytestmark = pytest.mark.kernel


T = TypeVar("T")
PREFIXES = {"front": "198.51.100", "back": "203.0.113"}


class Box:
    """A sandbox's namespace as a place to ask from."""

    def __init__(self, host: Host, net: Net, name: str, servers: Iterable[str] = ()) -> None:
        place = host.sandbox(name)
        net.register_sandbox(name, place.netns, servers=servers)
        self.call = place.call


@pytest.fixture
def net(host: Host) -> Iterator[Net]:
    """The library on this host."""
    with Net(host.state_dir) as net:
        yield net


def gateway(network: Network) -> str:
    """Where its members ask."""
    return str(network.gateways()[0].ip)


def address(endpoint: Endpoint) -> str:
    """Its IPv4 address."""
    found = endpoint.address(4)
    assert found is not None
    return str(found.ip)


def test_a_connect_shows_in_the_next_query(host: Host, net: Net) -> None:
    """And a disconnect; nothing is waited for."""
    my_net = net.create("my-net", subnets=["198.51.100.0/24"])
    web, db = Box(host, net, "web"), Box(host, net, "db")
    net.connect("my-net", "web")
    for _ in range(5):
        assert told(web, "db", gateway(my_net)) == []
        endpoint = net.connect("my-net", "db", aliases=["store"])
        assert told(web, "db", gateway(my_net)) == [address(endpoint)]
        assert told(web, "store.my-net", gateway(my_net)) == [address(endpoint)]
        assert told(db, "web", gateway(my_net)) != []
        net.disconnect("my-net", "db")


def test_who_asks_while_a_network_goes_misses_no_network(
    host: Host, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks where it would have a moment ago."""
    for name in ("front", "back"):
        net.create(name, subnets=[f"{PREFIXES[name]}.0/24"])
    Box(host, net, "web")
    net.connect("front", "web")
    net.connect("back", "web")
    endpoints_of = State.endpoints_of

    def and_then_one_goes(state: State, sandbox: str) -> list[EndpointRecord]:
        found = endpoints_of(state, sandbox)
        monkeypatch.undo()
        going = threading.Thread(target=go)
        going.start()
        going.join()
        return found

    def go() -> None:
        with Net(host.state_dir) as other:
            other.disconnect("back", "web")
            other.remove("back")

    monkeypatch.setattr(State, "endpoints_of", and_then_one_goes)
    assert net.ask("web", sandbox="web").server == "198.51.100.1"


def told(box: Somewhere, name: str, server: str) -> list[str]:
    """The addresses of a name; none where it is not known."""
    answer = ask(box, query(name), server)
    assert rcode(answer) in ("NOERROR", "SERVFAIL", "NXDOMAIN")
    return values(answer)


def test_only_shared_networks_are_seen(host: Host, net: Net) -> None:
    """A sandbox on two networks sees both, the others one each."""
    front = net.create("front", subnets=["198.51.100.0/25"])
    back = net.create("back", subnets=["198.51.100.128/25"])
    web, api, db = (Box(host, net, name) for name in ("web", "api", "db"))
    net.connect("front", "web")
    both = [net.connect("front", "api"), net.connect("back", "api")]
    net.connect("back", "db")

    assert told(web, "db", gateway(front)) == []
    assert told(db, "web", gateway(back)) == []
    assert told(api, "db", gateway(front)) != []
    assert told(api, "web", gateway(back)) != []
    assert told(web, "api", gateway(front)) == [address(both[0])]
    assert told(db, "api", gateway(back)) == [address(both[1])]
    assert told(api, "api", gateway(back)) == [address(both[1]), address(both[0])]


def test_what_is_outside_is_forwarded_unless_the_network_is_internal(host: Host, net: Net) -> None:
    """By the sandbox's own servers, where it has some."""
    outside = host.outsider()
    web = Box(host, net, "web", servers=[OUTSIDER4])
    open_net = net.create("open-net", subnets=["198.51.100.0/25"])
    closed = net.create("closed", subnets=["198.51.100.128/25"], internal=True)
    net.connect("open-net", "web")
    with upstream(outside, OUTSIDER4, echo()) as server:
        assert told(web, "www.example.com", gateway(open_net)) == ["203.0.113.7"]
        net.disconnect("open-net", "web")
        net.connect("closed", "web")
        assert rcode(ask(web, query("other.example.com"), gateway(closed))) == "NXDOMAIN"
        assert len(server.asked) == 1


def test_who_is_on_an_open_network_too_finds_what_is_outside(host: Host, net: Net) -> None:
    """Whichever of the gateways it asks: the first in its resolv.conf is the internal one's."""
    outside = host.outsider()
    closed = net.create("closed", subnets=["198.51.100.0/25"], internal=True)
    net.create("open-net", subnets=["198.51.100.128/25"], servers=[OUTSIDER4])
    web, db = Box(host, net, "web"), Box(host, net, "db")
    net.connect("closed", "web")
    net.connect("open-net", "web")
    net.connect("closed", "db")
    with upstream(outside, OUTSIDER4, echo()):
        assert net.ask("www.example.com", sandbox="web").answers[0].data == "203.0.113.7"
        assert told(web, "www.example.com", gateway(closed)) == ["203.0.113.7"]
        assert rcode(ask(db, query("www.example.com"), gateway(closed))) == "NXDOMAIN"
        net.disconnect("open-net", "web")
        assert rcode(ask(web, query("www.example.com"), gateway(closed))) == "NXDOMAIN"


def test_a_sandboxs_own_servers_are_asked_from_where_it_is(host: Host, net: Net) -> None:
    """Its loopback is its own; another's of the same address says what it likes. Over TCP too."""
    my_net = net.create("my-net", subnets=["198.51.100.0/24"])
    boxes = [Box(host, net, name, servers=["127.0.0.1"]) for name in ("web", "db")]
    for name in ("web", "db"):
        net.connect("my-net", name)

    def says(address: str) -> Behaviour:
        many = [f"big.example.com. 60 IN A {address}"] * 90
        whole = records(*many)
        return lambda asked, tcp: (
            echo(address) if "big" not in str(asked.q.qname) else whole if tcp else records(tc=1)
        )(asked, tcp)

    def heard(sandbox: str, name: str) -> set[str]:
        return {record.data for record in net.ask(name, sandbox=sandbox).answers}

    with (
        upstream(boxes[0], "127.0.0.1", says("203.0.113.1")) as first,
        upstream(boxes[1], "127.0.0.1", says("203.0.113.2")),
        upstream(host, "127.0.0.1", says("203.0.113.3")),
    ):
        for name in ("www.example.com", "www.example.com", "big.example.com"):
            assert heard("web", name) == {"203.0.113.1"}
            assert heard("db", name) == {"203.0.113.2"}
        assert len(first.asked) == 3, "what one was told is kept for it"
        # Many at once, and across the death of the server's process.
        names = [f"n{n}.example.com" for n in range(100)]
        answers = ask_tcp(boxes[0], *map(query, names), server=gateway(my_net))
        assert {values(answer)[0] for answer in answers} == {"203.0.113.1"}
        stats = Resolver(host.state_dir).stats()
        assert stats is not None
        os.kill(stats["pid"], signal.SIGKILL)
        assert heard("web", "after.example.com") == {"203.0.113.1"}
    assert net.ask("nobody.example.com", sandbox="web").code == "SERVFAIL"


@pytest.mark.parametrize("busy", [False, True], ids=["port 53", "another port"])
def test_a_sandbox_that_is_given_its_own_gateway_is_no_circle(
    host: Host, net: Net, busy: bool
) -> None:
    """It asks us already, and we whom the network has; where port 53 is redirected to us, too."""
    with ExitStack() as closing:
        if busy:
            taken = closing.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            taken.bind(("0.0.0.0", 53))
        closing.enter_context(upstream(host.outsider(), OUTSIDER4, echo()))
        net.create("my-net", subnets=["198.51.100.0/24"], servers=[OUTSIDER4])
        Box(host, net, "web", servers=["198.51.100.1"])
        net.connect("my-net", "web")
        told = net.ask("www.example.com", sandbox="web")
        assert [record.data for record in told.answers] == ["203.0.113.7"]
        net.create("back", subnets=["198.51.101.0/24"])
        net.connect("back", "web")  # likewise from another one's gateway
        net.disconnect("my-net", "web")
        net.connect("my-net", "web")
        told = net.ask("www2.example.com", sandbox="web")
        assert [record.data for record in told.answers] == ["203.0.113.7"]


def test_names_outlive_their_server_and_end_with_their_networks(host: Host, net: Net) -> None:
    """Its death is noticed; the last network takes the processes along."""
    my_net = net.create("my-net", subnets=["198.51.100.0/24"])
    web = Box(host, net, "web")
    endpoint = net.connect("my-net", "web")
    resolver = Resolver(host.state_dir)
    stats = resolver.stats()
    assert stats is not None
    os.kill(stats["pid"], signal.SIGKILL)
    assert told(web, "web", gateway(my_net)) == [address(endpoint)]

    net.disconnect("my-net", "web")
    net.remove("my-net")

    eventually(lambda: resolver.stats() is None)
    eventually(lambda: not Path(f"/proc/{stats['keeper_pid']}").exists())


def test_an_older_state_that_was_put_back_is_what_is_told(host: Host, net: Net) -> None:
    """Not what had come since, and then what comes from there on."""
    my_net = net.create("my-net", subnets=["198.51.100.0/24"])
    web = Box(host, net, "web")
    Box(host, net, "db")
    net.connect("my-net", "web")
    file, copy = host.state_dir / "state.db", host.state_dir / "copy.db"
    with closing(sqlite3.connect(file)) as now, closing(sqlite3.connect(copy)) as then:
        now.backup(then)
    net.connect("my-net", "db", aliases=["lost"])
    assert told(web, "lost", gateway(my_net)) != []

    for log in ("state.db-wal", "state.db-shm"):
        (host.state_dir / log).unlink()
    copy.rename(file)

    eventually(lambda: told(web, "lost", gateway(my_net)) == [])
    assert told(web, "web", gateway(my_net)) != []
    net.repair()  # the link that came meanwhile is of no endpoint now
    net.connect("my-net", "db", aliases=["again"])
    assert told(web, "again", gateway(my_net)) != []


def test_custom_records_of_a_network(host: Host, net: Net) -> None:
    """`--dns-record`."""
    my_net = net.create("my-net", subnets=["198.51.100.0/24"], records=["ns1 A 203.0.113.9"])
    web = Box(host, net, "web")
    net.connect("my-net", "web")
    assert told(web, "ns1", gateway(my_net)) == ["203.0.113.9"]


def test_a_custom_record_that_is_none_is_refused(host: Host, net: Net) -> None:
    """Before anything is made."""
    with pytest.raises(InvalidOption, match="no DNS record"):
        net.create("my-net", records=["ns1 A nowhere"])
    assert "my-net" not in [network.name for network in net.networks()]


def test_a_published_port_is_found_as_a_service(host: Host, net: Net) -> None:
    """While it is published."""
    my_net = net.create("my-net", subnets=["198.51.100.0/24"])
    web, _ = Box(host, net, "web"), Box(host, net, "db")
    net.connect("my-net", "web")
    net.connect("my-net", "db", publish=["15432:5432"])

    def services(port: int) -> list[str]:
        return values(ask(web, query(f"_{port}._tcp.db", "SRV"), gateway(my_net)))

    assert services(5432) == ["0 0 5432 db.my-net."]
    net.publish("db", ["19000:9000"])
    assert services(9000) == ["0 0 9000 db.my-net."]
    net.unpublish("db", ["15432:5432"])
    assert services(5432) == []


def test_a_network_may_have_name_servers_of_its_own(host: Host, net: Net) -> None:
    """From its creation on or later; who takes them away gets the host's again."""
    my_net = net.create("my-net", subnets=["198.51.100.0/24"], servers=["192.0.2.99"])
    web = Box(host, net, "web")
    net.connect("my-net", "web")
    with upstream(host.outsider(), OUTSIDER4, echo()):
        changed = net.update("my-net", add_servers=[OUTSIDER4], drop_servers=["192.0.2.99"])
        assert changed.servers == (OUTSIDER4,)
        assert told(web, "www.example.com", gateway(my_net)) == ["203.0.113.7"]
    assert net.update("my-net", drop_servers=[OUTSIDER4]).servers == ()
    with pytest.raises(InvalidOption, match="has no name server"):
        net.update("my-net", drop_servers=["192.0.2.99"])
    with pytest.raises(InvalidOption, match="no address"):
        net.update("my-net", add_servers=["dns.example.com"])


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_a_published_name_server_answers_for_the_host_and_ours_for_names(
    host: Host, firewall: Literal["nftables", "iptables"]
) -> None:
    """One that publishes port 53 of all addresses gets no question that is for a gateway."""
    with Net(host.state_dir, firewall=firewall) as net:
        Box(host, net, "server")
        net.connect("bridge", "server", publish=["53:53/udp", "53:53/tcp"])
        my_net = net.create("my-net", subnets=["198.51.100.0/24"])
        web = Box(host, net, "web")
        endpoint = net.connect("my-net", "web")

        assert told(web, "web", gateway(my_net)) == [address(endpoint)]
        (by_tcp,) = ask_tcp(web, query("web"), server=gateway(my_net))
        assert values(by_tcp) == [address(endpoint)]
        assert not net.check()


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_a_host_with_a_name_server_of_its_own_keeps_it(
    host: Host, firewall: Literal["nftables", "iptables"]
) -> None:
    """It has port 53 of all addresses; sandboxes ask port 53 of their gateway all the same."""
    busy = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with busy, Net(host.state_dir, firewall=firewall) as net:
        busy.bind(("0.0.0.0", 53))
        my_net = net.create("my-net", subnets=["198.51.100.0/24"])
        web = Box(host, net, "web")
        endpoint = net.connect("my-net", "web")

        assert my_net.dns_port != 53
        assert told(web, "web", gateway(my_net)) == [address(endpoint)]
        (by_tcp,) = ask_tcp(web, query("web"), server=gateway(my_net))
        assert values(by_tcp) == [address(endpoint)]
        net.disconnect("my-net", "web")
        net.remove("my-net")


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_a_sandbox_may_publish_port_53(
    host: Host, firewall: Literal["nftables", "iptables"]
) -> None:
    """Who asks the host is answered by it, and members who ask their gateway by the resolver."""
    outside = host.outsider()
    with Net(host.state_dir, firewall=firewall) as net:
        old = net.create("old", subnets=["198.51.100.0/25", "2001:db8:5::/64"])
        web, dns = Box(host, net, "web"), Box(host, net, "dns")
        endpoint = net.connect("old", "web")
        net.connect("old", "dns")
        assert net.plan.publish("dns", ["53:53/udp"]).stages
        net.publish("dns", ["53:53/udp", "53:53/tcp"])
        new = net.create("new", subnets=["198.51.100.128/25"])
        net.connect("new", "web")

        with upstream(dns, "0.0.0.0", echo("203.0.113.9")):
            for place, server in ((outside, "192.0.2.1"), (web, "192.0.2.1")):
                assert values(ask(place, query("www.example.com"), server)) == ["203.0.113.9"]
                (by_tcp,) = ask_tcp(place, query("www.example.com"), server=server)
                assert values(by_tcp) == ["203.0.113.9"]
            for network in (old, new):
                for at in network.gateways():
                    assert address(endpoint) in told(web, "web", str(at.ip))
        assert net.check() == ()
        net.unpublish("dns", ["53:53/udp", "53:53/tcp"])
        assert told(web, "dns", gateway(old)) != []
        assert net.create("last", subnets=["203.0.113.0/24"]).dns_port == 53
        for name in ("web", "dns"):
            net.remove_sandbox(name)
        for name in ("old", "new", "last"):
            net.remove(name)


def test_a_plan_tells_that_the_resolver_moves(
    host: Host, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has just what is done then, and moves nothing; also when a sandbox is to be connected."""
    networks = [net.create(name, subnets=[f"{prefix}.0/24"]) for name, prefix in PREFIXES.items()]
    for name in ("web", "dns"):
        net.create_sandbox(name)
    net.connect("front", "dns")
    asked = ["53:53/udp", "53:53/tcp"]
    sequence = net.plan.in_sequence()
    planned = [net.plan.publish("dns", asked), sequence.publish("dns", asked)]
    joining = [
        plans.connect("back", "web", publish=asked) for plans in (net.plan, net.plan.in_sequence())
    ]
    for plan in (*planned, *joining):
        assert plan.text().count("# move the name server of network") == 2
    assert [net.inspect(network.id).network.dns_port for network in networks] == [53, 53]
    done: list[Step] = []
    for way in ("do", "begin"):
        act = getattr(LinuxKernel, way)

        def noting(kernel: LinuxKernel, stage: Stage, act: Callable[..., T] = act) -> T:
            done.extend(stage.steps)
            return act(kernel, stage)

        monkeypatch.setattr(LinuxKernel, way, noting)
    net.publish("dns", asked)
    assert [net.inspect(network.id).network.dns_port for network in networks] == [5301, 5301]
    for plan in planned:
        assert sorted(map(repr, plan.steps())) == sorted(map(repr, done))


def test_a_port_53_that_can_not_be_published_moves_nobody(host: Host, net: Net) -> None:
    """All or nothing: what is asked for is thought through first."""
    my_net = net.create("my-net", subnets=["198.51.100.0/24"])
    net.create_sandbox("web")
    net.connect("my-net", "web", publish=["8080:80"])
    for ports in (["53:53/udp", "53:54/udp"], ["53:53", "8080:81"]):
        with pytest.raises(PortTaken):
            net.publish("web", ports)
    with pytest.raises(NoSuchSandbox):
        net.connect("my-net", "nobody", publish=["53:53"])
    assert net.inspect("my-net").network.dns_port == 53
    assert net.ask("web", sandbox="web").server == gateway(my_net)


def test_a_published_port_53_of_one_address_moves_nobody(host: Host, net: Net) -> None:
    """Gateways have others; one of theirs is the resolver's, unless it is asked for."""
    host.outsider()
    my_net = net.create("my-net", subnets=["198.51.100.0/24"])
    Box(host, net, "web")
    net.connect("my-net", "web", publish=["192.0.2.1:53:53/udp", "50-60:50-60/sctp"])
    assert net.inspect("my-net").network.dns_port == 53
    net.publish("web", [f"{gateway(my_net)}:50-53:50-53/udp"])
    assert net.inspect("my-net").network.dns_port == 5301


@pytest.mark.parametrize("mode", ["nat", "isolated"])
def test_a_subnet_that_comes_later_turns_no_sandbox_to_a_gateway_out_of_its_reach(
    host: Host, net: Net, mode: str
) -> None:
    """Who is there goes on asking where it asked; who comes asks at the gateways of its own."""
    net.create(
        "my-net",
        subnets=["198.51.100.0/24"],
        internal=True,
        options={"gateway_mode_ipv4": mode},
    )
    other = net.create("other", subnets=["192.0.2.128/25"])
    net.create_sandbox("web")
    net.connect("my-net", "web")
    files = net.files_of("web")
    before = {path.name: path.read_text() for path in files.iterdir()}
    net.update("my-net", subnets=["2001:db8:7::/64"])
    net.update("my-net", subnets=["203.0.113.0/24"])
    net.create_sandbox("db")
    net.connect("my-net", "db", addresses=["203.0.113.9"])
    assert net.ask("db", sandbox="web").code == "NOERROR"
    assert net.ask("web", "AAAA", sandbox="db").code == "NOERROR"
    assert net.check() == ()
    net.connect("other", "web")
    net.disconnect("other", "web")
    assert {path.name: path.read_text() for path in files.iterdir()} == before
    asked = {
        line.split()[1]
        for line in (net.files_of("db") / "resolv.conf").read_text().splitlines()
        if line.startswith("nameserver")
    }
    later = {"2001:db8:7::1"} | ({"203.0.113.1"} if mode == "nat" else set())
    assert asked == later
    assert gateway(other) not in asked


def test_a_gateway_in_a_sandboxs_hosts_is_that_of_its_own_subnet(host: Host, net: Net) -> None:
    """Of several of a family the one that it reaches without another."""
    net.create("my-net", subnets=["198.51.100.0/24"])
    net.update("my-net", subnets=["203.0.113.0/24"])
    place = host.sandbox("web")
    net.register_sandbox("web", place.netns, extra_hosts=["home:host-gateway"])
    net.connect("my-net", "web", addresses=["203.0.113.9"])
    assert "203.0.113.1\thome\n" in (net.files_of("web") / "hosts").read_text()


def test_repair_writes_the_files_of_sandboxes_again(host: Host, net: Net) -> None:
    """Whoever took them away, or died before it had written them."""
    net.create("my-net", subnets=["198.51.100.0/24"])
    net.create_sandbox("web")
    net.connect("my-net", "web")
    files = net.files_of("web")
    before = {path.name: path.read_text() for path in files.iterdir()}
    (files / "resolv.conf").unlink()
    (files / "hosts").write_text("203.0.113.66 web\n")
    assert net.repair().failed == ()
    assert {path.name: path.read_text() for path in files.iterdir()} == before
