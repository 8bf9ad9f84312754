"""Where the DNS resolver listens for a network and its endpoints: by capability, not by driver."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

from netlib.driver import Capabilities
from netlib.model import Endpoint, IPAddress, Network
from netlib.options import is_on
from netlib.wiring import Address, DnsRedirect, Forward, NameServer, Noun, Wiring

DNS_PORT = 53
IN_SANDBOX = IPv4Address("127.0.0.11")


def network_names(network: Network, capabilities: Capabilities, wiring: Wiring) -> list[Noun]:
    """A listener at the gateway addresses that the host holds, if it holds any."""
    gateways = _held_gateways(network, capabilities, wiring)
    if not gateways:
        return []
    listener = NameServer(
        kind="network", subject=network.id, addresses=gateways, port=network.dns_port
    )
    if network.dns_port == DNS_PORT:
        return [listener]
    bridges = [noun.bridge for noun in wiring if isinstance(noun, Forward)]
    redirects = [
        DnsRedirect(bridge=bridge, gateway=gateway, port=network.dns_port)
        for bridge in bridges
        for gateway in gateways
    ]
    return [listener, *redirects]


def endpoint_names(
    network: Network, capabilities: Capabilities, network_wiring: Wiring, endpoint: Endpoint
) -> list[Noun]:
    """A listener inside the sandbox, where the host holds no gateway of its subnets."""
    held = _held_gateways(network, capabilities, network_wiring)
    if (
        not has_names(network, capabilities)
        or not set(held).isdisjoint(own_gateways(network, endpoint))
        or not endpoint.ifname
    ):
        return []
    box = endpoint.sandbox
    return [NameServer(netns=box.netns, kind="sandbox", subject=box.name, addresses=(IN_SANDBOX,))]


def has_names(network: Network, capabilities: Capabilities) -> bool:
    """Whether members of a network find each other by name."""
    return capabilities.names != "none" and is_on(network.options, "names", default=True)


def listens_at_53(network: Network, wiring: Wiring, address: IPAddress | None) -> bool:
    """Whether the resolver has port 53 of an address of the host, or of some address (None)."""
    if network.dns_port != DNS_PORT:
        return False
    own = {a for noun in wiring if isinstance(noun, NameServer) for a in noun.addresses}
    return bool(own) if address is None else address in own


def nameservers(
    joined: Iterable[tuple[Network, Wiring, Endpoint, Wiring]],
) -> tuple[IPAddress, ...]:
    """Where a sandbox asks for names, by its networks and its endpoints on them.

    That is at gateways of the subnets that it is in: a subnet that a network got later may be of a
    family that the sandbox has not, or beyond its reach.
    """
    found: dict[IPAddress, None] = {}
    for network, around, endpoint, wiring in joined:
        if any(isinstance(n, NameServer) and n.kind == "sandbox" for n in wiring):
            return (IN_SANDBOX,)
        own = own_gateways(network, endpoint)
        listeners = (noun for noun in around if isinstance(noun, NameServer))
        found |= {a: None for listener in listeners for a in listener.addresses if a in own}
    return tuple(found)


def own_gateways(network: Network, endpoint: Endpoint) -> tuple[IPAddress, ...]:
    """The gateways of the subnets in which an endpoint has an address."""
    return tuple(
        subnet.gateway
        for subnet in network.subnets
        if subnet.gateway is not None and any(a.ip in subnet.prefix for a in endpoint.addresses)
    )


def _held_gateways(
    network: Network, capabilities: Capabilities, wiring: Wiring
) -> tuple[IPAddress, ...]:
    if capabilities.names != "gateway" or not has_names(network, capabilities):
        return ()
    held = {noun.address.ip for noun in wiring if isinstance(noun, Address)}
    gateways = (subnet.gateway for subnet in network.subnets)
    return tuple(g for g in gateways if g is not None and g in held)
