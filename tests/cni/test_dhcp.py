"""Addresses from a DHCP server, by the reference plugin `dhcp` and its daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.host import Host, Place
from support.libcni import CniError, Runtime
from support.made import made
from support.patience import eventually

from netlib import Net
from netlib.frontends.daemon.events import Teller

pytestmark = pytest.mark.kernel

Runtimes = Callable[..., Runtime]
PLUGIN = "/usr/lib/cni/dhcp"


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def lan(host: Host, place: Place | Host, device: str, network: str) -> Iterator[dict[str, str]]:
    """A DHCP server there, and the plugin's daemon; what `ipam` has to say."""
    leases, path = host.state_dir / "leases", host.state_dir / "dhcp.sock"
    server = place.popen(
        "dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null",
        "--user=", "--group=",
        f"--interface={device}", "--bind-interfaces", "--except-interface=lo",
        f"--dhcp-range={network}.50,{network}.59,255.255.255.0,1h", "--no-ping",
        f"--dhcp-option=option:router,{network}.9",
        f"--dhcp-option-force=121,203.0.113.128/25,{network}.8"
        f",0.0.0.0/0,{network}.9",
        "--dhcp-authoritative", f"--dhcp-leasefile={leases}", "--log-facility=-",
    )  # fmt: skip
    daemon = host.popen(PLUGIN, "daemon", "-socketpath", str(path), "-timeout", "5s")
    with ended(server), ended(daemon):
        eventually(path.exists)
        eventually(leases.exists)
        assert server.poll() is None
        yield {"type": "dhcp", "daemonSocketPath": str(path)}


@pytest.mark.parametrize("runtime", ["here", "daemon"], indirect=True)
@pytest.mark.parametrize("driver", ["bridge", "macvlan"])
def test_a_lan_gives_addresses(host: Host, net: Net, runtime: Runtimes, driver: str) -> None:
    """The interface is there before its address, and both go with DEL."""
    outsider = host.outsider()
    if driver == "bridge":
        server, device, network, kind = host, "lan0", "198.51.100", {"bridge": "lan0"}
        host.run("ip", "link", "add", "lan0", "type", "bridge")
        host.run("ip", "addr", "add", f"{network}.1/24", "dev", "lan0")
        host.run("ip", "link", "set", "lan0", "up")
        near = f"{network}.1"
    else:
        server, device, network = outsider, "eth0", "192.0.2"
        kind, near = {"driver": "macvlan", "master": "eth0"}, "192.0.2.100"
    web, db = host.sandbox("web"), host.sandbox("db")
    with lan(host, server, device, network) as ipam:
        front = runtime({**kind, "ipam": ipam}, version="1.0.0")
        began = net.engine.state.store.revision()
        teller = Teller(net.engine.state.store)
        result = front.add("one", web.netns.path)
        changes = net.engine.state.store.changes(began) or ()
        told = [(e["event"], e.get("addresses")) for c in changes for e in teller.tell(c)]
        assert told[-2:] == [("connect", []), ("update", [result["ips"][0]["address"]])]
        other = front.add("two", db.netns.path)

        (ip,) = result["ips"]
        address = ip["address"].partition("/")[0]
        assert ip["gateway"] == f"{network}.9"
        assert {"dst": "0.0.0.0/0", "gw": f"{network}.9"} in result["routes"]
        assert f"inet {ip['address']}" in web.run("ip", "addr").stdout
        assert f"default via {network}.9" in web.run("ip", "route").stdout
        assert f"203.0.113.128/25 via {network}.8" in web.run("ip", "route").stdout
        assert other["ips"][0]["address"] != ip["address"]
        web.run("ping", "-c", "1", "-W", "3", near)
        db.run("ping", "-c", "1", "-W", "3", address)
        front.check("one")
        assert net.check() == ()
        front.delete("one")
        front.delete("one", netns=web.netns.path)
        front.delete("two", netns="")
    assert net.endpoints() == ()
    assert net.engine.state.store.range("lease/", "lease0") == []
    assert "eth0" not in web.run("ip", "link").stdout
    assert net.check() == ()


def test_a_lan_without_a_server_leaves_nothing(host: Host, net: Net, runtime: Runtimes) -> None:
    """Nor does one whose daemon does not run."""
    host.run("ip", "link", "add", "lan0", "type", "bridge")
    web = host.sandbox("web")
    ipam = {"type": "dhcp", "daemonSocketPath": str(host.state_dir / "nobody.sock")}
    front = runtime({"bridge": "lan0", "ipam": ipam}, version="1.0.0")
    with pytest.raises(CniError, match="nobody"):
        front.add("one", web.netns.path)
    assert "eth0" not in web.run("ip", "link").stdout
    assert net.endpoints() == ()
    assert len(made(net)) == 1
    with pytest.raises(CniError, match="chooses all addresses") as refusal:
        runtime({"bridge": "lan0", "ipam": ipam, "args": {"cni": {"ips": ["198.51.100.9"]}}},
                version="1.0.0").add("one", web.netns.path)  # fmt: skip
    assert refusal.value.code == 7
    net.remove("front")
