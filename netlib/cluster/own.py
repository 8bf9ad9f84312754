"""What stands in the cluster for this host, compared with what is here: released, or put back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from netlib import keys
from netlib.cluster import keys as cluster_keys
from netlib.cluster.claims import Release
from netlib.cluster.copies import LEASE_KEY, clash_key
from netlib.cluster.model import Node
from netlib.cluster.records import dump_shared
from netlib.cluster.state import ClusterState
from netlib.engine import Engine
from netlib.errors import LeaseLost, PoolOverlap, StoreConflict
from netlib.model import Endpoint, Network
from netlib.records import Lease, dump, load_as, load_network
from netlib.sharing import endpoint_puts, host_puts, is_shared, this_node
from netlib.store import Absent, Commit, Condition, Unchanged
from netlib.subnetting import claim_prefixes

LOST = "own-address-lost"
_TRIES = 5


def republish(cluster: ClusterState, network: Network) -> bool:
    """Put a network back that the cluster has lost; whether what is its own was free for it."""
    try:
        pool_conditions, pool_puts = claim_prefixes(cluster.store, cluster_keys.POOLS, network)
    except PoolOverlap:
        return _is_back(cluster, network)
    unique = {keys.name_key(network.name): network.id}
    if network.vni:
        unique[cluster_keys.vni(network.vni)] = network.id
    key = keys.network_key(network.id)
    try:
        cluster.store.commit(
            Commit(
                conditions=(Absent(key), *map(Absent, unique), *pool_conditions),
                put={key: dump_shared(network), **unique, **pool_puts},
            )
        )
    except StoreConflict:
        return _is_back(cluster, network)
    return True


def _is_back(cluster: ClusterState, network: Network) -> bool:
    """Whether another host that is on it was quicker: then what is in the way is its own."""
    return cluster.network(network.id) is not None


def sweep(
    engine: Engine, cluster: ClusterState, network_id: str, *, again: bool
) -> Iterator[dict[str, str]]:
    """Make what stands in the cluster for this host in a network be what is here; what is to tell.

    While nobody works on the network here: what is half done then was left by somebody who died.
    `again`: also what stands there, since it stands by a lease that is gone or not ours.
    """
    node = this_node(engine)
    with engine.lock.shared(), engine.lock.of({keys.network_key(network_id): True}):
        record = engine.state.store.get(keys.network_key(network_id))
        network = load_network(record.value, record.revision).network if record else None
        here = {e.endpoint.id: e.endpoint for e in engine.state.endpoints(network_id)}
        there = [one for one in cluster.endpoints(network_id) if one.node == node.id]
        for one in there:
            if one.id not in here:
                addresses = tuple(keys.address_key(network_id, a.ip) for a in one.addresses)
                key = keys.endpoint_key(network_id, one.id)
                cluster.let_go(Release(keys=(key, *addresses), holder=one.id))
                yield {"event": "release", "text": f"{one.sandbox} is not here any more: released"}
        if network is None or not is_shared(network):
            known = cluster.store.get(cluster_keys.host(network_id, node.id))
            if known is not None:
                leases = [
                    r.key
                    for r in cluster.store.range(*keys.leases_of(network_id))
                    if node.id in r.value
                ]
                cluster.let_go(Release(keys=(known.key, *leases), holder=node.id))
            return
        standing = {one.id for one in there}
        yield from _stand(engine, cluster, network, node, again=again)
        for endpoint in here.values():
            if endpoint.state != "removing" and (again or endpoint.id not in standing):
                yield from _claim(engine, cluster, network, endpoint, node)


def _stand(
    engine: Engine, cluster: ClusterState, network: Network, node: Node, *, again: bool
) -> Iterator[dict[str, str]]:
    """Take part in a network, as before."""
    if not again and cluster.store.get(cluster_keys.host(network.id, node.id)) is not None:
        return
    puts = host_puts(network, node, engine.facts().boot_id, engine.clock())
    holder = _put(engine, cluster, puts, node.id)
    if holder:
        yield {
            "event": LOST,
            "network": network.name,
            "text": f"this host's own address on {network.name} was given to {holder}",
        }


def _claim(
    engine: Engine, cluster: ClusterState, network: Network, endpoint: Endpoint, node: Node
) -> Iterator[dict[str, str]]:
    """Claim what an endpoint has already, or note who has got it."""
    puts = endpoint_puts(endpoint, node, engine.facts().boot_id, engine.clock())
    holder = _put(engine, cluster, puts, endpoint.id)
    mark = clash_key(network.id, endpoint.id)
    known = engine.state.store.get(mark)
    if holder:
        name = endpoint.sandbox.name
        address = ", ".join(str(a.ip) for a in endpoint.addresses)
        text = dump([name, address, holder])
        if known is None or known.value != text:
            engine.state.store.commit(Commit(put={mark: text}))
            yield {
                "event": "clash",
                "network": network.name,
                "sandbox": name,
                "text": f"{address} of {name} on {network.name} was given to {holder}",
            }
    elif known is not None:
        engine.state.store.commit(Commit(put={}, delete=(mark,)))


def _put(engine: Engine, cluster: ClusterState, puts: Mapping[str, str], holder: str) -> str:
    """Put what is the holder's or nobody's; who else has one of the addresses, if somebody has."""
    lease = engine.state.store.get(LEASE_KEY)
    if lease is None:
        raise LeaseLost(0)
    store = cluster.store.leased(int(lease.value))
    member = Absent(cluster_keys.revoked(cluster.node))
    for _ in range(_TRIES):
        conditions: list[Condition] = [member]
        for key in puts:
            found = cluster.store.get(key)
            if found is not None and holder not in found.value:
                return load_as(Lease, found.value).sandbox
            conditions.append(Unchanged(key, found.revision if found else 0))
        try:
            store.commit(Commit(conditions=tuple(conditions), put=puts))
        except StoreConflict:
            continue
        return ""
    raise StoreConflict(next(iter(puts)))
