"""What a process that died left half done: taken back, or finished.

Only for who holds the operation lock alone: then nobody is still at it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from netlib import keys
from netlib.engine import Engine
from netlib.errors import NetError
from netlib.operation import Operation
from netlib.plan import Plan
from netlib.publishing import claim_ports
from netlib.records import EndpointRecord, NetworkRecord
from netlib.store import Commit, under
from netlib.values import dataclass
from netlib.verbs.departing import leave
from netlib.verbs.remove import dissolve


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something half done, and how the operation is prepared that ends it."""

    subject: str
    note: str
    prepare: Callable[[], Operation[None]]


def leftovers(engine: Engine) -> Iterable[Leftover]:
    """Endpoints first, then networks, then claims that nobody has any more."""
    for record in engine.state.endpoints():
        if record.endpoint.state != "ready":
            yield Leftover(
                subject=title(engine, record),
                note=_note(record.endpoint.state),
                prepare=partial(leave, engine, record),
            )
    for owner in engine.state.networks():
        if owner.network.state != "ready" and not engine.state.has_endpoints(owner.network.id):
            yield Leftover(
                subject=f"network {owner.network.name}",
                note=_note(owner.network.state),
                prepare=partial(_end, engine, owner),
            )
    stale = stale_claims(engine)
    if stale:
        yield Leftover(
            subject="state",
            note=f"held for nobody: {', '.join(stale)}",
            prepare=partial(_let_go, stale),
        )


def _end(engine: Engine, record: NetworkRecord) -> Operation[None]:
    if record.network.underlay is None or engine.meeting.membership() is None:
        return dissolve(engine, record)
    from netlib.verbs.shared import let_go  # few hosts are in a cluster

    return let_go(engine, record)


def settle(engine: Engine) -> Iterable[tuple[Leftover, NetError | None]]:
    """End all that is half done; with each the error that kept it from its end."""
    for leftover in leftovers(engine):
        try:
            engine.run_locked(leftover.prepare)
        except NetError as error:
            yield leftover, error
        else:
            yield leftover, None


def _let_go(stale: tuple[str, ...]) -> Operation[None]:
    return Operation(
        subject="what is held for nobody",
        plan=Plan(),
        result=None,
        done=Commit(put={}, delete=stale),
    )


def stale_claims(engine: Engine) -> tuple[str, ...]:
    """The keys of host ports and addresses that are held for no endpoint that has them."""
    networks = {r.network.id: r.network for r in engine.state.networks()}
    held: set[str] = set()
    for record in engine.state.endpoints():
        endpoint = record.endpoint
        held.update(keys.address_key(endpoint.network, a.ip) for a in endpoint.addresses)
        held.add(keys.member_key(endpoint))
        held.add(keys.place_key(endpoint))
        held.add(keys.mac_key(endpoint.network, endpoint.mac))
        held.update(keys.link_keys(endpoint))
        if endpoint.network in networks:
            held.update(claim_ports(networks[endpoint.network], endpoint)[1])
    return tuple(
        record.key
        for folder in ("port/", "lease/", "member/", "interface/", "linked/", "mac/")
        for record in engine.state.store.range(*under(folder))
        if record.key not in held
    )


def title(engine: Engine, record: EndpointRecord) -> str:
    """What findings call an endpoint."""
    network = engine.state.find_network(record.endpoint.network)
    name = network.network.name if network else record.endpoint.network[:12]
    return f"{record.endpoint.sandbox.name} on {name}"


def _note(state: str) -> str:
    verb = "making" if state == "pending" else "removing"
    return f"{verb} it was interrupted: removed"


__all__ = ["Leftover", "leftovers", "settle", "stale_claims", "title"]
