"""Overlay networks without a cluster: drivers and hosts that are told by hand what it would tell.

`Placed` is the overlay driver for tests that go through `Net`. `cluster` makes hosts of real
network namespaces on one Ethernet, the underlay:

    lan (the test's own namespace, a bridge) --- eth0 [host1] nl-... --- a1, a2
                                             --- eth0 [host2] nl-... --- b1
                                             --- eth0 [host3] nl-... --- c1
                                             --- eth0 [outsider]    routes to sandboxes by host1
                                             --- eth0 [stranger]    no member
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from netlib import names
from netlib.apply import apply, tear_down
from netlib.cluster.members import membership
from netlib.cluster.model import Node
from netlib.driver import Driver
from netlib.drivers.overlay import OverlayDriver
from netlib.kernel.linux import LinuxKernel
from netlib.kernel.netfilter.none import NoFirewall
from netlib.model import (
    Endpoint,
    Family,
    HostFacts,
    IPAddress,
    Network,
    Peer,
    PublishedPort,
    Sandbox,
    Subnet,
    Underlay,
    interface,
)
from netlib.plan import diff
from netlib.wiring import Relay, Wiring
from support.firewalls import firewall
from support.host import Host, Place
from support.patience import eventually

UNDERLAY = Underlay(address=ip_address("203.0.113.1"), mtu=1500)
VNI = 4001
PREFIX = {4: ip_network("198.51.100.0/24"), 6: ip_network("2001:db8:a::/64")}
SECOND = {4: ip_network("203.0.113.0/24"), 6: ip_network("2001:db8:b::/64")}
OUTSIDER, STRANGER = 100, 66  # the last numbers of their addresses
FAMILIES: tuple[Family, Family] = (4, 6)
NOTHING = Wiring()


def placed(network: Network, *, host: int = 1, underlay: Underlay = UNDERLAY) -> Network:
    """The network as the host of this number has it: its own addresses are the subnets' last."""
    subnets = tuple(
        replace(subnet, own=subnet.prefix[-1 - host] if subnet.own is None else subnet.own)
        for subnet in network.subnets
    )
    return replace(network, subnets=subnets, vni=network.vni or VNI, underlay=underlay)


class Placed:
    """The overlay driver as if it were of one host alone, which is told what a cluster tells."""

    capabilities = replace(OverlayDriver.capabilities, scope="local")
    options = OverlayDriver.options
    endpoint_options = OverlayDriver.endpoint_options

    def __init__(self) -> None:
        self._driver: Driver = OverlayDriver()

    def check_options(self, network: Network) -> None:
        """As the driver does."""
        self._driver.check_options(network)

    def settle(self, network: Network, host: HostFacts) -> Mapping[str, str]:
        """As the driver does."""
        return self._driver.settle(placed(network), host)

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """As the driver does."""
        return self._driver.network_wiring(placed(network), host)

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """As the driver does."""
        return self._driver.endpoint_wiring(placed(network), endpoint, host)

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """As the driver does."""
        return self._driver.peer_wiring(placed(network), peer, host)


# -- hosts of network namespaces -----------------------------------------------------------------


def lan_address(number: int, family: Family) -> str:
    """The address of a machine on the underlay."""
    return f"192.0.2.{number}" if family == 4 else f"2001:db8:2::{number:x}"


