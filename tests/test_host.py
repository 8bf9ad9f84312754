"""The host that tests get is private, complete, and gone afterwards."""

from __future__ import annotations

import os
import signal

import pytest
from support.host import Host, new_host
from support.netns import CURRENT
from support.patience import eventually
from support.traffic import Kind, ask, fetch, serve, unreachable

from netlib import throwaway

pytestmark = pytest.mark.kernel


def test_tests_run_in_a_throw_away_host() -> None:
    """No test can touch the machine it runs on."""
    assert throwaway.inside()


def test_a_new_host_has_nothing_left_over(host: Host) -> None:
    """What every network namespace has counts as nothing, and so does what a test sets up."""
    host.outsider()
    host.sandbox("web")

    assert not host.leftovers()


@pytest.mark.parametrize(
    ("command", "fact"),
    [
        ("ip link add br0 type bridge", "link br0"),
        ("ip addr add 198.51.100.1/24 dev lo", "address lo inet 198.51.100.1/24"),
        ("ip route add 198.51.100.0/24 via 192.0.2.100", "route 198.51.100.0/24 via 192.0.2.100"),
        ("ip -6 rule add from 2001:db8::/64 lookup 7", "from 2001:db8::/64 lookup 7"),
        ("ip netns add other", "netns other"),
        ("nft add table inet other", "nft table inet other"),
        ("iptables -N OTHER", "OTHER"),
        ("iptables-legacy -P FORWARD DROP", "iptables-legacy-save filter :FORWARD DROP"),
        ("sysctl net.ipv4.conf.all.forwarding=1", "sysctl net.ipv4.conf.all.forwarding=1"),
    ],
)
def test_leftovers_are_seen(host: Host, command: str, fact: str) -> None:
    """Each kind of thing that a test may leave behind is named."""
    host.outsider()
    host.run(*command.split())

    assert any(fact in left for left in host.leftovers())
    assert not host.leftovers(allow=["."])


@pytest.mark.parametrize("kind", ["tcp", "udp", "http"])
@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8:2::1"])
def test_an_outsider_reaches_the_host(host: Host, address: str, kind: Kind) -> None:
    """Packets cross the host's uplink, and the server knows who sent them."""
    outsider = host.outsider()
    with serve(host, 8080, kind) as clients:
        answer = ask(outsider, address, 8080, kind)

    assert answer is not None
    assert answer.server == "host"
    assert [answer.source] == clients
    assert answer.source == ("192.0.2.100" if "." in address else "2001:db8:2::100")
    assert unreachable(outsider, address, 8080, kind)


def test_a_page_is_fetched(host: Host) -> None:
    """The web server's page says whose it is."""
    web = host.sandbox("web")
    with serve(web, 80, "http"):
        assert fetch(web, "127.0.0.1", 80) == b"web"
        with pytest.raises(OSError, match="no page"):
            fetch(host, "127.0.0.1", 80)


def test_a_host_ends_with_all_that_runs_in_it() -> None:
    """Processes, names and the test's own namespace are as before."""
    before = os.stat(CURRENT).st_ino
    with new_host() as host:
        sleeper = host.sandbox("web").popen("sleep", "60")
        assert os.stat(CURRENT).st_ino != before
        state_dir = host.state_dir

    assert sleeper.wait(5) == -signal.SIGKILL
    assert os.listdir("/run/netns") == []
    assert not state_dir.exists()
    assert os.stat(CURRENT).st_ino == before


def test_names_of_ip_netns_end_too() -> None:
    """Sandboxes and what `ip netns add` makes live side by side, and go with the host."""
    with new_host() as host:
        host.sandbox("before")
        host.run("ip", "netns", "add", "ours")
        host.sandbox("after")
        assert len(host.run("ip", "netns").stdout.splitlines()) == 3

    assert os.listdir("/run/netns") == []


def test_a_command_that_fails_shows_what_it_said(host: Host) -> None:
    """A test that fails in a program tells why."""
    with pytest.raises(AssertionError, match='Cannot find device "nowhere"'):
        host.run("ip", "link", "del", "nowhere")


def test_patience_ends() -> None:
    """What never comes fails with what was seen last."""
    with pytest.raises(AssertionError, match="last seen: 0"):
        eventually(lambda: 0, timeout=0.02)
