"""Overlay networks of other kinds: one family, two subnets, internal, quiet, and their MTU."""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import replace
from functools import partial

import pytest
from support.host import Host, Place
from support.overlay import (
    OUTSIDER,
    SECOND,
    Cluster,
    cluster,
    lan_address,
    leave_nothing,
)
from support.overlay_table import BOXES, SERVICE, TRANSPORTS, address, all_differences, populate
from support.patience import eventually
from support.reach import Probe, Servers, differences

from netlib import names
from netlib.errors import AlreadyThere, InvalidOption
from netlib.model import HOST, Family, Network, Subnet, interface
from netlib.plan import Create, Stage
from netlib.wiring import Layer, Vxlan

pytestmark = pytest.mark.kernel


def with_options(network: Network, **options: str) -> Network:
    """The network with other options."""
    return replace(network, options=options)


@pytest.mark.parametrize(
    ("families", "bridge_netfilter"),
    [((4,), False), ((6,), False), ((4, 6), True)],
    ids=["ipv4", "ipv6", "bridge-netfilter"],
)
def test_one_family_is_enough_and_bridged_packets_may_pass_the_firewall(
    host: Host, families: tuple[Family, ...], bridge_netfilter: bool
) -> None:
    """The table holds for each."""
    with (
        cluster(host, families=families, bridge_netfilter=bridge_netfilter) as made,
        Servers() as servers,
    ):
        populate(made, servers)
        assert not all_differences(made)


def test_a_network_may_have_several_subnets(host: Host) -> None:
    """Members of each reach those of the other at once: all of it is one link."""

    def wider(network: Network) -> Network:
        more = tuple(Subnet(prefix=prefix, gateway=prefix[1]) for prefix in SECOND.values())
        return replace(network, subnets=(*network.subnets, *more))

    with cluster(host, 2, further=wider) as made, Servers() as servers:
        made.connect(1, "a1", 11)
        second = tuple(interface(prefix[21], prefix.prefixlen) for prefix in SECOND.values())
        box = made.connect(2, "b1", 21, addresses=second)
        for place in (made.place("a1"), box):
            servers.add(place, 80)

        probes = [
            Probe("across", one, transport, str(there.ip), 80, f"{name}:80 {here.ip}")
            for transport in TRANSPORTS
            for here, there in zip(made[1].endpoints["a1"].addresses, second, strict=True)
            for one, there, here, name in (
                (made.place("a1"), there, here, "b1"),
                (box, here, there, "a1"),
            )
        ]
        assert not differences(probes)
        leave_nothing(made)


@pytest.mark.parametrize("backend", ["nftables", "iptables-legacy"])
def test_an_internal_network_is_open_inside_and_nowhere_else(host: Host, backend: str) -> None:
    """Members of all hosts, and the hosts themselves; no way out, none in."""
    inside = partial(replace, internal=True)
    with cluster(host, 2, backend=backend, further=inside) as made, Servers() as servers:
        for name, (number, last) in BOXES.items():
            if number < 3:
                servers.add(made.connect(number, name, last), 80)
        servers.add(made.outsider, 80)
        for member in made.members:
            servers.add(member.place, SERVICE)
        probes = []
        for family in (4, 6):
            a1, b1 = (address(made, name, family) for name in ("a1", "b1"))
            gateway = str(next(s.gateway for s in made[1].network.subnets if s.family == family))
            box = made.place("a1")
            probes += [
                Probe("member", box, "tcp", b1, 80, f"b1:80 {a1}"),
                Probe("host", made[2].place, "udp", a1, 80, f"a1:80 {made[2].own(family)}"),
                Probe("gateway", box, "tcp", gateway, SERVICE, f"host1:{SERVICE} {a1}"),
                Probe("host's address", box, "tcp", lan_address(1, family), SERVICE),
                Probe("out", box, "tcp", lan_address(OUTSIDER, family), 80),
                Probe("in", made.outsider, "tcp", a1, 80),
            ]
        for family in (4, 6):  # also for who finds the way by himself
            where = made[1].network.gateways()[0 if family == 4 else 1].ip
            made.place("a1").run("ip", "route", "add", "default", "via", str(where))
        assert not differences(probes)


def test_members_that_may_not_talk_meet_at_published_ports_only(host: Host) -> None:
    """On one host and on two; each host reaches its own, and they their way out."""
    quiet = partial(with_options, icc="false")
    with cluster(host, further=quiet) as made, Servers() as servers:
        populate(made, servers)
        probes = []
        for family in (4, 6):
            published, a1 = lan_address(1, family), address(made, "a1", family)
            for one, other in (("a1", "a2"), ("a1", "b1"), ("b1", "a1"), ("b1", "c1")):
                to = address(made, other, family)
                probes += [Probe("member", made.place(one), t, to, 80) for t in TRANSPORTS]
            seen = f"a1:80 {made[1].own(family)}"
            probes.append(Probe("its host", made[1].place, "tcp", a1, 80, seen))
            probes.append(Probe("another host", made[2].place, "tcp", a1, 80))
            seen = f"a1:80 {lan_address(2, family)}"
            probes.append(Probe("published", made.place("b1"), "tcp", published, 8080, seen))
            out = lan_address(OUTSIDER, family)
            probes.append(Probe("published", made.outsider, "tcp", published, 8080, f"a1:80 {out}"))
            seen = f"outsider:80 {lan_address(3, family)}"
            probes.append(Probe("out", made.place("c1"), "tcp", out, 80, seen))
        assert not differences(probes)
        leave_nothing(made)


