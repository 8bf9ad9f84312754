"""Networks of the cluster: made there, taken up by a host at its first endpoint, and let go."""

from __future__ import annotations

from collections.abc import Iterable

from netlib import keys
from netlib.cluster import keys as cluster_keys
from netlib.cluster.claims import Claim, Release
from netlib.cluster.copies import look_key, offer_key, peer_key, peers_thing
from netlib.cluster.records import as_shared, dump_shared, load_shared
from netlib.cluster.state import ClusterState
from netlib.driver import Driver
from netlib.engine import Engine
from netlib.errors import Conflict, Exhausted, InUse, NameTaken
from netlib.making import dns_port, forwarding_note
from netlib.model import IPAddress, Network
from netlib.operation import Operation
from netlib.options import number
from netlib.peers import copies_of, holders, peers_wiring, puts_of
from netlib.plan import Plan, diff
from netlib.records import NetworkRecord, dump_network, unchanged
from netlib.rewiring import describe_network
from netlib.sharing import (
    active_node,
    as_active,
    host_release,
    settle_in,
    shared_network,
    this_node,
    underlay,
)
from netlib.store import Absent, Commit, Condition, exactly, under
from netlib.subnetting import claim_pools, claim_prefixes
from netlib.values import replace
from netlib.verbs.remove import dissolve
from netlib.verbs.update import change_network
from netlib.wiring import Wiring

# Below are numbers that people give by hand.
FIRST_VNI, LAST_VNI = 4097, 2**24 - 1  # RFC 7348 section 5


def offer(engine: Engine, driver: Driver, asked: Network) -> Operation[Network]:
    """Make a network in the cluster: hosts have nothing of it until they take it up."""
    cluster = engine.cluster
    other = cluster.store.get(keys.name_key(asked.name))
    if other is not None:
        raise NameTaken(
            f"the cluster has a network {asked.name!r} (id {other.value[:12]})",
            f"choose another name, or run: net rm {asked.name}",
        )
    settled = replace(asked, underlay=underlay(engine, this_node(engine)))
    driver.check_options(settled)
    decided = driver.settle(settled, engine.facts())
    settled = replace(settled, options={**settled.options, **decided})
    driver.check_options(settled)
    vni, cursor = _vni(cluster, driver, settled)
    network = as_shared(replace(settled, vni=vni))
    pool_conditions, pool_puts = claim_prefixes(cluster.store, cluster_keys.POOLS, network)
    # On this host, too, its prefixes must be nobody's: it may be the first to take it up.
    claim_prefixes(engine.state.store, "host", network)
    text = dump_shared(network)
    puts = {
        keys.network_key(network.id): text,
        keys.name_key(network.name): network.id,
        **({cluster_keys.vni(vni): network.id} if vni else {}),
        **pool_puts,
    }
    return Operation(
        subject=f"network {network.name}",
        plan=Plan(),
        result=network,
        claims=(
            Claim(
                commit=Commit(
                    conditions=(
                        Absent(keys.name_key(network.name)),
                        *([Absent(cluster_keys.vni(vni))] if vni else ()),
                        *pool_conditions,
                    ),
                    put={**puts, **cursor},
                ),
                release=Release(keys=tuple(puts), holder=network.id),
            ),
        ),
        begin=Commit(
            conditions=(Absent(keys.name_key(network.name)),),
            put=_noted(network),
            durable=False,
        ),
        undo=Commit(put={}, delete=(offer_key(network.id),)),
    )


def _noted(network: Network) -> dict[str, str]:
    """What is noted at once of a network that is not here; another host may have the last word."""
    return {offer_key(network.id): dump_shared(network), look_key(network.id): ""}


