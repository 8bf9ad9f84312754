"""Endpoints before and after a change: one plan, and what to write down."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain

from netlib import keys
from netlib.engine import Engine
from netlib.errors import Conflict, DriverError, RouteTaken, UnknownDriver
from netlib.gateway import elect
from netlib.links import Link, openings
from netlib.model import Endpoint, HostFacts, Network, Sandbox
from netlib.naming import endpoint_names, network_names
from netlib.plan import Plan, diff
from netlib.records import EndpointRecord, dump_endpoint, unchanged
from netlib.store import Unchanged
from netlib.values import dataclass, field, replace
from netlib.wiring import Noun, Route, Wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewiring:
    """An endpoint's record before a change (None: it is new) and after it (None: it goes).

    `waits`: nothing of it changes, for somebody else is at it, who is waited for.
    """

    before: EndpointRecord | None
    after: EndpointRecord | None
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evicted:
    """What is known here of endpoints elsewhere that had a new endpoint's addresses before it.

    Their entries go before its port comes; `restores` are the records of them. `words` are for
    the agent if the new one does not come to be.
    """

    wiring: Wiring = field(default_factory=Wiring)
    conditions: tuple[Unchanged, ...] = ()
    restores: Mapping[str, str] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    holds: Mapping[str, bool] = field(default_factory=dict)


def check_ready(network: Network) -> None:
    """Raise Conflict where a network is being made or removed, or was when that was interrupted."""
    if network.state != "ready":
        doing = "made" if network.state == "pending" else "removed"
        raise Conflict(
            f"network {network.name} is being {doing}",
            "wait for who does it; if nobody does any more, run: net repair",
        )


def plan_of(
    changes: Collection[Rewiring],
    others: Iterable[EndpointRecord] = (),
    *,
    evicted: Iterable[Noun] = (),
    observe: Callable[[Wiring], Wiring] | None = None,
) -> Plan:
    """The plan that takes all endpoints from before to after, and takes the `evicted` away.

    What one of `others` has as well (a resolver in the sandbox they share) is not touched.
    `observe`, where the records can't be trusted, says which of some nouns are there.
    """
    others = list(others)
    changes = [change for change in changes if not change.waits]
    befores = [change.before.wiring for change in changes if change.before is not None]
    afters = [change.after.wiring for change in changes if change.after is not None]
    have, want = Wiring(chain(*befores, evicted)), Wiring(chain(*afters))
    if not others and observe is None:
        return diff(have=have, want=want)
    changing = {change.before.endpoint.id for change in changes if change.before is not None}
    others_have = {
        noun for other in others if other.endpoint.id not in changing for noun in other.wiring
    }
    stay = Wiring(noun for noun in (*have, *want) if noun in others_have)
    have, want = have | stay, want | stay
    if observe is not None:
        # Both are looked for: one default route may have moved from one device to another.
        have = Wiring.first_of([stay, observe(have), observe(want)])
    return diff(have=have, want=want)


def puts(changes: Iterable[Rewiring], *, ready: bool) -> dict[str, str]:
    """The records of endpoints that are there after the change."""
    result: dict[str, str] = {}
    for change in changes:
        if change.after is not None and not change.waits:
            endpoint = change.after.endpoint
            if ready:
                endpoint = replace(endpoint, state="ready")
            key = keys.endpoint_key(endpoint.network, endpoint.id)
            result[key] = dump_endpoint(endpoint, change.after.wiring)
    return result


def reverts(changes: Iterable[Rewiring]) -> dict[str, str]:
    """The records as they were before the change."""
    return {
        keys.endpoint_key(e.endpoint.network, e.endpoint.id): dump_endpoint(e.endpoint, e.wiring)
        for e in (change.before for change in changes if not change.waits)
        if e is not None
    }


def conditions(changes: Iterable[Rewiring]) -> tuple[Unchanged, ...]:
    """That nobody else writes the endpoints meanwhile."""
    return tuple(unchanged(c.before) for c in changes if c.before is not None)


def held(box: Sandbox, changes: Iterable[Rewiring]) -> dict[str, bool]:
    """What an operation on endpoints holds: their sandboxes, and their networks as they are."""
    things = {keys.sandbox_key(box.name): True}
    for change in changes:
        for record in (change.before, change.after):
            if record is not None:
                things[keys.network_key(record.endpoint.network)] = False
                things[keys.sandbox_key(record.endpoint.sandbox.name)] = True
    return things


def describe_network(engine: Engine, network: Network, host: HostFacts) -> Wiring:
    """The wiring that a network's driver gives it, and where its names are answered."""
    driver = engine.driver(network)
    wiring = driver.network_wiring(network, host)
    return wiring | Wiring(network_names(network, driver.capabilities, wiring))


