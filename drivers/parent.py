"""Networks on a parent: a device of the host's that endpoints' interfaces hang off.

The parent is one that is there, a VLAN sub-interface of one (`eth0.30`), or, for an internal
network that names none, a dummy that leads nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from netlib import names
from netlib.driver import Option
from netlib.drivers.endpoint import NO_DEFAULT_ROUTE, SYSCTLS, check_in_sandbox
from netlib.errors import Conflict, InvalidOption, NoSuchDevice
from netlib.model import Device, HostFacts, Network, Peer
from netlib.options import number
from netlib.wiring import Dummy, Noun, Vlan, Wiring

MOST_VLAN = 4094  # IEEE 802.1Q: 0 and 4095 are reserved
PARENT = Option(
    key="parent",
    help="the host's device that leads to the network, or a VLAN of one, as eth0.30 (default: "
    "that of the default route; of an internal network, none)",
    aliases=("master",),
    device=True,
    parent=True,
)
MTU = Option(
    key="mtu",
    help="the MTU of the endpoints, in bytes, at most the parent's (default: the parent's)",
    aliases=("com.docker.network.driver.mtu",),
    live=True,
)
# Kinds of devices that hang off a parent, and so can't be one.
_CHILDREN = ("macvlan", "macvtap", "ipvlan")


class OnParent:
    """What drivers have in common whose endpoints hang off a parent."""

    endpoint_options: ClassVar[tuple[Option, ...]] = (SYSCTLS, NO_DEFAULT_ROUTE)

    def settle(self, network: Network, host: HostFacts) -> dict[str, str]:
        """The parent and its MTU, where none were asked for."""
        return _settled(network, host)

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """Nothing: other hosts are on the parent's LAN, or beyond it."""
        return Wiring()


def check_parent(network: Network) -> None:
    """Raise InvalidOption or InvalidName for what no host could give, or no sandbox have."""
    check_in_sandbox(network)
    parent = network.options.get("parent")
    if parent is not None:
        names.check_device(parent)
        if parent == "lo":
            raise InvalidOption("lo can't be a parent", "name a device that leads to a network")


def _settled(network: Network, host: HostFacts) -> dict[str, str]:
    """The parent and the MTU where they were left open.

    Raises NoSuchDevice, Conflict, InvalidOption.
    """
    name = network.options.get("parent") or _default(network, host)
    below = _below(name, network, host)
    most = below.mtu if below else 1500
    mtu = number(network.options, "mtu", 68, 65535) or most
    if mtu > most:
        raise InvalidOption(
            f"option mtu can not be {mtu}: that of {name} is {most}",
            f"use {most} or less, or raise it: ip link set {name} mtu {mtu}",
        )
    return {"parent": name, "mtu": str(mtu)}


def parent_of(network: Network) -> str:
    """The device that endpoints hang off."""
    return network.options["parent"]


def parent_wiring(network: Network) -> Iterator[Noun]:
    """The parent, where it is made with the network and goes with it."""
    name, owner = parent_of(network), names.owner(network.id)
    mtu = int(network.options["mtu"])
    if name == names.dummy(network.id):
        yield Dummy(name=name, owner=owner, mtu=mtu)
    elif name not in network.borrowed:
        base, _, vlan = name.rpartition(".")
        yield Vlan(name=name, owner=owner, mtu=mtu, parent=base, vlan_id=int(vlan))


def _default(network: Network, host: HostFacts) -> str:
    if network.internal:
        return names.dummy(network.id)
    if host.uplink is None:
        raise InvalidOption(
            "there is no default route, so no device that the network could hang off",
            "name one: -o parent=DEVICE",
        )
    return host.uplink.name


def _below(name: str, network: Network, host: HostFacts) -> Device | None:
    """The device that is or will be below all endpoints, None for a dummy of our own."""
    known = _devices(host)
    if name == names.dummy(network.id):
        return None
    if name in known:
        device = known[name]
        if device.kind in _CHILDREN:
            raise InvalidOption(
                f"{name} can't be a parent: it is {_article(device.kind)} itself",
                "name the device that it hangs off",
            )
        if device.ours:
            raise Conflict(
                f"{name} was made for another network and goes with it",
                "name a device of the host's own, or make one: ip link add",
            )
        return device
    base, dot, vlan = name.rpartition(".")
    if not dot or not vlan.isdecimal() or base not in known:
        raise NoSuchDevice(
            f"there is no device {base if dot and vlan.isdecimal() else name} on this host",
            "see: ip link",
        )
    if not 1 <= int(vlan) <= MOST_VLAN or str(int(vlan)) != vlan:
        raise InvalidOption(f"{vlan} is no VLAN", f"use a number from 1 to {MOST_VLAN}")
    return known[base]


def _devices(host: HostFacts) -> dict[str, Device]:
    uplink = {host.uplink.name: host.uplink} if host.uplink else {}
    return {**uplink, **host.devices}


def _article(kind: str) -> str:
    return f"an {kind}" if kind.startswith(tuple("aeiou")) else f"a {kind}"
