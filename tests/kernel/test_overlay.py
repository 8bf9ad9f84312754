"""Overlay networks on real packets: who reaches whom, and as whom."""

from __future__ import annotations

from itertools import permutations

import pytest
from support.host import Host
from support.overlay import OUTSIDER, Cluster, cluster, lan_address, leave_nothing
from support.reach import Probe, Servers, Transport, differences

from netlib.model import Family

pytestmark = pytest.mark.kernel

TRANSPORTS: tuple[Transport, Transport] = ("tcp", "udp")
BOXES = {"a1": (1, 11), "a2": (1, 12), "b1": (2, 21), "c1": (3, 31)}
SERVICE = 7000  # of each host


def populate(made: Cluster, servers: Servers) -> None:
    """Sandboxes on all hosts; a1's port 80 is published as 8080."""
    for name, (number, last) in BOXES.items():
        box = made.connect(number, name, last, (8080,) if name == "a1" else ())
        servers.add(box, 80)
    for member in made.members:
        servers.add(member.place, SERVICE)
    servers.add(made.outsider, 80)


def address(made: Cluster, name: str, family: Family) -> str:
    """A sandbox's address."""
    endpoint = next(m.endpoints[name] for m in made.members if name in m.endpoints)
    found = endpoint.address(family)
    assert found is not None
    return str(found.ip)


def table(made: Cluster, family: Family, transport: Transport) -> list[Probe]:
    """Everybody's way to everybody."""
    probes = []

    def probe(name: str, source: object, where: str, port: int, expect: str = "") -> None:
        probes.append(Probe(name, source, transport, where, port, expect))  # type: ignore[arg-type]

    for one, other in permutations(BOXES, 2):
        me, it = address(made, one, family), address(made, other, family)
        probe("member", made.place(one), it, 80, f"{other}:80 {me}")
    gateway = str(next(s.gateway for s in made[1].network.subnets if s.family == family))
    for name, (number, _) in BOXES.items():
        me, box, host = address(made, name, family), made.place(name), made[number]
        home = lan_address(number, family)
        probe("gateway", box, gateway, SERVICE, f"host{number}:{SERVICE} {me}")
        probe("way out", box, lan_address(OUTSIDER, family), 80, f"outsider:80 {home}")
        probe("from its host", host.place, me, 80, f"{name}:80 {host.own(family)}")
        for other in made.members:
            own = other.own(family)
            probe("a host", box, own, SERVICE, f"host{other.number}:{SERVICE} {me}")
            if other is not host:
                probe("from another host", other.place, me, 80, f"{name}:80 {other.own(family)}")
                probe("not routed", made.outsider, me, 80)
    for one, two in permutations(made.members, 2):
        answer = f"host{two.number}:{SERVICE} {one.own(family)}"
        probe("host to host", one.place, two.own(family), SERVICE, answer)
    published = lan_address(1, family), 8080
    outside = lan_address(OUTSIDER, family)
    probe("published", made.outsider, *published, f"a1:80 {outside}")
    probe("published elsewhere", made.outsider, lan_address(2, family), 8080)
    probe("published, from its host", made[1].place, *published, f"a1:80 {lan_address(1, family)}")
    probe("published, from a host", made[2].place, *published, f"a1:80 {lan_address(2, family)}")
    for name, seen in (("a1", gateway), ("a2", gateway), ("b1", lan_address(2, family))):
        probe("published, from a member", made.place(name), *published, f"a1:80 {seen}")
    return probes


def both_ways(made: Cluster) -> list[str]:
    """The table's differences, in each family of the network and by both transports."""
    probes = [
        probe
        for family in made[1].network.families()
        for transport in TRANSPORTS
        for probe in table(made, family, transport)
    ]
    return differences(probes)


@pytest.mark.parametrize("underlay", [4, 6])
@pytest.mark.parametrize("backend", ["nftables", "iptables-legacy"])
def test_members_of_all_hosts_reach_each_other_and_go_out_by_their_own(
    host: Host, backend: str, underlay: Family
) -> None:
    """Each as itself; hosts too; published ports at the host of their endpoint."""
    with cluster(host, underlay=underlay, backend=backend) as made, Servers() as servers:
        populate(made, servers)

        assert not both_ways(made)
        for member in made.members:
            assert member.wiring == member.kernel.observe(member.wiring)
        leave_nothing(made)
