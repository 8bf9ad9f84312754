"""What an overlay network carries, beside a VXLAN set up by hand; what its entries cost."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import NamedTuple

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

_TRIES = 10
_TRIPS = 200
_CHUNKS, _CHUNK = 20, 1 << 17  # bytes; the socket's buffer takes one whole
_ENDPOINTS = 1000
_DRIVER = OverlayDriver()
_SUBNETS = (
    Subnet(prefix=ip_network("10.20.0.0/16"), gateway=ip_address("10.20.0.1")),
    Subnet(prefix=ip_network("2001:db8:20::/64"), gateway=ip_address("2001:db8:20::1")),
)
_NETWORK = Network(id="0a" * 32, name="app", driver="overlay", subnets=_SUBNETS, vni=4001)
_NOTHING = Wiring()


class _Way(NamedTuple):
    """From the sandbox that asks to the one that answers, at its address."""

    client: Place
    server: Place
    address: str


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
    """What crosses between sandboxes of two hosts, beside the same made with `ip`.

    On the same two hosts, and on two that have no packet filter and track no connection.
    """
    hosts = _pair(bench)
    ours = _ours(hosts)
    others = {
        "VXLAN by hand on the same hosts": _by_hand([host.place for host in hosts]),
        "VXLAN by hand, no packet filter": _by_hand(underlay()),
    }
    for what, measure, unit in (
        ("throughput", _throughput, "Mbit/s"),
        ("round trips", _round_trips, "1/s"),
    ):
        mine = measure(ours, bench)
        for number, (name, other) in enumerate(others.items()):
            samples: tuple[list[float], list[float]] = ([], [])
            ways = (mine, measure(other, bench))
            for turn in range(bench.runs + 1):
                # In turn, and each first every other time.
                for which in (0, 1) if turn % 2 else (1, 0):
                    samples[which].append(ways[which]())
            yield Comparison(
                name=f"{what} between sandboxes of two hosts",
                ours=samples[0][1:],
                other=name,
                others=samples[1][1:],
                unit=unit,
                aim=None if number else 0.95,
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
    hosts = [_Host(n, place, bench.closing) for n, place in enumerate(underlay(), 1)]
    for host in hosts:
        host.take_up(hosts)
    return hosts[0], hosts[1]


def _ours(hosts: tuple[_Host, _Host]) -> _Way:
    one, two = hosts
    boxes = Place(), Place()
    peers = one.connect(boxes[0], 11), two.connect(boxes[1], 21)
    one.make(one.meet([peers[1]]))
    two.make(two.meet([peers[0]]))
    return _Way(*boxes, str(_SUBNETS[0].prefix[21]))


def _by_hand(places: Sequence[Place]) -> _Way:
    """The same, as `ip` makes it: no rules of its own, addresses learned."""
    boxes = []
    for number, place in enumerate(places, 1):
        box = Place()
        place.run("ip", "-batch", "-", stdin="\n".join([
            "link add br0 mtu 1450 type bridge",
            f"link add vx0 mtu 1450 type vxlan id 7 dstport 4790 local 192.0.2.{number} "
            f"remote 192.0.2.{3 - number}",
            "link set vx0 master br0 up",
            f"link add v0 mtu 1450 type veth peer name eth0 mtu 1450 netns {box.path}",
            "link set v0 master br0 up",
            "link set br0 up",
        ]))  # fmt: skip
        box.run("ip", "addr", "add", f"10.21.0.{number}/24", "dev", "eth0")
        box.run("ip", "link", "set", "eth0", "up")
        boxes.append(box)
    return _Way(boxes[0], boxes[1], "10.21.0.2")


def underlay() -> tuple[Place, Place]:
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


# One thread has both ends, so that the packets' way is measured and not how soon a process is
# woken. Of some tries the best one counts: others are at work on the machine, too.


def _throughput(way: _Way, bench: Bench) -> Callable[[], float]:
    """How much one connection carries."""
    listener = bench.closing.enter_context(way.server.call(socket.socket))
    client = bench.closing.enter_context(way.client.call(socket.socket))
    listener.bind((way.address, 0))
    listener.listen()
    client.connect(listener.getsockname())
    server = bench.closing.enter_context(listener.accept()[0])
    for end in (client, server):
        end.settimeout(5)
    data, buffer = bytes(_CHUNK), bytearray(_CHUNK)

    def several() -> float:
        begin = time.perf_counter()
        for _ in range(_CHUNKS):
            client.sendall(data)
            left = _CHUNK
            while left:
                left -= server.recv_into(buffer)
        return _CHUNKS * _CHUNK * 8 / (time.perf_counter() - begin) / 1e6

    return lambda: max(several() for _ in range(_TRIES))


def _round_trips(way: _Way, bench: Bench) -> Callable[[], float]:
    """How many questions are answered in a second."""
    client, server = (
        bench.closing.enter_context(place.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM))
        for place in (way.client, way.server)
    )
    server.settimeout(5)
    client.settimeout(5)
    server.bind((way.address, 0))
    client.connect(server.getsockname())
    client.send(b"x")
    server.connect(server.recvfrom(1)[1])

    def several() -> float:
        begin = time.perf_counter()
        for _ in range(_TRIPS):
            client.send(b"x")
            server.recv(1)
            server.send(b"x")
            client.recv(1)
        return _TRIPS / (time.perf_counter() - begin)

    return lambda: max(several() for _ in range(_TRIES))
