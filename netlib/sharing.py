"""What a network of the cluster's claims there: addresses, endpoints, and a host's place in it."""

from __future__ import annotations

from collections.abc import Iterable

from netlib import keys, names
from netlib.cluster import keys as cluster_keys
from netlib.cluster.claims import Claim, Release
from netlib.cluster.copies import look_key, node_key, peers_thing
from netlib.cluster.model import Node, SharedEndpoint
from netlib.cluster.records import dump_endpoint, load_shared
from netlib.cluster.state import ClusterState
from netlib.driver import Driver
from netlib.engine import Engine
from netlib.errors import (
    Exhausted,
    NodePaused,
    NoSuchNetwork,
    NotAttachable,
    StoreConflict,
    StoreError,
)
from netlib.ipam import beginning, choose
from netlib.model import Endpoint, HostFacts, IPAddress, Network, Subnet, Underlay
from netlib.model import interface as with_prefix
from netlib.peers import as_placed, peers_at, peers_wiring, puts_of, still, still_so
from netlib.records import Lease, NetworkRecord, dump, load_as, unchanged
from netlib.rewiring import Evicted
from netlib.state import Leases, State
from netlib.store import Absent, Commit, Condition, Unchanged
from netlib.subnets import parse_address
from netlib.values import dataclass, replace


@dataclass(frozen=True, slots=True)
class SharedAddresses:
    """Who holds a network's addresses on all hosts.

    Each host goes round by a cursor of its own: so hosts seldom choose the same address at the
    same moment, which would cost one of them another try.
    """

    cluster: ClusterState
    here: State

    def lease(self, network_id: str, address: IPAddress) -> Lease | None:
        """Who holds an address."""
        return self.cluster.state.lease(network_id, address)

    def leases(self, network_id: str) -> Leases:
        """All that are held."""
        return self.cluster.state.leases(network_id)

    def cursor(self, network_id: str, subnet: Subnet) -> IPAddress | None:
        """The address that this host gave last, or where it begins."""
        return self.here.cursor(network_id, subnet) or beginning(
            subnet, f"{self.cluster.node} {network_id}"
        )


class Joining:
    """What a new endpoint on a network of the cluster's asks there.

    `conditions` are for the commit here. Raises NotAttachable, NodePaused, NoSuchNetwork.
    """

    def __init__(self, engine: Engine, network: Network) -> None:
        check_attachable(network)
        self.conditions = (as_active(engine),)
        self._node = active_node(engine)
        self._shared = shared_network(engine, network)
        addresses = SharedAddresses(engine.cluster, engine.state)
        self.lease, self.leases, self.cursor = (
            addresses.lease,
            addresses.leases,
            addresses.cursor,
        )

    def claim(self, engine: Engine, endpoint: Endpoint, host: HostFacts) -> Claim:
        """The claim of an endpoint's addresses, and what other hosts are told of it."""
        puts = endpoint_puts(endpoint, self._node, host.boot_id, engine.clock())
        return Claim(
            commit=Commit(
                conditions=(
                    unchanged(self._shared),
                    is_member(self._node),
                    *map(Absent, puts),
                ),
                put=puts,
            ),
            leased=True,
            release=endpoint_release(endpoint),
        )

    def evicted(self, engine: Engine, endpoint: Endpoint, host: HostFacts) -> Evicted:
        """What is still known here of who had its addresses before it.

        The cluster has given them away since, so those are gone.
        """
        addresses = [address.ip for address in endpoint.addresses]
        places = as_placed(engine, endpoint.network, addresses)
        found = peers_at(engine, endpoint.network, addresses)
        if not found:
            return Evicted(conditions=places)
        network = engine.state.network(endpoint.network).network
        peers = [load_shared(record.value) for record in found]
        return Evicted(
            wiring=peers_wiring(engine, network, peers, host),
            conditions=(*places, *still(found)),
            restores=puts_of(peers),
            # That they are gone may have been told by then, and is not told again.
            words={look_key(network.id): ""},
            holds={peers_thing(endpoint.network): True},
        )


