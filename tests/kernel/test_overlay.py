"""Overlay networks on real packets: who reaches whom, as whom, and what crosses the underlay."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from support.frames import SILENCE, listening, says
from support.host import Host
from support.overlay import NOTHING, VNI, Member, cluster, leave_nothing
from support.overlay_table import address, all_differences, populate
from support.patience import eventually
from support.reach import Probe, Servers, ask, differences
from support.traffic import reachable, serve, unreachable

from netlib.apply import apply, tear_down
from netlib.model import Family, Network
from netlib.plan import diff
from netlib.wiring import FdbEntry, VethPair, Vxlan, Wiring

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("underlay", [4, 6])
@pytest.mark.parametrize("backend", ["nftables", "iptables-legacy"])
def test_members_of_all_hosts_reach_each_other_and_go_out_by_their_own(
    host: Host, backend: str, underlay: Family
) -> None:
    """Each as itself; hosts too; published ports at the host of their endpoint."""
    with cluster(host, underlay=underlay, backend=backend) as made, Servers() as servers:
        populate(made, servers)

        assert not all_differences(made)
        for member in made.members:
            assert member.wiring == member.kernel.observe(member.wiring)
        leave_nothing(made)


# -- what crosses ---------------------------------------------------------------------------------


def shout(box: object, family: Family, text: str) -> None:
    """Send a datagram to everybody: by broadcast, or to all nodes."""

    def work() -> None:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with socket.socket(kind, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            for where in ("255.255.255.255", "224.0.0.251") if family == 4 else ("ff02::fb",):
                client.sendto(text.encode(), (where, 5353))

    box.call(work)  # type: ignore[attr-defined]


def test_nothing_crosses_but_what_is_for_somebody(host: Host) -> None:
    """No ARP, no neighbour discovery, no broadcast: all is known, and what is not is nowhere."""
    from scapy.all import ARP, VXLAN, Ether, IPv6

    with cluster(host) as made, Servers() as servers, listening(host, "p1") as ear:
        populate(made, servers)
        box, port = made.place("a1"), made[1].port
        # Not even where somebody gives the tunnel a place for it: the port takes none.
        made[1].place.run("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", port,
                          "dst", "192.0.2.2", "self", "permanent")  # fmt: skip
        for family in (4, 6):
            shout(box, family, "to everybody")
        nobody = ("198.51.100.99", "2001:db8:a::99")
        assert ask([Probe("nobody", box, "udp", where, 80) for where in nobody]) == ["", ""]
        b1 = [address(made, "b1", family) for family in (4, 6)]
        answers = ask([Probe("b1", box, "udp", to, 80, "an answer") for to in b1])
        assert all(answer.startswith("b1:80") for answer in answers)
        made.place("a1").run("ping", "-c", "1", "-W", "2", b1[0])

        heard = [f for f in ear.frames(lambda _: False, SILENCE) if VXLAN in f]
        # What the host's own devices send to groups (RFC 3810), Linux puts on every port, whatever
        # it takes (br_flood in net/bridge/br_forward.c); without such a place it ends there.
        own = {d["address"] for d in json.loads(made[1].place.run("ip", "-j", "link").stdout)}
        frames = [frame[VXLAN][Ether] for frame in heard]
        inner = [f for f in frames if not (f.src in own and f.dst.startswith("33:33:"))]
        assert inner
        assert {frame[VXLAN].vni for frame in heard} == {VNI}
        members = {m.peer_of(n).mac for m in made.members for n in ("", *m.endpoints)}
        assert {f.dst for f in inner} | {f.src for f in inner} <= members
        assert not [f for f in inner if ARP in f or (IPv6 in f and f[IPv6].nh == 58)]
        assert not [f for f in inner if b"to everybody" in bytes(f)]


def test_what_is_for_everybody_crosses_where_that_is_asked_for(host: Host) -> None:
    """To each host once; neighbours are still answered for at home."""
    from scapy.all import ARP, VXLAN

    def loud(network: Network) -> Network:
        return replace(network, options={"flood": "on"})

    with cluster(host, further=loud) as made, Servers() as servers:
        populate(made, servers)
        for family in (4, 6):
            with listening(made.place("b1")) as b1, listening(made.place("c1")) as c1:
                shout(made.place("a1"), family, f"hello {family}")
                assert b1.hears(says(f"hello {family}"))
                assert c1.hears(says(f"hello {family}"))
        with listening(host, "p1") as ear:
            assert not all_differences(made)
            heard = list(ear.frames(lambda _: False, SILENCE))
            assert not [frame for frame in heard if VXLAN in frame and ARP in frame]
        leave_nothing(made)


# -- what changes ---------------------------------------------------------------------------------


def move(name: str, source: Member, target: Member, others: list[Member]) -> None:
    """An endpoint goes to another host, with its addresses: what agents do."""
    endpoint, box = source.endpoints.pop(name), source.sandboxes.pop(name)
    there, here = source.describe(endpoint), target.meet_at(source.address, endpoint)
    source.turn(there, NOTHING)
    target.endpoints[name], target.sandboxes[name] = endpoint, box
    target.turn(here, target.describe(endpoint))
    for other in others:
        other.turn(other.meet_at(source.address, endpoint), other.meet(target.peer_of(name)))
    source.turn(NOTHING, source.meet(target.peer_of(name)))


def test_an_endpoint_that_moves_is_silent_for_a_moment(host: Host) -> None:
    """Well under a second, and nobody has anything to forget: neither address nor MAC changed."""
    with cluster(host) as made:
        made.connect(1, "a1", 11)
        box = made.connect(2, "b1", 21)
        where = address(made, "b1", 4)
        heard: list[float] = []
        over = threading.Event()

        def listen() -> socket.socket:
            ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            ear.bind(("0.0.0.0", 9))  # inside the sandbox
            ear.settimeout(0.05)
            return ear

        def count() -> None:
            while not over.is_set():
                try:
                    ear.recv(16)
                except TimeoutError:
                    continue
                heard.append(time.monotonic())

        def talk() -> None:
            with made.place("a1").call(
                lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            ) as client:
                while not over.wait(0.005):
                    client.sendto(b"x", (where, 9))

        with box.call(listen) as ear:
            threads = [threading.Thread(target=work) for work in (count, talk)]
            for thread in threads:
                thread.start()
            eventually(lambda: len(heard) > 10)
            before = len(heard)
            move("b1", made[2], made[3], [made[1]])
            eventually(lambda: len(heard) > before + 50)
            over.set()
            for thread in threads:
                thread.join()
        assert max(b - a for a, b in pairwise(heard)) < 0.5
        for member in made.members:
            assert member.wiring == member.kernel.observe(member.wiring)
        leave_nothing(made)


def test_a_host_that_is_gone_is_silenced_by_one_message(host: Host) -> None:
    """Nothing is sent to it any more; to the others as before."""
    with cluster(host) as made, Servers() as servers:
        populate(made, servers)
        one, two = made[1], made[2]
        one.kernel.forget_vtep(one.port, two.address)

        with listening(host, "p2") as ear:
            probes = [
                Probe("gone", made.place("a1"), "udp", address(made, "b1", 4), 80),
                Probe("there", made.place("a1"), "udp", address(made, "c1", 4), 80,
                      f"c1:80 {address(made, 'a1', 4)}"),
            ]  # fmt: skip
            assert not differences(probes)
            assert not ear.hears(says("question"), SILENCE)
        entries = [n for n in one.wiring if isinstance(n, FdbEntry) and n.remote == two.address]
        assert entries
        assert not one.kernel.observe(Wiring(entries))


def test_half_an_entry_that_nobody_wants_goes(host: Host) -> None:
    """The tunnel's or the bridge's, as after a death between the one and the other."""
    with cluster(host) as made:
        made.connect(1, "a1", 11)
        one, (mac, other) = made[1], ("02:00:00:00:0f:01", "02:00:00:00:0f:02")
        one.place.run("bridge", "fdb", "add", mac, "dev", one.port, "dst", "192.0.2.3", "self",
                      "permanent")  # fmt: skip
        one.place.run("bridge", "fdb", "add", other, "dev", one.port, "master", "static", "sticky")
        foreign = [n for n in one.kernel.entries(one.port) if n not in one.wiring]
        assert {noun.mac for noun in foreign if isinstance(noun, FdbEntry)} == {mac, other}
        apply(diff(Wiring(foreign), NOTHING), one.kernel)
        said = one.place.run("bridge", "fdb", "show", "dev", one.port).stdout
        assert mac not in said
        assert other not in said


def test_a_sandbox_whose_port_knows_it_no_more_is_seen_and_put_right(host: Host) -> None:
    """Nothing that it sends comes in then."""
    with cluster(host) as made:
        made.connect(1, "a1", 11)
        made.connect(2, "b1", 21)
        one, mac = made[1], made[1].endpoints["a1"].mac
        (port,) = [noun for noun in one.wiring if isinstance(noun, VethPair)]
        with serve(made.place("b1"), 80):
            to = address(made, "b1", 4)
            assert reachable(made.place("a1"), to, 80)
            one.place.run("bridge", "fdb", "del", mac, "dev", port.name, "master")
            assert unreachable(made.place("a1"), to, 80)

            seen = one.kernel.observe(one.wiring)
            assert [noun for noun in one.wiring if noun not in seen] == [port]
            one.turn(seen, one.wiring)
            assert reachable(made.place("a1"), to, 80)


@pytest.mark.parametrize(
    "line",
    [
        "bridge link set dev {} learning on",
        "bridge link set dev {} neigh_suppress off",
        "ip link set {} type vxlan learning",
    ],
)
def test_a_port_that_learns_or_asks_is_seen_and_put_right(host: Host, line: str) -> None:
    """Who sends first would decide where frames go, or requests cross to all hosts."""
    with cluster(host) as made:
        made.connect(1, "a1", 11)
        one = made[1]
        one.place.run(*line.format(one.port).split())

        seen = one.kernel.observe(one.wiring)
        (wrong,) = [noun for noun in one.wiring if noun not in seen]
        assert isinstance(wrong, Vxlan)
        assert line.split()[-2] in diff(seen, one.wiring).text()
        one.turn(seen, one.wiring)
        assert one.kernel.observe(one.wiring) == one.wiring


def test_a_wrong_entry_is_seen_and_put_right(host: Host) -> None:
    """One that leads elsewhere, one that is missing, and one that nobody wants."""
    with cluster(host) as made:
        made.connect(1, "a1", 11)
        box = made.connect(2, "b1", 21)
        one = made[1]
        mac, to = made[2].endpoints["b1"].mac, address(made, "b1", 4)
        with serve(box, 80):
            assert reachable(made.place("a1"), to, 80)
            one.place.run("ip", "neigh", "del", to, "dev", one.bridge)
            one.place.run("bridge", "fdb", "replace", mac, "dev", one.port, "dst", "192.0.2.3",
                          "self", "permanent")  # fmt: skip
            one.place.run("bridge", "fdb", "add", "02:00:00:00:0f:01", "dev", one.port, "dst",
                          "192.0.2.3", "self", "permanent")  # fmt: skip
            assert unreachable(made.place("a1"), to, 80)

            seen = one.kernel.observe(one.wiring)
            assert len(one.wiring) == len(seen) + 1
            assert len([noun for noun in one.wiring if noun not in seen]) == 2
            one.turn(seen, one.wiring)
            assert reachable(made.place("a1"), to, 80)
        foreign = [n for n in one.kernel.entries(one.port) if n not in one.wiring]
        assert len(foreign) == 1
        assert isinstance(foreign[0], FdbEntry)
        assert foreign[0].mac == "02:00:00:00:0f:01"
        tear_down(diff(Wiring(foreign), NOTHING), one.kernel, "a foreign entry")
        for device in (one.port, one.bridge):
            assert all(noun in one.wiring for noun in one.kernel.entries(device))
