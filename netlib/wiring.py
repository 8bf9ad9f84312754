"""The nouns: what can exist in the kernel because of us. Drivers describe with them, and only that.

A noun is frozen and complete: it holds all that is needed to make the thing again, so its
deletion can be undone. `key()` says which thing it is; two nouns of one key that differ are
a change of that thing. Firewall nouns say what is meant; a backend renders them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import ClassVar, Literal, NamedTuple

from netlib.model import (
    HOST,
    Family,
    IPAddress,
    IPInterface,
    IPNetwork,
    Netns,
    Protocol,
)
from netlib.values import dataclass

MacvlanMode = Literal["bridge", "private", "vepa", "passthru"]
IpvlanMode = Literal["l2", "l3", "l3s"]
IpvlanFlag = Literal["bridge", "private", "vepa"]
Verdict = Literal["allow", "published", "routed", "drop"]


class Layer(IntEnum):
    """The order of creation; deletion goes the other way. Traffic opens last, closes first."""

    BASE = 0  # shared: forwarding, the firewall's base
    LINK = 1
    SETTING = 2  # sysctls of those links, before they get addresses
    ADDRESS = 3  # up, addresses, then routes, neighbours, FDB entries
    FIREWALL = 4
    SERVICE = 5  # processes of ours: relays, and the DNS resolver


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """One thing of the kernel's."""

    layer: ClassVar[Layer]
    identity: ClassVar[tuple[str, ...]]
    shared: ClassVar[bool] = False  # ensured, never undone or removed
    alone: ClassVar[bool] = False  # needs nothing that is made before it

    netns: Netns = HOST

    def key(self) -> tuple[object, ...]:
        """Which thing this is, whatever its other attributes are."""
        return (type(self).__name__, self.netns.name, *map(self.__getattribute__, self.identity))

    def rides_on(self) -> tuple[str, str] | None:
        """The netns' name and the device with which this thing goes, if it does."""
        return None

    def makes(self) -> tuple[tuple[str, str], ...]:
        """The (netns' name, device) pairs that come and go with this thing."""
        return ()


# -- shared ground ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding(Noun):
    """The host forwards packets of a family (ip-sysctl.rst: conf/all/forwarding)."""

    layer = Layer.BASE
    identity = ("family",)
    shared = True

    family: Family


@dataclass(frozen=True, slots=True, kw_only=True)
class FirewallBase(Noun):
    """Our table or chains and their rules, without any facts."""

    layer = Layer.BASE
    identity = ()
    shared = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Loopback(Noun):
    """`lo` of a sandbox is up."""

    layer = Layer.BASE
    identity = ()
    shared = True


