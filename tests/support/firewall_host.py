"""A host with every kind of network, made with `ip`, and its firewall facts as nouns.

The firewall's tests need no engine: bridges are made here, a backend gets the nouns.

    outsider --- eth0 [host] nl-a: NAT            nl-b: members may not talk
                             nl-c: internal       nl-d: isolated
                             nl-e: routed         nl-f: leaves with an address of its own
                             nl-g: no masquerade  nl-m, nl-n: let each other in
                             br-x: a bridge that is not ours
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

from netlib.model import Family, IPAddress, IPNetwork, Protocol
from netlib.wiring import (
    DnsRedirect,
    Forward,
    Masquerade,
    Noun,
    Open,
    Publish,
    Segment,
)
from support.host import Host, Place, new_host
from support.reach import Servers

FAMILIES: tuple[Family, Family] = (4, 6)
OURS = "abcdefgmn"
ALL = OURS + "x"
FIRST = {4: "192.0.2.1", 6: "2001:db8:2::1"}  # of the host, by support.host
SECOND = {4: "192.0.2.10", 6: "2001:db8:2::10"}
OUTSIDE = {4: "192.0.2.100", 6: "2001:db8:2::100"}
FAVOURED = {4: "192.0.2.50", 6: "2001:db8:2::50"}  # the outsider's, in FAVOURITES
FAVOURITES = {4: "192.0.2.0/26", 6: "2001:db8:2::/121"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
RESOLVER = 5353
_UNUSED = "nodad preferred_lft 0"  # no source of packets that do not ask for it (RFC 6724)


def bridge(net: str) -> str:
    """The bridge of a network."""
    return "br-x" if net == "x" else f"nl-{net}"


def prefix(net: str, family: Family) -> IPNetwork:
    """The prefix of a network, of those kept for documentation."""
    number = ALL.index(net)
    if family == 4:
        return IPv4Network((int(IPv4Address("198.51.100.0")) + 16 * number, 28))
    return ip_network(f"2001:db8:{0xA0 + number:x}::/64")


def address(place: str, family: Family) -> str:
    """The address of a sandbox (`a1`), or of a bridge (`a`: the gateway's)."""
    number = int(place[1:]) + 1 if len(place) > 1 else 1
    return str(prefix(place[0], family)[number])


@dataclass
class FirewallHost:
    """The host, what is beside it, the servers everywhere, and the nouns that should hold."""

    host: Host
    outsider: Place
    servers: Servers
    bridge_netfilter: bool
    sandboxes: dict[str, Place] = field(default_factory=dict)
    mac: dict[str, str] = field(default_factory=dict)

    def place(self, name: str) -> Host | Place:
        """A place by its name: host, outsider, a1."""
        if name == "host":
            return self.host
        return self.outsider if name == "outsider" else self.sandboxes[name]


@contextlib.contextmanager
def firewall_host(*, bridge_netfilter: bool = False) -> Iterator[FirewallHost]:
    """The host with all its networks, without any rule."""
    with new_host() as host, Servers() as servers:
        outsider = host.outsider()
        made = FirewallHost(host, outsider, servers, bridge_netfilter)
        _set_up(made)
        for name, place in made.sandboxes.items():
            ports = (80, 81, 9000, 9005, 9009, 9010, 9200, 9203, 9204)
            servers.add(place, *(ports if name == "a1" else (80, 81)))
        servers.add(outsider, 80)
        servers.add(host, 7000, RESOLVER)
        servers.add(host, 7001, address="127.0.0.1")
        yield made


def _set_up(made: FirewallHost) -> None:
    host = made.host
    for name in (f"{net}{number}" for net in ALL for number in (1, 2)):
        made.sandboxes[name] = host.empty(name)
    settings = ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]
    settings.append("net.ipv6.conf.default.accept_dad=0")
    host.run("sysctl", "-qw", *settings)
    lines = [f"addr add {SECOND[4]}/24 dev eth0", f"addr add {SECOND[6]}/64 dev eth0 {_UNUSED}"]
    for index, net in enumerate(ALL):
        name = bridge(net)
        made.mac[net] = f"02:00:00:00:{index:02x}:01"
        lines.append(f"link add {name} address {made.mac[net]} type bridge")
        if net != "d":
            lines += [
                f"addr add {address(net, 4)}/28 dev {name}",
                f"addr add {address(net, 6)}/64 dev {name} nodad",
            ]
        lines.append(f"link set {name} up")
        for number in (1, 2):
            sandbox = f"{net}{number}"
            lines += [
                f"link add v{sandbox} index {2000 + index * 10 + number} type veth "
                f"peer name eth0 netns {made.sandboxes[sandbox].netns.path}",
                f"link set v{sandbox} master {name} up",
                f"link set v{sandbox} type bridge_slave hairpin "
                f"{'on' if made.bridge_netfilter else 'off'} "
                f"isolated {'on' if net == 'b' else 'off'}",
            ]
    host.run("ip", "-batch", "-", stdin="\n".join(lines))
    switch = int(made.bridge_netfilter)
    host.run(
        "sysctl",
        "-qw",
        *(f"net.ipv4.conf.{bridge(net)}.route_localnet=1" for net in OURS),
        *(f"net.bridge.bridge-nf-call-{p}tables={switch}" for p in ("ip", "ip6")),
    )
    for name, place in made.sandboxes.items():
        _set_up_sandbox(made, name, place)
    made.outsider.run(
        "ip",
        "-batch",
        "-",
        stdin="\n".join(
            [
                f"addr add {FAVOURED[4]}/24 dev eth0",
                f"addr add {FAVOURED[6]}/64 dev eth0 {_UNUSED}",
                f"route add 198.51.100.0/24 via {FIRST[4]}",
                *(f"route add {prefix(net, 6)} via {FIRST[6]}" for net in ALL),
            ]
        ),
    )


