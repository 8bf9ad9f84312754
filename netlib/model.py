"""What netlib knows: networks, sandboxes, endpoints, published ports, and facts of the host.

Frozen values; `netlib.codec` turns them into JSON and back. Addresses are those of the
standard library's `ipaddress`, MAC addresses are lower-case text with colons.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Literal

from netlib.values import dataclass, field

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
IPInterface = IPv4Interface | IPv6Interface
Family = Literal[4, 6]
FAMILIES: tuple[Family, Family] = (4, 6)
EVERYWHERE: Mapping[Family, str] = {4: "0.0.0.0/0", 6: "::/0"}
Protocol = Literal["tcp", "udp", "sctp"]
State = Literal["pending", "ready", "removing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRange:
    """The addresses from `first` to `last`, both included."""

    first: IPAddress
    last: IPAddress

    def __contains__(self, address: object) -> bool:
        return (
            isinstance(address, IPv4Address | IPv6Address)
            and address.version == self.first.version
            and int(self.first) <= int(address) <= int(self.last)
        )

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """A prefix that endpoints get their addresses from.

    `ranges` limits what is allocated (empty: all of the prefix); `reserved` are addresses
    never given to endpoints, by name (`--aux-address`). `own` is an address that this host
    alone holds in a subnet whose gateway address all hosts of a cluster share.
    """

    prefix: IPNetwork
    gateway: IPAddress | None = None
    ranges: tuple[AddressRange, ...] = ()
    reserved: Mapping[str, IPAddress] = field(default_factory=dict)
    own: IPAddress | None = None

    @property
    def family(self) -> Family:
        """4 or 6."""
        return self.prefix.version


@dataclass(frozen=True, slots=True, kw_only=True)
class Underlay:
    """Where this host sends and receives a network's tunnelled frames (RFC 7348: its VTEP).

    `mtu` is that of the device that holds `address`, `port` the UDP port of all members.
    """

    address: IPAddress
    mtu: int
    port: int = 4789


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A group of endpoints that reach each other directly (a network of the CNM).

    `borrowed` names the host's devices that were there before the network and outlive it;
    `dns_port` is where the resolver listens at the gateways: 53, unless somebody holds that;
    `records` are further names (RFC 1035 section 5), `servers` who is asked for other names.
    `created` is in seconds since the epoch. `vni` tells its frames from those of other
    networks in a tunnel; `underlay` is this host's end of that.
    """

    id: str
    name: str
    driver: str
    subnets: tuple[Subnet, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False
    attachable: bool = False
    borrowed: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    dns_port: int = 53
    vni: int = 0
    underlay: Underlay | None = None
    created: float = 0.0
    state: State = "pending"

    @property
    def short_id(self) -> str:
        """The first 12 digits of the id, as lists show it."""
        return self.id[:12]

    def families(self) -> tuple[Family, ...]:
        """The IP versions that endpoints of this network have, without repetition."""
        return tuple(dict.fromkeys(subnet.family for subnet in self.subnets))

    def gateways(self) -> tuple[IPInterface, ...]:
        """The gateways, each once, with the prefix length of the subnet that it is in."""
        found: dict[IPAddress, IPInterface] = {}
        for subnet in self.subnets:
            if subnet.gateway is None:
                continue
            if subnet.gateway in subnet.prefix:
                found[subnet.gateway] = interface(subnet.gateway, subnet.prefix.prefixlen)
            else:
                alone = interface(subnet.gateway, subnet.gateway.max_prefixlen)
                found.setdefault(subnet.gateway, alone)
        return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Netns:
    """A network namespace: what a person calls it, where it opens, which one it must be.

    A path may come to name another namespace (a pid is used again), so `inode`, that of the
    nsfs file (namespaces(7)), is compared whenever the path is opened. 0 is not compared.
    """

    name: str
    path: str = ""
    inode: int = 0

    def __str__(self) -> str:
        return self.name


HOST = Netns(name="host")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """One container's network stack, known by a name and the network namespace behind it.

    `kind` is how it was named: `name` (made by `net run` or `net sandbox create`), `pid`,
    `netns`, `docker`, `podman`. `pid` is the process that a `net run` sandbox runs, and
    `started` when it began, in clock ticks since the boot: who has both is that process still.
    `shares` names the sandbox whose stack it has, while that one is there (`State.owner`): the
    endpoints are that one's. `environment`
    is what its process was given, as far as others may know it.
    `servers`, `search` and `resolver_options` are its own DNS servers, search domains and
    options (resolv.conf(5)); `extra_hosts` are NAME:IP or NAME:host-gateway.
    """

    name: str
    netns: Netns
    kind: str = "name"
    pid: int = 0
    started: int = 0
    hostname: str = ""
    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    resolver_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0
    shares: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """`count` ports from `host_port` on, made reachable on the host.

    `host_address` None is every address of the host, of the families that the endpoint has.
    `sources`, when given, are the only prefixes that may use it.
    """

    protocol: Protocol = "tcp"
    host_address: IPAddress | None = None
    host_port: int
    port: int
    count: int = 1
    sources: tuple[IPNetwork, ...] = ()

    def __str__(self) -> str:
        address = "" if self.host_address is None else f"{bracketed(self.host_address)}:"
        host_ports = port_range(self.host_port, self.count)
        return f"{address}{host_ports}:{port_range(self.port, self.count)}/{self.protocol}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Joins exactly one sandbox to exactly one network (an endpoint of the CNM).

    `gateway_for` are the families whose default route in the sandbox leads through this
    endpoint: the one with the highest `gateway_priority`, the oldest where they are equal.
    `routes` are gateways by destination that came with the addresses, where somebody else
    than netlib chose those; one to everywhere is the default route.
    `leaves_routes`: static ones, the network's too, lead through another endpoint of the sandbox on
    the same network, for there can be one of each.
    """

    id: str
    network: str
    sandbox: Sandbox
    ifname: str
    mac: str
    addresses: tuple[IPInterface, ...] = ()
    ports: tuple[PublishedPort, ...] = ()
    aliases: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    routes: Mapping[str, str] = field(default_factory=dict)
    gateway_priority: int = 0
    gateway_for: tuple[Family, ...] = ()
    leaves_routes: bool = False
    created: float = 0.0
    state: State = "pending"

    @property
    def short_id(self) -> str:
        """The first 12 digits of the id, as lists show it."""
        return self.id[:12]

    def address(self, family: Family) -> IPInterface | None:
        """The first address of a family."""
        return next((a for a in self.addresses if a.version == family), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """An endpoint of the same network on another host, behind the VTEP `host`.

    `is_host`: it is that host itself, with the addresses of its own that it has there.
    """

    mac: str
    addresses: tuple[IPAddress, ...]
    host: IPAddress
    is_host: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What a network device of the host is. `ours`: it carries our mark.

    Of one that is not ours, `addresses` are the host's on it, but link-local ones, and
    `routers` where the default routes by it lead.
    """

    name: str
    kind: str
    mtu: int
    mac: str = ""
    ours: bool = False
    addresses: tuple[IPInterface, ...] = ()
    routers: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What a description may depend on, gathered once by the caller.

    `uplink` is the device of the default route; `devices` are the devices that were asked
    for and exist; `bridge_netfilter` says whether bridged packets pass iptables
    (net.bridge.bridge-nf-call-iptables); `ephemeral_ports` are the first and last port that
    programs get by themselves (net.ipv4.ip_local_port_range).
    """

    boot_id: str = ""
    netns: int = 0
    uplink: Device | None = None
    devices: Mapping[str, Device] = field(default_factory=dict)
    forwarding: tuple[Family, ...] = ()
    bridge_netfilter: bool = False
    ipv6: bool = True
    ephemeral_ports: tuple[int, int] = (32768, 60999)


@lru_cache(maxsize=256)  # mostly of gateways, and each takes as long as a record to read
def interface(address: IPAddress, prefix_length: int) -> IPInterface:
    """`address` with a prefix length, as the interface type of its family."""
    if isinstance(address, IPv4Address):
        return IPv4Interface((int(address), prefix_length))
    return IPv6Interface((int(address), prefix_length))


def port_range(first: int, count: int, sign: str = "-") -> str:
    """`count` ports from `first` on: `80`, `80-89`."""
    return str(first) if count == 1 else f"{first}{sign}{first + count - 1}"


def bracketed(address: IPAddress) -> str:
    """An address as it stands before a colon and a port (RFC 3986 section 3.2.2)."""
    return f"[{address}]" if address.version == 6 else str(address)
