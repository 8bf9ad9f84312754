"""The whole: what connect and disconnect do shows in the next query."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from support.host import OUTSIDER4, Host
from support.names import query, rcode, values
from support.patience import eventually
from support.resolving import ask, ask_tcp
from support.traffic import Somewhere
from support.upstream import echo, upstream

from netlib import Net
from netlib.dns.client import Resolver
from netlib.errors import InvalidOption, PortTaken
from netlib.model import Endpoint, Network

pytestmark = pytest.mark.kernel


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


def test_publishing_port_53_where_the_resolver_has_it(host: Host, net: Net) -> None:
    """Of all addresses it is refused, and the resolver named; of another one it is published."""
    net.create("my-net", subnets=["198.51.100.0/24"])
    Box(host, net, "server")
    with pytest.raises(PortTaken, match=r"taken by netlib-names \(pid \d+\)") as caught:
        net.connect("my-net", "server", publish=["53:53/udp"])
    assert "ADDRESS:53:53/udp" in (caught.value.hint or "")
    endpoint = net.connect("my-net", "server", publish=["192.0.2.1:53:53/udp"])
    assert [str(port) for port in endpoint.ports] == ["192.0.2.1:53:53/udp"]


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
