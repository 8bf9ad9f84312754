"""Change a network while it is in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from netlib import state as keys
from netlib.engine import Engine
from netlib.errors import InvalidOption, InvalidRequest
from netlib.model import Network
from netlib.operation import Operation
from netlib.options import canonical
from netlib.plan import diff
from netlib.publishing import claim_ports
from netlib.rewiring import Rewiring, conditions, describe, describe_network, puts, reverts
from netlib.store import Absent, Commit, Condition
from netlib.subnetting import choose_subnets, claim_pools
from netlib.wiring import Wiring


def update(
    engine: Engine,
    network: str,
    *,
    options: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    subnets: Iterable[str] = (),
    gateways: Iterable[str] = (),
    ip_ranges: Iterable[str] = (),
    aux_addresses: Iterable[str] = (),
) -> Operation[Network]:
    """Change what can change while endpoints are there; nothing is made anew behind their back.

    `options` and `labels` are merged into the network's; an empty value takes one away.
    `subnets` are added; endpoints that exist keep the addresses they have.

    Raises NoSuchNetwork, InvalidOption naming an option that can't change, PoolOverlap.

    Example:  net update my-net -o mtu=1400
    """
    record = engine.state.network(network)
    old = record.network
    driver = engine.driver(old)
    if old.state != "ready":
        raise InvalidRequest(f"network {old.name} is being removed or made", "run: net repair")
    parts = (tuple(gateways), tuple(ip_ranges), tuple(aux_addresses))
    subnets = tuple(subnets)
    if any(parts) and not subnets:
        raise InvalidRequest(
            f"the subnets that {old.name} has stay as they are",
            "give gateway, range and aux addresses together with a new --subnet",
        )
    asked = dict(options or {})
    cleared = {key: "" for key, value in asked.items() if value == ""}
    changed = canonical(
        {k: v for k, v in asked.items() if v}, driver.options, f"driver {old.driver}"
    )
    removed = _canonical_keys(cleared, driver.options, old.driver)
    live = {option.key for option in driver.options if option.live}
    default = {option.key: option.default for option in driver.options}
    for key in (*changed, *removed):
        was, becomes = (o.get(key, default[key]) for o in (old.options, changed))
        if key not in live and was != becomes:
            raise InvalidOption(
                f"option {key} of {old.name} can't change while the network exists",
                f"these can: {', '.join(sorted(live))}; for others make a new network",
            )
    added = (
        choose_subnets(
            engine,
            driver.capabilities,
            subnets=subnets,
            gateways=parts[0],
            ip_ranges=parts[1],
            aux_addresses=parts[2],
            ipv4=False,
            ipv6=False,
            borrowed=old.borrowed,
        )
        if subnets
        else ()
    )
    kept = {k: v for k, v in old.options.items() if k not in removed}
    merged = {**old.labels, **(labels or {})}
    new = replace(
        old,
        options={**kept, **changed},
        labels={k: v for k, v in merged.items() if v != ""},
        subnets=(*old.subnets, *added),
    )
    host = engine.facts(d for d in old.borrowed)
    driver.check_options(new)
    new = replace(new, options={**new.options, **driver.settle(new, host)})
    wiring = describe_network(engine, new, host)
    changes = [
        Rewiring(before=r, after=describe(engine, new, r.endpoint, host))
        for r in engine.state.endpoints(old.id)
        if r.endpoint.state == "ready"
    ]
    have, want = record.wiring, wiring
    for change in changes:
        have |= change.before.wiring if change.before else Wiring()
        want |= change.after.wiring if change.after else Wiring()
    port_conditions, port_puts, port_keys_gone = _moved_ports(old, new, changes)
    pool_conditions, pool_puts = claim_pools(engine, replace(new, subnets=added))
    network_key = keys.network_key(old.id)
    return Operation(
        subject=f"network {old.name}",
        holds={network_key: True},
        plan=diff(have=have, want=want),
        result=new,
        begin=Commit(
            conditions=(
                keys.unchanged(record),
                *pool_conditions,
                *port_conditions,
                *conditions(changes),
            ),
            put={
                network_key: keys.dump_network(new, wiring),
                **pool_puts,
                **port_puts,
                **puts(changes, ready=True),
            },
        ),
        undo=Commit(
            put={network_key: keys.dump_network(old, record.wiring), **reverts(changes)},
            delete=(*pool_puts, *port_puts),
        ),
        done=Commit(put={}, delete=port_keys_gone) if port_keys_gone else None,
    )


def _moved_ports(
    old: Network, new: Network, changes: Iterable[Rewiring]
) -> tuple[tuple[Condition, ...], dict[str, str], tuple[str, ...]]:
    """What to claim and what to give up where another host binding moves published ports."""
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    needed: list[Condition] = []
    for change in changes:
        if change.before is not None:
            endpoint = change.before.endpoint
            before |= claim_ports(old, endpoint)[1]
            conditions_, claims = claim_ports(new, endpoint)
            after |= claims
            needed += conditions_
    came = {key: value for key, value in after.items() if key not in before}
    gone = tuple(key for key in before if key not in after)
    # Ranges that must be absent may hold what goes: then only single keys can be asked for.
    strict = [c for c in needed if isinstance(c, Absent) and c.first in came and not c.end]
    return tuple(strict), came, gone


def _canonical_keys(given: Mapping[str, str], known: Iterable[object], driver: str) -> set[str]:
    """The canonical keys of options that are to go."""
    from netlib.driver import Option
    from netlib.options import unknown

    options = [option for option in known if isinstance(option, Option)]
    result: set[str] = set()
    for key in given:
        names = {key, key.replace("-", "_")}
        option = next((o for o in options if names & {o.key, *o.aliases}), None)
        if option is None:
            raise unknown(key, options, f"driver {driver}")
        result.add(option.key)
    return result
