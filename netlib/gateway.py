"""Which endpoint of a sandbox gives it its default routes, and which a network's static ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from netlib.model import EVERYWHERE, FAMILIES, Endpoint, Family, Network
from netlib.options import is_on
from netlib.values import replace


def offers(network: Network, endpoint: Endpoint) -> tuple[Family, ...]:
    """The families for which an endpoint could be the way out."""
    if network.internal or any(
        is_on(options, "no_default_route", default=False)
        for options in (network.options, endpoint.options)
    ):
        return ()
    return tuple(
        family
        for family in FAMILIES
        if (address := endpoint.address(family)) is not None
        and (
            EVERYWHERE[family] in endpoint.routes
            or any(s.gateway is not None for s in network.subnets if address.ip in s.prefix)
        )
    )


def elect(endpoints: Iterable[Endpoint], networks: Mapping[str, Network]) -> dict[str, Endpoint]:
    """The endpoints of one sandbox with `gateway_for` and `leaves_routes` as they should be, by id.

    For each family the endpoint with the highest `gateway_priority` that offers a way out;
    the oldest of those. One that is being removed is no candidate. Likewise of those on one
    network, of which one gets its static routes.
    """
    ordered = sorted(endpoints, key=lambda e: (-e.gateway_priority, e.created, e.id))
    chosen: dict[Family, str] = {}
    first_on: dict[str, str] = {}
    for endpoint in ordered:
        if endpoint.state != "removing":
            first_on.setdefault(endpoint.network, endpoint.id)
            for family in offers(networks[endpoint.network], endpoint):
                chosen.setdefault(family, endpoint.id)
    return {
        endpoint.id: replace(
            endpoint,
            gateway_for=tuple(f for f in (4, 6) if chosen.get(f) == endpoint.id),
            leaves_routes=first_on.get(endpoint.network, endpoint.id) != endpoint.id,
        )
        for endpoint in ordered
    }