def describe(
    engine: Engine,
    network: Network,
    endpoint: Endpoint,
    host: HostFacts,
    links: Iterable[Link] | None = None,
) -> EndpointRecord:
    """An endpoint with the wiring that its network's driver gives it, its names and its links.

    `links` are as they will be, where they are about to change.
    """
    driver = engine.driver(network)
    wiring = driver.endpoint_wiring(network, endpoint, host)
    if links is None and endpoint.links:
        links = engine.state.links_of(endpoint)
    if driver.capabilities.names != "none" or links:
        around = engine.network_wiring(network, host)
        wiring |= Wiring(endpoint_names(network, driver.capabilities, around, endpoint))
        wiring |= Wiring(openings(around, endpoint, links or ()))
    return EndpointRecord(endpoint=endpoint, wiring=wiring)


def relink(
    engine: Engine,
    network: Network,
    sandbox: str,
    target: Endpoint | None,
    host: HostFacts | None = None,
) -> list[Rewiring]:
    """The changes of those that are linked to a sandbox, when its endpoint will be `target`."""
    changes: list[Rewiring] = []
    for record in engine.state.linked_to(sandbox, network.id):
        if record.endpoint.state == "pending":  # who makes it may not have seen the sandbox yet
            changes.append(Rewiring(before=record, after=record, waits=True))
        if record.endpoint.state != "ready":
            continue
        host = host or engine.facts()
        known = engine.state.links_of(record.endpoint)
        links = [link for link in known if link.target.sandbox.name != sandbox]
        box = engine.state.find_sandbox(sandbox)
        if target is not None:
            links.append(
                Link(
                    sandbox=record.endpoint.sandbox.name,
                    alias=record.endpoint.links[sandbox],
                    target=target,
                    environment=box.environment if box else {},
                )
            )
        after = describe(engine, network, record.endpoint, host, links)
        if after.wiring != record.wiring:
            changes.append(Rewiring(before=record, after=after))
    return changes


def rewire_sandbox(
    engine: Engine,
    networks: dict[str, Network],
    others: Iterable[EndpointRecord],
    *,
    joining: Endpoint | None,
    host: HostFacts,
) -> list[Rewiring]:
    """The changes among a sandbox's endpoints when one joins, or when only `others` stay.

    Only those whose routes move are changed; `joining` is described anew.
    """
    others = list(others)
    for record in others:
        network_id = record.endpoint.network
        if network_id not in networks:
            networks[network_id] = engine.state.network(network_id).network
    present = [record.endpoint for record in others]
    elected = elect([*present, joining] if joining else present, networks)
    changes: list[Rewiring] = []
    for record in others:
        endpoint = elected[record.endpoint.id]
        if record.endpoint.state != "ready" or endpoint == record.endpoint:
            continue
        try:
            after = describe(engine, networks[endpoint.network], endpoint, host)
        except (DriverError, UnknownDriver):
            if joining is not None:
                raise
            continue  # nobody is kept on a network by what became of another one's driver
        changes.append(Rewiring(before=record, after=after))
    if joining is not None:
        after = describe(engine, networks[joining.network], elected[joining.id], host)
        _check_beside(after, [*others, *(c.after for c in changes if c.after)], networks)
        changes.append(Rewiring(before=None, after=after))
    return changes


def _check_beside(
    joining: EndpointRecord, others: Iterable[EndpointRecord], networks: dict[str, Network]
) -> None:
    """Refuse a route that another endpoint of the sandbox has with the same metric."""
    held = {o.endpoint.id: o for o in others if o.endpoint.state == "ready"}  # the last one counts
    for other in held.values():
        for noun in joining.wiring:
            there = other.wiring.get(noun.key())
            if isinstance(noun, Route) and there not in (None, noun):
                box, metric = joining.endpoint.sandbox.name, f" with metric {noun.metric}"
                raise RouteTaken(
                    f"{box} has a route to {noun.destination}{metric * bool(noun.metric)} by "
                    f"{networks[other.endpoint.network].name} already",
                    "give the networks' routes different metrics (option metric or routes)",
                )