# -- links --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Link(Noun):
    """A network device that is ours; `owner` is its ifalias, the mark it is found by.

    `up` is never wanted otherwise, but may be found otherwise. `fixed` are the attributes
    that can't change while the device is there: it is made anew, with all that rides on it.
    """

    layer = Layer.LINK
    identity = ("name",)
    fixed: ClassVar[tuple[str, ...]] = ()

    name: str
    owner: str
    mtu: int
    up: bool = True

    def makes(self) -> tuple[tuple[str, str], ...]:
        """The device itself."""
        return ((self.netns.name, self.name),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge(Link):
    """A Linux bridge, up, with a fixed MAC, STP off and no forward delay (bridge(8))."""

    mac: str
    multicast_snooping: bool = True
    ageing_seconds: int = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class VethPair(Link):
    """A veth pair: `name`, up, at `bridge` in `netns`; `peer` in `peer_netns` (veth(4)).

    `isolated` ports of a bridge reach no other isolated port; a `hairpin` port may get a
    frame back where it came from (bridge(8)). `bridge` may be empty: a pair on its own.
    """

    fixed = ("peer", "peer_netns")

    peer: str
    peer_netns: Netns
    mac: str
    host_mac: str = ""
    bridge: str = ""
    isolated: bool = False
    hairpin: bool = False
    locked: bool = False

    def makes(self) -> tuple[tuple[str, str], ...]:
        """Both ends."""
        return ((self.netns.name, self.name), (self.peer_netns.name, self.peer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Macvlan(Link):
    """A macvlan on `parent`, a device of `parent_netns` (ip-link(8))."""

    fixed = ("parent", "parent_netns", "mode", "broadcast_queue")

    parent: str
    parent_netns: Netns = HOST
    mac: str
    mode: MacvlanMode = "bridge"
    broadcast_queue: int = 0

    def rides_on(self) -> tuple[str, str]:
        """It goes with its parent."""
        return (self.parent_netns.name, self.parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ipvlan(Link):
    """An ipvlan on `parent`, a device of `parent_netns` (ipvlan.rst)."""

    fixed = ("parent", "parent_netns")

    parent: str
    parent_netns: Netns = HOST
    mode: IpvlanMode = "l2"
    flag: IpvlanFlag = "bridge"

    def rides_on(self) -> tuple[str, str]:
        """It goes with its parent."""
        return (self.parent_netns.name, self.parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dummy(Link):
    """A device that leads nowhere, up: what is sent through it is lost (ip-link(8))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vlan(Link):
    """An IEEE 802.1Q sub-interface of `parent` (ip-link(8))."""

    fixed = ("parent", "vlan_id")

    parent: str
    vlan_id: int

    def rides_on(self) -> tuple[str, str]:
        """It goes with its parent."""
        return (self.netns.name, self.parent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vxlan(Link):
    """A VXLAN port at `bridge`, neighbours answered from entries (RFC 7348).

    `isolated`: what comes through it reaches no isolated port of the bridge, nor it them.
    `learning`: who is behind which host is taken from what comes, by the device or the bridge.
    `suppress`: requests for neighbours that are entered do not cross.
    """

    fixed = ("vni", "local", "port")

    bridge: str
    vni: int
    local: IPAddress
    port: int = 4789
    mac: str
    flood: bool = False
    isolated: bool = False
    learning: bool = False
    suppress: bool = True


# -- settings and addresses ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _OnDevice(Noun):
    device: str

    def rides_on(self) -> tuple[str, str] | None:
        return (self.netns.name, self.device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl(_OnDevice):
    """A sysctl of one device: `path` below /proc/sys with `/` between its parts.

    `default` is written back when the noun goes and its device stays.
    """

    layer = Layer.SETTING
    identity = ("path",)

    path: str
    value: str
    default: str = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address(_OnDevice):
    """An address on a device, which is set up. IPv6 without duplicate detection (RFC 4862)."""

    layer = Layer.ADDRESS
    identity = ("device", "address")

    address: IPInterface
    announce: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Up(_OnDevice):
    """A device in a sandbox is set up, also when it has no address."""

    layer = Layer.ADDRESS
    identity = ("device",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route(_OnDevice):
    """A route by a device, through `via` where given (ip-route(8)).

    `src` is what the host's own packets have as their source there.
    """

    layer = Layer.ADDRESS
    identity = ("destination", "metric")

    destination: IPNetwork
    via: IPAddress | None = None
    metric: int = 0
    on_link: bool = False
    src: IPAddress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour(_OnDevice):
    """A permanent entry of the ARP or neighbour table (ip-neighbour(8))."""

    layer = Layer.ADDRESS
    identity = ("device", "address")

    address: IPAddress
    mac: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FdbEntry(_OnDevice):
    """Frames for `mac` leave through the VTEP `remote` (bridge(8), RFC 7348 section 4)."""

    layer = Layer.ADDRESS
    identity = ("device", "mac")

    mac: str
    remote: IPAddress

    def key(self) -> tuple[object, ...]:
        """One remote for each MAC; for the zero MAC, that floods, one entry for each remote."""
        # not super(): slots=True makes a second class, which zero-argument super() does not know
        known = Noun.key(self)
        return (*known, self.remote) if self.mac == "00:00:00:00:00:00" else known


# -- the firewall's facts -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward(Noun):
    """What may pass between a network's bridge and the rest.

    `within`: from member to member when bridged packets pass the firewall, and for a
    member's own published port ("allow" or, where members may not talk, "published").
    `inbound`: from elsewhere to members: "published" ports only, "routed" (ports that Open
    names, and echo requests), "drop" or "allow" (all); `inbound6` where IPv6 differs.
    `outbound`: from members to elsewhere.
    `host`: what members reach of the host: all that its own rules let in ("open"), only the
    gateway's addresses ("gateway"), nothing ("closed").
    `isolated`: False lets other networks' members in that are not isolated either.
    """

    layer = Layer.FIREWALL
    identity = ("bridge",)

    bridge: str
    within: Literal["allow", "published"] = "allow"
    inbound: Verdict = "published"
    inbound6: Verdict | None = None
    outbound: Literal["allow", "drop"] = "allow"
    host: Literal["open", "gateway", "closed"] = "open"
    isolated: bool = True

    def inbound_of(self, family: Family) -> Verdict:
        """What may come in by a family."""
        return self.inbound6 if family == 6 and self.inbound6 is not None else self.inbound


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment(Noun):
    """A prefix behind a bridge, and the host's address in it."""

    layer = Layer.FIREWALL
    identity = ("bridge", "prefix")

    bridge: str
    prefix: IPNetwork
    gateway: IPAddress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Masquerade(Noun):
    """What leaves the bridge's network gets the host's address, or `source`, as its own."""

    layer = Layer.FIREWALL
    identity = ("bridge", "family")

    bridge: str
    family: Family
    source: IPAddress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmasked(Noun):
    """What goes from behind a bridge to `prefix` keeps its address, whatever Masquerade says."""

    layer = Layer.FIREWALL
    identity = ("bridge", "prefix")

    bridge: str
    prefix: IPNetwork


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow(Noun):
    """`count` ports of `target` from `port` on are open to `source`.

    Both are members of one network whose members may not talk otherwise (Forward.within).
    """

    layer = Layer.FIREWALL
    identity = ("source", "target", "protocol", "port")

    source: IPAddress
    target: IPAddress
    protocol: Protocol
    port: int
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Publish(Noun):
    """`count` ports of the host from `port` on lead to those of `target` from `target_port` on.

    `host` None: any address of the host of the target's family. `sources`, when given, are
    the only ones that may use them.
    """

    layer = Layer.FIREWALL
    identity = ("family", "protocol", "host", "port")

    family: Family
    protocol: Protocol
    host: IPAddress | None = None
    port: int
    count: int = 1
    target: IPAddress
    target_port: int
    sources: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Open(Noun):
    """`count` ports of a routed endpoint from `port` on can be reached by its own address."""

    layer = Layer.FIREWALL
    identity = ("protocol", "target", "port")

    protocol: Protocol
    target: IPAddress
    port: int
    count: int = 1
    sources: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsRedirect(Noun):
    """Port 53 of a bridge's gateway is answered by a resolver on another port of it."""

    layer = Layer.FIREWALL
    identity = ("bridge", "gateway")

    bridge: str
    gateway: IPAddress
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VxlanPort(Noun):
    """At a UDP port of the host only VxlanMembers of that port are heard (RFC 7348 section 7)."""

    layer = Layer.FIREWALL
    identity = ("port",)

    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VxlanMember(Noun):
    """A host whose tunnelled frames are taken, and to which nobody behind a bridge sends any."""

    layer = Layer.FIREWALL
    identity = ("address", "port")

    address: IPAddress
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray(Noun):
    """What others put among our own rules: an element of a set, or a rule in a chain of facts.

    It is found and taken away, never wanted. `family`: which iptables it is a rule of.
    """

    layer = Layer.FIREWALL
    identity = ("container", "element", "value", "family")

    container: str
    element: str
    value: str = ""
    family: Family | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceGuard(Noun):
    """A bridge's port is believed only `addresses` behind `mac`, of all that are in `prefixes`.

    Of what else would claim an address of the network's (IP, ARP, neighbour advertisements), or
    to be a router, nothing passes the port (RFC 6959, RFC 6105).
    """

    layer = Layer.FIREWALL
    identity = ("device",)

    device: str
    mac: str
    addresses: tuple[IPAddress, ...]
    prefixes: tuple[IPNetwork, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay(Noun):
    """A listening socket of a small proxy stands in for a port that the kernel can't redirect.

    Those are [::1] (no IPv6 route_localnet) and an IPv6 address of the host for a sandbox
    that has only IPv4. `holds_all`: the kernel redirects the port on all other addresses of the
    family, so nobody else is to get it on any of them, unless somebody has it on one already.
    """

    layer = Layer.SERVICE
    identity = ("protocol", "host", "port")
    alone = True

    protocol: Protocol
    host: IPAddress
    port: int
    count: int = 1
    target: IPAddress
    target_port: int
    sources: tuple[IPNetwork, ...] = ()
    holds_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NameServer(Noun):
    """The DNS resolver listens for one network, or for one sandbox inside its own namespace.

    `subject` is the network's id or the sandbox's name; `port` is the same on all addresses.
    """

    layer = Layer.SERVICE
    identity = ("kind", "subject")

    kind: Literal["network", "sandbox"]
    subject: str
    addresses: tuple[IPAddress, ...]
    port: int = 53

    def key(self) -> tuple[object, ...]:
        """One for each subject, wherever its namespace is: who listens for it can tell no more."""
        return (type(self).__name__, HOST.name, self.kind, self.subject)


# -- effects: what is done and leaves no thing --------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Neighbours are told that `address` is at `device` now (RFC 5227, RFC 4861 section 7.2.6).

    `port` is the host's device that the frames have to pass, where there is one.
    """

    netns: Netns
    device: str
    address: IPInterface
    port: str = ""


class Count(NamedTuple):
    """What a fact of the firewall met since it is there."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetFlows:
    """Connections to host ports are forgotten, by the tuple that the client used (conntrack(8))."""

    family: Family
    protocol: Protocol
    host: IPAddress | None
    port: int
    count: int = 1


Effect = Announce | ForgetFlows


class Wiring:
    """A set of nouns, one for each key, in the order they were given."""

    __slots__ = ("_nouns",)

    def __init__(self, nouns: Iterable[Noun] = ()) -> None:
        self._nouns: dict[tuple[object, ...], Noun] = {}
        for noun in nouns:
            self._add(noun.key(), noun)

    @classmethod
    def first_of(cls, parts: Iterable[Wiring]) -> Wiring:
        """All of several; of nouns with one key the first."""
        found = cls()
        for part in parts:
            for key, noun in part._nouns.items():
                found._nouns.setdefault(key, noun)
        return found

    def _add(self, key: tuple[object, ...], noun: Noun) -> None:
        known = self._nouns.setdefault(key, noun)
        if known is not noun and known != noun:
            raise ValueError(f"two nouns of one key differ: {known} and {noun}")

    def __iter__(self) -> Iterator[Noun]:
        return iter(self._nouns.values())

    def __len__(self) -> int:
        return len(self._nouns)

    def __contains__(self, noun: object) -> bool:
        return isinstance(noun, Noun) and self._nouns.get(noun.key()) == noun

    def __or__(self, other: Wiring) -> Wiring:
        both = Wiring()
        both._nouns = self._nouns.copy()
        for key, noun in other._nouns.items():
            both._add(key, noun)
        return both

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wiring) and self._nouns == other._nouns

    __hash__ = None  # type: ignore[assignment]  # compared by value, never a key

    def __repr__(self) -> str:
        return f"Wiring({list(self)!r})"

    def items(self) -> Iterable[tuple[tuple[object, ...], Noun]]:
        """The nouns with their keys, which cost something to make."""
        return self._nouns.items()

    def get(self, key: tuple[object, ...]) -> Noun | None:
        """The noun of this key."""
        return self._nouns.get(key)