def check_attachable(network: Network) -> None:
    """Raise NotAttachable for a network of the cluster that sandboxes may not join by hand.

    As with Docker, where only services join such a network.
    """
    if not network.attachable:
        raise NotAttachable(
            f"network {network.name} is for services: sandboxes can't join it by hand",
            f"let them: net update --attachable {network.name}",
        )


def is_shared(network: Network) -> bool:
    """Whether a network that was made here is the cluster's."""
    return network.underlay is not None


def this_node(engine: Engine) -> Node:
    """This host as the cluster knows it."""
    cluster = engine.cluster
    record = engine.state.store.get(node_key(cluster.node))
    if record is None:  # the agent has not looked yet
        record = cluster.store.get(cluster_keys.node(cluster.node))
    if record is None:
        raise StoreError(
            "the cluster does not know this host any more: somebody removed its node",
            "run: net cluster leave -f; then join again",
        )
    return load_as(Node, record.value)


def active_node(engine: Engine) -> Node:
    """Likewise, or NodePaused."""
    node = this_node(engine)
    if node.availability != "active":
        raise NodePaused(
            f"node {node.name} takes no endpoints on the cluster's networks: its availability "
            f"is {node.availability}",
            f"run: net node update --availability active {node.name}",
        )
    return node


def as_active(engine: Engine) -> Unchanged:
    """That the agent has heard nothing else of this host since: it is drained once, not again."""
    key = node_key(engine.cluster.node)
    return still_so(key, engine.state.store.get(key))


def is_member(node: Node) -> Absent:
    """That others have not removed this host: what it has there is not removed once more."""
    return Absent(cluster_keys.revoked(node.id))


def shared_network(engine: Engine, network: Network) -> NetworkRecord:
    """A network as all hosts see it now. NoSuchNetwork where it was removed."""
    found = engine.cluster.network(network.id)
    if found is None:
        raise NoSuchNetwork(f"network {network.name} was removed from the cluster", "see: net ls")
    return found


def underlay(engine: Engine, node: Node) -> Underlay:
    """This host's end of the tunnels."""
    device = engine.kernel.device_of(node.data_address)
    if device is None:
        raise StoreError(
            f"this host does not have the address {node.data_address} any more, which others send "
            "its frames to",
            "give it back, or leave the cluster and join again by another address",
        )
    return Underlay(address=node.data_address, mtu=device.mtu, port=node.data_port)


# -- an endpoint ----------------------------------------------------------------------------------


def published(endpoint: Endpoint, node: Node) -> SharedEndpoint:
    """An endpoint of this host as others see it."""
    return SharedEndpoint(
        id=endpoint.id,
        network=endpoint.network,
        node=node.id,
        host=node.data_address,
        mac=endpoint.mac,
        addresses=endpoint.addresses,
        sandbox=endpoint.sandbox.name,
        hostname=endpoint.sandbox.hostname,
        aliases=endpoint.aliases,
    )


def endpoint_puts(endpoint: Endpoint, node: Node, boot: str, now: float) -> dict[str, str]:
    """All that stands in the cluster for an endpoint that is here."""
    puts = {
        keys.address_key(endpoint.network, address.ip): _lease(endpoint, node, boot, now)
        for address in endpoint.addresses
    }
    key = keys.endpoint_key(endpoint.network, endpoint.id)
    return {**puts, key: dump_endpoint(published(endpoint, node))}


def endpoint_release(endpoint: Endpoint) -> Release:
    """What goes with an endpoint."""
    return Release(
        keys=(
            keys.endpoint_key(endpoint.network, endpoint.id),
            *(keys.address_key(endpoint.network, address.ip) for address in endpoint.addresses),
        ),
        holder=endpoint.id,
        network=endpoint.network,
    )


