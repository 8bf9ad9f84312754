"""How soon other hosts of a cluster know of an endpoint, of a thousand, and that they are gone.

Two hosts with a daemon each and an etcd of the first one's, as `net cluster init` makes it. What
the kernel was told there is heard from itself (rtnetlink(7)), names are asked for.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import dnslib  # type: ignore[import-untyped]

from benchmarks.bench import Bench
from benchmarks.measure import Comparison, timed
from benchmarks.overlay import underlay
from benchmarks.place import Place
from netlib import Net, names
from netlib.cluster import keys as cluster_keys
from netlib.cluster.etcd_members import credentials
from netlib.cluster.model import Node, SharedEndpoint
from netlib.cluster.records import dump_endpoint
from netlib.cluster.state import ClusterState
from netlib.frontends.daemon.starting import running
from netlib.keys import endpoint_key
from netlib.model import Netns, interface
from netlib.records import dump
from netlib.store import Commit
from netlib.store.etcd_requests import Keys
from netlib.store.etcd_servers import Servers
from netlib.verbs.shared import let_go

_SUBNETS = ("10.20.0.0/16", "2001:db8:20::/64")
_GATEWAY = "10.20.0.1"
_ENDPOINTS = 1000
_TOLD = 200
_NEW, _GONE = 28, 29  # RTM_NEWNEIGH, RTM_DELNEIGH (linux/rtnetlink.h)
_PATIENCE_SECONDS = 20.0


class _Host:
    """A member, the library as it is used there, and its sandboxes."""

    def __init__(self, place: Place, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self.net: Net = place.call(Net, folder, firewall="nftables")
        self.boxes: dict[str, Place] = {}

    def say(self, *argv: str) -> str:
        """What the command line says here."""
        env = {**os.environ, "NETLIB_STATE_DIR": str(self.folder), "NETLIB_FIREWALL": "nftables"}
        return self.place.run(sys.executable, "-m", "netlib", *argv, env=env)

    def box(self, name: str) -> str:
        """The name of a new sandbox."""
        place = self.boxes[name] = Place()
        inode = os.stat(place.path).st_ino
        netns = Netns(name=name, path=place.path, inode=inode)
        self.place.call(self.net.register_sandbox, name, netns)
        return name

    def end(self) -> None:
        """Leave, and end the daemon."""
        self.say("cluster", "leave", "--force")
        daemon = running(self.folder)
        self.place.call(self.net.close)
        if daemon:
            os.kill(daemon, signal.SIGTERM)
        _until(lambda: not running(self.folder), "the daemon's end")


class _News:
    """When what the store tells arrives at a host: as soon as another who is told has it."""

    def __init__(self, host: _Host, bench: Bench) -> None:
        membership = host.place.call(host.net.engine.meeting.membership)
        assert membership is not None
        self._place, self._keys = host.place, Keys(membership.prefix, cluster_keys.UNTOLD)
        self._servers = Servers(membership.endpoints, credentials(membership), 20)
        bench.closing.callback(self._servers.close)

    def of(self, act: Callable[[], None]) -> float:
        """When the first line came of what is done (perf_counter(2))."""
        question = {"create_request": self._keys.told}
        deadline = time.monotonic() + _PATIENCE_SECONDS
        connection = self._place.call(self._servers.stream, "/v3/watch", question, deadline)
        try:
            self._place.call(connection.line, deadline)  # that it is open
            heard = self._place.start(lambda: (connection.line(deadline), time.perf_counter())[1])
            act()
            return heard.result()
        finally:
            self._servers.end(connection)


@dataclass(frozen=True, slots=True)
class _Ear:
    """What the kernel of a host tells of its neighbours and forwarding entries."""

    socket: socket.socket

    @classmethod
    def at(cls, place: Place, bench: Bench) -> _Ear:
        """One, from now on."""

        def open_socket() -> socket.socket:
            sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            sock.setsockopt(socket.SOL_SOCKET, 33, 1 << 25)  # SO_RCVBUFFORCE
            sock.bind((0, 1 << 2))  # RTNLGRP_NEIGH
            sock.settimeout(_PATIENCE_SECONDS)
            return sock

        return cls(bench.closing.enter_context(place.call(open_socket)))

    def hear(self, kind: int, number: int, fits: Callable[[bytes], bool]) -> float:
        """Wait for so many messages of a kind that fit: when the last of them came.

        What fits is judged after as many came as could do: the judging is not what is measured.
        """
        last = 0.0
        while number > 0:
            heard: list[tuple[float, bytes]] = []
            while len(heard) < number:
                data = self.socket.recv(1 << 16)
                now = time.perf_counter()
                while data:
                    length, what = struct.unpack_from("=IH", data)
                    if what == kind:
                        heard.append((now, data[:length]))
                    data = data[(length + 3) & ~3 :]
            for at, message in heard:
                if fits(message):
                    number, last = number - 1, at
        return last

    def forget(self) -> None:
        """Drop what was told up to now."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(1 << 16):
                pass
        except BlockingIOError:
            self.socket.settimeout(_PATIENCE_SECONDS)


