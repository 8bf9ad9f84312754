"""Published ports: from what was asked for to what is free, and the keys that claim them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import ip_address

from netlib import state as keys
from netlib.engine import Engine
from netlib.errors import InvalidOption, PortTaken, Unsupported
from netlib.model import Endpoint, Family, IPAddress, IPInterface, Network, PublishedPort
from netlib.ports import PortRequest, candidates, parse, port_keys
from netlib.store import Condition


def resolve_ports(
    engine: Engine,
    network: Network,
    asked: Iterable[str | PortRequest],
    addresses: Iterable[IPInterface],
    *,
    besides: Iterable[PublishedPort] = (),
) -> tuple[PublishedPort, ...]:
    """What was asked for, with every host port chosen and none of them taken.

    Raises PortTaken naming the holder: an endpoint, or a process of the host.
    """
    requests = [parse(item) if isinstance(item, str) else item for item in asked]
    if requests and network.internal:
        raise Unsupported(
            f"network {network.name} is internal: nothing outside can reach its ports",
            "publish on another network of the sandbox, or make one without --internal",
        )
    families = tuple(dict.fromkeys(address.version for address in addresses))
    chosen: list[PublishedPort] = []
    taken_here = list(besides)
    for request in requests:
        port = _resolve(engine, network, request, families, taken_here)
        chosen.append(port)
        taken_here.append(port)
    return tuple(chosen)
