"""What an overlay network carries, beside a VXLAN set up by hand; what its entries cost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

from benchmarks.bench import Bench
from benchmarks.measure import Comparison, timed
from benchmarks.place import Place
from netlib import names
from netlib.apply import apply, tear_down
from netlib.cluster.members import membership
from netlib.cluster.model import Node
from netlib.drivers.overlay import OverlayDriver
from netlib.kernel.linux import LinuxKernel
from netlib.kernel.netfilter.detect import choose
from netlib.model import (
    Endpoint,
    IPAddress,
    Netns,
    Network,
    Peer,
    Sandbox,
    Subnet,
    Underlay,
    interface,
)
from netlib.plan import diff
from netlib.wiring import Wiring

_SECONDS = 0.5
_ENDPOINTS = 1000
_PORT = 5001
_DRIVER = OverlayDriver()
_SUBNETS = (
    Subnet(prefix=ip_network("10.20.0.0/16"), gateway=ip_address("10.20.0.1")),
    Subnet(prefix=ip_network("2001:db8:20::/64"), gateway=ip_address("2001:db8:20::1")),
)
_NETWORK = Network(id="0a" * 32, name="app", driver="overlay", subnets=_SUBNETS, vni=4001)
_NOTHING = Wiring()

_SERVER = """
import socket
streams = socket.create_server(("0.0.0.0", 5001))
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.bind(("0.0.0.0", 5001))
import threading
def answer():
    while True:
        echo.sendto(*echo.recvfrom(64))
threading.Thread(target=answer, daemon=True).start()
print("ready", flush=True)
buffer = bytearray(1 << 20)
while True:
    client, _ = streams.accept()
    total = 0
    while (size := client.recv_into(buffer)):
        total += size
    client.close()
"""
_STREAM = """
import socket, sys, time
address, seconds = sys.argv[1], float(sys.argv[2])
data = bytes(1 << 18)
with socket.create_connection((address, 5001), timeout=5) as client:
    sent, begin = 0, time.perf_counter()
    while (took := time.perf_counter() - begin) < seconds:
        sent += client.send(data)
    client.shutdown(socket.SHUT_WR)
    client.recv(1)
    print(sent * 8 / (time.perf_counter() - begin) / 1e6)
"""
_TRIPS = """
import socket, sys, time
address, seconds = sys.argv[1], float(sys.argv[2])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.connect((address, 5001))
    client.settimeout(5)
    count, begin = 0, time.perf_counter()
    while (took := time.perf_counter() - begin) < seconds:
        client.send(b"x")
        client.recv(64)
        count += 1
    print(count / took)
