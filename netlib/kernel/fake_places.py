"""Where things are on a host in memory: namespaces, devices, and what rides on what."""

from __future__ import annotations

from netlib.errors import NamespaceGone
from netlib.model import Netns
from netlib.wiring import Address, FdbEntry, Ipvlan, Link, Macvlan, Noun, VethPair, Vlan

# A device, wherever it is: the inode of its network namespace, and its name.
Spot = tuple[int, str]
# A thing, as Noun.key(), but with the namespace's inode: one namespace may have many names.
Key = tuple[object, ...]


class FakePlaces:
    """Namespaces by their paths, and things by their keys."""

    inode = 4026531840

    def __init__(self) -> None:
        self.namespaces: dict[str, int] = {"": self.inode}
        self.things: dict[Key, Noun] = {}

    def place(self, netns: Netns) -> int:
        """The inode of a namespace that is there, or NamespaceGone."""
        inode = self.namespaces.get(netns.path)
        if inode is None or netns.inode not in (0, inode):
            raise NamespaceGone(f"the network namespace of {netns} is gone")
        return inode

    def known_place(self, netns: Netns) -> int:
        """The inode of a namespace, there or not."""
        return netns.inode or self.namespaces.get(netns.path, 0)

    def key(self, noun: Noun) -> Key:
        """Which thing a noun is."""
        kind, _, *rest = noun.key()
        return (kind, self.known_place(noun.netns), *rest)

    def vxlan_key(self, noun: FdbEntry) -> Key:
        """Which thing a forwarding entry needs."""
        return ("Vxlan", self.known_place(noun.netns), noun.device)

    def spot(self, netns: Netns, name: str) -> Spot:
        """Where a device is, or would be."""
        return self.known_place(netns), name

    def spots(self, link: Link) -> list[Spot]:
        """The devices that are one link."""
        spots = [self.spot(link.netns, link.name)]
        if isinstance(link, VethPair):
            spots.append(self.spot(link.peer_netns, link.peer))
        return spots

    def is_in(self, noun: Noun, inode: int) -> bool:
        """Whether a thing, or one end of it, is in a namespace."""
        if isinstance(noun, VethPair) and self.known_place(noun.peer_netns) == inode:
            return True
        return self.known_place(noun.netns) == inode

    def parent(self, link: Link) -> Spot | None:
        """The device that a link stands on."""
        if isinstance(link, Macvlan | Ipvlan):
            return self.spot(link.parent_netns, link.parent)
        return self.spot(link.netns, link.parent) if isinstance(link, Vlan) else None

    def links(self) -> list[Link]:
        """All links."""
        return [noun for noun in self.things.values() if isinstance(noun, Link)]

    def riders(self, spot: Spot) -> list[Noun]:
        """What goes with a device."""
        found: list[Noun] = []
        for noun in self.things.values():
            riding = None if isinstance(noun, Link) else noun.rides_on()
            if riding is not None and self.spot(noun.netns, riding[1]) == spot:
                found.append(noun)
        return found

    def addresses(self, netns: Netns, device: str) -> list[Address]:
        """The addresses of a device."""
        riders = self.riders(self.spot(netns, device))
        return [rider for rider in riders if isinstance(rider, Address)]