def _lease(endpoint: Endpoint, node: Node, boot: str, now: float) -> str:
    return dump(
        Lease(
            endpoint=endpoint.id,
            sandbox=f"{endpoint.sandbox.name} on {node.name}",
            boot_id=boot,
            since=now,
        )
    )


# -- a host in a network --------------------------------------------------------------------------


def settle_in(
    engine: Engine,
    driver: Driver,
    network: Network,
    node: Node,
    boot: str,
    *,
    conditions: Iterable[Condition] = (),
    sparing: Iterable[IPAddress | str] = (),
) -> tuple[Network, Claim]:
    """A network as this host has it, with its end of the tunnels and addresses of its own.

    Those that it has it keeps; new ones are others than those of `sparing`.
    """
    cluster = engine.cluster
    known = cluster.store.get(cluster_keys.host(network.id, node.id))
    mine = load_shared(known.value).addresses if known else ()
    subnets = network.subnets
    if "host_address" in driver.capabilities.reserves:
        subnets = tuple(
            replace(subnet, own=_own(engine, network, subnet, [a.ip for a in mine], sparing))
            for subnet in subnets
        )
    network = replace(network, subnets=subnets, underlay=underlay(engine, node))
    puts = host_puts(network, node, boot, engine.clock())
    conditions = [*conditions, is_member(node)]
    for key in puts:
        held = cluster.store.get(key)
        if held is not None and node.id not in held.value:
            raise StoreConflict(key)  # taken since it was chosen: choose again
        conditions.append(Unchanged(key, held.revision if held else 0))
    claim = Claim(
        commit=Commit(conditions=tuple(conditions), put=puts),
        leased=True,
        release=Release(keys=tuple(puts), holder=node.id, network=network.id),
    )
    return network, claim


def host_puts(network: Network, node: Node, boot: str, now: float) -> dict[str, str]:
    """All that stands in the cluster for this host's taking part in a network."""
    mine = [(s.own, s.prefix.prefixlen) for s in network.subnets if s.own is not None]
    lease = dump(Lease(endpoint=node.id, sandbox=f"host {node.name}", boot_id=boot, since=now))
    there = SharedEndpoint(
        id=node.id,
        network=network.id,
        node=node.id,
        host=node.data_address,
        mac=names.mac_at(network.id, mine[0][0]) if mine else "",
        addresses=tuple(with_prefix(address, length) for address, length in mine),
        sandbox=node.name,
        is_host=True,
    )
    return {
        cluster_keys.host(network.id, node.id): dump_endpoint(there),
        **{keys.address_key(network.id, address): lease for address, _ in mine},
    }


def host_release(network: Network, node_id: str) -> Release:
    """What goes when this host takes part no more."""
    mine = [subnet.own for subnet in network.subnets if subnet.own is not None]
    return Release(
        keys=(
            cluster_keys.host(network.id, node_id),
            *(keys.address_key(network.id, address) for address in mine),
        ),
        holder=node_id,
        network=network.id,
    )


def _own(
    engine: Engine,
    network: Network,
    subnet: Subnet,
    known: Iterable[IPAddress],
    sparing: Iterable[IPAddress | str],
) -> IPAddress:
    """This host's own address in a subnet: the one that it has already, or the next free one."""
    if subnet.own is not None:
        return subnet.own
    addresses = SharedAddresses(engine.cluster, engine.state)
    for address in known:
        if address in subnet.prefix:
            return address
    spared = {str(a): parse_address(a) if isinstance(a, str) else a for a in sparing}
    spared = {name: one for name, one in spared.items() if one in subnet.prefix}
    subnet = replace(subnet, reserved={**subnet.reserved, **spared})
    try:
        return choose(subnet, addresses.leases(network.id), addresses.cursor(network.id, subnet))
    except Exhausted as error:
        raise Exhausted(
            f"this host needs an address of its own on {network.name}: {error.message}", error.hint
        ) from error
