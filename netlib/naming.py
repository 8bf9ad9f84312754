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
    """A listener inside the sandbox, where the host holds no address of the network."""
    if (
        not has_names(network, capabilities)
        or _held_gateways(network, capabilities, network_wiring)
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


def nameservers(wirings: Iterable[Wiring]) -> tuple[IPAddress, ...]:
    """Where a sandbox asks for names, by the wiring of its endpoints and their networks."""
    listeners = [n for wiring in wirings for n in wiring if isinstance(n, NameServer)]
    if any(listener.kind == "sandbox" for listener in listeners):
        return (IN_SANDBOX,)
    return tuple(dict.fromkeys(a for listener in listeners for a in listener.addresses))


def _held_gateways(
    network: Network, capabilities: Capabilities, wiring: Wiring
) -> tuple[IPAddress, ...]:
    if capabilities.names != "gateway" or not has_names(network, capabilities):
        return ()
    held = {noun.address.ip for noun in wiring if isinstance(noun, Address)}
    gateways = (subnet.gateway for subnet in network.subnets)
    return tuple(g for g in gateways if g is not None and g in held)