@dataclass
class Member:
    """One host of the cluster: its namespace, its kernel, and its share of the network."""

    number: int
    place: Place
    kernel: LinuxKernel
    network: Network
    node: Node
    driver: Driver = field(default_factory=OverlayDriver)
    sandboxes: dict[str, Place] = field(default_factory=dict)
    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    wiring: Wiring = field(default_factory=Wiring)  # all that should be here

    @property
    def bridge(self) -> str:
        """The network's bridge."""
        return names.bridge(self.network.id)

    @property
    def port(self) -> str:
        """The network's VXLAN port."""
        return names.vxlan(self.network.id)

    @property
    def address(self) -> IPAddress:
        """Where it takes tunnelled frames."""
        return self.node.data_address

    def own(self, family: Family) -> str:
        """Its own address in the network."""
        return str(next(s.own for s in self.network.subnets if s.family == family))

    def turn(self, have: Wiring, want: Wiring) -> None:
        """Make one of the other."""
        apply(diff(have, want), self.kernel)
        gone = {noun.key() for noun in have if want.get(noun.key()) is None}
        kept = [n for n in self.wiring if n.key() not in gone and want.get(n.key()) is None]
        self.wiring = Wiring([*kept, *want])

    def add(self, wiring: Wiring) -> None:
        """Make it, with what is there already."""
        self.turn(NOTHING, Wiring(noun for noun in wiring if noun not in self.wiring))

    def endpoint(self, name: str, last: int, box: Place, **more: object) -> Endpoint:
        """An endpoint by its sandbox, with addresses that end in this number."""
        subnets = self.network.subnets
        chosen: dict[Family, Subnet] = {}
        for subnet in subnets:
            chosen.setdefault(subnet.family, subnet)
        values: dict[str, object] = {
            "id": names.new_id(),
            "network": self.network.id,
            "sandbox": Sandbox(name=name, netns=box.netns),
            "ifname": "eth0",
            "addresses": tuple(
                interface(subnet.prefix[last], subnet.prefix.prefixlen)
                for subnet in chosen.values()
            ),
            "gateway_for": () if self.network.internal else tuple(chosen),
        }
        values |= more
        addresses = values["addresses"]
        assert isinstance(addresses, tuple)
        mac = names.mac_at(self.network.id, addresses[0].ip)
        return Endpoint(mac=mac, **values)  # type: ignore[arg-type]  # its fields

    def describe(self, endpoint: Endpoint) -> Wiring:
        """The endpoint as nouns."""
        return self.driver.endpoint_wiring(self.network, endpoint, self.kernel.facts())

    def peer_of(self, name: str) -> Peer:
        """One of its endpoints as others see it; `` is the host itself."""
        if name:
            one = self.endpoints[name]
            return peer_at(self.address, one)
        own = tuple(subnet.own for subnet in self.network.subnets if subnet.own is not None)
        mac = names.mac_at(self.network.id, own[0])
        return Peer(mac=mac, addresses=own, host=self.address, is_host=True)

    def peers(self) -> list[Peer]:
        """All that others should know of it."""
        return [self.peer_of(name) for name in ("", *self.endpoints)]

    def meet_at(self, host: IPAddress, endpoint: Endpoint) -> Wiring:
        """What an endpoint of another host is here."""
        return self.meet(peer_at(host, endpoint))

    def meet(self, peer: Peer) -> Wiring:
        """What a peer is here."""
        return self.driver.peer_wiring(self.network, peer, self.kernel.facts())


def peer_at(host: IPAddress, endpoint: Endpoint) -> Peer:
    """An endpoint as others than its host see it."""
    addresses = tuple(address.ip for address in endpoint.addresses)
    return Peer(mac=endpoint.mac, addresses=addresses, host=host)


@dataclass
class Cluster:
    """Hosts of one network."""

    lan: Host
    members: list[Member]
    outsider: Place
    stranger: Place

    def __getitem__(self, number: int) -> Member:
        return self.members[number - 1]

    def connect(
        self, number: int, name: str, last: int, ports: tuple[int, ...] = (), **more: object
    ) -> Place:
        """A sandbox on a host, which all other hosts are told of. Its port 80 is published."""
        member = self[number]
        box = member.sandboxes.get(name) or self.lan.empty(name)
        published = tuple(PublishedPort(host_port=p, port=80) for p in ports)
        published += tuple(replace(p, protocol="udp") for p in published)
        endpoint = member.endpoint(name, last, box, ports=published, **more)
        member.add(member.describe(endpoint))
        member.sandboxes[name], member.endpoints[name] = box, endpoint
        # Until the kernel has seen the carrier, in a work queue of its own, a device drops what
        # is sent through it (linkwatch_do_dev in net/core/link_watch.c).
        eventually(lambda: is_up(box, "eth0") and is_up(member.place, member.bridge))
        eventually(lambda: is_up(member.place, names.veth(endpoint.id)))
        for other in self.members:
            if other is not member:
                other.add(other.meet(member.peer_of(name)))
        return box

    def place(self, name: str) -> Place:
        """A sandbox by its name."""
        return next(m.sandboxes[name] for m in self.members if name in m.sandboxes)


