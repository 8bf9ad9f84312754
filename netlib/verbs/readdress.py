"""Give an endpoint the addresses that somebody else chose for it, a DHCP server say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from netlib.addressing import Choice, lease_puts
from netlib.engine import Engine
from netlib.errors import AddressTaken
from netlib.model import IPInterface
from netlib.operation import Operation
from netlib.records import EndpointRecord
from netlib.rewiring import conditions, held, plan_of, puts, relink, reverts, rewire_sandbox
from netlib.store import Absent, Commit
from netlib.values import replace


def readdress(
    engine: Engine,
    record: EndpointRecord,
    addresses: Iterable[IPInterface],
    routes: Mapping[str, str],
) -> Operation[EndpointRecord]:
    """Give an endpoint of a network without addresses these, and routes through it.

    `routes`: gateways by destination; a default route is used as any endpoint's would be.
    Raises AddressTaken, RouteTaken.
    """
    endpoint = replace(record.endpoint, addresses=tuple(addresses), routes=dict(routes))
    network = engine.state.network(endpoint.network).network
    box = endpoint.sandbox
    for address in endpoint.addresses:
        lease = engine.state.lease(network.id, address.ip)
        if lease is not None and lease.endpoint != endpoint.id:
            raise AddressTaken(
                f"{address.ip} on {network.name} is held by {lease.sandbox}",
                "see who gave it twice, or run: net gc",
            )
    others = [r for r in engine.state.endpoints_of(box.name) if r.endpoint.id != endpoint.id]
    host = engine.facts()
    *moved, joined = rewire_sandbox(
        engine, {network.id: network}, others, joining=endpoint, host=host
    )
    changes = [
        *relink(engine, network, box.name, endpoint, host),
        *moved,
        replace(joined, before=record),
    ]
    choices = [Choice(address=a, prefix=a.network, moves_cursor=False) for a in endpoint.addresses]
    leases = lease_puts(network.id, choices, endpoint, host.boot_id, engine.clock())
    assert joined.after is not None
    return Operation(
        subject=f"the addresses of {box.name} on {network.name}",
        sandboxes=(box,),
        holds=held(box, changes),
        plan=plan_of(changes, others),
        result=joined.after,
        begin=Commit(
            conditions=(*conditions(changes), *(Absent(key) for key in leases)),
            put={**leases, **puts(changes, ready=False)},
        ),
        undo=Commit(put=reverts(changes), delete=tuple(leases)),
    )
