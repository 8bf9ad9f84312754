"""Remove networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from netlib import keys
from netlib.claims import claims_of
from netlib.engine import Engine
from netlib.errors import (
    BuiltInNetwork,
    DriverError,
    InUse,
    NoSuchNetwork,
    UnknownDriver,
)
from netlib.filters import BUILT_IN, PRUNED, Seen, matcher
from netlib.model import Network
from netlib.operation import Operation
from netlib.plan import Plan, diff, joined
from netlib.records import NetworkRecord, dump_network, load, unchanged
from netlib.side_by_side import run_each
from netlib.store import Commit, under
from netlib.subnetting import pool_keys
from netlib.values import replace
from netlib.verbs.departing import depart_all, leave
from netlib.wiring import Wiring

if TYPE_CHECKING:
    from netlib.cluster.claims import Claim, Release

_AT_ONCE = 20  # so that who watches sees how far it is
Watch = Callable[[str, int, int], None]
# What is kept of a network's addresses, and of its endpoints elsewhere.
_KINDS = ("lease", "cursor", "peer", "place", "clash", "behind")


def remove(engine: Engine, network: str, *, force: bool = False) -> None:
    """Remove a network that no endpoint is on; with `force` disconnect all that are.

    Raises NoSuchNetwork, BuiltInNetwork, InUse naming the sandboxes that are on it, LeftOver.

    Example:  net rm my-net
    """
    known = _removable(engine.state.network(network)).network
    if force:
        depart_all(engine, engine.state.endpoints(known.id), force=True)
    engine.run(lambda: removal(engine, _still(engine, known)))


def _still(engine: Engine, known: Network) -> NetworkRecord:
    """The network as it is now: not another one that has its name since."""
    record = engine.state.find_network(known.id)
    if record is None:
        raise NoSuchNetwork(f"network {known.name} was removed meanwhile", "see: net ls")
    return record


def removal(engine: Engine, record: NetworkRecord) -> Operation[None]:
    """The operation that removes a network, also from the cluster whose it is."""
    if record.revision and record.network.underlay is None:
        return dissolve(engine, record)
    _refuse_used(engine, record.network)
    from netlib.verbs.shared import withdraw  # few hosts are in a cluster

    return withdraw(engine, record)


def plan_removal(engine: Engine, network: str, *, force: bool = False) -> Plan:
    """What `remove` would do."""
    engine.settle(act=False)
    record = _removable(engine.state.network(network))
    if not force:
        return removal(engine, record).plan
    parts = [leave(engine, r).plan for r in engine.state.endpoints(record.network.id)]
    parts.append(diff(have=record.wiring, want=Wiring()))
    return joined(parts)


def prune(
    engine: Engine, filters: Iterable[str] = (), watch: Watch | None = None
) -> tuple[str, ...]:
    """Remove every network that no endpoint is on, but built-in ones; their names.

    `filters` (`label=K[=V]`, `label!=K[=V]`, `until=TIME`) spare those that don't fit;
    `watch` is told each name with its number and how many there are. Raises InvalidRequest.

    Example:  net prune
    """
    removed: list[str] = []
    unused = _unused(engine, filters)
    failures: list[Exception] = []
    for start in range(0, len(unused), _AT_ONCE):
        some = unused[start : start + _AT_ONCE]
        for number, record in enumerate(some, start):
            if watch is not None:
                watch(record.network.name, number, len(unused))
        for record, answer in zip(some, _dissolve_each(engine, some), strict=True):
            if not isinstance(answer, Exception):
                removed.append(record.network.name)
            elif not isinstance(answer, InUse | NoSuchNetwork):
                failures.append(answer)  # else it found a user, or somebody else was first
    if failures:
        raise failures[0]
    return tuple(removed)


def _dissolve_each(engine: Engine, records: Sequence[NetworkRecord]) -> list[Exception | None]:
    """Remove networks; of each what it failed by. No local one waits for the cluster's answers."""
    prepares = [partial(_dissolve_again, engine, record.network.id) for record in records]
    if all(record.revision and record.network.underlay is None for record in records):
        return run_each(engine, prepares)
    return [answer for prepare in prepares for answer in run_each(engine, [prepare])]


def plan_pruning(engine: Engine, filters: Iterable[str] = ()) -> Plan:
    """What `prune` would do."""
    engine.settle(act=False)
    plans: list[Plan] = []
    for record in _unused(engine, filters):
        try:
            plans.append(removal(engine, record).plan)
        except InUse:
            continue  # on another host
    return joined(plans)


def _unused(engine: Engine, filters: Iterable[str]) -> list[NetworkRecord]:
    fits = matcher(filters, PRUNED, engine.clock())
    return [
        record
        # Those that the cluster offers come last: it may be away, and is not needed before.
        for record in (*engine.state.networks(), *engine.state.offers())
        if record.network.name not in BUILT_IN
        and not engine.state.has_endpoints(record.network.id)
        and fits(Seen(network=record.network, scope="", in_use=False))
    ]


def _removable(record: NetworkRecord) -> NetworkRecord:
    name = record.network.name
    if name in BUILT_IN:
        raise BuiltInNetwork(
            f"network {name} is built in and always there",
            f"to take a sandbox off it, run: net disconnect {name} SANDBOX",
        )
    return record


def _dissolve_again(engine: Engine, network_id: str) -> Operation[None]:
    return removal(engine, engine.state.network(network_id))


def _claims(engine: Engine, network: Network) -> list[str]:
    """The keys of its prefixes and further claims, also when its driver was uninstalled."""
    try:
        return [*pool_keys(engine, network), *claims_of(engine.driver(network), network)[1]]
    except (DriverError, UnknownDriver):
        folders = ("pool/", "device/", "single/")
        records = [r for folder in folders for r in engine.state.store.range(*under(folder))]
        return [r.key for r in records if load(r.value)["network"] == network.id]


def _refuse_used(engine: Engine, network: Network) -> None:
    users = [r.endpoint.sandbox.name for r in engine.state.endpoints(network.id)]
    if users:
        raise InUse(
            f"network {network.name} is used by {', '.join(users)}",
            f"disconnect them first, or run: net rm -f {network.name}",
        )


def dissolve(
    engine: Engine,
    record: NetworkRecord,
    *,
    claims: tuple[Claim, ...] = (),
    releases: tuple[Release, ...] = (),
    gone: tuple[str, ...] = (),
) -> Operation[None]:
    """The operation that removes a network from this host, and the keys `gone` with it."""
    network = record.network
    _refuse_used(engine, network)
    return Operation(
        subject=f"network {network.name}",
        holds={keys.network_key(network.id): True},
        plan=diff(have=record.wiring, want=Wiring()),
        result=None,
        dismantles=True,
        begin=Commit(
            conditions=(unchanged(record), keys.no_members(network.id)),
            put={
                keys.network_key(network.id): dump_network(
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
                *_claims(engine, network),
                *gone,
            ),
            delete_ranges=tuple(under(f"{kind}/{network.id}/") for kind in _KINDS),
        ),
        claims=claims,
        releases=releases,
    )