@contextlib.contextmanager
def cluster(
    host: Host,
    count: int = 3,
    *,
    underlay: Family = 4,
    families: tuple[Family, ...] = (4, 6),
    backend: str = "nftables",
    mtu: int = 1500,
    port: int = 4789,
    bridge_netfilter: bool = False,
    further: Callable[[Network], Network] = lambda network: network,
) -> Iterator[Cluster]:
    """Hosts that have taken the network up and know each other; `further` alters the network."""
    subnets = tuple(Subnet(prefix=PREFIX[f], gateway=PREFIX[f][1]) for f in families)
    network = further(Network(id="0a" * 32, name="app", driver="overlay", subnets=subnets, vni=VNI))
    host.run("ip", "link", "add", "lan", "mtu", str(mtu), "type", "bridge", "mcast_snooping", "0")
    host.run("sysctl", "-qw", "net.ipv6.conf.lan.disable_ipv6=1", *_bridge_switches(value=False))
    host.run("ip", "link", "set", "lan", "up")
    with contextlib.ExitStack() as stack:
        members = []
        nodes = [
            Node(
                id=f"node{number}",
                name=f"host{number}",
                address=ip_address(lan_address(number, underlay)),
                data_address=ip_address(lan_address(number, underlay)),
                data_port=port,
            )
            for number in range(1, count + 1)
        ]
        for number, node in enumerate(nodes, 1):
            place = _machine(host, f"host{number}", number, mtu)
            place.run("sysctl", "-qw", *_bridge_switches(value=bridge_netfilter))
            there = Underlay(address=node.data_address, mtu=mtu, port=port)
            doors = stack.enter_context(_kernel(place, backend, host))
            mine = placed(network, host=number, underlay=there)
            members.append(Member(number, place, doors, mine, node))
        for member in members:
            member.add(membership(member.node, nodes))
            member.add(member.driver.network_wiring(member.network, member.kernel.facts()))
        for member in members:
            for other in members:
                if other is not member:
                    member.add(member.meet(other.peer_of("")))
        outsider = _machine(host, "outsider", OUTSIDER, mtu)
        stranger = _machine(host, "stranger", STRANGER, mtu)
        for family in families:
            via = lan_address(1, family)
            outsider.run("ip", "route", "add", str(PREFIX[family]), "via", via)
        yield Cluster(host, members, outsider, stranger)


def leave_nothing(made: Cluster) -> None:
    """Take all down, and look that nothing is left but shared ground."""
    for member in made.members:
        tear_down(diff(member.wiring, NOTHING), member.kernel, member.place.name)
        assert not member.kernel.marked()


@contextlib.contextmanager
def _kernel(place: Place, backend: str, host: Host) -> Iterator[LinuxKernel]:
    """Linux in that place."""

    def work() -> tuple[contextlib.AbstractContextManager[object], LinuxKernel]:
        door = firewall(backend, host.state_dir)
        # Relays are a process, and not what is tried here.
        return door, LinuxKernel(door.__enter__(), {Relay: NoFirewall()})

    door, kernel = place.call(work)
    try:
        yield kernel
    finally:
        kernel.close()
        door.__exit__(None, None, None)


def _machine(host: Host, name: str, number: int, mtu: int) -> Place:
    """A machine on the underlay, with an address of each family."""
    place = host.empty(name)
    # The kernel takes up to a second to see the carrier where both ends have the same index.
    link = f"link add p{number} index {3000 + number} mtu {mtu} type veth peer name eth0"
    others = [*range(1, 4), OUTSIDER, STRANGER]
    host.run("ip", "-batch", "-", stdin="\n".join([
        f"{link} address {lan_mac(number)} mtu {mtu} netns {place.netns.path}",
        f"link set p{number} master lan addrgenmode none",
        f"link set p{number} up",
    ]))  # fmt: skip
    place.run("ip", "-batch", "-", stdin="\n".join([
        "link set eth0 addrgenmode none",
        f"addr add fe80::{number:x}/64 dev eth0 nodad",
        f"addr add {lan_address(number, 4)}/24 dev eth0",
        f"addr add {lan_address(number, 6)}/64 dev eth0 nodad",
        "link set eth0 up",
        # Known beforehand: a burst of datagrams would outgrow the queue of who is asked for.
        *(f"neigh add {lan_address(other, family)} lladdr {lan_mac(other)} dev eth0"
          for other in others for family in FAMILIES),
    ]))  # fmt: skip
    return place


def is_up(place: Place, device: str) -> bool:
    """Whether a device carries frames."""
    return " state UP " in place.run("ip", "-o", "link", "show", device).stdout


def lan_mac(number: int) -> str:
    """The MAC of a machine on the underlay."""
    return f"02:00:00:00:00:{number:02x}"


def _bridge_switches(*, value: bool) -> list[str]:
    names_ = ("iptables", "ip6tables", "arptables")
    return [f"net.bridge.bridge-nf-call-{name}={int(value)}" for name in names_]
