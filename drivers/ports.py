"""Published ports of an endpoint as nouns: redirected by the kernel, or else relayed."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

from netlib.binding import ANY, asked_families, bound, is_routed
from netlib.errors import Unsupported
from netlib.model import Endpoint, Family, HostFacts, IPAddress, Network, PublishedPort
from netlib.wiring import Noun, Open, Publish, Relay

_LOOPBACK_V6 = IPv6Address("::1")


def published(network: Network, endpoint: Endpoint, host: HostFacts) -> Iterator[Noun]:
    """The nouns of all ports of an endpoint. Raises Unsupported for one that nobody could use."""
    for port in endpoint.ports:
        nouns = [*_opened(network, endpoint, port), *_bound(network, endpoint, port, host)]
        if not nouns:
            raise Unsupported(
                f"port {port} can't be published: no packet could get to {endpoint.sandbox.name}",
                "host address, --from and the network must share a family; SCTP can't be relayed "
                "from [::1], nor from one family to the other",
            )
        yield from nouns


def _bound(
    network: Network, endpoint: Endpoint, port: PublishedPort, host: HostFacts
) -> Iterator[Noun]:
    for one in bound(network, port):
        if one.host_address is not None and (host.ipv6 or one.host_address.version == 4):
            yield from _at(one.host_address, endpoint, port)


def _opened(network: Network, endpoint: Endpoint, port: PublishedPort) -> Iterator[Noun]:
    """Routed: the endpoint's own addresses are reached at the port, and no host port is used."""
    for address in endpoint.addresses:
        family: Family = address.version
        if not is_routed(network, family) or family not in asked_families(port):
            continue
        sources = tuple(s for s in port.sources if s.version == address.version)
        if port.sources and not sources:
            continue  # only sources of the other family may use it; none named would be all
        yield Open(
            protocol=port.protocol,
            target=address.ip,
            port=port.port,
            count=port.count,
            sources=sources,
        )


def _at(address: IPAddress, endpoint: Endpoint, port: PublishedPort) -> Iterator[Noun]:
    family: Family = address.version
    target = endpoint.address(family)
    sources = tuple(s for s in port.sources if s.version == family)
    if port.sources and not sources:
        return  # only sources of the other family may use it
    if target is None:
        other = endpoint.address(6 if family == 4 else 4)
        # Without --from an IPv6 wildcard for an IPv4 sandbox is a courtesy, as with Docker;
        # the other way round nobody expects it of a wildcard.
        if other is not None and (family == 6 or port.host_address is not None):
            yield from _relay(address, other.ip, port, sources)
        return
    if address == _LOOPBACK_V6:
        yield from _relay(address, target.ip, port, sources)
        return
    yield Publish(
        family=family,
        protocol=port.protocol,
        host=None if address.is_unspecified else address,
        port=port.host_port,
        count=port.count,
        target=target.ip,
        target_port=port.port,
        sources=sources,
    )
    if address == ANY[6]:
        # There is no IPv6 route_localnet: packets to ::1 can not be redirected.
        yield from _relay(_LOOPBACK_V6, target.ip, port, sources, holds_all=True)


def _relay(
    address: IPAddress,
    target: IPAddress,
    port: PublishedPort,
    sources: tuple[object, ...],
    *,
    holds_all: bool = False,
) -> Iterator[Noun]:
    if port.protocol == "sctp":
        return  # no relay for SCTP: many kernels have no SCTP sockets
    yield Relay(
        protocol=port.protocol,
        host=address,
        port=port.host_port,
        count=port.count,
        target=target,
        target_port=port.port,
        sources=tuple(s for s in port.sources if s in sources),
        holds_all=holds_all,
    )