def told(bench: Bench) -> Iterator[Comparison]:
    """An endpoint is connected: how long after that another host has its entries and its name."""
    one, two = _cluster(bench)
    _network(one, "app")
    for host, name in ((one, "first"), (two, "asks")):
        host.place.call(host.net.connect, "app", host.box(name))
    ear = _Ear.at(two.place, bench)
    ask = bench.closing.enter_context(
        two.boxes["asks"].call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    )
    ask.connect((_GATEWAY, 53))
    ask.settimeout(1)
    _until(lambda: _resolves(ask, "first"), "the first name")
    entered, named = [], []
    for number in range(_TOLD):
        name = one.box(f"s{number}")
        mac = bytes.fromhex(one.place.call(one.net.connect, "app", name).mac.replace(":", ""))
        returned = time.perf_counter()
        known = ear.hear(_NEW, 4, lambda message, mac=mac: mac in message)  # type: ignore[misc]
        entered.append((known - returned) * 1000)
        _until(lambda: _resolves(ask, name), "a name")  # noqa: B023  # called at once
        named.append((time.perf_counter() - returned) * 1000)
        one.place.call(one.net.disconnect, "app", name)
        ear.hear(_GONE, 2, lambda message, mac=mac: mac in message)  # type: ignore[misc]
    for what, samples in (("entries", entered), ("name", named)):
        title = f"{what} on another host, after connect returned"
        yield Comparison(name=title, ours=samples)
        last = sorted(samples)[int(len(samples) * 0.99)]
        yield Comparison(name=f"{title}, 99th percentile", ours=[last], limit=20)


def crowd(bench: Bench) -> Iterator[Comparison]:
    """A thousand endpoints of another host: they arrive, are joined, and die with it."""
    one, two = _cluster(bench)
    network = _network(one, "app")
    cluster: ClusterState = one.place.call(lambda: one.net.engine.cluster)
    two.place.call(two.net.connect, "app", two.box("here"))
    ear, news = _Ear.at(two.place, bench), _News(two, bench)
    took: dict[str, list[float]] = {"arrive": [], "silence": [], "die": [], "join": []}
    for turn in range(bench.runs + 1):
        host = _Stranger(cluster, network, turn)
        ear.forget()
        host.come()
        told = news.of(host.arrive)
        took["arrive"].append((ear.hear(_NEW, 4 * _ENDPOINTS, host.is_its) - told) * 1000)

        one.box(f"box{turn}")
        took["join"].append(
            one.place.call(lambda n=turn: timed(one.net.connect, "app", f"box{n}"))  # type: ignore[misc]
        )
        one.place.call(one.net.disconnect, "app", f"box{turn}")
        one.place.call(_let_go, one.net, network)

        ear.forget()
        told = news.of(host.die)
        silent = ear.hear(_GONE, _ENDPOINTS, lambda m, h=host: h.is_its(m) and h.leads_there(m))  # type: ignore[misc]
        took["silence"].append((silent - told) * 1000)
        took["die"].append((ear.hear(_GONE, 3 * _ENDPOINTS, host.is_its) - told) * 1000)
    for what, name, limit in (
        ("arrive", "program {} endpoints, from when they are told", 150),
        ("join", "join a network of {} endpoints", 2000),
        ("silence", "silence {} of a dead host, likewise", 20),
        ("die", "forget these altogether, likewise", None),
    ):
        yield Comparison(name=name.format(_ENDPOINTS), ours=took[what][1:], limit=limit)


