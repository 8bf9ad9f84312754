"""Hosts of a cluster on real packets: what is made on one is there on all, and reached."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cluster import ClusterHost, RealCluster, real_cluster
from support.host import Host
from support.machines import machines
from support.patience import eventually
from support.shell import Shell

from netlib.errors import NameTaken, NetError
from netlib.frontends.daemon.client import open_net
from netlib.frontends.daemon.messages import connect
from netlib.model import Endpoint
from netlib.settings import Backend

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


def at_once(*calls: Callable[[], object]) -> list[object]:
    """What calls return, or raise, when they are made at one moment."""
    start = threading.Barrier(len(calls))
    found: list[object] = [None] * len(calls)

    def make(number: int, call: Callable[[], object]) -> None:
        start.wait()
        try:
            found[number] = call()
        except NetError as error:
            found[number] = error

    threads = [threading.Thread(target=make, args=one) for one in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture(params=[("nftables", False), ("iptables", True)], ids=["nftables-4", "iptables-6"])
def cluster(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> Iterator[RealCluster]:
    """Three hosts, by each firewall, on an underlay of each family."""
    backend: Backend
    backend, ipv6 = request.param
    with real_cluster(host, tmp_path, 3, firewall=backend, ipv6=ipv6) as cluster:
        yield cluster


def ping(host: ClusterHost, sandbox: str, endpoint: Endpoint) -> None:
    """The sandbox reaches all addresses of an endpoint, as soon as that one knows the way back."""
    for address in endpoint.addresses:
        once = ("ping", "-c", "1", "-W", "1", str(address.ip))
        eventually(lambda once=once: not host.boxes[sandbox].run(*once, check=False).returncode)  # type: ignore[misc]


def test_what_one_host_does_all_have(cluster: RealCluster) -> None:
    """Sandboxes meet by address and name; an endpoint moves; names are unique; all is removed."""
    one, two, three = cluster.hosts
    cluster.make(ipv6=True)
    web, db = one.connect("app", "web"), two.connect("app", "db")
    eventually(lambda: db.mac in one.remotes())
    ping(one, "web", db)
    ping(two, "db", web)
    eventually(lambda: one.asked("db", "web") == [str(db.addresses[0].ip)])
    assert two.asked("web.app", "db") == [str(web.addresses[0].ip)]

    # No address is given twice, whoever asks at the same moment.
    late = at_once(*(
        lambda h=h, n=n: h.connect("app", f"{h.name}-{n}")
        for n in range(3) for h in cluster.hosts
    ))  # fmt: skip
    given = [str(a) for e in (web, db, *late) for a in e.addresses]  # type: ignore[attr-defined]
    assert len(set(given)) == 2 * 11
    ping(three, "host3-0", web)

    # An endpoint moves to a host, and keeps its address.
    address = str(web.addresses[0].ip)
    one.disconnect("app", "web")
    three.box("moved")
    moved = three.do(lambda net: net.connect("app", "moved", addresses=[address]))
    assert moved.mac == web.mac
    eventually(lambda: two.remotes().get(web.mac) == str(three.node.data_address))
    ping(two, "db", moved)
    cluster.all_agree()

    # One name for two hosts.
    results = at_once(*(
        lambda h=h: h.do(lambda net: net.create("twice", driver="overlay"))
        for h in cluster.hosts
    ))  # fmt: skip
    assert sorted(isinstance(one, NameTaken) for one in results) == [False, True, True], results

    # In use, it stays; then it goes from all hosts, by one word.
    for host in cluster.hosts:
        for name in host.boxes:
            if host.do(lambda net, n=name: net.endpoints(n)):  # type: ignore[misc]
                host.disconnect("app", name)
    eventually(lambda: not any(host.peers() for host in cluster.hosts))
    two.do(lambda net: net.remove("app"))
    for host in cluster.hosts:
        eventually(lambda h=host: not h.offered(), what=f"no app on {host.name}")  # type: ignore[misc]
        eventually(lambda h=host: "nl-" not in h.place.run("ip", "link").stdout)  # type: ignore[misc]
    cluster.all_agree()


def test_others_know_an_endpoint_when_connect_returns(host: Host, tmp_path: Path) -> None:
    """Or so soon after it that nobody notices, entries and name; the bound is a busy machine's."""
    with real_cluster(host, tmp_path, 2) as cluster:
        one, two = cluster.hosts
        cluster.make(internal=True)  # else it would be asked elsewhere for a name too early
        one.connect("app", "client")
        two.connect("app", "first")
        eventually(lambda: one.peers() == ["first"])
        for number in range(5):
            two.box(f"box{number}")
            made = two.connect("app", f"box{number}")
            returned = time.monotonic()
            eventually(lambda e=made: e.mac in one.remotes(), pause=0.001)  # type: ignore[misc]
            eventually(lambda n=number: one.asked(f"box{n}", "client"), pause=0.001)  # type: ignore[misc]
            assert time.monotonic() - returned < 2