# -- how long a packet may be ---------------------------------------------------------------------

_HEADERS = {4: 28, 6: 48}  # IP and UDP
_MTU_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_DO = 2  # never fragment (ip(7), ipv6(7))


def carried(source: Place, target: Place, where: str, length: int) -> int:
    """How much of a packet of this length arrives, 0 if it was refused by who sends it."""
    family: Family = 6 if ":" in where else 4
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET

    def open_one() -> socket.socket:
        return socket.socket(kind, socket.SOCK_DGRAM)

    with target.call(open_one) as server, source.call(open_one) as client:
        server.bind((where, 0))
        server.settimeout(5)
        client.setsockopt(*_MTU_DISCOVER[family], _DO)
        try:
            client.sendto(b"x" * (length - _HEADERS[family]), (where, server.getsockname()[1]))
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return 0
            raise
        return len(server.recv(65535)) + _HEADERS[family]


_MTU = {4: (socket.IPPROTO_IP, 14), 6: (socket.IPPROTO_IPV6, 24)}  # IP_MTU, IPV6_MTU


def told_mtu(source: Place, where: str, length: int) -> int:
    """Which MTU who sends packets of this length is told of, on the way to an address."""
    family: Family = 6 if ":" in where else 4
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET

    def work() -> int:
        with socket.socket(kind, socket.SOCK_DGRAM) as client:
            client.setsockopt(*_MTU_DISCOVER[family], _DO)
            client.connect((where, 9))

            def told() -> int:
                with contextlib.suppress(OSError):  # too long, or nobody listens there
                    client.send(b"x" * (length - _HEADERS[family]))
                mtu = client.getsockopt(*_MTU[family])
                return mtu if mtu < length else 0

            return eventually(told)

    return source.call(work)


@pytest.mark.parametrize(
    ("underlay", "mtu", "most"), [(4, 1500, 1450), (6, 1500, 1430), (4, 9000, 8950)]
)
def test_the_longest_packet_passes_and_a_longer_one_is_refused_where_it_is_sent(
    host: Host, underlay: Family, mtu: int, most: int
) -> None:
    """In sandboxes and on hosts: nothing is lost on the way without a word."""
    with cluster(host, 2, underlay=underlay, mtu=mtu) as made:
        made.connect(1, "a1", 11)
        box = made.connect(2, "b1", 21)
        for family in (4, 6):
            to = address(made, "b1", family)
            for source in (made.place("a1"), made[1].place):
                assert carried(source, box, to, most) == most
                assert carried(source, box, to, most + 1) == 0


@pytest.mark.parametrize(("underlay", "most"), [(4, 1350), (6, 1330)])
def test_who_sends_more_than_a_route_of_the_underlay_carries_is_told(
    host: Host, underlay: Family, most: int
) -> None:
    """A VPN or a narrow link on the way to one host: smaller than the device that leads there."""
    with cluster(host, 2, underlay=underlay) as made:
        made.connect(1, "a1", 11)
        box = made.connect(2, "b1", 21)
        narrow, kind = lan_address(2, underlay), ["-6"] if underlay == 6 else []
        made[1].place.run("ip", *kind, "route", "add", narrow, "dev", "eth0", "mtu", "1400")
        for family in (4, 6):
            to = address(made, "b1", family)
            for source in (made.place("a1"), made[1].place):
                assert told_mtu(source, to, most + 100) == most
                assert carried(source, box, to, most) == most
                assert carried(source, box, to, most + 1) == 0


def test_a_smaller_underlay_than_the_networks_mtu_is_refused(host: Host) -> None:
    """Where it is taken up, before anything is made."""

    def longer(made: Cluster) -> Network:
        return replace(made[1].network, options={"mtu": "1451"})

    with cluster(host, 1) as made, pytest.raises(InvalidOption, match="1450 at most"):
        made[1].driver.network_wiring(longer(made), made[1].kernel.facts())


def test_who_has_a_networks_number_on_the_host_is_looked_for(host: Host) -> None:
    """Another program's VXLAN device, of which the kernel says only that there is one."""
    with cluster(host, 1) as made:
        one = made[1]
        other, mine = replace(one.network, id="0b" * 32), names.bridge(one.network.id)
        vxlan = next(
            noun
            for noun in one.driver.network_wiring(other, one.kernel.facts())
            if isinstance(noun, Vxlan)
        )
        with pytest.raises(AlreadyThere, match="VNI already exists") as caught:
            one.place.call(
                lambda: one.kernel.do(
                    Stage(Layer.LINK, HOST, (Create(replace(vxlan, bridge=mine)),))
                )
            )
        assert f"VNI {vxlan.vni} at UDP port 4789" in caught.value.hint
