"""Where port 53 of the host is published, the resolver leaves it, and is still asked there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from netlib.engine import Engine
from netlib.making import dns_port
from netlib.model import Network
from netlib.naming import DNS_PORT, listens_at_53
from netlib.operation import Operation
from netlib.ports import PortRequest, parse
from netlib.records import NetworkRecord
from netlib.values import replace
from netlib.verbs.update import change_network


def give_way(
    engine: Engine, asked: Iterable[str | PortRequest], prepare: Callable[[], object]
) -> None:
    """Move the resolver to another port on each network whose gateway's port 53 is asked for.

    The port of all of the host's addresses is that of its gateways, too. Sandboxes still ask there:
    each bridge redirects what its own say to its gateway, before what is published counts.
    `prepare` thinks through what asks for it: what that raises is raised before anything moves.
    """
    moves = moving(engine, asked)
    if moves:
        prepare()
    for move in moves:
        engine.run(move)


def moving(
    engine: Engine, asked: Iterable[str | PortRequest]
) -> list[Callable[[], Operation[Network]]]:
    """The operations that move it, each to be prepared."""
    requests = [parse(item) if isinstance(item, str) else item for item in asked]
    names = [request for request in requests if _is_dns(request)]
    return [
        partial(_moved, engine, record.network.id)
        for record in (engine.state.networks() if names else ())
        if any(_meets(record, request) for request in names)
    ]


def _is_dns(request: PortRequest) -> bool:
    end = request.host_port + request.choices - 1 + request.count
    return request.protocol != "sctp" and 0 < request.host_port <= DNS_PORT < end


def _meets(record: NetworkRecord, request: PortRequest) -> bool:
    return record.network.state == "ready" and listens_at_53(
        record.network, record.wiring, request.host_address
    )


def _moved(engine: Engine, network: str) -> Operation[Network]:
    record = engine.state.network(network)
    port = dns_port(engine, engine.driver(record.network), record.network, first=DNS_PORT + 1)
    return change_network(engine, record, replace(record.network, dns_port=port), engine.facts())
