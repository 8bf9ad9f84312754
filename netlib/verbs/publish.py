"""Publish ports of a running sandbox, and take them back."""

from __future__ import annotations

from collections.abc import Iterable

from netlib.engine import Engine
from netlib.errors import NotConnected, NotPublished, Unsupported
from netlib.model import Endpoint, HostFacts, Network, PublishedPort, Sandbox
from netlib.operation import Operation
from netlib.plan import Plan
from netlib.ports import PortRequest, parse
from netlib.publishing import answered_past, claim_ports, resolve_ports, unreached
from netlib.records import EndpointRecord
from netlib.rewiring import Rewiring, conditions, describe, held, plan_of, puts, relink, reverts
from netlib.store import Commit
from netlib.values import replace


def publish(
    engine: Engine, sandbox: str | Sandbox, ports: Iterable[str | PortRequest]
) -> Operation[tuple[PublishedPort, ...]]:
    """Publish more ports of a running sandbox; what it publishes already stays untouched.

    They lead to its endpoint with the default route, else to the oldest that can publish.

    Raises NoSuchSandbox, NotConnected, PortTaken, InvalidPort, KernelError.

    Example:  net publish web 8443:443
    """
    box = engine.sandbox(sandbox)
    needless = _needless(engine, box)
    if needless:
        return Operation(
            subject=f"published ports of {box.name}", plan=Plan(), result=(), warnings=(needless,)
        )
    record, network = _publisher(engine, box)
    endpoint = record.endpoint
    host = engine.facts()
    new = resolve_ports(engine, network, ports, host, besides=endpoint.ports)
    after = replace(endpoint, ports=(*endpoint.ports, *new))
    port_conditions, port_puts = claim_ports(network, replace(endpoint, ports=new))
    changes = [
        _rewired(engine, network, record, after, host),
        *relink(engine, network, box.name, after, host),
    ]
    return Operation(
        subject=f"published ports of {box.name}",
        holds=held(box, changes),
        plan=plan_of(changes),
        result=new,
        warnings=(
            *unreached(engine, network, new),
            *answered_past(engine, [*_others(engine, endpoint), after]),
        ),
        begin=Commit(
            conditions=(*conditions(changes), *port_conditions),
            put={**port_puts, **puts(changes, ready=False)},
        ),
        undo=Commit(put=reverts(changes), delete=tuple(port_puts)),
    )


def unpublish(
    engine: Engine, sandbox: str | Sandbox, ports: Iterable[str | PortRequest]
) -> Operation[tuple[PublishedPort, ...]]:
    """Take published ports back; connections through them end.

    Each is named as it was published; without a host port, all that lead to the port.

    Raises NoSuchSandbox, NotPublished, KernelError.

    Example:  net unpublish web 8443:443
    """
    box = engine.sandbox(sandbox)
    changes: list[Rewiring] = []
    gone: list[PublishedPort] = []
    claims: list[str] = []
    wanted = [parse(item) if isinstance(item, str) else item for item in ports]
    host = engine.facts()
    for record in engine.state.endpoints_of(box.name):
        endpoint = record.endpoint
        mine = [p for p in endpoint.ports if any(_names(request, p) for request in wanted)]
        if mine:
            kept = tuple(p for p in endpoint.ports if p not in mine)
            network = engine.state.network(endpoint.network).network
            after = replace(endpoint, ports=kept)
            changes.append(_rewired(engine, network, record, after, host))
            changes += relink(engine, network, box.name, after, host)
            claims += claim_ports(network, replace(endpoint, ports=tuple(mine)))[1]
            gone += mine
    for request in wanted:
        if not any(_names(request, port) for port in gone):
            raise NotPublished(
                f"{box.name} does not publish {request}", f"see: net port {box.name}"
            )
    return Operation(
        subject=f"published ports of {box.name}",
        holds=held(box, changes),
        plan=plan_of(changes),
        result=tuple(gone),
        # The claims go last, when the host's ports lead nowhere any more.
        begin=Commit(conditions=conditions(changes), put=puts(changes, ready=False)),
        done=Commit(put={}, delete=tuple(claims)),
        undo=Commit(put=reverts(changes)),
    )


def _others(engine: Engine, endpoint: Endpoint) -> list[Endpoint]:
    every = engine.state.endpoints_of(endpoint.sandbox.name)
    return [record.endpoint for record in every if record.endpoint.id != endpoint.id]


def _needless(engine: Engine, box: Sandbox) -> str:
    """Why a sandbox's ports need not be published: it is the host. Empty where it is not."""
    for record in engine.state.endpoints_of(box.name):
        network = engine.state.network(record.endpoint.network).network
        able = engine.capabilities(network)
        if not able.own_netns:
            return f"nothing is published on {network.name}: needless, as {able.why_not_published}"
    return ""


def _publisher(engine: Engine, box: Sandbox) -> tuple[EndpointRecord, Network]:
    reasons: list[str] = []
    candidates: list[tuple[EndpointRecord, Network]] = []
    for record in engine.state.endpoints_of(box.name):
        network = engine.state.network(record.endpoint.network).network
        capabilities = engine.capabilities(network)
        if network.internal:
            reasons.append(f"{network.name} is internal")
        elif not capabilities.publishes:
            reasons.append(f"{network.name}: {capabilities.why_not_published}")
        else:
            candidates.append((record, network))
    if candidates:
        return min(candidates, key=lambda pair: not pair[0].endpoint.gateway_for)
    if reasons:
        raise Unsupported(
            f"no network of {box.name} can publish ports ({'; '.join(reasons)})",
            "connect it to a bridge network",
        )
    raise NotConnected(
        f"{box.name} is on no network", f"run: net connect NETWORK {box.name} -p SPEC"
    )


def _names(request: PortRequest, port: PublishedPort) -> bool:
    """Whether what was asked for speaks of a port that is published."""
    return (
        (request.protocol, request.port, request.count) == (port.protocol, port.port, port.count)
        and request.host_address in (None, port.host_address)
        and request.host_port in (0, port.host_port)
    )


def _rewired(
    engine: Engine, network: Network, record: EndpointRecord, after: Endpoint, host: HostFacts
) -> Rewiring:
    return Rewiring(before=record, after=describe(engine, network, after, host))
