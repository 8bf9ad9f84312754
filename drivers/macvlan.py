"""Macvlan networks: sandboxes that stand on the parent's LAN with MAC addresses of their own."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import ClassVar, cast

from netlib import names
from netlib.driver import Capabilities, Option
from netlib.drivers.endpoint import (
    IFACE_PREFIX,
    ROUTING,
    in_sandbox,
    speaks_ipv6,
    sysctls,
)
from netlib.drivers.parent import (
    MTU,
    PARENT,
    OnParent,
    check_parent,
    parent_of,
    parent_wiring,
)
from netlib.errors import InvalidOption
from netlib.model import Endpoint, HostFacts, IPAddress, Network, interface
from netlib.model import IPInterface as Interface
from netlib.options import number
from netlib.wiring import Address, Macvlan, MacvlanMode, Neighbour, Noun, Route, Sysctl, Up, Wiring


class MacvlanDriver(OnParent):
    """Sandboxes on the LAN of a device of the host, each with a MAC address of its own.

    The LAN's router is their gateway. The host itself does not reach them, nor they it,
    unless the network has a `host_shim`: a macvlan never talks to its own parent.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        gateway_on_host=False,
        publishes=False,
        why_not_published="its sandboxes are on the LAN: reach them there by their own addresses",
        names="sandbox",
    )
    options: ClassVar[tuple[Option, ...]] = (
        PARENT,
        Option(
            key="mode",
            help="bridge: sandboxes of one parent reach each other; private: they don't; vepa: "
            "by way of a switch that sends back; passthru: one sandbox has all of the parent",
            aliases=("macvlan_mode",),
            default="bridge",
            choices=("bridge", "private", "vepa", "passthru"),
            exclusive=("passthru",),
        ),
        MTU,
        Option(
            key="bcqueuelen",
            help="how many broadcasts may wait at the parent, where the kernel's default "
            "loses some",
            aliases=("broadcast_queue",),
        ),
        Option(
            key="host_shim",
            help="the host reaches the sandboxes and they it: true by its own IPv4 address, "
            "else by the addresses of the subnets given here, one of each family",
            reserves=True,
        ),
        IFACE_PREFIX,
        *ROUTING,
    )

    def check_options(self, network: Network) -> None:
        """Raise InvalidOption for what can not go together."""
        check_parent(network)
        number(network.options, "bcqueuelen", 1, 2**32 - 1)
        shim = _shim(network)
        if shim is not None and _mode(network) != "bridge":
            raise InvalidOption(
                f"option host_shim needs mode bridge, not {_mode(network)}",
                "leave one of the two out",
            )
        if shim == () and 4 not in network.families():
            raise InvalidOption(
                "option host_shim can be true only where the network has IPv4",
                "give the host an address of the subnet: -o host_shim=ADDRESS",
            )

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """The parent, if it is made for the network, and the host's own place on it."""
        return Wiring([*parent_wiring(network), *_shim_wiring(network, host)])

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """A macvlan in the sandbox, its addresses and routes; the host's way there."""
        device = Macvlan(
            netns=endpoint.sandbox.netns,
            name=endpoint.ifname,
            owner=names.owner(network.id, endpoint.id),
            mtu=int(network.options["mtu"]),
            parent=parent_of(network),
            mac=endpoint.mac,
            mode=_mode(network),
            broadcast_queue=number(network.options, "bcqueuelen", 1, 2**32 - 1) or 0,
        )
        return Wiring(
            [
                device,
                *sysctls(network, endpoint, host),
                *in_sandbox(network, endpoint),
                *_way_from_host(network, endpoint),
            ]
        )


def _mode(network: Network) -> MacvlanMode:
    return cast("MacvlanMode", network.options.get("mode", "bridge"))


def _shim(network: Network) -> tuple[Interface, ...] | None:
    """The host's addresses on the network; none of its own: (); no shim at all: None."""
    text = network.options.get("host_shim", "false")
    if text.lower() in ("false", "true"):
        return None if text.lower() == "false" else ()
    found = [_shim_address(part.strip(), network) for part in text.split(",")]
    if len({address.version for address in found}) < len(found):
        raise InvalidOption(
            f"option host_shim can not be {text!r}", "give at most one address of each family"
        )
    return tuple(found)


def _shim_address(text: str, network: Network) -> Interface:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidOption(
            f"option host_shim can not be {text!r}", "use true, false or addresses of the subnets"
        ) from error
    taken = next((s for s in network.subnets if s.gateway == address), None)
    if taken is not None or not any(address in s.prefix for s in network.subnets):
        why = "is the gateway" if taken else "is in no subnet of the network"
        raise InvalidOption(f"option host_shim can not be {address}: it {why}", "choose another")
    return interface(address, address.max_prefixlen)


def _shim_wiring(network: Network, host: HostFacts) -> Iterator[Noun]:
    addresses = _shim(network)
    if addresses is None:
        return
    device = names.shim(network.id)
    yield Macvlan(
        name=device,
        owner=names.owner(network.id),
        mtu=int(network.options["mtu"]),
        parent=parent_of(network),
        mac=names.mac_of(network.id),
    )
    settings = f"net/ipv4/conf/{device}"
    # Answers ARP only on the device that leads to who asks: sandboxes are answered here, the
    # LAN at the parent, though both hear all requests (ip-sysctl.rst, arp_filter).
    yield Sysctl(device=device, path=f"{settings}/arp_filter", value="1")
    yield Sysctl(device=device, path=f"{settings}/rp_filter", value="2")
    if speaks_ipv6(network, host):
        yield Sysctl(device=device, path=f"net/ipv6/conf/{device}/accept_ra", value="0")
    yield Up(device=device)
    for address in addresses:
        yield Address(device=device, address=address)


def _way_from_host(network: Network, endpoint: Endpoint) -> Iterator[Noun]:
    """Routes to the endpoint's addresses, and its MAC.

    The host never has to ask for it: its own address in a request from the shim would tell
    the LAN that it moved there.
    """
    addresses = _shim(network)
    if addresses is None:
        return
    device = names.shim(network.id)
    reached = {4, *(address.version for address in addresses)}
    for address in endpoint.addresses:
        if address.version in reached:
            target: IPAddress = address.ip
            host_prefix = interface(target, target.max_prefixlen).network
            yield Route(device=device, destination=host_prefix)
            yield Neighbour(device=device, address=target, mac=endpoint.mac)
