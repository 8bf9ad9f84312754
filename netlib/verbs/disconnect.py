"""Take a sandbox off a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netlib import state as keys
from netlib.engine import Engine
from netlib.errors import NetError, NotConnected
from netlib.model import Endpoint, Network, Sandbox
from netlib.operation import Operation
from netlib.plan import Plan, joined
from netlib.publishing import claim_ports
from netlib.rewiring import Rewiring, conditions, held, plan_of, puts, relink, rewire_sandbox
from netlib.state import EndpointRecord
from netlib.store import Commit, Unchanged
from netlib.values import replace

if TYPE_CHECKING:
    from netlib.cluster.claims import Release


def disconnect(
    engine: Engine, network: str, sandbox: str | Sandbox, *, force: bool = False
) -> None:
    """Take a sandbox off a network; its address is free once the link is gone.

    The default route moves to the sandbox's next endpoint. Works for a sandbox that has
    ended too. `force`: forget the endpoint even if parts of it can't be removed.

    Raises NoSuchNetwork, NotConnected, LeftOver.

    Example:  net disconnect my-net web
    """
    for record in _between(engine, network, sandbox):
        depart(engine, record, force=force)


def plan_disconnection(
    engine: Engine, network: str, sandbox: str | Sandbox, *, force: bool = False
) -> Plan:
    """What `disconnect` would do."""
    engine.settle(act=False)
    records = _between(engine, network, sandbox)
    return joined(leave(engine, record, force=force).plan for record in records)


def depart(engine: Engine, record: EndpointRecord, *, force: bool = False) -> None:
    """Remove an endpoint as its record is by then. NotConnected: somebody else was first."""
    endpoint = record.endpoint
    key = keys.endpoint_key(endpoint.network, endpoint.id)

    def prepare() -> Operation[None]:
        found = engine.state.store.get(key)
        if found is None:
            raise NotConnected(f"{endpoint.sandbox.name} is disconnected already", "see: net ps")
        return leave(engine, keys.load_endpoint(found.value, found.revision), force=force)

    engine.run(prepare)


def _between(engine: Engine, network: str, sandbox: str | Sandbox) -> list[EndpointRecord]:
    """The endpoints, oldest first. Raises NoSuchNetwork, NotConnected."""
    known = engine.state.network(network).network
    name = sandbox.name if isinstance(sandbox, Sandbox) else _name(engine, sandbox)
    engine.state.endpoint(known, name)
    return engine.state.endpoints_between(known.id, name)


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
    touched = {keys.sandbox_key(box.name): keys.dump_sandbox(box)}
    if not others and box.kind != "name":
        # Known by what others call it, and only for its endpoints' sake.
        gone += engine.state.sandbox_keys(box)
        touched = {}
    words: dict[str, str] = {}
    places: tuple[Unchanged, ...] = ()
    if network.underlay is not None:
        from netlib.cluster.state import clash_key

        gone.append(clash_key(endpoint.network, endpoint.id))
        places, words = _elsewhere(engine, endpoint)
    return Operation(
        subject=f"the endpoint of {box.name} on {network.name}",
        sandbox=box,
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
                key: keys.dump_endpoint(replace(endpoint, state="removing"), record.wiring),
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
    from netlib.cluster.state import look_key
    from netlib.peers import as_placed, peers_at

    addresses = [address.ip for address in endpoint.addresses]
    places = as_placed(engine, endpoint.network, addresses)
    found = peers_at(engine, endpoint.network, addresses)
    return places, {look_key(endpoint.network): ""} if found else {}


def _name(engine: Engine, reference: str) -> str:
    """The state's name of a sandbox, also when the sandbox itself is gone."""
    found = engine.state.find_sandbox(reference)
    if found is not None:
        return engine.state.owner(found).name
    try:
        return engine.sandbox(reference).name
    except NetError:
        return reference  # then it is not connected, which is what the caller is told
