"""ADD, CHECK, DEL, STATUS and GC with real namespaces and packets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from ipaddress import ip_interface
from typing import Any

import pytest
from support.host import Host
from support.libcni import CniError, Runtime
from support.made import made
from support.patience import eventually
from support.traffic import fetch, serve

from netlib import Net
from netlib.frontends.cni import answer
from netlib.frontends.cni.results import VERSIONS
from netlib.plan import Stage

pytestmark = pytest.mark.kernel

SUBNET = "198.51.100.0/24"
Runtimes = Callable[..., Runtime]
both = pytest.mark.parametrize("runtime", ["here", "daemon"], indirect=True)


def leases(net: Net) -> list[str]:
    """The addresses that are held."""
    return [record.key for record in net.engine.state.store.range("lease/", "lease0")]


def own(result: dict, name: str = "eth0") -> dict:
    """The container's interface of a result."""
    (found,) = [i for i in result["interfaces"] if i["name"] == name and i.get("sandbox")]
    return found


@both
def test_attachments_of_one_network_reach_each_other(host: Host, runtime: Runtimes) -> None:
    """The network is made with the first ADD; both get an address, a route and a name server."""
    web, db = host.sandbox("web"), host.sandbox("db")
    front = runtime({"subnet": SUBNET, "ipMasq": True, "isGateway": True})
    result = front.add("one", web.netns.path)
    front.add("two", db.netns.path)

    assert result["cniVersion"] == "1.1.0"
    (ip,) = result["ips"]
    assert ip == {"address": "198.51.100.2/24", "gateway": "198.51.100.1", "interface": 2}
    assert result["routes"] == [{"dst": "0.0.0.0/0", "gw": "198.51.100.1"}]
    assert result["dns"] == {"nameservers": ["198.51.100.1"]}
    bridge, pair, eth0 = result["interfaces"]
    assert eth0["sandbox"] == web.netns.path
    for place, link in ((host.place, bridge), (host.place, pair), (web, eth0)):
        assert link["mac"] in place.run("ip", "link", "show", link["name"]).stdout
    with serve(web, 80, "http", name="web"):
        assert fetch(db, "198.51.100.2", 80) == b"web"
    web.run("ping", "-c", "1", "-W", "2", "198.51.100.3")
    front.check("one")
    front.check("two")


@both
def test_delete_gives_back_all_that_add_took(host: Host, net: Net, runtime: Runtimes) -> None:
    """Any number of times, and what was never added too."""
    web = host.sandbox("web")
    front = runtime()
    front.delete("never", netns=web.netns.path)
    front.delete("never", netns="/run/" + "x" * 300)
    front.add("one", web.netns.path, portMappings=[{"hostPort": 8080, "containerPort": 80}])
    before = len(leases(net))
    front.delete("one", netns=web.netns.path)
    front.delete("one", netns=web.netns.path)
    front.delete("one", netns="")

    assert before == 1
    assert leases(net) == []
    assert "eth0" not in web.run("ip", "link").stdout
    assert net.sandboxes() == ()
    assert net.check() == ()


@pytest.mark.parametrize("version", VERSIONS)
def test_results_are_in_the_version_that_is_asked_for(
    host: Host, runtime: Runtimes, version: str
) -> None:
    """And CHECK takes them back, from 0.4.0 on."""
    web = host.sandbox("web")
    front = runtime(version=version)
    result = front.add("one", web.netns.path)

    assert result["cniVersion"] == version
    assert ("version" in result["ips"][0]) == (version < "1.0.0")
    assert ("mtu" in result["interfaces"][0]) == (version == "1.1.0")
    if version >= "0.4.0":
        front.check("one")
    else:
        with pytest.raises(CniError, match="does not have CHECK") as refusal:
            front.check("one")
        assert refusal.value.code == 1
    front.delete("one")


@both
def test_published_ports_reach_the_container(host: Host, runtime: Runtimes) -> None:
    """From outside and from the host; another container gets the port once the first is gone."""
    web, db, outsider = host.sandbox("web"), host.sandbox("db"), host.outsider()
    front = runtime()
    port = [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]
    front.add("one", web.netns.path, portMappings=port)
    with serve(web, 80, "http", name="web"):
        assert fetch(outsider, "192.0.2.1", 8080) == b"web"
        assert fetch(host, "127.0.0.1", 8080) == b"web"
    with pytest.raises(CniError, match="8080") as refusal:
        front.add("two", db.netns.path, portMappings=port)
    assert refusal.value.code == 102
    assert "eth0" not in db.run("ip", "link").stdout
    front.check("one")
    front.delete("one")
    front.add("two", db.netns.path, portMappings=port)
    with serve(db, 80, "http", name="db"):
        assert fetch(outsider, "192.0.2.1", 8080) == b"db"


@both
def test_a_pod_may_have_the_hosts_port_53(runtime: Runtimes, host: Host, net: Net) -> None:
    """The resolver of networks with names makes room, as for anybody who publishes it."""
    net.create("named", subnets=["203.0.113.0/24"])
    dns = host.sandbox("dns")
    port = [{"hostPort": 53, "containerPort": 53, "protocol": "udp"}]
    runtime({"subnet": SUBNET}).add("one", dns.netns.path, portMappings=port)
    assert net.inspect("named").network.dns_port == 5301