"""


class _Host:
    """A host of the cluster, told by hand what the cluster would tell."""

    def __init__(self, number: int, place: Place, closing: contextlib.ExitStack) -> None:
        self.place = place
        self.address: IPAddress = ip_address(f"192.0.2.{number}")
        self.kernel = place.call(lambda: LinuxKernel(choose("nftables")))
        closing.callback(self.kernel.close)
        own = tuple(replace(s, own=s.prefix[-1 - number]) for s in _SUBNETS)
        there = Underlay(address=self.address, mtu=1500)
        self.network = replace(_NETWORK, subnets=own, underlay=there)

    def take_up(self, others: list[_Host]) -> None:
        """The network comes to be here, and knows the other hosts."""
        nodes = [Node(id="", name="", address=h.address, data_address=h.address) for h in others]
        wiring = membership(replace(nodes[0], data_address=self.address), nodes)
        self.make(wiring | _DRIVER.network_wiring(self.network, self.kernel.facts()))

    def make(self, wiring: Wiring) -> None:
        """Make what is described."""
        apply(diff(_NOTHING, wiring), self.kernel)

    def connect(self, box: Place, last: int) -> Peer:
        """A sandbox, and what others have to know of it."""
        addresses = tuple(interface(s.prefix[last], s.prefix.prefixlen) for s in _SUBNETS)
        mac = names.mac_at(_NETWORK.id, addresses[0].ip)
        sandbox = Sandbox(name=f"s{last}", netns=Netns(name=f"s{last}", path=box.path))
        endpoint = Endpoint(
            id=names.new_id(),
            network=_NETWORK.id,
            sandbox=sandbox,
            ifname="eth0",
            mac=mac,
            addresses=addresses,
            gateway_for=(4, 6),
        )
        self.make(_DRIVER.endpoint_wiring(self.network, endpoint, self.kernel.facts()))
        return Peer(mac=mac, addresses=tuple(a.ip for a in addresses), host=self.address)

    def meet(self, peers: list[Peer]) -> Wiring:
        """What peers are here."""
        facts = self.kernel.facts()
        found: list[object] = []
        for peer in peers:
            found += _DRIVER.peer_wiring(self.network, peer, facts)
        return Wiring(found)  # type: ignore[arg-type]  # nouns


def carried(bench: Bench) -> Iterator[Comparison]:
    """What crosses between sandboxes of two hosts, beside the same made with `ip`."""
    ways = {"ours": _ours(bench), "theirs": _by_hand()}
    for _, server, _ in ways.values():
        process = server.python(_SERVER)
        bench.closing.callback(process.kill)
        assert process.stdout
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the server did not start")
    rates: dict[tuple[str, str], list[float]] = {}
    for number in range(bench.runs + 1):
        for what, program in (("stream", _STREAM), ("trips", _TRIPS)):
            # In turn, and each first every other time.
            for which in sorted(ways, reverse=bool(number % 2)):
                client, _, address = ways[which]
                rates.setdefault((what, which), []).append(_rate(client, program, address))
    for what, name, unit in (("stream", "throughput", "Mbit/s"), ("trips", "round trips", "1/s")):
        yield Comparison(
            name=f"{name} between sandboxes of two hosts",
            ours=rates[what, "ours"][1:],
            other="VXLAN by hand",
            others=rates[what, "theirs"][1:],
            unit=unit,
            aim=0.95,
            better="more",
        )


def entries(bench: Bench) -> Iterator[Comparison]:
    """A thousand endpoints of another host: entered, found as they should be, silenced, removed."""
    here, away = _pair(bench)
    peers = [
        Peer(
            mac=names.mac_at(_NETWORK.id, _SUBNETS[0].prefix[1000 + number]),
            addresses=tuple(s.prefix[1000 + number] for s in _SUBNETS),
            host=away.address,
        )
        for number in range(_ENDPOINTS)
    ]
    port = names.vxlan(_NETWORK.id)
    took: dict[str, list[float]] = {"enter": [], "look": [], "silence": [], "remove": []}
    for _ in range(bench.runs + 1):
        took["enter"].append(timed(lambda: here.make(here.meet(peers))))
        wiring = here.meet(peers)
        took["look"].append(timed(lambda w=wiring: here.kernel.observe(w)))  # type: ignore[misc]
        took["silence"].append(timed(here.kernel.forget_vtep, port, away.address))
        gone = diff(wiring, _NOTHING)
        took["remove"].append(timed(tear_down, gone, here.kernel, "peers"))
    limits = {"enter": 150, "silence": 20}
    for what, name in (
        ("enter", "program"),
        ("look", "look at"),
        ("silence", "silence a host of"),
        ("remove", "remove"),
    ):
        yield Comparison(
            name=f"{name} {_ENDPOINTS} endpoints of another host",
            ours=took[what][1:],
            limit=limits.get(what),
        )


def _pair(bench: Bench) -> tuple[_Host, _Host]:
    hosts = [_Host(n, place, bench.closing) for n, place in enumerate(_underlay(), 1)]
    for host in hosts:
        host.take_up(hosts)
    return hosts[0], hosts[1]


def _ours(bench: Bench) -> tuple[Place, Place, str]:
    """The sandbox that asks, the one that answers, and its address."""
    one, two = _pair(bench)
    boxes = Place(), Place()
    peers = one.connect(boxes[0], 11), two.connect(boxes[1], 21)
    one.make(one.meet([peers[1]]))
    two.make(two.meet([peers[0]]))
    return *boxes, str(_SUBNETS[0].prefix[21])


def _by_hand() -> tuple[Place, Place, str]:
    """The same, as `ip` makes it: no firewall, no guard, addresses learned."""
    boxes = []
    for number, place in enumerate(_underlay(), 1):
        box = Place()
        place.run("ip", "-batch", "-", stdin="\n".join([
            "link add br0 mtu 1450 type bridge",
            f"link add vx0 mtu 1450 type vxlan id 7 dstport 4789 local 192.0.2.{number} "
            f"remote 192.0.2.{3 - number}",
            "link set vx0 master br0 up",
            f"link add v0 mtu 1450 type veth peer name eth0 mtu 1450 netns {box.path}",
            "link set v0 master br0 up",
            "link set br0 up",
        ]))  # fmt: skip
        box.run("ip", "addr", "add", f"10.21.0.{number}/24", "dev", "eth0")
        box.run("ip", "link", "set", "eth0", "up")
        boxes.append(box)
    return boxes[0], boxes[1], "10.21.0.2"


def _underlay() -> tuple[Place, Place]:
    """Two machines side by side."""
    places = Place(), Place()
    places[0].run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0",
                  "netns", places[1].path)  # fmt: skip
    for number, place in enumerate(places, 1):
        switches = [f"net.bridge.bridge-nf-call-{p}tables=0" for p in ("ip", "ip6")]
        place.run("sysctl", "-qw", *switches)
        place.run("ip", "addr", "add", f"192.0.2.{number}/24", "dev", "eth0")
        place.run("ip", "link", "set", "eth0", "up")
    return places


def _rate(client: Place, program: str, address: str) -> float:
    process = client.python(program, address, str(_SECONDS))
    said, _ = process.communicate(timeout=30)
    if process.returncode:
        raise RuntimeError(f"nothing crosses to {address}")
    return float(said)