def _set_up_sandbox(made: FirewallHost, name: str, place: Place) -> None:
    net = name[0]
    lines = [
        f"addr add {address(name, 4)}/28 dev eth0",
        f"addr add {address(name, 6)}/64 dev eth0 nodad",
        "link set eth0 up",
    ]
    for family in FAMILIES:
        gateway = address(net, family)
        if net == "d":  # nobody has the gateway's address: it tries the bridge's MAC
            lines.append(f"neigh add {gateway} lladdr {made.mac[net]} dev eth0 nud permanent")
        lines.append(f"route add default via {gateway} dev eth0")
    if name == "b1":  # to its neighbour by the gateway's MAC, past the ports' isolation
        lines += [f"route add {address('b2', f)} via {address('b', f)}" for f in FAMILIES]
    place.run("ip", "-batch", "-", stdin="\n".join(lines))


# -- the nouns -----------------------------------------------------------------------------------


def network_nouns() -> list[Noun]:
    """All networks' facts."""
    nouns: list[Noun] = [
        Forward(bridge="nl-a"),
        Forward(bridge="nl-b", within="published"),
        Forward(bridge="nl-c", inbound="drop", outbound="drop", host="gateway"),
        Forward(bridge="nl-d", inbound="drop", outbound="drop", host="closed"),
        Forward(bridge="nl-e", inbound="routed"),
        Forward(bridge="nl-f"),
        Forward(bridge="nl-g"),
        Forward(bridge="nl-m", isolated=False),
        Forward(bridge="nl-n", isolated=False),
    ]
    for family in FAMILIES:
        for net in OURS:
            gateway = None if net == "d" else ip_address(address(net, family))
            nouns.append(Segment(bridge=bridge(net), prefix=prefix(net, family), gateway=gateway))
        nouns += [Masquerade(bridge=bridge(net), family=family) for net in "abmn"]
        source = ip_address(SECOND[family])
        nouns.append(Masquerade(bridge="nl-f", family=family, source=source))
        nouns += [
            DnsRedirect(bridge=bridge(net), gateway=ip_address(address(net, family)), port=RESOLVER)
            for net in "ab"
        ]
        for protocol in ("tcp", "udp"):
            nouns += port_nouns(family, protocol)
    return nouns


def port_nouns(family: Family, protocol: Protocol) -> list[Noun]:
    """The published and opened ports of a family and protocol."""
    a1 = ip_address(address("a1", family))

    def publish(
        port: int,
        target: IPAddress = a1,
        *,
        to: int = 80,
        count: int = 1,
        host: str = "",
        sources: tuple[IPNetwork, ...] = (),
    ) -> Publish:
        return Publish(
            family=family,
            protocol=protocol,
            host=ip_address(host) if host else None,
            port=port,
            count=count,
            target=target,
            target_port=to,
            sources=sources,
        )

    nouns: list[Noun] = [
        publish(8080),
        publish(8081, host=SECOND[family]),
        publish(9000, to=9000, count=10),
        publish(9100, to=9200, count=4),
        publish(8083, sources=(ip_network(FAVOURITES[family]),)),
        *(publish(port, ip_address(address(target, family))) for port, target in PUBLISHED.items()),
        Open(protocol=protocol, target=ip_address(address("e1", family)), port=80),
        Open(
            protocol=protocol,
            target=ip_address(address("e2", family)),
            port=80,
            sources=(ip_network(FAVOURITES[family]),),
        ),
    ]
    if family == 4:
        nouns.append(publish(8082, host="127.0.0.1"))
    return nouns


PUBLISHED = {8084: "b1", 8085: "e1", 8086: "g1", 8087: "f1", 8088: "m1"}