def _vni(cluster: ClusterState, driver: Driver, network: Network) -> tuple[int, dict[str, str]]:
    """The VNI that was asked for, or the next free one, used again as late as can be."""
    if "vni" not in driver.capabilities.reserves:
        return 0, {}
    asked = number(network.options, "vni", 1, LAST_VNI)
    records = cluster.store.range(*under(cluster_keys.VNIS))
    taken = {int(r.key.removeprefix(cluster_keys.VNIS)): r.value for r in records}
    if asked:
        if asked in taken:
            other = cluster.network(taken[asked])
            name = other.network.name if other else taken[asked][:12]
            raise Conflict(
                f"network {name} of the cluster has VNI {asked}",
                "choose another one, or leave it out to have one chosen",
            )
        return asked, {}
    record = cluster.store.get(cluster_keys.VNI_CURSOR)
    last = int(record.value) if record else FIRST_VNI - 1
    total = LAST_VNI - FIRST_VNI + 1
    for step in range(total):
        vni = FIRST_VNI + (last + 1 - FIRST_VNI + step) % total
        if vni not in taken:
            return vni, {cluster_keys.VNI_CURSOR: str(vni)}
    raise Exhausted("no VNI is free in the cluster", "remove unused networks: net prune")


# -- taking part ----------------------------------------------------------------------------------


def take_up(
    engine: Engine, offered: NetworkRecord, sparing: Iterable[IPAddress | str] = ()
) -> Operation[Network]:
    """Make a network of the cluster's on this host, with all that is on it elsewhere.

    The host's own addresses there are others than those of `sparing`.
    """
    cluster = engine.cluster
    shared = shared_network(engine, offered.network)
    driver = engine.driver(shared.network)
    still_active = as_active(engine)
    node = active_node(engine)
    taken = engine.state.store.get(keys.name_key(shared.network.name))
    if taken is not None:
        raise NameTaken(
            f"this host has a network {shared.network.name!r} of its own, beside the cluster's",
            f"remove its own one first: net rm {taken.value[:12]}",
        )
    host = engine.facts()
    network, claim = settle_in(
        engine,
        driver,
        shared.network,
        node,
        host.boot_id,
        conditions=[unchanged(shared)],
        sparing=sparing,
    )
    network = replace(network, state="pending", dns_port=dns_port(engine, driver, network))
    wiring = describe_network(engine, network, host)
    everybody = [*cluster.endpoints(network.id), *cluster.hosts(network.id)]
    peers = [one for one in everybody if one.node != node.id]
    pool_conditions, pool_puts = claim_pools(engine, network)
    ready = replace(network, state="ready")
    puts = {
        keys.network_key(network.id): dump_network(network, wiring),
        keys.name_key(network.name): network.id,
        offer_key(network.id): dump_shared(shared.network),
        **pool_puts,
        **puts_of(peers),
    }
    return Operation(
        subject=f"network {network.name}",
        holds={keys.network_key(network.id): True, peers_thing(network.id): True},
        plan=diff(have=Wiring(), want=wiring | peers_wiring(engine, network, peers, host)),
        result=ready,
        claims=(claim,),
        begin=Commit(
            conditions=(
                Absent(keys.name_key(network.name)),
                Absent(keys.network_key(network.id)),
                still_active,
                *pool_conditions,
            ),
            put=puts,
        ),
        done=Commit(
            put={
                keys.network_key(network.id): dump_network(ready, wiring),
                **forwarding_note(engine, network, wiring, host),
            },
            durable=False,
        ),
        undo=Commit(
            put={},
            delete=tuple(key for key in puts if key != offer_key(network.id)),
        ),
    )


# -- going ----------------------------------------------------------------------------------------


def withdraw(engine: Engine, record: NetworkRecord) -> Operation[None]:
    """Remove a network from the cluster, and from this host; other hosts' agents follow.

    Raises InUse naming who is on it, wherever they are. Nobody else's endpoint can come between:
    that none is there is a condition.
    """
    cluster = engine.cluster
    network = record.network
    shared = cluster.network(network.id)
    users = [one for one in cluster.endpoints(network.id) if one.node != cluster.node]
    if users:
        nodes = {node.id: node.name for node in cluster.nodes().values()}
        raise InUse(
            f"network {network.name} is used by {holders(users, nodes)}",
            "disconnect them there first",
        )
    claims = () if shared is None else (_removal(cluster, shared),)
    gone = offer_key(network.id)
    if record.revision:
        return dissolve(engine, record, claims=claims, gone=(gone,))
    return Operation(
        subject=f"network {network.name}",
        plan=Plan(),
        result=None,
        claims=claims,
        begin=Commit(put={}, delete=(gone,), durable=False),
    )


