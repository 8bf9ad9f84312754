"""Point-to-point networks: a link between the host and each sandbox, and routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from netlib import names
from netlib.driver import Capabilities, Option
from netlib.drivers.endpoint import (
    ENDPOINT_OPTIONS,
    IFACE_PREFIX,
    ROUTING,
    check_in_sandbox,
    default_routes,
    metric_of,
    static_routes,
    sysctls,
)
from netlib.drivers.hosted import (
    HOST_BINDING,
    ICC,
    MASQUERADE,
    MTU,
    OUTBOUND,
    check_host_addresses,
    gateway_sysctls,
    masquerades,
    uplink_mtu,
)
from netlib.drivers.ports import published
from netlib.model import (
    Endpoint,
    HostFacts,
    IPAddress,
    IPInterface,
    IPNetwork,
    Network,
    Peer,
    Subnet,
    interface,
)
from netlib.options import is_on
from netlib.values import replace
from netlib.wiring import (
    Address,
    FirewallBase,
    Forward,
    Forwarding,
    Loopback,
    Noun,
    Route,
    Segment,
    Unmasked,
    Up,
    VethPair,
    Wiring,
)


class PtpDriver:
    """A link of its own between the host and each sandbox; the host routes, nothing is bridged.

    Sandboxes see the host only: no broadcasts, no ARP of others. Those of one network reach
    each other through the host, as long as `icc` is on. An internal one leads to the host's
    gateway address, and nowhere else.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(names="sandbox")
    options: ClassVar[tuple[Option, ...]] = (
        MTU,
        replace(
            ICC,
            help="whether sandboxes reach each other, and those of other networks that are "
            "not isolated either",
        ),
        MASQUERADE,
        *HOST_BINDING,
        *OUTBOUND,
        IFACE_PREFIX,
        *ROUTING,
    )
    endpoint_options: ClassVar[tuple[Option, ...]] = ENDPOINT_OPTIONS

    def check_options(self, network: Network) -> None:
        """Raise InvalidOption for what can not go together."""
        check_in_sandbox(network)
        check_host_addresses(network)

    def settle(self, network: Network, host: HostFacts) -> dict[str, str]:
        """The MTU, where none was asked for: that of the default route's device."""
        if "mtu" in network.options:
            return {}
        return {"mtu": str(uplink_mtu(host))}

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """Nothing of its own: the links come with their endpoints."""
        families = () if network.internal else network.families()
        return Wiring([FirewallBase(), *(Forwarding(family=family) for family in families)])

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """A veth pair, routes to and from its one address of each family, and what may pass."""
        device = endpoint.options.get("host_interface_name", names.veth(endpoint.id))
        pair = VethPair(
            name=device,
            owner=names.owner(network.id, endpoint.id),
            mtu=int(network.options["mtu"]),
            peer=endpoint.ifname,
            peer_netns=endpoint.sandbox.netns,
            mac=endpoint.mac,
        )
        return Wiring(
            [
                pair,
                *gateway_sysctls(device, network, host),
                *sysctls(network, endpoint, host),
                *_on_host(network, endpoint, device),
                *_in_sandbox(network, endpoint),
                *_firewall(network, endpoint, device),
                *published(network, endpoint, host),
            ]
        )

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """Nothing: the links end at their host."""
        return Wiring()


def _pairs(
    network: Network, endpoint: Endpoint
) -> Iterator[tuple[IPInterface, Subnet, IPAddress | None]]:
    """Each address of an endpoint with its subnet and gateway."""
    for address in endpoint.addresses:
        for subnet in network.subnets:
            if address.ip in subnet.prefix:
                yield address, subnet, subnet.gateway


def _only(address: IPAddress) -> IPInterface:
    return interface(address, address.max_prefixlen)


def _on_host(network: Network, endpoint: Endpoint, device: str) -> Iterator[Noun]:
    """Every link's end has the gateway's address, which needs no prefix there."""
    for address, _, gateway in _pairs(network, endpoint):
        if gateway is not None:
            yield Address(device=device, address=_only(gateway))
        yield Route(device=device, destination=_only(address.ip).network)


def _in_sandbox(network: Network, endpoint: Endpoint) -> Iterator[Noun]:
    """One address without a LAN around it; all else is behind the gateway."""
    netns, device = endpoint.sandbox.netns, endpoint.ifname
    metric = metric_of(network)
    yield Loopback(netns=netns)
    yield Up(netns=netns, device=device)
    gateways = {}
    for address, subnet, gateway in _pairs(network, endpoint):
        yield Address(netns=netns, device=device, address=_only(address.ip), announce=True)
        if gateway is None:
            continue
        if address.version in endpoint.gateway_for:
            gateways[address.version] = gateway
        if endpoint.leaves_routes:
            continue
        hop: IPNetwork = _only(gateway).network
        yield Route(netns=netns, device=device, destination=hop)
        yield Route(
            netns=netns, device=device, destination=subnet.prefix, via=gateway, metric=metric
        )
    if endpoint.leaves_routes:  # the way to the gateway, too
        near = [_only(address.ip) for address in endpoint.addresses]
        yield from default_routes(network, device, netns, gateways, near)
        return
    yield from default_routes(network, device, netns, gateways)
    yield from static_routes(network, device, netns)


def _firewall(network: Network, endpoint: Endpoint, device: str) -> Iterator[Noun]:
    """To the firewall each link is a bridge of its own, with one address behind it.

    What goes from link to link keeps its address.
    """
    closed = network.internal
    yield Forward(
        bridge=device,
        inbound="drop" if closed else "published",
        outbound="drop" if closed else "allow",
        host="gateway" if closed else "open",
        isolated=closed or not is_on(network.options, "icc", default=True),
    )
    for address, subnet, gateway in _pairs(network, endpoint):
        yield Segment(bridge=device, prefix=_only(address.ip).network, gateway=gateway)
        yield Unmasked(bridge=device, prefix=subnet.prefix)
        if not closed:
            yield from masquerades(network, device, address.version)
