"""Published ports: from what was asked for to what is free, and the keys that claim them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from netlib import state as keys
from netlib.engine import Engine
from netlib.errors import Exhausted, PortTaken, Unsupported
from netlib.model import Endpoint, Family, IPInterface, Network, PublishedPort
from netlib.ports import PortRequest, candidates, conflict, parse, port_keys
from netlib.store import Absent, Condition


def resolve_ports(
    engine: Engine,
    network: Network,
    asked: Iterable[str | PortRequest],
    addresses: Iterable[IPInterface],
    *,
    besides: Iterable[PublishedPort] = (),
) -> tuple[PublishedPort, ...]:
    """What was asked for, with every host port chosen and none of them taken.

    `besides` are ports of the same endpoint that stay. Raises PortTaken naming the holder,
    another endpoint or a process of the host; Exhausted when no port of a range is free.
    """
    requests = [parse(item) if isinstance(item, str) else item for item in asked]
    if requests and network.internal:
        raise Unsupported(
            f"network {network.name} is internal: nothing outside can reach its ports",
            "publish on another network of the sandbox, or make one without --internal",
        )
    families = _families(addresses)
    bound = _bindings(network)
    chosen: list[PublishedPort] = []
    for request in requests:
        mine = [*besides, *chosen]
        chosen.append(_first_free(engine, request, bound, families, mine))
    return tuple(chosen)


def claim_ports(endpoint: Endpoint) -> tuple[tuple[Condition, ...], dict[str, str]]:
    """The conditions and records that make an endpoint's host ports its own."""
    conditions: list[Condition] = []
    puts: dict[str, str] = {}
    holder = json.dumps(
        {
            "endpoint": f"{endpoint.network}/{endpoint.id}",
            "sandbox": endpoint.sandbox.name,
        }
    )
    for port in endpoint.ports:
        for key, needed in port_keys(port, _families(endpoint.addresses)):
            puts[key] = holder
            conditions += needed
    return tuple(conditions), puts


def _first_free(
    engine: Engine,
    request: PortRequest,
    bound: None,
    families: tuple[Family, ...],
    mine: list[PublishedPort],
) -> PublishedPort:
    raise NotImplementedError