def _removal(cluster: ClusterState, shared: NetworkRecord) -> Claim:
    network = shared.network
    mine = [
        record.key
        for folder in ("pool/", cluster_keys.VNIS)
        for record in cluster.store.range(*under(folder))
        if network.id in record.value
    ]
    return Claim(
        commit=Commit(
            conditions=(unchanged(shared), keys.no_members(network.id)),
            put={},
            delete=(keys.network_key(network.id), keys.name_key(network.name), *mine),
            delete_ranges=(keys.leases_of(network.id), under(cluster_keys.host(network.id, ""))),
        )
    )


def let_go(engine: Engine, record: NetworkRecord, *, gone: bool = False) -> Operation[None]:
    """Take a network of the cluster's off this host alone; `gone`: the cluster has it no more."""
    network = record.network
    node = engine.cluster.node
    return dissolve(
        engine,
        record,
        releases=(host_release(network, node),),
        gone=(offer_key(network.id),) if gone else (),
    )


# -- changing -------------------------------------------------------------------------------------


def follow(engine: Engine, record: NetworkRecord, shared: NetworkRecord) -> Operation[Network]:
    """Have this host's part of a network be as the cluster has it now."""
    conditions = [unchanged(shared)]
    return _followed(engine, record, shared.network, (), conditions)


def settle_anew(engine: Engine, record: NetworkRecord, shared: NetworkRecord) -> Operation[Network]:
    """Give this host other addresses of its own: those that it had are another's now."""
    return _followed(engine, record, shared.network, (), [unchanged(shared)], anew=True)


def _followed(
    engine: Engine,
    record: NetworkRecord,
    wanted: Network,
    claims: tuple[Claim, ...],
    conditions: Iterable[Condition],
    *,
    anew: bool = False,
) -> Operation[Network]:
    driver, host, old = engine.driver(wanted), engine.facts(), record.network
    known = {} if anew else {subnet.prefix: subnet.own for subnet in old.subnets}
    subnets = tuple(replace(s, own=known.get(s.prefix)) for s in wanted.subnets)
    new = replace(wanted, subnets=subnets, underlay=old.underlay)
    if any(subnet.prefix not in known for subnet in subnets):
        new, claim = settle_in(
            engine, driver, new, this_node(engine), host.boot_id, conditions=conditions
        )
        claims = (*claims, claim)
    new = replace(new, dns_port=old.dns_port)
    copies = copies_of(engine, old.id).values()
    peers = [load_shared(copy.value) for copy in copies]
    before, after = (peers_wiring(engine, network, peers, host) for network in (old, new))
    operation = change_network(engine, record, new, host, beside=(before, after))
    assert operation.begin is not None
    return replace(
        operation,
        claims=claims,
        holds={**operation.holds, peers_thing(new.id): True},
        begin=replace(
            operation.begin,
            conditions=(
                *operation.begin.conditions,
                *exactly(*under(peer_key(old.id, "")), ((c.key, c.revision) for c in copies)),
            ),
            put={**operation.begin.put, offer_key(new.id): dump_shared(new)},
        ),
    )


def update_shared(
    engine: Engine, record: NetworkRecord, shared: NetworkRecord, new: Network
) -> Operation[Network]:
    """Change a network for all hosts: in the cluster, and here; other hosts' agents follow."""
    old = shared.network
    driver = engine.driver(new)
    settled = replace(new, underlay=underlay(engine, this_node(engine)))
    decided = driver.settle(settled, engine.facts())
    new = replace(new, options={**new.options, **decided})
    known = {subnet.prefix for subnet in old.subnets}
    added = replace(new, subnets=tuple(s for s in new.subnets if s.prefix not in known))
    conditions, pool_puts = claim_prefixes(engine.cluster.store, cluster_keys.POOLS, added)
    key = keys.network_key(old.id)
    claim = Claim(
        commit=Commit(
            conditions=(unchanged(shared), *conditions),
            put={key: dump_shared(new), **pool_puts},
        ),
        release=Release(keys=tuple(pool_puts), holder=old.id),
        restore={key: dump_shared(old)},
    )
    if record.revision:
        return _followed(engine, record, new, (claim,), ())
    offered = engine.state.store.get(offer_key(old.id))
    return Operation(
        subject=f"network {old.name}",
        plan=Plan(),
        result=new,
        claims=(claim,),
        begin=Commit(put=_noted(new), durable=False),
        undo=Commit(put={offer_key(old.id): offered.value}) if offered else None,
    )
