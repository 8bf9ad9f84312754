"""On which addresses of the host a port is published, and for which family of the endpoint."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from netlib.model import Family, IPAddress, Network, PublishedPort

# All addresses of a family, as bind(2) spells them; the model's None is both families.
ANY: dict[Family, IPAddress] = {4: IPv4Address(0), 6: IPv6Address(0)}
_OPTIONS: dict[Family, str] = {4: "host_binding_ipv4", 6: "host_binding_ipv6"}


def bound(network: Network, port: PublishedPort) -> tuple[PublishedPort, ...]:
    """The port once for each host address: its own, else the network's, else all of a family."""
    if port.host_address is not None:
        return (port,)
    chosen = [ip_address(network.options[o]) for o in _OPTIONS.values() if o in network.options]
    return tuple(replace(port, host_address=a) for a in chosen or ANY.values())
