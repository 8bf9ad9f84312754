"""Published ports that need a relay, from the library's call to the packet and back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from support.host import HOST4, HOST6, Host
from support.patience import eventually
from support.relay import relay_processes
from support.strangers import free_at
from support.traffic import ask, serve

from netlib import Net
from netlib.errors import PortHeld, PortTaken
from netlib.model import Protocol
from netlib.wiring import Relay

pytestmark = pytest.mark.kernel

PREFIX4, PREFIX6 = "198.51.100.0/24", "2001:db8:1::/64"
SUBNETS = {"IPv4 only": [PREFIX4], "IPv6 only": [PREFIX6], "both": [PREFIX4, PREFIX6]}


@pytest.fixture(params=["nftables", "iptables"])
def net(host: Host, request: pytest.FixtureRequest) -> Iterator[Net]:
    """The library with one of the firewalls."""
    with Net(host.state_dir, firewall=request.param) as net:
        yield net


def relays(net: Net) -> list[Relay]:
    """The relays that the state wants."""
    return [
        noun
        for record in net.engine.state.endpoints()
        for noun in record.wiring
        if isinstance(noun, Relay)
    ]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("families", SUBNETS)
def test_a_published_port_is_reached_by_both_families_from_everywhere(
    host: Host, net: Net, families: str, protocol: Protocol
) -> None:
    """Whatever the sandbox has: from outside, from the host's own addresses, from ::1."""
    outsider, web = host.outsider(), host.sandbox("web")
    net.create("my-net", subnets=SUBNETS[families])
    net.connect("my-net", "netns:web", publish=[f"8080:80/{protocol}"])
    ways = [(outsider, HOST6), (host, HOST6), (host, "::1")]
    if families != "IPv6 only":  # there nobody expects IPv4 of a wildcard
        ways += [(outsider, HOST4), (host, HOST4), (host, "127.0.0.1")]

    with serve(web, 80, protocol):
        for where, target in ways:
            answer = eventually(
                lambda w=where, t=target: ask(w, t, 8080, protocol),
                3,
                what=f"{where.name} {target}",
            )
            assert answer.server == "web"


def test_an_ipv4_address_leads_to_an_ipv6_sandbox_when_it_is_named(host: Host, net: Net) -> None:
    """A relay for that address alone."""
    outsider, web = host.outsider(), host.sandbox("web")
    net.create("my-net", subnets=[PREFIX6])
    net.connect("my-net", "netns:web", publish=[f"{HOST4}:8080:80"])

    with serve(web, 80):
        assert eventually(lambda: ask(outsider, HOST4, 8080))
        assert ask(host, "127.0.0.1", 8080) is None


def test_a_relay_that_was_killed_is_missed_and_comes_back(host: Host, net: Net) -> None:
    """`check` names what is gone, `repair` brings it back."""
    host.outsider()
    web = host.sandbox("web")
    net.create("my-net", subnets=[PREFIX4])
    net.connect("my-net", "netns:web", publish=["8080:80"])
    assert not net.check()

    (pid,) = relay_processes(host)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not relay_processes(host))

    assert net.check()
    net.repair()
    assert not net.check()
    with serve(web, 80):
        assert eventually(lambda: ask(host, "::1", 8080))


def test_no_relay_is_left_when_ports_are_taken_back(host: Host, net: Net) -> None:
    """By `unpublish`, and by leaving the network: nothing listens, and no process runs."""
    host.outsider()
    host.sandbox("web")
    net.create("my-net", subnets=[PREFIX4])
    net.connect("my-net", "netns:web", publish=["8080:80", "9000-9099:9000-9099"])
    net.unpublish("netns:web", ["8080:80"])
    assert [(relay.port, relay.count) for relay in relays(net)] == [(9000, 100)]
    assert relay_processes(host)

    net.disconnect("my-net", "netns:web")

    assert not relays(net)
    eventually(lambda: not relay_processes(host))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_no_process_gets_an_ipv6_address_of_a_port_that_is_published_on_all(
    host: Host, net: Net, protocol: Protocol
) -> None:
    """Its packets would be redirected, and nobody would have told it; freed with the port."""
    outsider, web = host.outsider(), host.sandbox("web")
    everywhere = ["::", "::1", HOST6]
    net.create("my-net", subnets=[PREFIX4, PREFIX6])
    ports = ["8080:80", "9000-9009:9000-9009", "[::1]:8081:80"]
    net.connect("my-net", "netns:web", publish=[f"{port}/{protocol}" for port in ports])
    for port in (8080, 9000, 9009):
        assert not free_at(host, protocol, everywhere, port)
    assert free_at(host, protocol, everywhere, 8081) == {HOST6}
    with serve(web, 80, protocol):
        for where, target in ((outsider, HOST6), (host, HOST6), (host, "::1")):
            assert eventually(lambda w=where, t=target: ask(w, t, 8080, protocol), 3)  # type: ignore[misc]
    (pid,) = relay_processes(host)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not relay_processes(host))
    assert net.check()
    net.repair()
    assert not net.check()
    assert not free_at(host, protocol, everywhere, 9009)
    net.unpublish("netns:web", [f"8080:80/{protocol}"])
    assert free_at(host, protocol, everywhere, 8080) == {*everywhere}
    assert not free_at(host, protocol, everywhere, 9000)
    net.disconnect("my-net", "netns:web")
    assert free_at(host, protocol, everywhere, 9000) == {*everywhere}


@pytest.mark.parametrize("address", ["::", "::1"])
def test_a_port_that_a_process_has_on_ipv6_is_refused(host: Host, net: Net, address: str) -> None:
    """Neither an endpoint nor a relay is made, nor anything else."""
    host.outsider()
    host.sandbox("web")
    net.create("my-net", subnets=[PREFIX4])
    with serve(host, 8080, address=address), pytest.raises((PortTaken, PortHeld), match="8080"):
        net.connect("my-net", "netns:web", publish=["8080:80"])

    assert not net.engine.state.endpoints()
    assert not net.check()
    eventually(lambda: not relay_processes(host))


@pytest.mark.parametrize("verb", ["connect", "publish"])
def test_who_is_second_is_told_which_sandbox_has_the_port(
    host: Host, net: Net, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that a relay listens, which came after the state was read."""
    for name in ("web", "late"):
        host.sandbox(name)
    net.create("my-net", subnets=[PREFIX4])
    net.connect("my-net", "netns:late", publish=["8081:81"])
    ask_kernel = net.engine.kernel.port_user

    def be_first(*asked: Any) -> str | None:
        monkeypatch.undo()
        with Net(host.state_dir, firewall=net.engine.kernel.firewall) as other:
            other.connect("my-net", "netns:web", publish=["8080:80"])
        assert relay_processes(host)
        return ask_kernel(*asked)

    net.create("second", subnets=["203.0.113.0/24"])
    attempts = {
        "connect": lambda: net.connect("second", "netns:late", publish=["8080:80"]),
        "publish": lambda: net.publish("netns:late", ["8080:80"]),
    }
    monkeypatch.setattr(net.engine.kernel, "port_user", be_first)
    with pytest.raises(PortTaken, match="taken by sandbox netns:web"):
        attempts[verb]()
