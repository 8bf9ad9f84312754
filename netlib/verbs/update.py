"""Change a network while it is in use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from netlib import keys
from netlib.dns.resolv import check_servers
from netlib.engine import Engine
from netlib.errors import InvalidOption, InvalidRequest, PoolOverlap
from netlib.making import unanswered
from netlib.model import HostFacts, Network
from netlib.operation import Operation
from netlib.options import canonical, find
from netlib.plan import diff
from netlib.pools import overlapping
from netlib.publishing import move_ports
from netlib.records import NetworkRecord, dump_network, unchanged
from netlib.rewiring import Rewiring, check_ready, describe, describe_network, puts, reverts
from netlib.store import Commit, exactly
from netlib.subnetting import choose_subnets, claim_pools
from netlib.values import replace
from netlib.verbs.create import lent_devices
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
    add_servers: Iterable[str] = (),
    drop_servers: Iterable[str] = (),
    attachable: bool | None = None,
) -> Operation[Network]:
    """Change what can change while endpoints are there; nothing is made anew behind their back.

    `options` and `labels` are merged into the network's; an empty value takes one away.
    `subnets` are added; endpoints that exist keep the addresses they have. `add_servers` and
    `drop_servers` change who is asked for names that the network does not know. A network of
    the cluster's changes for all hosts; `attachable` says whether sandboxes may join it by hand.

    Raises NoSuchNetwork, InvalidOption naming an option that can't change, PoolOverlap.

    Example:  net update my-net -o mtu=1400
    """
    record = engine.state.network(network)
    driver = engine.driver(record.network)
    shared = _shared(engine, record) if driver.capabilities.scope == "global" else None
    old = shared.network if shared else record.network
    check_ready(record.network)
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
    removed = {find(key, driver.options, f"driver {old.driver}").key for key in cleared}
    live = {option.key for option in driver.options if option.live}
    default = {option.key: option.default for option in driver.options}
    for key in (*changed, *removed):
        was, becomes = (o.get(key, default[key]) for o in (old.options, changed))
        if key not in live and was != becomes:
            these = f"these can: {', '.join(sorted(live))}; for others " if live else ""
            raise InvalidOption(
                f"option {key} of {old.name} can't change while the network exists",
                f"{these}make a new network",
            )
    host = engine.facts(old.borrowed)
    added = (
        choose_subnets(
            engine,
            driver,
            old,
            subnets=subnets,
            gateways=parts[0],
            ip_ranges=parts[1],
            aux_addresses=parts[2],
            lent=lent_devices(driver, old, host),
            cluster=engine.cluster if shared else None,
        )
        if subnets
        else ()
    )
    for subnet in added:
        has = overlapping(subnet.prefix, [own.prefix for own in old.subnets])
        if has is not None:
            raise PoolOverlap(
                f"{subnet.prefix} overlaps {has}, which {old.name} has already",
                "choose another --subnet",
            )
    kept = {k: v for k, v in old.options.items() if k not in removed}
    merged = {**old.labels, **(labels or {})}
    new = replace(
        old,
        options={**kept, **changed},
        labels={k: v for k, v in merged.items() if v != ""},
        subnets=(*old.subnets, *added),
        servers=_servers(old, tuple(add_servers), tuple(drop_servers)),
        attachable=old.attachable if attachable is None else attachable,
    )
    driver.check_options(new)
    if shared:
        from netlib.verbs.shared import update_shared

        return update_shared(engine, record, shared, new)
    new = replace(new, options={**new.options, **driver.settle(new, host)})
    return change_network(engine, record, new, host)


def change_network(
    engine: Engine,
    record: NetworkRecord,
    new: Network,
    host: HostFacts,
    *,
    beside: tuple[Wiring, Wiring] | None = None,
) -> Operation[Network]:
    """The operation that makes a network and the endpoints on it be as described anew.

    `beside` is what else it has here, before and after.
    """
    old = record.network
    known = {subnet.prefix for subnet in old.subnets}
    added = tuple(subnet for subnet in new.subnets if subnet.prefix not in known)
    wiring = describe_network(engine, new, host)
    there = engine.state.endpoints(old.id)
    changes = [
        Rewiring(before=r, after=describe(engine, new, r.endpoint, host))
        for r in there
        if r.endpoint.state == "ready"
    ]
    have, want = record.wiring, wiring
    if beside is not None:
        have, want = have | beside[0], want | beside[1]
    for change in changes:
        have |= change.before.wiring if change.before else Wiring()
        want |= change.after.wiring if change.after else Wiring()
    moving = [change.before.endpoint for change in changes if change.before]
    port_conditions, port_puts, port_keys_gone = move_ports(engine, old, new, moving)
    pool_conditions, pool_puts = claim_pools(engine, replace(new, subnets=added))
    network_key = keys.network_key(old.id)
    plan = diff(have=have, want=want)
    return Operation(
        subject=f"network {old.name}",
        holds={network_key: True},
        plan=plan,
        warnings=unanswered(engine, plan),
        result=new,
        begin=Commit(
            conditions=(
                unchanged(record),
                *pool_conditions,
                *port_conditions,
                # And who joined meanwhile is described, too.
                *exactly(
                    *keys.endpoints_of(old.id),
                    ((keys.endpoint_key(old.id, r.endpoint.id), r.revision) for r in there),
                ),
            ),
            put={
                network_key: dump_network(new, wiring),
                **pool_puts,
                **port_puts,
                **puts(changes, ready=True),
            },
        ),
        undo=Commit(
            put={network_key: dump_network(old, record.wiring), **reverts(changes)},
            delete=(*pool_puts, *port_puts),
        ),
        done=Commit(put={}, delete=port_keys_gone) if port_keys_gone else None,
    )


def _shared(engine: Engine, record: NetworkRecord) -> NetworkRecord:
    from netlib.sharing import shared_network  # few hosts are in a cluster

    return shared_network(engine, record.network)


def _servers(network: Network, added: Sequence[str], dropped: Sequence[str]) -> tuple[str, ...]:
    """The network's servers for other names after the change."""
    for server in dropped:
        if server not in network.servers:
            known = ", ".join(network.servers) or "none"
            raise InvalidOption(f"{network.name} has no name server {server}", f"it has: {known}")
    kept = (server for server in network.servers if server not in dropped)
    return tuple(dict.fromkeys((*kept, *check_servers(added, ports=True))))