@both
def test_a_container_on_several_networks_keeps_its_port(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """Runtimes ask for a container's ports with each network: the first one left publishes them."""
    web, outsider = host.sandbox("web"), host.outsider()
    front, back = runtime(), runtime({"subnet": "203.0.113.0/24"}, name="back")
    ports = [{"hostPort": 8080, "containerPort": 80}] * 2

    def published() -> list[str]:
        return [f"{e.ifname} {port}" for e in net.endpoints() for port in e.ports]

    with serve(web, 80, "http", name="web"):
        front.add("one", web.netns.path, "eth0", portMappings=ports)
        back.add("one", web.netns.path, "eth1", portMappings=ports)
        assert published() == ["eth0 8080:80/tcp"]
        for list_of, ifname in ((front, "eth0"), (back, "eth1")):
            list_of.check("one", ifname)
        assert fetch(outsider, "192.0.2.1", 8080) == b"web"
        front.delete("one", "eth0")
        assert published() == ["eth1 8080:80/tcp"]
        assert fetch(outsider, "192.0.2.1", 8080) == b"web"
        front.add("one", web.netns.path, "eth0", portMappings=ports)
        back.cache.clear()
        back.collect([])
        assert published() == ["eth0 8080:80/tcp"]
        assert fetch(outsider, "192.0.2.1", 8080) == b"web"
    front.delete("one", "eth0")
    front.add("two", host.sandbox("db").netns.path, portMappings=ports)
    assert net.check() == ()


def test_a_port_that_its_runtime_holds_is_published(host: Host, runtime: Runtimes) -> None:
    """Podman's monitor listens on a container's ports as long as that runs."""
    web, outsider = host.sandbox("web"), host.outsider()
    port = [{"hostPort": 8080, "containerPort": 80}]
    monitor = host.call(lambda: socket.create_server(("0.0.0.0", 8080)))
    with monitor, serve(web, 80, "http", name="web"):
        runtime({"subnet": SUBNET}).add("one", web.netns.path, portMappings=port)
        assert fetch(outsider, "192.0.2.1", 8080) == b"web"


def test_a_network_of_net_create_can_be_joined_by_name(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """Whatever the configuration itself is called."""
    net.create("back", subnets=[SUBNET])
    web = host.sandbox("web")
    result = runtime({"network": "back"}).add("one", web.netns.path)

    assert result["ips"][0]["gateway"] == "198.51.100.1"
    with pytest.raises(CniError, match="bakc") as refusal:
        runtime({"network": "bakc"}).add("two", web.netns.path)
    assert refusal.value.code == 7


def test_a_network_that_is_always_there_can_be_joined(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """It is made by the first who does."""
    front = runtime({"network": "bridge"})
    for name in ("one", "two"):
        front.add(name, host.sandbox(name).netns.path)
        front.check(name)
    assert net.check() == ()
    for name, code in (("none", 7), ("host", 7)):
        with pytest.raises(CniError) as refusal:
            runtime({"network": name}).add("three", host.sandbox(name).netns.path)
        assert refusal.value.code == code
    front.delete("one")
    front.add("one", host.sandbox("again").netns.path)
    assert len(net.endpoints()) == 2


def test_a_container_can_be_on_several_networks(host: Host, net: Net, runtime: Runtimes) -> None:
    """Each attachment has its interface; the first gives the default route."""
    web = host.sandbox("web")
    front, back = runtime(), runtime({"subnet": "203.0.113.0/24"}, name="back")
    front.add("one", web.netns.path, "eth0")
    result = back.add("one", web.netns.path, "eth1")

    assert own(result, "eth1")
    assert "default via 198.51.100.1 dev eth0" in web.run("ip", "route").stdout
    front.check("one", "eth0")
    back.check("one", "eth1")
    front.delete("one", "eth0")
    assert "default via 203.0.113.1 dev eth1" in web.run("ip", "route").stdout
    back.delete("one", "eth1")
    assert leases(net) == []


@both
def test_a_container_can_have_two_interfaces_on_one_network(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """Each with its address; the route and the name are what is left when one goes."""
    web, db = host.sandbox("web"), host.sandbox("db")
    front = runtime()
    for ifname in ("eth0", "eth1"):
        front.add("one", web.netns.path, ifname, aliases=["www"])
    front.add("two", db.netns.path)
    with pytest.raises(CniError, match="eth1") as refusal:
        front.add("one", web.netns.path, "eth1")
    assert refusal.value.code == 4

    def addresses() -> set[str]:
        return {line.split()[-1] for line in db.run(
            "dig", "+short", "www", "@198.51.100.1").stdout.splitlines()}  # fmt: skip

    both = {"198.51.100.2", "198.51.100.3"}
    eventually(lambda: addresses() == both)
    for address in both:
        db.run("ping", "-c", "1", "-W", "2", address)
    for ifname in ("eth0", "eth1"):
        front.check("one", ifname)
    front.delete("one", "eth0")
    assert "default via 198.51.100.1 dev eth1" in web.run("ip", "route").stdout
    eventually(lambda: addresses() == {"198.51.100.3"})
    front.check("one", "eth1")
    front.add("one", web.netns.path, "eth0")
    net.disconnect("front", "cni-one")
    assert [e.sandbox.name for e in net.endpoints()] == ["cni-two"]
    assert net.check() == ()


@pytest.mark.parametrize("kind", ["host-local", ""])
def test_two_interfaces_on_a_network_with_static_routes(
    host: Host, net: Net, runtime: Runtimes, kind: str
) -> None:
    """The first one's stand, and the second has them as soon as that goes."""
    ipam: dict[str, Any] = {"subnet": SUBNET, "routes": [
        {"dst": "0.0.0.0/0"}, {"dst": "203.0.113.0/24", "gw": "198.51.100.9"}]}  # fmt: skip
    if kind:
        ipam |= {"type": kind, "dataDir": str(host.state_dir / "ipam")}
    web = host.sandbox("web")
    front = runtime({"ipam": ipam}, version="1.0.0")
    front.add("one", web.netns.path, "eth0")
    second = front.add("one", web.netns.path, "eth1")
    assert not second.get("routes")

    def ways() -> list[str]:
        lines = web.run("ip", "route", "show", "203.0.113.0/24").stdout.splitlines()
        return [" ".join(line.split()[1:5]) for line in lines]

    assert ways() == ["via 198.51.100.9 dev eth0"]
    for ifname in ("eth0", "eth1"):
        front.check("one", ifname)
    net.update("front", options={"mtu": "1400"})  # all is described anew
    assert net.check() == ()
    front.delete("one", "eth0")
    assert ways() == ["via 198.51.100.9 dev eth1"]
    front.check("one", "eth1")
    front.add("one", web.netns.path, "eth0")
    assert ways() == ["via 198.51.100.9 dev eth1"]
    front.delete("one", "eth0")
    front.delete("one", "eth1")
    assert leases(net) == []


def test_two_interfaces_on_a_network_of_links(host: Host, net: Net, runtime: Runtimes) -> None:
    """Of ptp: both addresses are reached, whichever link answers go out by."""
    web, db = host.sandbox("web"), host.sandbox("db")
    front = runtime({"subnet": SUBNET, "driver": "ptp"}, version="1.0.0")
    web.run("ip", "link", "add", "theirs", "type", "bridge")
    web.run("ip", "link", "set", "theirs", "up")
    web.run("ip", "route", "add", "default", "dev", "theirs")
    results = [front.add("one", web.netns.path, "eth0")]
    web.run("ip", "link", "del", "theirs")
    results.append(front.add("one", web.netns.path, "eth1"))
    assert "via 198.51.100.1 dev eth1" in web.run("ip", "route", "show", "default").stdout
    front.add("two", db.netns.path)
    first, second = (str(ip_interface(result["ips"][0]["address"]).ip) for result in results)
    for address in (first, second):
        db.run("ping", "-c", "1", "-W", "2", address)
    front.delete("one", "eth0")
    front.check("one", "eth1")
    db.run("ping", "-c", "1", "-W", "2", second)
    assert net.check() == ()


@both
def test_a_default_route_of_another_plugin_stays(host: Host, net: Net, runtime: Runtimes) -> None:
    """As beside a cluster's own network: ours is one more interface, unless it insists."""
    web = host.sandbox("web")
    for command in ("link add eth0 type bridge", "link set eth0 up",
                    "addr add 192.0.2.9/24 dev eth0",
                    "route add default via 192.0.2.254"):  # fmt: skip
        web.run("ip", *command.split())
    with pytest.raises(CniError, match="has a default route already") as refusal:
        runtime({"subnet": SUBNET, "isDefaultGateway": True}).add("one", web.netns.path, "net1")
    assert refusal.value.code == 101
    front = runtime()
    result = front.add("one", web.netns.path, "net1")
    assert "routes" not in result
    assert "default via 192.0.2.254 dev eth0" in web.run("ip", "route").stdout
    web.run("ping", "-c", "1", "-W", "2", "198.51.100.1")
    front.check("one", "net1")
    assert net.check() == ()
    front.delete("one", "net1")
    assert "default via 192.0.2.254 dev eth0" in web.run("ip", "route").stdout


def test_a_network_without_addresses_joins_containers(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """`"ipv4": false`: links alone, and frames from one to the other."""
    plain = runtime({"ipv4": False})
    for number, name in enumerate(("one", "two")):
        place = host.sandbox(name)
        result = plain.add(name, place.netns.path)
        assert len(result["interfaces"]) == 3
        assert "ips" not in result
        place.run("ip", "addr", "add", f"198.51.100.{number + 1}/24", "dev", "eth0")
        plain.check(name)
    plain.status()
    place.run("ping", "-c", "1", "-W", "2", "198.51.100.1")
    for name in ("one", "two"):
        plain.delete(name)
    assert net.check() == ()


def test_capability_args_choose_address_mac_names_and_dns(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """`ips`, `mac`, `aliases`, `dns`; what the runtime says wins over CNI_ARGS."""
    web, db = host.sandbox("web"), host.sandbox("db")
    front = runtime()
    result = front.add(
        "one", web.netns.path,
        cni_args="IP=198.51.100.99;MAC=02:00:5e:00:53:99;K8S_POD_NAME=web",
        ips=["198.51.100.50/24"], mac="02:00:5e:00:53:01", aliases=["www"],
        dns={"servers": ["192.0.2.53"], "searches": ["example.com"]},
    )  # fmt: skip
    assert result["ips"][0]["address"] == "198.51.100.50/24"
    assert own(result)["mac"] == "02:00:5e:00:53:01"
    assert result["dns"] == {"nameservers": ["192.0.2.53"], "search": ["example.com"]}
    assert net.endpoints("cni-one")[0].aliases == ("web", "www")

    result = front.add("two", db.netns.path, cni_args="IP=198.51.100.99;MAC=02:00:5e:00:53:99")
    assert result["ips"][0]["address"] == "198.51.100.99/24"
    assert own(result)["mac"] == "02:00:5e:00:53:99"
    with pytest.raises(CniError, match="cni-one"):
        front.add("three", host.sandbox("x").netns.path, ips=["198.51.100.50"])


def test_address_ranges_of_the_runtime_are_used(host: Host, runtime: Runtimes) -> None:
    """One address of each set; the ranges of a set in their order."""
    front = runtime({"subnet": "203.0.113.0/24"})
    sets = [[
        {"subnet": SUBNET, "rangeStart": "198.51.100.10", "rangeEnd": "198.51.100.10"},
        {"subnet": SUBNET, "rangeStart": "198.51.100.20", "rangeEnd": "198.51.100.20"},
    ]]  # fmt: skip
    got = []
    for name in ("one", "two"):
        result = front.add(name, host.sandbox(name).netns.path, ipRanges=sets)
        got.append(result["ips"][0]["address"])
    assert got == ["198.51.100.10/24", "198.51.100.20/24"]
    with pytest.raises(CniError) as refusal:
        front.add("three", host.sandbox("three").netns.path, ipRanges=sets)
    assert refusal.value.code == 103


def test_bandwidth_is_refused_clearly(host: Host, net: Net, runtime: Runtimes) -> None:
    """A limit that is not kept would be worse than none."""
    with pytest.raises(CniError, match="bandwidth") as refusal:
        runtime().add("one", host.sandbox("web").netns.path, bandwidth={"ingressRate": 1000})
    assert refusal.value.code == 2
    assert made(net) == []


def test_both_families(host: Host, runtime: Runtimes) -> None:
    """host-local's way of writing ranges is understood."""
    web = host.sandbox("web")
    front = runtime({"ipam": {"type": "netlib", "ranges": [
        [{"subnet": SUBNET, "rangeStart": "198.51.100.64", "rangeEnd": "198.51.100.70"}],
        [{"subnet": "2001:db8:1::/64", "gateway": "2001:db8:1::fe"}],
    ], "routes": [
        {"dst": "0.0.0.0/0"}, {"dst": "203.0.113.0/24", "gw": "198.51.100.9"},
    ]}})  # fmt: skip
    result = front.add("one", web.netns.path)

    four, six = result["ips"]
    assert four["address"] == "198.51.100.64/24"
    assert six["gateway"] == "2001:db8:1::fe"
    assert {"dst": "203.0.113.0/24", "gw": "198.51.100.9"} in result["routes"]
    assert {"dst": "::/0", "gw": "2001:db8:1::fe"} in result["routes"]
    front.check("one")


@pytest.mark.parametrize("kind", ["host-local", "static"])
@both
def test_addresses_of_another_ipam_plugin(
    host: Host, net: Net, runtime: Runtimes, kind: str
) -> None:
    """It is asked first, checked along, and told at the end; a failed ADD frees its address."""
    folder = str(host.state_dir / "ipam")
    ipam = {"host-local": {"dataDir": folder, "subnet": SUBNET, "rangeStart": "198.51.100.7"},
            "static": {"addresses": [{"address": "198.51.100.7/24",
                                      "gateway": "198.51.100.1"}]}}[kind]  # fmt: skip
    ipam["routes"] = [{"dst": "0.0.0.0/0"}, {"dst": "203.0.113.0/24", "gw": "198.51.100.9"}]
    web, db = host.sandbox("web"), host.sandbox("db")
    front = runtime({"ipam": {"type": kind, **ipam}}, version="1.0.0")
    result = front.add("one", web.netns.path)
    assert result["ips"][0]["address"] == "198.51.100.7/24"
    assert "203.0.113.0/24 via 198.51.100.9" in web.run("ip", "route").stdout
    assert {"dst": "203.0.113.0/24", "gw": "198.51.100.9"} in result["routes"]
    front.check("one")
    front.delete("one")
    if kind == "host-local":
        db.run("ip", "link", "add", "eth0", "type", "bridge")
        with pytest.raises(CniError, match="eth0"):
            front.add("two", db.netns.path)
        held = host.run(
            "sh", "-c", f"cat {host.state_dir}/ipam/front/198* 2>/dev/null || true"
        ).stdout
        assert held == ""
    assert leases(net) == []


def test_a_second_add_leaves_the_first_its_address(host: Host, net: Net, runtime: Runtimes) -> None:
    """The IPAM plugin is not asked, and so not told to take back what it gave before."""
    folder = host.state_dir / "ipam"
    ipam = {"type": "host-local", "dataDir": str(folder), "subnet": SUBNET}
    front = runtime({"ipam": ipam}, version="1.0.0")
    web = host.sandbox("web")
    front.add("one", web.netns.path)
    with pytest.raises(CniError, match="eth0 already") as refusal:
        front.add("one", web.netns.path)
    assert refusal.value.code == 4
    assert (folder / "front" / "198.51.100.2").exists()
    front.check("one")
    front.delete("one")
    assert not (folder / "front" / "198.51.100.2").exists()
    assert leases(net) == []


def test_of_several_routes_to_one_destination_the_first_is_made(
    host: Host, runtime: Runtimes
) -> None:
    """An IPAM plugin may name it more than once, which is no reason to refuse the container."""
    ipam = {
        "type": "static",
        "addresses": [{"address": "198.51.100.7/24", "gateway": "198.51.100.1"}],
        "routes": [
            {"dst": "203.0.113.0/24", "gw": "198.51.100.9"},
            {"dst": "203.0.113.0/24", "gw": "198.51.100.10"},
        ],
    }
    web = host.sandbox("web")
    front = runtime({"ipam": ipam}, version="1.0.0")
    front.add("one", web.netns.path)
    assert "203.0.113.0/24 via 198.51.100.9 " in web.run("ip", "route").stdout
    front.check("one")
    front.delete("one")


@pytest.mark.parametrize("runtime", ["daemon"], indirect=True)
def test_what_a_runtime_could_not_read_is_in_the_daemons_log(
    host: Host, runtime: Runtimes, daemon: subprocess.Popen[str]
) -> None:
    """A warning does not go with the next client's request, nor is it kept for ever."""
    ports = [{"hostPort": 8080, "containerPort": 80, "hostIP": "203.0.113.9"}]
    runtime().add("one", host.sandbox("web").netns.path, portMappings=ports)
    daemon.terminate()
    assert "the host has no address 203.0.113.9" in daemon.communicate(timeout=20)[0]


def test_a_container_of_the_same_name_elsewhere_leaves_the_first_its_address(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """Of a container id that is used again, for another namespace, the IPAM plugin is not told."""
    folder = host.state_dir / "ipam"
    ipam = {"type": "host-local", "dataDir": str(folder), "subnet": SUBNET}
    front = runtime({"ipam": ipam}, version="1.0.0")
    front.add("one", host.sandbox("web").netns.path)
    with pytest.raises(CniError, match="another network namespace") as refusal:
        front.add("one", host.sandbox("db").netns.path)
    assert refusal.value.code == 101
    assert (folder / "front" / "198.51.100.2").exists()
    front.check("one")
    front.delete("one")
    assert leases(net) == []


# An IPAM plugin that notes what it is asked, and whether the interface is there at that moment.
NOTED = """#!/bin/sh
cat > /dev/null
echo "noted $CNI_COMMAND" >&2
ip netns exec web ip link show eth0 > /dev/null 2>&1 && there=yes || there=no
echo "$CNI_COMMAND $there" >> {log}
[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{answer}'
exit {status}
"""
GIVEN = (
    '{"cniVersion": "1.0.0", "ips": [{"address": "198.51.100.7/24", "gateway": "198.51.100.1"}]}'
)


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ('{"code": 11, "msg": "try later"}', 1, "try later"),
        ("no JSON", 3, "ended with 3"),
        ('{"cniVersion": "1.0.0", "ips": []}', 0, "no address"),
        ('{"ips": [{"address": "198.51.100.7/24", "gateway": "x"}]}', 0, "gateway 'x'"),
        ("[" * 100_000, 0, "no JSON object"),
        (GIVEN, 0, ""),
    ],
)
def test_an_ipam_plugin_is_told_the_end_whatever_it_said(
    host: Host, net: Net, runtime: Runtimes, capsys: pytest.CaptureFixture[str],
    said: str, status: int, words: str,
) -> None:  # fmt: skip
    """Also where its own ADD failed; what it logs is the caller's; its address is free last."""
    web, log = host.sandbox("web"), host.state_dir / "log"
    (host.state_dir / "noted").write_text(NOTED.format(log=log, answer=said, status=status))
    (host.state_dir / "noted").chmod(0o755)
    front = runtime({"ipam": {"type": "noted"}}, version="1.0.0", path=str(host.state_dir))
    if words:
        with pytest.raises(CniError, match=words):
            front.add("one", web.netns.path)
        assert log.read_text().splitlines() == ["ADD no", "DEL no"]
    else:
        front.add("one", web.netns.path)
        front.delete("one")
        assert log.read_text().splitlines() == ["ADD no", "DEL no"]
    assert "noted ADD" in capsys.readouterr().err
    assert net.endpoints() == ()
    assert leases(net) == []


def test_check_finds_a_route_in_the_table_that_sbr_made(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """A later plugin may move routes: what packets find by a rule is there."""
    web = host.sandbox("web")
    front = runtime({"subnet": SUBNET}, {"type": "sbr"}, version="1.0.0")
    front.add("one", web.netns.path)
    assert "default" not in web.run("ip", "route").stdout
    web.run("ping", "-c", "1", "-W", "2", "-I", "198.51.100.2", "198.51.100.1")
    front.check("one")
    assert net.check() == ()
    web.run("ip", "route", "flush", "table", "100")
    with pytest.raises(CniError, match="ip route add default"):
        front.check("one")
    front.delete("one")


def test_check_knows_who_changed_a_mac_address(host: Host, runtime: Runtimes) -> None:
    """A later plugin did, if the result says so; else it is damage."""
    web = host.sandbox("web")
    tuned = runtime({"subnet": SUBNET}, {"type": "tuning", "mac": "02:00:5e:00:53:99"},
                    version="1.0.0")  # fmt: skip
    result = tuned.add("one", web.netns.path)
    assert own(result)["mac"] == "02:00:5e:00:53:99"
    tuned.check("one")
    web.run("ip", "link", "set", "eth0", "address", "02:00:5e:00:53:98")
    with pytest.raises(CniError, match="damaged"):
        tuned.check("one")


def test_check_finds_each_missing_piece(host: Host, runtime: Runtimes) -> None:
    """Address, route, link, port, bridge."""
    web = host.sandbox("web")
    front = runtime()
    port = [{"hostPort": 8080, "containerPort": 80}]
    bridge = ""
    breakages = [
        (web, "ip addr flush dev eth0"),
        (web, "ip route del default"),
        (web, "ip link set eth0 down"),
        (web, "ip link del eth0"),
        (host.place, "nft flush table inet netlib"),
        (host.place, "ip link set {pair} nomaster"),
        (host.place, "ip link del {bridge}"),
    ]
    for place, command in breakages:
        result = front.add("one", web.netns.path, portMappings=port)
        front.check("one")
        bridge, pair = (i["name"] for i in result["interfaces"][:2])
        place.run("sh", "-c", command.format(bridge=bridge, pair=pair))
        with pytest.raises(CniError) as refusal:
            front.check("one")
        assert refusal.value.code == 100, command
        front.delete("one")
        with Net(host.state_dir) as net:
            net.repair()


def test_check_finds_no_damage_in_a_change_that_runs(
    host: Host, net: Net, runtime: Runtimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another MTU: it is wanted and not there when CHECK looks, which then looks again."""
    front = runtime()
    front.add("one", host.sandbox("web").netns.path)
    half_way, go_on = threading.Event(), threading.Event()
    do, alone = net.engine.kernel.do, net.engine.lock.alone

    def slowly(stage: Stage) -> None:
        half_way.set()
        assert go_on.wait(20)
        do(stage)

    def waiting(*seconds: float) -> AbstractContextManager[None]:
        go_on.set()
        return alone(*seconds)

    monkeypatch.setattr(net.engine.kernel, "do", slowly)
    monkeypatch.setattr(net.engine.lock, "alone", waiting)
    with ThreadPoolExecutor() as beside:
        change = beside.submit(net.update, "front", options={"mtu": "1400"})
        assert half_way.wait(20)
        try:
            front.check("one")
        finally:
            go_on.set()
        assert change.result().options["mtu"] == "1400"


def test_check_needs_the_namespace_and_the_result(host: Host, runtime: Runtimes) -> None:
    """A container that is another one now, or was never attached, is named."""
    web, db = host.sandbox("web"), host.sandbox("db")
    front = runtime()
    result = front.add("one", web.netns.path)
    front.cache["one", "eth0"] = (result, {}, db.netns.path)
    with pytest.raises(CniError, match="not the network namespace"):
        front.check("one")
    front.cache["two", "eth0"] = (result, {}, web.netns.path)
    with pytest.raises(CniError, match="not attached"):
        front.check("two")
    front.cache["one", "eth0"] = (None, {}, web.netns.path)  # type: ignore[assignment]
    with pytest.raises(CniError, match="prevResult") as refusal:
        front.check("one")
    assert refusal.value.code == 7


@both
def test_garbage_collection_frees_what_is_not_valid(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """Also what the runtime forgot; what others made on that network stays, and another list."""
    net.create_sandbox("mine")
    front = runtime()
    for name in ("one", "two", "three"):
        front.add(name, host.sandbox(name).netns.path)
    net.connect("front", "mine")
    also = runtime({"network": "front"}, name="also")
    also.add("four", host.sandbox("four").netns.path)
    front.cache.clear()
    front.collect([("two", "eth0")])

    assert sorted(e.sandbox.name for e in net.endpoints()) == ["cni-four", "cni-two", "mine"]
    assert net.check() == ()
    also.collect([])
    assert sorted(e.sandbox.name for e in net.endpoints()) == ["cni-two", "mine"]


def test_garbage_collection_knows_an_interface_by_the_runtimes_name(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """Which is CNI_IFNAME, whatever `ifname` of the configuration calls it in the container."""
    front = runtime({"subnet": SUBNET, "ifname": "net1"})
    front.add("one", host.sandbox("one").netns.path)
    front.collect([("one", "eth0")])
    front.check("one")
    front.cache.clear()
    front.collect([("one", "eth1")])
    assert net.endpoints() == ()


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_garbage_collection_understands_every_libcni(
    host: Host, net: Net, runtime: Runtimes, key: str
) -> None:
    """1.2.0 uses another key, and `null` is what no attachment at all is written as."""
    plugin = {"type": "netlib", "subnet": SUBNET}
    front = runtime(plugin)
    front.add("one", host.sandbox("one").netns.path)
    with pytest.raises(CniError, match="GC needs") as refusal:
        runtime(plugin)._call("GC", plugin)
    assert refusal.value.code == 7
    runtime(plugin)._call("GC", {**plugin, key: [{"containerID": "one", "ifname": "eth0"}]})
    assert len(net.endpoints()) == 1
    runtime(plugin)._call("GC", {**plugin, key: None})
    assert net.endpoints() == ()


def test_status_says_when_the_pool_is_empty_and_when_rules_are_gone(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """50: no ADD would succeed; 51: what is attached is not served as it should be."""
    front = runtime({"subnet": "198.51.100.0/30"})
    front.status()
    for impossible in ({"network": "nobody"}, {"driver": "brigde"}, {"options": {"mtuu": 1}}):
        with pytest.raises(CniError) as refusal:
            runtime(impossible, name="no").status()
        assert refusal.value.code == 50
    front.add("one", host.sandbox("one").netns.path)
    with pytest.raises(CniError, match="no free IPv4") as refusal:
        front.status()
    assert refusal.value.code == 50
    front.delete("one")
    front.status()
    host.run("nft", "flush", "ruleset")
    with pytest.raises(CniError, match="damaged") as refusal:
        front.status()
    assert refusal.value.code == 51


def test_status_says_when_the_state_can_not_be_written(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """The disk is full: no ADD would succeed."""
    front = runtime({"subnet": "198.51.100.0/30"})
    folder = str(host.state_dir)
    host.run("mount", "-t", "tmpfs", "-o", "size=1m", "none", folder)
    try:
        front.status()
        (host.state_dir / "much").write_bytes(bytes(960 << 10))
        with pytest.raises(CniError, match="no space left") as refusal:
            front.status()
        assert refusal.value.code == 50
    finally:
        host.run("umount", "-l", folder)


@both
def test_a_failed_add_leaves_nothing(host: Host, net: Net, runtime: Runtimes) -> None:
    """Interface taken, subnet full, address taken, wrong namespace."""
    web = host.sandbox("web")
    front = runtime({"subnet": "198.51.100.0/30"})
    front.add("one", web.netns.path)
    before = [r.key for r in net.engine.state.store.range("a", "z")]
    other = host.sandbox("other")
    other.run("ip", "link", "add", "taken", "type", "bridge")
    pipe = host.state_dir / "pipe"
    os.mkfifo(pipe)
    cases = [
        ("one", web.netns.path, "eth0", 4, {}),
        ("two", other.netns.path, "eth0", 103, {}),
        ("two", other.netns.path, "eth0", 7, {"ips": ["203.0.113.9"]}),
        ("two", other.netns.path, "eth0", 101, {"ips": ["198.51.100.2"]}),
        ("two", "/run/netns/nope", "eth0", 3, {}),
        ("two", "/etc/hostname", "eth0", 3, {}),
        ("two", "/proc/self/ns/mnt", "eth0", 3, {}),
        ("two", str(pipe), "eth0", 3, {}),
        ("two", host.netns.path, "eth0", 8, {}),
    ]
    for container, path, ifname, code, args in cases:
        with pytest.raises(CniError) as refusal:
            front.add(container, path, ifname, **args)
        assert refusal.value.code == code, refusal.value
    front.delete("one")
    with pytest.raises(CniError) as refusal:
        front.add("two", other.netns.path, "taken")
    assert refusal.value.code == 4
    front.add("one", web.netns.path)
    after = [r.key for r in net.engine.state.store.range("a", "z")]
    assert len(after) == len(before)
    assert net.check() == ()


def test_subnets_that_clash_are_refused(host: Host, net: Net, runtime: Runtimes) -> None:
    """With another network's, and with another driver under the same name."""
    net.create("back", subnets=[SUBNET])
    web = host.sandbox("web")
    with pytest.raises(CniError, match="back") as refusal:
        runtime().add("one", web.netns.path)
    assert refusal.value.code == 101
    with pytest.raises(CniError, match="declares another"):
        runtime({"internal": True}, name="back").add("one", web.netns.path)


def test_a_changed_configuration_changes_the_network(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """What can change while others are there: a further subnet, the MTU."""
    runtime().add("one", host.sandbox("one").netns.path)
    runtime({"subnets": [SUBNET, "203.0.113.0/24"], "mtu": 1400}).add(
        "two", host.sandbox("two").netns.path
    )
    network = net.inspect("front").network
    assert [str(s.prefix) for s in network.subnets] == [SUBNET, "203.0.113.0/24"]
    assert network.options["mtu"] == "1400"


def test_usual_keys_mean_what_they_mean_elsewhere(host: Host, runtime: Runtimes) -> None:
    """MTU, MAC address, port isolation, hairpin, and name servers that are none at all."""
    web = host.sandbox("web")
    front = runtime({"subnet": SUBNET, "mtu": 1400, "mac": "02:00:5e:00:53:07",
                     "portIsolation": True, "hairpinMode": True,
                     "dns": {"nameservers": []}})  # fmt: skip
    result = front.add("one", web.netns.path)
    bridge, pair, eth0 = result["interfaces"]
    assert {link["mtu"] for link in (bridge, pair, eth0)} == {1400}
    assert eth0["mac"] == "02:00:5e:00:53:07"
    assert result["dns"] == {}
    port = host.run("bridge", "-d", "link", "show", "dev", pair["name"]).stdout
    assert "isolated on" in port
    assert "hairpin on" in port
    front.check("one")


def test_the_hosts_own_namespace_can_be_allowed_for_delete(host: Host, net: Net) -> None:
    """CNI_NETNS_OVERRIDE, as the reference library has it."""
    environment = {
        "CNI_COMMAND": "DEL",
        "CNI_CONTAINERID": "one",
        "CNI_NETNS": host.netns.path,
        "CNI_IFNAME": "eth0",
    }
    stdin = b'{"cniVersion": "1.1.0", "name": "front", "type": "netlib"}'
    refused = answer(lambda: net, environment, stdin)
    assert json.loads(refused.stdout)["code"] == 8
    assert answer(lambda: net, {**environment, "CNI_NETNS_OVERRIDE": "1"}, stdin).status == 0


@pytest.mark.parametrize("runtime", ["daemon"], indirect=True)
def test_a_container_outlives_who_was_in_it_when_it_was_attached(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """A path that the daemon can't see it finds by the mount it sees, before any process."""
    web = host.sandbox("web")
    passer_by = web.popen("sleep", "1000")
    descriptor = os.open(web.netns.path, os.O_RDONLY)
    try:
        runtime().add("one", f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    passer_by.kill()
    passer_by.wait()
    assert net.collect_garbage() == ()
    (box,) = net.sandboxes()
    assert box.netns.path == web.netns.path


def test_what_can_not_change_is_refused_rather_than_unheard(
    host: Host, net: Net, runtime: Runtimes
) -> None:
    """A gateway, a range, a family: who changes the file is told what the network has."""
    one = {"subnet": SUBNET, "rangeStart": "198.51.100.10", "gateway": "198.51.100.1"}
    runtime(one).add("one", host.sandbox("one").netns.path)
    web = host.sandbox("web")
    for other, words in (
        ({**one, "gateway": "198.51.100.9"}, "the gateway 198.51.100.1"),
        ({**one, "rangeStart": "198.51.100.20"}, "198.51.100.10-198.51.100.255"),
        ({**one, "ipv6": True}, "no IPv6 subnet"),
    ):
        with pytest.raises(CniError, match=words) as refusal:
            runtime(other).add("two", web.netns.path)
        assert refusal.value.code == 101
    runtime({**one, "labels": {"a": "b"}}).add("two", web.netns.path)
    assert net.inspect("front").network.labels == {"a": "b"}


def test_chained_behind_another_plugin(host: Host, net: Net, runtime: Runtimes) -> None:
    """Its result is passed through; with `ifname` another interface is added to it."""
    web = host.sandbox("web")
    theirs = {
        "type": "ptp",
        "ipam": {
            "type": "host-local",
            "dataDir": str(host.state_dir / "ipam"),
            "subnet": "203.0.113.0/24",
        },
    }
    front = runtime(theirs, {"subnet": SUBNET, "ifname": "eth1"}, version="1.0.0")
    result = front.add("one", web.netns.path)
    assert [ip["address"].rpartition("/")[0] for ip in result["ips"]] == [
        "203.0.113.2", "198.51.100.2"]  # fmt: skip
    assert result["interfaces"][result["ips"][1]["interface"]]["name"] == "eth1"
    front.delete("one")
    assert leases(net) == []

    through = runtime(theirs, {"subnet": SUBNET}, name="through", version="1.0.0")
    result = through.add("two", web.netns.path)
    assert len(result["ips"]) == 1
    through.check("two")
    through.delete("two")
    assert net.endpoints() == ()


def test_before_other_plugins(host: Host, runtime: Runtimes) -> None:
    """What a later plugin changes does not fail our CHECK."""
    web = host.sandbox("web")
    front = runtime({"subnet": SUBNET}, {"type": "tuning", "mtu": 1300}, version="1.0.0")
    front.add("one", web.netns.path)
    front.check("one")
    front.delete("one")


@pytest.mark.parametrize("runtime", ["processes", "daemon"], indirect=True)
def test_a_hundred_at_once(host: Host, net: Net, runtime: Runtimes) -> None:
    """On a network that is not there yet: no duplicate, no leak. Half of them publish a port."""
    names = [f"c{number}" for number in range(100)]
    paths = {name: host.sandbox(name).netns.path for name in names}
    front = runtime()
    failures: list[Exception] = []

    def add(name: str) -> None:
        number = int(name[1:])
        port = [{"hostPort": 8000 + number, "containerPort": 80}] if number % 2 else []
        front.add(name, paths[name], portMappings=port)

    def all_at_once(target: Callable[[str], object]) -> None:
        def work(name: str) -> None:
            try:
                target(name)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    all_at_once(add)
    addresses = {ip_interface(front.cache[n, "eth0"][0]["ips"][0]["address"]) for n in names}
    assert len(addresses) == len(names)
    assert net.check() == ()
    all_at_once(front.delete)
    assert leases(net) == []
    assert len(made(net)) == 1
    assert net.sandboxes() == ()
    assert net.check() == ()