def _attributes(message: bytes) -> Iterator[bytes]:
    """The values of a message about a neighbour: after two headers (linux/neighbour.h)."""
    at = 16 + 12
    while at < len(message):
        (length,) = struct.unpack_from("=H", message, at)
        yield message[at + 4 : at + length]
        at += (length + 3) & ~3


class _Stranger:
    """A host that only the cluster's store knows, with a thousand endpoints."""

    def __init__(self, cluster: ClusterState, network: str, turn: int) -> None:
        self._cluster = cluster
        self._address = ip_address("192.0.2.200") + turn
        self._lease = cluster.store.grant(600)
        self._node = Node(
            id=names.new_id(),
            name=f"stranger{turn}",
            address=self._address,
            data_address=self._address,
        )
        made = [
            SharedEndpoint(
                id=names.new_id(),
                network=network,
                node=self._node.id,
                host=self._address,
                mac=names.mac_at(network, ip_address("10.20.100.0") + number),
                addresses=(
                    interface(ip_address("10.20.100.0") + number, 16),
                    interface(ip_address("2001:db8:20::a:0") + number, 64),
                ),
                sandbox=f"far{number}",
            )
            for number in range(_ENDPOINTS)
        ]
        self._marks = {
            *(bytes.fromhex(one.mac.replace(":", "")) for one in made),
            *(address.ip.packed for one in made for address in one.addresses),
        }
        self._puts = {endpoint_key(network, one.id): dump_endpoint(one) for one in made}

    def come(self) -> None:
        """Be a node, and known as one."""
        self._cluster.store.commit(Commit(put={cluster_keys.node(self._node.id): dump(self._node)}))
        alive = Commit(put={cluster_keys.alive(self._node.id): "{}"})
        self._cluster.store.leased(self._lease).commit(alive)
        time.sleep(0.5)

    def arrive(self) -> None:
        """Have them all."""
        self._cluster.store.leased(self._lease).commit(Commit(put=self._puts))

    def die(self) -> None:
        """Without a word."""
        self._cluster.store.revoke(self._lease)

    def is_its(self, message: bytes) -> bool:
        """Whether a message of the kernel's is about one of them, by its address or MAC."""
        return any(value in self._marks for value in _attributes(message))

    def leads_there(self, message: bytes) -> bool:
        """Whether it is about where frames go."""
        return self._address.packed in _attributes(message)


def _cluster(bench: Bench) -> tuple[_Host, _Host]:
    hosts = []
    for place in underlay():
        folder = Path(bench.closing.enter_context(tempfile.TemporaryDirectory(dir="/run")))
        hosts.append(_Host(place, folder))
        bench.closing.callback(hosts[-1].end)
    one, two = hosts
    one.say("cluster", "init", "--advertise-addr", "192.0.2.1", "--name", "one")
    token = one.say("cluster", "join-token", "--quiet").strip()
    two.say("cluster", "join", "--token", token, "192.0.2.1", "--name", "two")
    return one, two


def _let_go(net: Net, network: str) -> None:
    """Have nothing of a network, as before the first sandbox joined."""
    net.engine.run(lambda: let_go(net.engine, net.engine.state.network(network)))


def _network(host: _Host, name: str) -> str:
    """An overlay that nobody is asked about outside; chosen addresses are from its first half."""
    made = host.place.call(
        lambda: host.net.create(
            name,
            driver="overlay",
            subnets=_SUBNETS,
            ip_ranges=["10.20.0.0/18", "2001:db8:20::/112"],
            attachable=True,
            internal=True,
        )
    )
    return str(made.id)


def _resolves(ask: socket.socket, name: str) -> bool:
    """Whether a name has an address by now."""
    ask.send(dnslib.DNSRecord.question(name).pack())
    return bool(dnslib.DNSRecord.parse(ask.recv(512)).rr)


def _until(fact: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not fact():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come")
        time.sleep(0.0005)
