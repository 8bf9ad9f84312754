"""What a host knows of a network's endpoints elsewhere, and what it makes of them.

The copies in the host's own store are the record: nothing else is written down of what peers have
in the kernel, since a driver describes the same of the same peer again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from netlib import keys
from netlib.cluster.copies import look_key, node_key, peer_key
from netlib.cluster.model import Node, SharedEndpoint
from netlib.cluster.records import dump_endpoint, load_shared
from netlib.engine import Engine
from netlib.errors import StoreConflict
from netlib.ipam import lease_address, lease_key
from netlib.model import HostFacts, IPAddress, Network
from netlib.records import Lease, NetworkRecord, load_as, load_endpoint
from netlib.store import Condition, Record, Unchanged, exactly, under
from netlib.wiring import Bridge, Vxlan, Wiring

# Beyond these it is quicker to read all.
_FEW = 20


def copies_of(engine: Engine, network_id: str) -> dict[str, Record]:
    """The records of a network's endpoints elsewhere, by their ids."""
    folder = peer_key(network_id, "")
    return {r.key.removeprefix(folder): r for r in engine.state.store.range(*under(folder))}


def copies_among(engine: Engine, network_id: str, ids: Collection[str]) -> dict[str, Record]:
    """Of these endpoints elsewhere, the records of those that are known."""
    if len(ids) > _FEW:
        known = copies_of(engine, network_id)
        return {one: known[one] for one in ids if one in known}
    found = {one: engine.state.store.get(peer_key(network_id, one)) for one in ids}
    return {one: record for one, record in found.items() if record}


def loaded(copies: Mapping[str, Record]) -> dict[str, SharedEndpoint]:
    """The endpoints that records are of."""
    return {one: load_shared(record.value) for one, record in copies.items()}


def peers_of(engine: Engine, network_id: str) -> dict[str, SharedEndpoint]:
    """A network's endpoints elsewhere, as this host knows them, by their ids."""
    return loaded(copies_of(engine, network_id))


def still(copies: Iterable[Record]) -> tuple[Unchanged, ...]:
    """That no endpoint here has taken anything over from these since."""
    return tuple(Unchanged(copy.key, copy.revision) for copy in copies)


def still_so(key: str, record: Record | None) -> Unchanged:
    """That a key has the record that it was seen to have, if any."""
    return Unchanged(key, record.revision if record else 0)


def node_names(engine: Engine) -> dict[str, str]:
    """The names of the cluster's nodes by their ids."""
    records = engine.state.store.range(*under(node_key("")))
    return {node.id: node.name for node in (load_as(Node, r.value) for r in records)}


def copies_put(peers: Iterable[SharedEndpoint]) -> dict[str, str]:
    """The copies of endpoints elsewhere."""
    return {peer_key(one.network, one.id): dump_endpoint(one) for one in peers}


def places_put(peers: Iterable[SharedEndpoint]) -> dict[str, str]:
    """Which of them has which address."""
    return {
        _place_key(one.network, address.ip): one.id for one in peers for address in one.addresses
    }


def puts_of(peers: Collection[SharedEndpoint]) -> dict[str, str]:
    """Both."""
    return copies_put(peers) | places_put(peers)


def stray_places(
    engine: Engine, network_id: str, everybody: Iterable[SharedEndpoint]
) -> tuple[str, ...]:
    """The keys of addresses that none of these has: who noted them died before their copies."""
    known = engine.state.store.range(*under(f"place/{network_id}/"))
    placed = places_put(everybody)
    return tuple(record.key for record in known if record.key not in placed)


def ranges_of(network_id: str) -> tuple[tuple[str, str], ...]:
    """All that a host knows of a network's endpoints elsewhere."""
    return under(peer_key(network_id, "")), under(f"place/{network_id}/")


def peers_wiring(
    engine: Engine, network: Network, peers: Collection[SharedEndpoint], host: HostFacts
) -> Wiring:
    """What they have here.

    Not those with an address that an endpoint of this host has: that one is not cut off, whoever
    was first. Where two have the same, the cluster is about to say which.
    """
    driver = engine.driver(network)
    own = {subnet.own for subnet in network.subnets}
    mine = own | set(map(lease_address, _held(engine, network, peers)))
    return Wiring.first_of(
        driver.peer_wiring(network, one.peer(), host)
        for one in peers
        if mine.isdisjoint(address.ip for address in one.addresses)
    )


