"""Published ports: from what was asked for to what is free, and the keys that claim them."""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from netlib.binding import ANY, bound
from netlib.engine import Engine
from netlib.errors import Exhausted, PortTaken, Unsupported
from netlib.model import Endpoint, HostFacts, Network, PublishedPort
from netlib.naming import DNS_PORT, listens_at_53
from netlib.ports import PortRequest, candidates, conflict, parse, port_keys, resolve
from netlib.records import load
from netlib.store import Absent, Condition
from netlib.values import replace


def resolve_ports(
    engine: Engine,
    network: Network,
    asked: Iterable[str | PortRequest],
    host: HostFacts,
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
    mine = _Own(network, besides)
    chosen: list[PublishedPort] = []
    for request in requests:
        port = _first_free(engine, network, request, mine, host.ephemeral_ports)
        mine.add(port)
        chosen.append(port)
    return tuple(chosen)


def unreached(engine: Engine, network: Network, ports: Iterable[PublishedPort]) -> tuple[str, ...]:
    """What to say of host addresses that the host has not: a typing error, or one that moves."""
    wanted = dict.fromkeys(
        one.host_address for port in ports for one in bound(network, port) if one.host_address
    )
    return tuple(
        f"the host has no address {address}: what is published there is reached when it has"
        for address in wanted
        if not address.is_unspecified and not engine.kernel.has_address(address)
    )


def answered_past(engine: Engine, endpoints: Iterable[Endpoint]) -> tuple[str, ...]:
    """What to say of a sandbox's published ports whose answers leave past this host.

    They go where its default route leads. On a LAN that is another machine, which knows nothing
    of the port: who asked gets an answer from an address that it never spoke to.
    """
    endpoints = list(endpoints)
    ways = {family: endpoint for endpoint in endpoints for family in endpoint.gateway_for}
    found: dict[str, None] = {}
    for endpoint in endpoints if len(endpoints) > 1 else ():
        families = {address.version for address in endpoint.addresses} if endpoint.ports else ()
        for way in (ways[f] for f in families if f in ways and ways[f].id != endpoint.id):
            lan = engine.state.network(way.network).network
            if not engine.capabilities(lan).gateway_on_host:
                own = engine.state.network(endpoint.network).network.name
                text = (
                    f"what {endpoint.sandbox.name} publishes on {own} is answered by way of "
                    f"{lan.name}, past this host, so nobody else gets those answers; to leave "
                    f"the default route to {own}, connect {lan.name} with -o no_default_route=true"
                )
                found[text] = None
    return tuple(found)


def claim_ports(
    network: Network, endpoint: Endpoint
) -> tuple[tuple[Condition, ...], dict[str, str]]:
    """The conditions and records that make an endpoint's host ports its own."""
    conditions: list[Condition] = []
    puts: dict[str, str] = {}
    holder = json.dumps(
        {"endpoint": f"{endpoint.network}/{endpoint.id}", "sandbox": endpoint.sandbox.name}
    )
    for port in endpoint.ports:
        for one in bound(network, port):
            for key, absent in port_keys(one, (4, 6)):
                puts[key] = holder
                conditions += [Absent(first, end) for first, end in absent]
    return tuple(conditions), puts


def move_ports(
    engine: Engine, old: Network, new: Network, endpoints: Iterable[Endpoint]
) -> tuple[tuple[Condition, ...], dict[str, str], tuple[str, ...]]:
    """What must hold, what to claim and what to give up when a network's host binding changes.

    Raises PortTaken naming who has a port already where one moves to.
    """
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    needed: list[Condition] = []
    there: dict[int, list[tuple[Endpoint, PublishedPort]]] = {}
    moved: list[tuple[Endpoint, PublishedPort, tuple[PublishedPort, ...]]] = []
    for endpoint in endpoints:
        before |= claim_ports(old, endpoint)[1]
        conditions, claims = claim_ports(new, endpoint)
        after |= claims
        needed += conditions
        for port in endpoint.ports:
            was = bound(old, port)
            for one in bound(new, port):
                for number in range(one.host_port, one.host_port + one.count):
                    there.setdefault(number, []).append((endpoint, one))
                if one not in was:
                    moved.append((endpoint, one, was))
    for endpoint, one, was in moved:
        holder = _holder_at(engine, endpoint, one, there, before)
        if holder is None and not any(conflict(one, other) for other in was):
            # What overlaps its old place is its own: the listener may be our relay.
            user = engine.kernel.port_user(one.protocol, one.host_address, one.host_port, one.count)
            # Or one that came meanwhile, for who has claimed the port by now.
            holder = user and (_holder_at(engine, endpoint, one, there, before) or user)
        if holder is not None:
            raise PortTaken(
                f"host port {one} of {endpoint.sandbox.name} can't move: it is taken by {holder}",
                "choose another host binding address, or unpublish one of the two",
            )
    came = {key: value for key, value in after.items() if key not in before}
    gone = tuple(key for key in before if key not in after)
    own = sorted(before)
    return tuple(part for c in needed for part in _beside(c, own)), came, gone


def _holder_at(
    engine: Engine,
    endpoint: Endpoint,
    one: PublishedPort,
    there: Mapping[int, list[tuple[Endpoint, PublishedPort]]],
    before: Mapping[str, str],
) -> str | None:
    """Which other endpoint has a port: of the same network after its change, or of others."""
    for number in range(one.host_port, one.host_port + one.count):
        for other, port in there.get(number, ()):
            if other.id != endpoint.id and conflict(one, port):
                return f"sandbox {other.sandbox.name}"
    for _, absent in port_keys(one, (4, 6)):
        for first, end in absent:
            for record in engine.state.store.range(first, end or f"{first}\0"):
                if record.key not in before:
                    return f"sandbox {load(record.value)['sandbox']}"
    return None


def _beside(condition: Condition, own: Sequence[str]) -> Iterator[Condition]:
    """The condition for what is not our own: a range that must be empty, but for our keys.

    `own` are in order.
    """
    if not isinstance(condition, Absent):
        yield condition
        return
    first, end = condition.first, condition.end or f"{condition.first}\0"
    for key in own[bisect_left(own, first) : bisect_left(own, end)]:
        if first < key:
            yield Absent(first, key)
        first = f"{key}\0"
    if first < end:
        yield Absent(first, end)


class _Own:
    """The ports of the endpoint itself, by number: thousands may be asked for at once."""

    def __init__(self, network: Network, ports: Iterable[PublishedPort]) -> None:
        self._network = network
        self._by_number: dict[int, list[PublishedPort]] = {}
        for port in ports:
            self.add(port)

    def add(self, port: PublishedPort) -> None:
        for one in bound(self._network, port):
            for number in range(one.host_port, one.host_port + one.count):
                self._by_number.setdefault(number, []).append(one)

    def has(self, one: PublishedPort) -> bool:
        """Whether one of them is in the way of another."""
        return any(
            conflict(one, other)
            for number in range(one.host_port, one.host_port + one.count)
            for other in self._by_number.get(number, ())
        )


def _first_free(
    engine: Engine,
    network: Network,
    request: PortRequest,
    mine: _Own,
    ephemeral: tuple[int, int],
) -> PublishedPort:
    holder = ""
    for number in candidates(request, ephemeral, int.from_bytes(os.urandom(4))):
        port = resolve(request, lambda _, number=number: number)  # type: ignore[misc]
        found = _holder(engine, network, port, mine, listens=not request.held)
        if found is None:
            return port
        holder = found
    if request.is_fixed:
        # Who has it may have it at one address only.
        beside = (
            "" if request.host_address else f", or an address where it is free: ADDRESS:{request}"
        )
        raise PortTaken(
            f"host port {request} is taken by {holder}",
            f"choose another host port{beside}, or leave it out to have one chosen",
        )
    raise Exhausted(
        f"no host port is free for {request}; the last one tried is taken by {holder}",
        "give a wider range, or unpublish ports that are not needed",
    )


def _holder(
    engine: Engine, network: Network, port: PublishedPort, mine: _Own, *, listens: bool
) -> str | None:
    """Who has one of the host ports that a published port needs, in words: or who listens there."""
    needs = bound(network, port)
    if any(map(mine.has, needs)):
        return "this endpoint itself"
    sandbox = _publishing(engine, needs)
    if sandbox is not None:
        return sandbox
    for one in _at_once(needs) if listens else ():
        user = engine.kernel.port_user(one.protocol, one.host_address, one.host_port, one.count)
        if user is not None and not _gives_way(engine, one):
            # A relay of ours that came to listen has its port claimed by now.
            return _publishing(engine, needs) or user
    return None


def _publishing(engine: Engine, needs: Iterable[PublishedPort]) -> str | None:
    """Which sandbox publishes one of these already, in words."""
    found = (publisher(engine, one) for one in needs)
    return next((f"sandbox {name}" for name in found if name is not None), None)


def _gives_way(engine: Engine, one: PublishedPort) -> bool:
    """Whether it is the resolver that has a port: it will have moved before that is published."""
    return one.host_port <= DNS_PORT < one.host_port + one.count and any(
        listens_at_53(record.network, record.wiring, one.host_address)
        for record in engine.state.networks()
    )


def publisher(engine: Engine, one: PublishedPort) -> str | None:
    """The sandbox that publishes a port already, or one that it would be in conflict with."""
    for _, absent in port_keys(one, (4, 6)):
        for first, end in absent:
            found = engine.state.store.range(first, end or f"{first}\0", limit=1)
            if found:
                return str(load(found[0].value)["sandbox"])
    return None


def _at_once(needs: tuple[PublishedPort, ...]) -> tuple[PublishedPort, ...]:
    """Every address of both families is one question, and not two."""
    if {one.host_address for one in needs} == set(ANY.values()):
        return (replace(needs[0], host_address=None),)
    return needs
