"""How to write a driver: describe what one kind of network looks like in the kernel.

A driver never acts. It returns complete nouns (`netlib.wiring`), and the core owns the
verbs: create, remove, check, repair, update and dry-run are all made of the one description.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, Protocol

from netlib.model import Endpoint, Family, HostFacts, Network, Peer
from netlib.values import dataclass
from netlib.wiring import Wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One `-o KEY=VALUE` that a driver understands.

    `aliases` are the names that other tools give it; `live`: it may change while endpoints
    are there (`net update`). `device`: its value names a device of the host.

    `parent`: endpoints hang off that device. Only networks of one driver can share it, and no
    prefix can be given twice on it. Not even those can that differ in an `apart` option; one
    with a value of `exclusive` shares it with none, and its endpoint has the device's own MAC
    address. `reserves`: no endpoint gets the addresses that its value names, with commas
    between them. `gatewayless`: values with which the network needs no gateway, of `family`
    where the option speaks of one only.
    """

    key: str
    help: str
    aliases: tuple[str, ...] = ()
    default: str = ""
    choices: tuple[str, ...] = ()
    live: bool = False
    device: bool = False
    parent: bool = False
    apart: bool = False
    exclusive: tuple[str, ...] = ()
    reserves: bool = False
    gatewayless: tuple[str, ...] = ()
    family: Family | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What differs between drivers, declared: the core never asks for a driver's name.

    `addressing` pool: the core allocates from the network's subnets; none: no addresses.
    `gateway_on_host`: the host holds each subnet's gateway address. `publishes`: host ports
    can lead to its endpoints; else `why_not_published` tells why not. `names`: where the DNS
    resolver listens. `reserves`: further things that the core keeps unique.
    `single`: one network of this kind per host. `interface` False: endpoints have none of
    their own. `own_mac` False: they have no MAC of their own.
    `mac_of_address`: it follows from their first address (`names.mac_at`). `alone`: only a
    sandbox that is on no network can join. `own_netns` False: the sandbox is the host, so
    publishing a port of its is needless, and only warned of.
    """

    scope: Literal["local", "global"] = "local"
    addressing: Literal["pool", "none"] = "pool"
    gateway_on_host: bool = True
    publishes: bool = True
    why_not_published: str = ""
    names: Literal["gateway", "sandbox", "none"] = "gateway"
    reserves: frozenset[Literal["vni", "host_address"]] = frozenset()
    single: bool = False
    own_netns: bool = True
    interface: bool = True
    own_mac: bool = True
    mac_of_address: bool = False
    alone: bool = False


class Driver(Protocol):
    """One kind of network. No method touches the host."""

    capabilities: ClassVar[Capabilities]
    options: ClassVar[tuple[Option, ...]]
    endpoint_options: ClassVar[tuple[Option, ...]]

    def check_options(self, network: Network) -> None:
        """Raise InvalidOption for anything that this driver can not honour.

        Keys are canonical and choices checked already: what is left is their interplay.
        """

    def settle(self, network: Network, host: HostFacts) -> Mapping[str, str]:
        """Options that were left open and that the host decides, recorded when it is created.

        Raises InvalidOption, NoSuchDevice or Conflict for what this host can't give.
        """

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """Devices and rules that exist as long as the network does."""

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """Devices, addresses, routes and ports that join one sandbox to the network."""

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """What one endpoint on another host needs here: its change costs no more than itself."""
