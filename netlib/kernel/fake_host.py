"""The state of a host in memory, and Linux's rules for what may be made of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from netlib.errors import (
    AlreadyThere,
    InterfaceTaken,
    KernelError,
    NotThere,
)
from netlib.kernel.fake_places import FakePlaces, Spot
from netlib.kernel.refusals import thing
from netlib.model import Device, Family, IPNetwork, Netns
from netlib.plan import new_macs
from netlib.values import replace
from netlib.wiring import (
    Address,
    Bridge,
    Dummy,
    FdbEntry,
    FirewallBase,
    Forwarding,
    Ipvlan,
    Layer,
    Link,
    Macvlan,
    Neighbour,
    Noun,
    Publish,
    Relay,
    Route,
    Sysctl,
    Up,
    VethPair,
    Vlan,
    Vxlan,
)

_KIND = {
    Bridge: "bridge",
    VethPair: "veth",
    Macvlan: "macvlan",
    Ipvlan: "ipvlan",
    Dummy: "dummy",
    Vlan: "vlan",
    Vxlan: "vxlan",
}
# Sysctls of these are of all devices, or of those to come.
_NO_DEVICES = ("all", "default")


class FakeHost(FakePlaces):
    """Namespaces, devices and things. Every method does all it says, or raises first."""

    def __init__(self) -> None:
        super().__init__()
        self._foreign: dict[Spot, Device] = {}
        self._up: set[Spot] = {(self.inode, "lo")}

    def copy(self) -> FakeHost:
        """The same host, to go back to."""
        other = FakeHost()
        other.namespaces = dict(self.namespaces)
        other._foreign = dict(self._foreign)
        other.things = dict(self.things)
        other._up = set(self._up)
        return other

    # -- namespaces -------------------------------------------------------------------------------

    def add_namespace(self, netns: Netns) -> None:
        """A network namespace appears behind a path."""
        self.namespaces[netns.path] = netns.inode

    def remove_namespace(self, netns: Netns) -> None:
        """A path is gone, and with its namespace's last path all that was in it."""
        inode = self.namespaces[netns.path]
        if list(self.namespaces.values()).count(inode) == 1:
            for noun in self.nouns():
                if self.key(noun) in self.things and self.is_in(noun, inode):
                    self._drop(noun)
            self._foreign = {s: device for s, device in self._foreign.items() if s[0] != inode}
            self._up = {spot for spot in self._up if spot[0] != inode}
        del self.namespaces[netns.path]

    def inode_at(self, path: str) -> int | None:
        """The namespace behind a path."""
        return self.namespaces.get(path)

    def is_alive(self, netns: Netns) -> bool:
        """Whether the path still leads to that very namespace."""
        inode = self.namespaces.get(netns.path)
        return inode is not None and netns.inode in (0, inode)

    def reboot(self) -> None:
        """Nothing is left but the host's own devices."""
        self.namespaces = {"": self.inode}
        self._foreign = {spot: d for spot, d in self._foreign.items() if spot[0] == self.inode}
        self.things = {}
        self._up = {(self.inode, "lo"), *self._foreign}

    def flush_firewall(self) -> None:
        """The firewall's facts and base are gone."""
        self.things = {
            key: noun
            for key, noun in self.things.items()
            if noun.layer is not Layer.FIREWALL and not isinstance(noun, FirewallBase)
        }

    # -- devices ----------------------------------------------------------------------------------

    def add_foreign(self, netns: Netns, device: Device) -> None:
        """A device that is not ours appears, up."""
        spot = self.place(netns), device.name
        self._foreign[spot] = device
        self._up.add(spot)

    def device(self, netns: Netns, name: str) -> Device | None:
        """What a device is, ours or not."""
        spot = self.place(netns), name
        if spot in self._foreign:
            return self._foreign[spot]
        for noun in self.links():
            if spot in self.spots(noun):
                mac = noun.mac if isinstance(noun, Bridge | Macvlan | Vxlan) else ""
                return Device(name=name, kind=_KIND[type(noun)], mtu=noun.mtu, mac=mac, ours=True)
        return None

    def device_names(self, netns: Netns) -> frozenset[str]:
        """All devices of a namespace."""
        place = self.place(netns)
        ours = {spot for noun in self.links() for spot in self.spots(noun)}
        return frozenset(
            {"lo", *(name for where, name in {*self._foreign, *ours} if where == place)}
        )

    def check_device(self, netns: Netns, name: str) -> Spot:
        """Where the device is, or NotThere."""
        if name != "lo" and self.device(netns, name) is None:
            raise NotThere(f"there is no device {name} in {netns}")
        return self.place(netns), name

    # -- looking ----------------------------------------------------------------------------------

    def nouns(self) -> list[Noun]:
        """All things that were made and are there."""
        return list(self.things.values())

    def forwards(self, family: Family) -> bool:
        """Whether forwarding was switched on."""
        return self.key(Forwarding(family=family)) in self.things

    def forward(self, family: Family, *, on: bool) -> None:
        """Switch forwarding, as an administrator does."""
        noun = Forwarding(family=family)
        if on:
            self.ensure(noun)
        else:
            self.things.pop(self.key(noun), None)

    def prefixes(self, besides: Collection[str] = ()) -> Iterator[IPNetwork]:
        """What the host's own addresses and routes lead to, but by some devices."""
        for noun in self.things.values():
            if not isinstance(noun, Address | Route) or noun.device in besides:
                continue
            if self.place(noun.netns) == self.inode:
                yield noun.address.network if isinstance(noun, Address) else noun.destination

    def observe(self, noun: Noun) -> Noun | None:
        """The thing of a noun as it is now."""
        if not self.is_alive(noun.netns):
            return None
        if isinstance(noun, Up):
            return noun if (self.place(noun.netns), noun.device) in self._up else None
        found = self.things.get(self.key(noun))
        if isinstance(found, Address) and (self.place(found.netns), found.device) not in self._up:
            return None
        return None if found is None else self._as_asked(found, noun)

    def _as_asked(self, found: Noun, noun: Noun) -> Noun:
        """The thing, with its namespaces named as the caller names them."""
        names: dict[str, Netns] = {"netns": noun.netns}
        for field in ("peer_netns", "parent_netns"):
            known, asked = getattr(found, field, None), getattr(noun, field, None)
            if known and asked and self.known_place(known) == self.known_place(asked):
                names[field] = asked
        return replace(found, **names)

    # -- doing ------------------------------------------------------------------------------------

    def ensure(self, noun: Noun) -> None:
        """A shared thing is there from now on."""
        self.place(noun.netns)
        self.things[self.key(noun)] = noun

    def create(self, noun: Noun) -> None:
        """Make a thing."""
        self.place(noun.netns)
        if isinstance(noun, Link):
            self._check_free(noun)
        elif self.key(noun) in self.things and not isinstance(noun, Sysctl | Up):
            raise AlreadyThere(f"{thing(noun)} is there already")
        self._check_ground(noun)
        self.things[self.key(noun)] = noun
        if isinstance(noun, Address | Up):
            self._up.add((self.place(noun.netns), noun.device))
        if isinstance(noun, Bridge | Dummy | VethPair | Vlan | Vxlan):
            self._up.add((self.place(noun.netns), noun.name))

    def change(self, old: Noun, new: Noun) -> None:
        """Make a thing be as `new` says."""
        self.place(new.netns)
        if self.key(old) != self.key(new):
            raise KernelError(f"{thing(old)} and {thing(new)} are two things")
        if self.key(new) not in self.things:
            raise NotThere(f"{thing(new)} is not there")
        if isinstance(new, Link):
            for name in new.fixed:
                if getattr(old, name) != getattr(new, name):
                    raise KernelError(f"{name} of {thing(new)} can't change while it is there")
        self._check_ground(new)
        for device in new_macs(old, new):
            for rider in self.riders((self.known_place(new.netns), device[1])):
                if isinstance(rider, Neighbour):
                    del self.things[self.key(rider)]
        self.things[self.key(new)] = new

    def delete(self, noun: Noun) -> None:
        """Take a thing away, with all that Linux takes with it."""
        self.place(noun.netns)
        found = self.things.get(self.key(noun))
        if found is None:
            raise NotThere(f"{thing(noun)} is not there")
        self._drop(found)

    def _drop(self, noun: Noun) -> None:
        """Take a thing away, and what Linux takes with it."""
        del self.things[self.key(noun)]
        if isinstance(noun, Link):
            self._drop_with(noun)
        elif isinstance(noun, Up):
            if not self.addresses(noun.netns, noun.device):
                self._up.discard((self.place(noun.netns), noun.device))
        elif isinstance(noun, Address) and noun.address.version == 4:
            left = self.addresses(noun.netns, noun.device)
            if not any(address.address.version == 4 for address in left):
                self._disable_ipv4(self.spot(noun.netns, noun.device))

    def _disable_ipv4(self, spot: Spot) -> None:
        """A device's last IPv4 address is gone."""
        for rider in self.riders(spot):
            version = 0
            if isinstance(rider, Route):
                version = rider.destination.version
            elif isinstance(rider, Neighbour):
                version = rider.address.version
            if version == 4:
                del self.things[self.key(rider)]

    def _drop_with(self, link: Link) -> None:
        for spot in self.spots(link):
            self._up.discard(spot)
            for rider in self.riders(spot):
                del self.things[self.key(rider)]
            for other in self.links():
                if isinstance(other, VethPair | Vxlan) and spot == self.spot(
                    other.netns, other.bridge
                ):
                    self.things[self.key(other)] = replace(other, bridge="")
                elif self.parent(other) == spot and self.key(other) in self.things:
                    self._drop(other)

    # -- rules ------------------------------------------------------------------------------------

    def _check_free(self, noun: Link) -> None:
        if isinstance(noun, VethPair):
            self.place(noun.peer_netns)
        ours = {spot: other for other in self.links() for spot in self.spots(other)}
        for spot in self.spots(noun):
            if self.key(noun) == (self.key(ours[spot]) if spot in ours else None):
                raise AlreadyThere(f"{thing(noun)} is there already")
            if spot in self._foreign or spot in ours or spot[1] == "lo":
                raise InterfaceTaken(
                    f"there is a device {spot[1]} already", "choose another name with --ifname"
                )

    def _check_ground(self, noun: Noun) -> None:
        """What a thing stands on is there."""
        match noun:
            case VethPair() | Vxlan():
                if noun.bridge:
                    self.check_device(noun.netns, noun.bridge)
            case Macvlan() | Ipvlan():
                self.check_device(noun.parent_netns, noun.parent)
            case Vlan():
                self.check_device(noun.netns, noun.parent)
            case Sysctl():
                if noun.device not in _NO_DEVICES:
                    self.check_device(noun.netns, noun.device)
            case Route():
                self._check_route(noun)
            case FdbEntry():
                self.check_device(noun.netns, noun.device)
                if self.vxlan_key(noun) not in self.things:
                    raise KernelError(f"{noun.device} is no VXLAN device")
            case Address() | Up() | Neighbour():
                self.check_device(noun.netns, noun.device)
            case Publish() | Relay():
                self._check_port(noun)
        if noun.layer is Layer.FIREWALL and self.key(FirewallBase()) not in self.things:
            raise NotThere("the firewall's base is not there")

    def _check_route(self, noun: Route) -> None:
        spot = self.check_device(noun.netns, noun.device)
        if spot not in self._up:
            raise KernelError(f"{thing(noun)} can't be made: {noun.device} is down")
        if noun.via is None or noun.on_link:
            return
        near = [a.address.network for a in self.addresses(noun.netns, noun.device)]
        near += [r.destination for r in self.riders(spot) if isinstance(r, Route) and not r.via]
        if not any(noun.via in prefix for prefix in near) and not noun.via.is_link_local:
            raise KernelError(f"{thing(noun)} can't be made: {noun.via} can't be reached directly")

    def _check_port(self, noun: Publish | Relay) -> None:
        """Ports of one address, or of any, have one owner."""
        for other in self.things.values():
            if type(other) is not type(noun) or self.key(other) == self.key(noun):
                continue
            assert isinstance(other, Publish | Relay)
            apart = (
                other.protocol != noun.protocol
                or other.target.version != noun.target.version
                or other.port + other.count <= noun.port
                or noun.port + noun.count <= other.port
                or (None not in (other.host, noun.host) and other.host != noun.host)
            )
            if not apart:
                raise AlreadyThere(f"port {noun.port}/{noun.protocol} of the host is taken")
