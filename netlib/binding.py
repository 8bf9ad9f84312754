"""On which addresses of the host a port is published, and for which family of the endpoint."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from netlib.model import FAMILIES, Family, IPAddress, Network, PublishedPort
from netlib.values import replace

# All addresses of a family, as bind(2) spells them; the model's None is both families.
ANY: dict[Family, IPAddress] = {4: IPv4Address(0), 6: IPv6Address(0)}
_OPTIONS: dict[Family, str] = {4: "host_binding_ipv4", 6: "host_binding_ipv6"}


def gateway_mode(network: Network, family: Family) -> str:
    """How endpoints are reached by a family; by one that the network lacks, as by the other."""
    options = network.options
    both = options.get("gateway_mode", "nat")
    if "gateway_mode_ipv4" not in options and "gateway_mode_ipv6" not in options:
        return both
    families = network.families()
    family = family if family in families or not families else families[0]
    return options.get(f"gateway_mode_ipv{family}", both)


def is_routed(network: Network, family: Family) -> bool:
    """Whether endpoints are reached by their own addresses, so that no host port is used."""
    return gateway_mode(network, family) == "routed"


def asked_families(port: PublishedPort) -> tuple[Family, ...]:
    """The families that a port is published by."""
    return FAMILIES if port.host_address is None else (port.host_address.version,)


def bound(network: Network, port: PublishedPort) -> tuple[PublishedPort, ...]:
    """The port once for each host address: its own, else the network's, else all of a family.

    None of a family whose endpoints are reached by their own addresses.
    """
    if port.host_address is not None:
        return () if is_routed(network, port.host_address.version) else (port,)
    chosen = [ip_address(network.options[o]) for o in _OPTIONS.values() if o in network.options]
    used = (a for a in chosen or ANY.values() if not is_routed(network, a.version))
    return _at_each(port, tuple(used))


@lru_cache(maxsize=64)  # of one port it is asked when that is chosen, claimed and described
def _at_each(port: PublishedPort, addresses: tuple[IPAddress, ...]) -> tuple[PublishedPort, ...]:
    return tuple(replace(port, host_address=address) for address in addresses)