def as_placed(
    engine: Engine, network_id: str, addresses: Iterable[IPAddress]
) -> tuple[Unchanged, ...]:
    """That elsewhere these addresses are, or are not, whose they are known to be now."""
    places = [_place_key(network_id, address) for address in addresses]
    return tuple(still_so(place, engine.state.store.get(place)) for place in places)


def beside(
    engine: Engine, network: Network, peers: Collection[SharedEndpoint]
) -> tuple[tuple[Condition, ...], dict[str, str]]:
    """That endpoints here have which addresses of these they have now, and a word for the agent.

    What `peers_wiring` says follows from that, so it is asked for first. The word is for where
    one here that has such an address is about to go: then the other one is to be entered.
    """
    held = _held(engine, network, peers)
    theirs = {address.ip for one in peers for address in one.addresses}
    folder = under(_folder(network))
    conditions: list[Condition]
    if len(peers) > _FEW:
        conditions = list(exactly(*folder, ((r.key, r.revision) for r in held.values())))
    else:
        asked = map(lease_key, theirs)
        conditions = [still_so(folder[0] + key, held.get(key)) for key in asked]
    both = [record for key, record in held.items() if lease_address(key) in theirs]
    words = {}
    for lease in both:
        holder = keys.endpoint_key(network.id, load_as(Lease, lease.value).endpoint)
        mine = engine.state.store.get(holder)
        conditions.append(still_so(holder, mine))
        if mine and load_endpoint(mine.value, 0).endpoint.state == "removing":
            words[look_key(network.id)] = ""
    return tuple(conditions), words


def peers_at(engine: Engine, network_id: str, addresses: Iterable[IPAddress]) -> tuple[Record, ...]:
    """The copies of endpoints elsewhere that have one of these addresses.

    StoreConflict while one of them is just being entered, or taken away.
    """
    found: dict[str, Record] = {}
    for address in addresses:
        key = _place_key(network_id, address)
        place = engine.state.store.get(key)
        if place is None:
            continue
        record = engine.state.store.get(peer_key(network_id, place.value))
        if record is None:
            raise StoreConflict(key)
        found[record.key] = record
    return tuple(found.values())


def devices(record: NetworkRecord) -> list[str]:
    """The devices of a network that entries for peers are on."""
    return [noun.name for noun in record.wiring if isinstance(noun, Bridge | Vxlan)]


def tunnels(record: NetworkRecord) -> list[str]:
    """Those of them that lead to other hosts."""
    return [noun.name for noun in record.wiring if isinstance(noun, Vxlan)]


def own_keys(engine: Engine, record: NetworkRecord) -> set[tuple[object, ...]]:
    """The keys of what a network has on this host, and its endpoints here."""
    mine = {noun.key() for noun in record.wiring}
    for endpoint in engine.state.endpoints(record.network.id):
        mine.update(noun.key() for noun in endpoint.wiring)
    return mine


def _place_key(network_id: str, address: IPAddress) -> str:
    return f"place/{network_id}/{lease_key(address)}"


def _held(engine: Engine, network: Network, peers: Collection[SharedEndpoint]) -> dict[str, Record]:
    """The addresses that endpoints here have, at least those that are also of these elsewhere."""
    store, folder = engine.state.store, _folder(network)
    if len(peers) > _FEW:
        return {r.key.removeprefix(folder): r for r in store.range(*under(folder))}
    asked = {lease_key(address.ip) for one in peers for address in one.addresses}
    found = {key: store.get(folder + key) for key in asked}
    return {key: record for key, record in found.items() if record}


def _folder(network: Network) -> str:
    return f"lease/{network.id}/"


def holders(endpoints: Iterable[SharedEndpoint], nodes: Mapping[str, str]) -> str:
    """Endpoints as messages name them."""
    shown = [f"{one.sandbox} on {nodes.get(one.node, one.node[:12])}" for one in endpoints]
    return ", ".join(shown[:10]) + (f" and {len(shown) - 10} more" if len(shown) > 10 else "")
