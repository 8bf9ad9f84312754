"""Who reaches whom in an overlay network, and as whom: the table that holds for all of them."""

from __future__ import annotations

from itertools import permutations

from netlib.model import Family
from support.host import Host, Place
from support.overlay import OUTSIDER, Cluster, lan_address
from support.reach import Probe, Servers, Transport, differences

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


def all_differences(made: Cluster) -> list[str]:
    """Where the table does not hold, in any family of the network, by either transport."""
    probes = [
        probe
        for family in made[1].network.families()
        for transport in TRANSPORTS
        for probe in _table(made, family, transport)
    ]
    return differences(probes)


def _table(made: Cluster, family: Family, transport: Transport) -> list[Probe]:
    probes = []

    def probe(name: str, source: Host | Place, where: str, port: int, expect: str = "") -> None:
        probes.append(Probe(name, source, transport, where, port, expect))

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
        for other_host in made.members:
            own = other_host.own(family)
            probe("a host", box, own, SERVICE, f"host{other_host.number}:{SERVICE} {me}")
            if other_host is not host:
                probe("from another host", other_host.place, me, 80, f"{name}:80 {own}")
        probe("not routed", made.outsider, me, 80)
    for first, second in permutations(made.members, 2):
        answer = f"host{second.number}:{SERVICE} {first.own(family)}"
        probe("host to host", first.place, second.own(family), SERVICE, answer)
    published = lan_address(1, family), 8080
    outside = lan_address(OUTSIDER, family)
    probe("published", made.outsider, *published, f"a1:80 {outside}")
    probe("published elsewhere", made.outsider, lan_address(2, family), 8080)
    probe("published, from its host", made[1].place, *published, f"a1:80 {lan_address(1, family)}")
    probe("published, from a host", made[2].place, *published, f"a1:80 {lan_address(2, family)}")
    for name, seen in (("a1", gateway), ("a2", gateway), ("b1", lan_address(2, family))):
        probe("published, from a member", made.place(name), *published, f"a1:80 {seen}")
    return probes
