"""Remove networks."""

from __future__ import annotations

from dataclasses import replace

from netlib import state as keys
from netlib.engine import Engine
from netlib.errors import InUse
from netlib.operation import Operation
from netlib.plan import Plan, diff
from netlib.state import NetworkRecord
from netlib.store import Commit, under
from netlib.subnetting import pool_keys
from netlib.verbs.disconnect import leave
from netlib.wiring import Wiring


def remove(engine: Engine, network: str, *, force: bool = False) -> None:
    """Remove a network that no endpoint is on; with `force` disconnect all that are.

    Raises NoSuchNetwork, InUse naming the sandboxes that are on it, LeftOver.

    Example:  net rm my-net
    """
    known = engine.state.network(network).network
    if force:
        for record in engine.state.endpoints(known.id):
            endpoint = record.endpoint

            def prepare(name: str = endpoint.sandbox.name) -> Operation[None]:
                return leave(engine, engine.state.endpoint(known, name), force=True)

            engine.run(prepare)
    engine.run(lambda: dissolve(engine, engine.state.network(known.id)))


def plan_removal(engine: Engine, network: str, *, force: bool = False) -> Plan:
    """What `remove` would do."""
    record = engine.state.network(network)
    if not force:
        return dissolve(engine, record).plan
    parts = [leave(engine, r).plan for r in engine.state.endpoints(record.network.id)]
    parts.append(diff(have=record.wiring, want=Wiring()))
    return Plan(
        stages=tuple(stage for part in parts for stage in part.stages),
        after=tuple(effect for part in parts for effect in part.after),
    )


def prune(engine: Engine) -> tuple[str, ...]:
    """Remove every network that no endpoint is on; their names.

    Example:  net prune
    """
    removed: list[str] = []
    for record in engine.state.networks():
        if not engine.state.has_endpoints(record.network.id):
            engine.run(lambda record=record: dissolve(engine, record))  # type: ignore[misc]
            removed.append(record.network.name)
    return tuple(removed)


def dissolve(engine: Engine, record: NetworkRecord) -> Operation[None]:
    """The operation that removes a network."""
    network = record.network
    users = [r.endpoint.sandbox.name for r in engine.state.endpoints(network.id)]
    if users:
        raise InUse(
            f"network {network.name} is used by {', '.join(users)}",
            f"disconnect them first, or run: net rm -f {network.name}",
        )
    return Operation(
        subject=f"network {network.name}",
        plan=diff(have=record.wiring, want=Wiring()),
        result=None,
        dismantles=True,
        begin=Commit(
            conditions=(keys.unchanged(record), keys.no_members(network.id)),
            put={
                keys.network_key(network.id): keys.dump_network(
                    replace(network, state="removing"), record.wiring
                )
            },
            durable=False,
        ),
        done=Commit(
            put={},
            delete=(
                keys.network_key(network.id),
                keys.name_key(network.name),
                *pool_keys(engine, network),
            ),
            delete_ranges=(
                under(f"lease/{network.id}/"),
                under(f"cursor/{network.id}/"),
            ),
        ),
    )