def test_a_member_s_daemon_has_the_firewall_that_was_asked_for(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the environment, too: with two in turn each would take away what the other makes."""
    first, _ = machines(host, tmp_path, 2)
    monkeypatch.setenv("NETLIB_FIREWALL", "none")
    said = first.place.call(lambda: Shell()(f"--state-dir {first.state_dir} cluster init"))
    assert "first manager" in said.out
    channel = connect(first.state_dir, 5)
    assert channel is not None
    assert channel.call({"do": "hello"}).document["firewall"] == "none"
    channel.close()
    # Nor does who asks for nothing take another one, for what is done without the daemon.
    monkeypatch.delenv("NETLIB_FIREWALL")
    with first.place.call(lambda: open_net(first.state_dir)) as net:
        assert net.engine.kernel.firewall == "none"
    first.net("cluster leave -f")


def test_a_cluster_is_made_used_and_left_by_hand(host: Host, tmp_path: Path) -> None:
    """The whole way at the command line: init, join, create, connect, inspect, rm, leave."""
    first, second = machines(host, tmp_path, 2)
    refused = first.refusal("create -d overlay app", status=3)
    assert "net cluster init" in refused["hint"]
    first.net("cluster init --name one --lease 5 --advertise-addr 198.51.100.1")
    second.net(f"cluster join --token {first.token()} --name two 198.51.100.1:2377")
    made = first.ask("create -d overlay --attachable --subnet 10.10.0.0/24 app")["network"]
    assert made["scope"] == "global"
    eventually(lambda: "app" in second.net("ls").stdout)
    for machine, name in ((first, "web"), (second, "db")):
        box = host.sandbox(name)
        assert box.name == name
        machine.net(f"connect app netns:{name}")

    def peers() -> list[str]:
        (seen,) = first.ask("inspect app")["networks"]
        return [f"{one['sandbox']} on {one['node']}" for one in seen["peers"] if one["sandbox"]]

    assert eventually(peers) == ["netns:db on two"]
    (seen,) = second.ask("inspect app")["networks"]
    assert seen["vni"] == made["vni"] > 4096
    assert seen["subnets"][0]["own"] not in (None, seen["subnets"][0]["gateway"])
    assert second.refusal("rm app", status=4)["code"] == "in-use"
    assert second.refusal("cluster leave", status=4)["code"] == "in-use"
    for machine in (first, second):
        assert machine.ask("check")["findings"] == []
    second.kill_daemon()
    (found,) = json.loads(second.net("check --json", status=1).stdout)["findings"]
    assert "net daemon" in found["note"]

    second.net("cluster leave -f")
    assert "app" not in second.net("ls").stdout
    eventually(lambda: not peers())
    assert [n["name"] for n in first.ask("node ls")["nodes"]] == ["one"]
    assert second.ask("check")["findings"] == []
    assert "nl-" not in second.place.run("ip", "link").stdout
    first.net("disconnect app netns:web")
    first.net("rm app")
    first.net("cluster leave -f")
    assert first.ask("check")["findings"] == []
