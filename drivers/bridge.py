"""Bridge networks: a Linux bridge per network, a veth pair per endpoint, the host as gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from netlib import names
from netlib.binding import gateway_mode
from netlib.driver import Capabilities, Option
from netlib.drivers.endpoint import (
    ENDPOINT_OPTIONS,
    EXPOSE,
    IFACE_PREFIX,
    ROUTING,
    check_in_sandbox,
    in_sandbox,
    speaks_ipv6,
    sysctls,
)
from netlib.drivers.hosted import (
    HOST_BINDING,
    ICC,
    MASQUERADE,
    MTU,
    OUTBOUND,
    check_host_addresses,
    uplink_mtu,
)
from netlib.drivers.on_bridge import HAIRPIN, ISOLATE, NAMES, bridge_sysctls, passing
from netlib.drivers.ports import published
from netlib.errors import InterfaceTaken, InvalidOption
from netlib.model import Endpoint, Family, HostFacts, Network, Peer, interface
from netlib.options import is_on
from netlib.wiring import (
    Address,
    Bridge,
    FirewallBase,
    Forwarding,
    Noun,
    Route,
    Sysctl,
    VethPair,
    Wiring,
)

_GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")
_GATEWAY_MODE_OF: dict[Family, str] = {4: "gateway_mode_ipv4", 6: "gateway_mode_ipv6"}
_FOR_ALL_OF_A_BRIDGE = (
    "masquerade",
    "isolate",
    "gateway_mode",
    *_GATEWAY_MODE_OF.values(),
    "outbound_ipv4",
    "outbound_ipv6",
)


class BridgeDriver:
    """A network on one host, reached from outside by masquerading and published ports."""

    capabilities: ClassVar[Capabilities] = Capabilities(scope="local", names="gateway")

    options: ClassVar[tuple[Option, ...]] = (
        Option(
            key="bridge.name",
            help="the bridge device; one that exists is used as it is, without addresses or "
            "rules of ours, and never removed: subnets and gateway are its own unless given",
            aliases=("com.docker.network.bridge.name", "bridge_name", "interface_name", "bridge"),
            device=True,
        ),
        MTU,
        ICC,
        MASQUERADE,
        ISOLATE,
        Option(
            key="gateway_mode",
            help="nat; nat-unprotected: all ports are reached by whoever has a route to the "
            "endpoint; routed: endpoints are reached by their own addresses, at published "
            "ports; isolated: the host has no address here",
            default="nat",
            choices=_GATEWAY_MODES,
            gatewayless=("isolated",),
        ),
        Option(
            key="gateway_mode_ipv4",
            help="gateway_mode by IPv4, where it is another one",
            aliases=("com.docker.network.bridge.gateway_mode_ipv4",),
            choices=_GATEWAY_MODES,
            gatewayless=("isolated",),
            family=4,
        ),
        Option(
            key="gateway_mode_ipv6",
            help="likewise for IPv6",
            aliases=("com.docker.network.bridge.gateway_mode_ipv6",),
            choices=_GATEWAY_MODES,
            gatewayless=("isolated",),
            family=6,
        ),
        NAMES,
        *HOST_BINDING,
        *OUTBOUND,
        IFACE_PREFIX,
        HAIRPIN,
        *ROUTING,
    )
    endpoint_options: ClassVar[tuple[Option, ...]] = (*ENDPOINT_OPTIONS, EXPOSE)

    def check_options(self, network: Network) -> None:
        """Raise InvalidOption for what can not go together."""
        options = network.options
        if "bridge.name" in options:
            names.check_device(options["bridge.name"])
        check_in_sandbox(network)
        check_host_addresses(network)
        _check_modes(network)
        if "isolated" in _modes(network).values() and not network.internal:
            raise InvalidOption(
                "gateway_mode isolated leaves the network without a way out",
                "add --internal, or choose nat or routed",
            )
        if bridge_name(network) in network.borrowed:
            _check_borrowed(network)

    def settle(self, network: Network, host: HostFacts) -> dict[str, str]:
        """The MTU of the default route's device, or the bridge's, where none was asked for.

        Raises InvalidOption where the bridge's name is that of another kind of device,
        InterfaceTaken where another network has it.
        """
        name = network.options.get("bridge.name", "")
        device = host.devices.get(name)
        if device is not None and device.kind != "bridge":
            raise InvalidOption(
                f"bridge.name {name} is no bridge but a {device.kind or 'device of another kind'}",
                "name a bridge, or leave the option out to have one made",
            )
        if device is not None and device.ours:
            raise InterfaceTaken(f"another network has the bridge {name}", "choose another name")
        if "mtu" in network.options:
            return {}
        return {"mtu": str(device.mtu if device else uplink_mtu(host))}

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """The bridge with its gateway addresses, and what may pass it.

        A bridge that somebody else made is left as it is, and so are packets over it: its
        other ports are none of our business.
        """
        bridge = bridge_name(network)
        if bridge in network.borrowed:
            return Wiring([FirewallBase()])
        return Wiring(self._nouns(network, bridge, host))

    def _nouns(self, network: Network, bridge: str, host: HostFacts) -> Iterator[Noun]:
        options = network.options
        modes, closed = _modes(network), network.internal
        yield FirewallBase()
        if not closed:
            yield from (Forwarding(family=family) for family in network.families())
        yield Bridge(
            name=bridge,
            owner=names.owner(network.id),
            mtu=int(options.get("mtu", "1500")),
            mac=names.mac_of(network.id),
        )
        yield from bridge_sysctls(bridge, network, host)
        for address in network.gateways():
            if modes[address.version] != "isolated":
                yield Address(device=bridge, address=address)
        for subnet in network.subnets:
            beyond = subnet.gateway is not None and subnet.gateway not in subnet.prefix
            if beyond and modes[subnet.family] != "isolated":
                yield Route(device=bridge, destination=subnet.prefix)
        yield from passing(network, bridge, modes)

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """A veth pair from the bridge into the sandbox, its addresses, routes and ports."""
        hairpin = is_on(network.options, "hairpin", default=host.bridge_netfilter)
        borrowed = bridge_name(network) in network.borrowed
        pair = VethPair(
            name=endpoint.options.get("host_interface_name", names.veth(endpoint.id)),
            owner=names.owner(network.id, endpoint.id),
            mtu=int(network.options.get("mtu", "1500")),
            peer=endpoint.ifname,
            peer_netns=endpoint.sandbox.netns,
            mac=endpoint.mac,
            host_mac=names.port_mac_of(endpoint.id) if borrowed else "",
            bridge=bridge_name(network),
            isolated=not is_on(network.options, "icc", default=True),
            # With br_netfilter a published port is translated inside the bridge, so the
            # frame may have to leave by the port it came in (bridge(8), hairpin).
            hairpin=hairpin,
        )
        # Who made the bridge decides on all but what is asked for here.
        forwards = network.families() if borrowed and endpoint.ports else ()
        return Wiring(
            [
                *(Forwarding(family=family) for family in forwards),
                pair,
                *sysctls(network, endpoint, host),
                *in_sandbox(network, endpoint),
                *_by_way_of_the_host(network, endpoint, host),
                *published(network, endpoint, host),
            ]
        )

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """Nothing: a bridge network ends at its host."""
        return Wiring()


def _by_way_of_the_host(network: Network, endpoint: Endpoint, host: HostFacts) -> Iterator[Noun]:
    """Where members meet in the firewall only: how IPv6 gets there.

    For IPv4 the host answers ARP for all of them (proxy_arp_pvlan), and there is no such thing
    for IPv6. So the gateway is the way to the subnet, and the host may not say that there is a
    nearer one (RFC 4861 section 8).
    """
    if is_on(network.options, "icc", default=True) or bridge_name(network) in network.borrowed:
        return
    if not speaks_ipv6(network, host) or gateway_mode(network, 6) == "isolated":
        return
    netns, device = endpoint.sandbox.netns, endpoint.ifname
    address = endpoint.address(6)
    for subnet in network.subnets:
        gateway = subnet.gateway
        if address is None or address.ip not in subnet.prefix:
            continue
        if gateway is None or gateway not in subnet.prefix:
            continue
        yield Sysctl(
            netns=netns, device=device, path=f"net/ipv6/conf/{device}/accept_redirects",
            value="0", default="1",
        )  # fmt: skip
        alone = interface(gateway, gateway.max_prefixlen).network
        yield Route(netns=netns, device=device, destination=alone, metric=1)
        # Before the one that Linux makes with the address, whose metric is 256.
        yield Route(netns=netns, device=device, destination=subnet.prefix, via=gateway, metric=1)


def bridge_name(network: Network) -> str:
    """The network's bridge device."""
    return network.options.get("bridge.name") or names.bridge(network.id)


def _modes(network: Network) -> dict[Family, str]:
    return {family: gateway_mode(network, family) for family in network.families()}


def _check_modes(network: Network) -> None:
    for family, option in _GATEWAY_MODE_OF.items():
        if option in network.options and family not in network.families():
            raise InvalidOption(
                f"option {option} is for a family that the network does not have",
                f"leave it out, or give the network IPv{family}",
            )


def _check_borrowed(network: Network) -> None:
    """Refuse what only rules for the whole bridge could give: its other ports are not ours."""
    kept_out = [option for option in _FOR_ALL_OF_A_BRIDGE if option in network.options]
    if network.internal:
        kept_out.append("internal")
    if kept_out:
        raise InvalidOption(
            f"{kept_out[0]} is not possible on {bridge_name(network)}, which is not ours: it "
            "would change what the bridge's other ports may do",
            "leave it out, or choose a bridge name that is free",
        )
