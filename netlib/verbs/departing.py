"""Endpoints go: one by one, or many side by side."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from netlib import keys
from netlib.engine import Engine
from netlib.errors import NetError, NotConnected
from netlib.kernel.errnos import raise_together
from netlib.model import Endpoint, Network
from netlib.operation import Operation
from netlib.publishing import claim_ports
from netlib.records import EndpointRecord, dump_endpoint, dump_sandbox, load_endpoint
from netlib.rewiring import Rewiring, conditions, held, plan_of, puts, relink, rewire_sandbox
from netlib.side_by_side import run_each, run_with_others
from netlib.store import Commit, Unchanged
from netlib.values import replace

if TYPE_CHECKING:
    from netlib.cluster.claims import Release

_AT_ONCE = 100  # what these hold, others wait for


def depart(engine: Engine, record: EndpointRecord, *, force: bool = False) -> None:
    """Remove an endpoint as its record is by then, and with it those that other threads remove.

    Raises LeftOver; NotConnected: somebody else was first.
    """
    prepare = partial(_leave_now, engine, record, force=force)
    around = engine.state.find_network(record.endpoint.network)
    if around is not None and around.network.underlay is not None:
        engine.run(prepare)  # the cluster is told, and nobody else waits for that
    else:
        run_with_others(engine, prepare, dismantles=True)


def depart_all(
    engine: Engine,
    records: Iterable[EndpointRecord],
    *,
    force: bool = False,
    locked: bool = False,
) -> None:
    """Remove all endpoints that can be removed, but those that somebody else removes first.

    `locked`: the caller holds the operation lock. Raises all that failed, in one.
    """
    going = [partial(_leave_now, engine, record, force=force) for record in records]
    failures: list[NetError] = []
    for start in range(0, len(going), _AT_ONCE):
        for answer in run_each(engine, going[start : start + _AT_ONCE], locked=locked):
            if isinstance(answer, NetError):
                failures += [] if isinstance(answer, NotConnected) else [answer]
            elif answer is not None:
                raise answer
    raise_together(failures)


def _leave_now(engine: Engine, record: EndpointRecord, *, force: bool) -> Operation[None]:
    endpoint = record.endpoint
    found = engine.state.store.get(keys.endpoint_key(endpoint.network, endpoint.id))
    if found is None:
        raise NotConnected(f"{endpoint.sandbox.name} is disconnected already", "see: net ps")
    return leave(engine, load_endpoint(found.value, found.revision), force=force)


def leave(engine: Engine, record: EndpointRecord, *, force: bool = False) -> Operation[None]:
    """The operation that removes an endpoint.

    Where a change of it was interrupted, the host may be anywhere between the states before
    and after: then what is there is looked at instead of believed.
    """
    endpoint = record.endpoint
    box = endpoint.sandbox
    everyone = engine.state.endpoints_of(box.name)
    others = [r for r in everyone if r.endpoint.id != endpoint.id]
    changes = [Rewiring(before=record, after=None)]
    if others and engine.kernel.alive(box.netns):
        changes += rewire_sandbox(engine, {}, others, joining=None, host=engine.facts())
    network = engine.state.network(endpoint.network).network
    changes += relink(engine, network, box.name, None)
    moved = changes[1:]
    key = keys.endpoint_key(endpoint.network, endpoint.id)
    _, port_puts = claim_ports(network, endpoint)
    gone = [
        key,
        keys.member_key(endpoint),
        keys.place_key(endpoint),
        keys.mac_key(endpoint.network, endpoint.mac),
        *(keys.address_key(endpoint.network, a.ip) for a in endpoint.addresses),
        *keys.link_keys(endpoint),
        *port_puts,
    ]
    box_record = engine.state.store.get(keys.sandbox_key(box.name))
    touched = {keys.sandbox_key(box.name): dump_sandbox(box)}
    if not others and box.kind != "name":
        # Known by what others call it, and only for its endpoints' sake.
        gone += engine.state.sandbox_keys(box)
        touched = {}
    words: dict[str, str] = {}
    places: tuple[Unchanged, ...] = ()
    if network.underlay is not None:
        from netlib.cluster.copies import clash_key

        gone.append(clash_key(endpoint.network, endpoint.id))
        places, words = _elsewhere(engine, endpoint)
    return Operation(
        subject=f"the endpoint of {box.name} on {network.name}",
        sandboxes=(box,),
        holds=held(box, changes),
        plan=plan_of(
            changes, others, observe=None if endpoint.state == "ready" else engine.kernel.observe
        ),
        result=None,
        dismantles=True,
        insists=force,
        begin=Commit(
            conditions=(
                *conditions(changes),
                *places,
                Unchanged(keys.sandbox_key(box.name), box_record.revision if box_record else 0),
            ),
            put={
                key: dump_endpoint(replace(endpoint, state="removing"), record.wiring),
                **touched,
            },
            durable=False,
        ),
        done=Commit(put={**puts(moved, ready=True), **words}, delete=tuple(gone)),
        releases=_releases(network, endpoint),
    )


def _releases(network: Network, endpoint: Endpoint) -> tuple[Release, ...]:
    """What goes in the cluster with an endpoint on a network of its."""
    if network.underlay is None:
        return ()
    from netlib.sharing import endpoint_release  # few hosts are in a cluster

    return (endpoint_release(endpoint),)


def _elsewhere(engine: Engine, endpoint: Endpoint) -> tuple[tuple[Unchanged, ...], dict[str, str]]:
    """What this host's agent is to enter, once it is gone, of who else has its addresses.

    Two have them where one was cut off when they were given to the other. That nobody else has
    them is a condition: who comes to have them later is told that it goes, see `peers.beside`.
    """
    from netlib.cluster.copies import look_key
    from netlib.peers import as_placed, peers_at

    addresses = [address.ip for address in endpoint.addresses]
    places = as_placed(engine, endpoint.network, addresses)
    found = peers_at(engine, endpoint.network, addresses)
    return places, {look_key(endpoint.network): ""} if found else {}


__all__ = ["depart", "depart_all", "leave"]
