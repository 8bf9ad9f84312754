"""The cluster's store in the words of the model: what its keys mean, and typed reading.

cluster                          what all members have in common (members' keys: cluster.keys)
network/<id>, name/<name>        a network as all hosts see it, and whose name that is
pool/cluster/<4|6>/<first, hex>  a network's prefix
vni/<number>                     the network that has this VNI;  cursor/vni: the one given last
host/<network>/<node>            a host that takes part, with its own addresses there      (leased)
endpoint/<network>/<id>          an endpoint, as other hosts see it                        (leased)
lease/<network>/<address, hex>   who holds an address                                      (leased)

What is leased goes with its node's lease. In the host's own store are copies of what concerns it:

node/<id>                        a node
offer/<network>                  a network that this host may take up, or has
peer/<network>/<endpoint>        an endpoint elsewhere of a network that this host has taken up
clash/<network>/<endpoint>       an endpoint here whose address another host's has got
behind/<network>/why             why a network here is not as the cluster has it
look/<network>                   that the cluster or this host may have of it what it should not
cluster/lease                    the lease that claims of this host go with
cluster/seen                     the revision up to which these copies are made
cluster/away                     since when, and why, the cluster is not told that this host lives
cluster/wiring                   what this host has for being a member, whatever its networks
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property, lru_cache
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from netlib.cluster import keys
from netlib.cluster.claims import Claim, Release
from netlib.cluster.model import Cluster, Membership, Node, SharedEndpoint
from netlib.errors import StoreConflict, StoreError
from netlib.keys import endpoints_of, network_key
from netlib.model import IPInterface, Network
from netlib.records import Memo, NetworkRecord, dump_network, load_as, load_network
from netlib.state import State
from netlib.store import Commit, LeasedStore, Record, Store, Unchanged, under
from netlib.values import replace
from netlib.wiring import Wiring

POOLS = "cluster"
LEASE_KEY = "cluster/lease"
SEEN_KEY = "cluster/seen"
AWAY_KEY = "cluster/away"
WIRING_KEY = "cluster/wiring"
# What a member copies from the cluster's store into its own.
COPIES = ("node/", "offer/", "peer/", "place/", "clash/", "behind/", "look/")
_TRIES = 20


def vni_key(vni: int) -> str:
    """Where it is kept which network has a VNI."""
    return f"vni/{vni:08d}"


VNIS = "vni/"
VNI_CURSOR = "cursor/vni"


def host_key(network_id: str, node_id: str) -> str:
    """Where it is kept that a host takes part in a network."""
    return f"host/{network_id}/{node_id}"


def node_key(node_id: str) -> str:
    """Where the host's copy of a node is."""
    return f"node/{node_id}"


def offer_key(network_id: str) -> str:
    """Where the host's copy of a network of the cluster's is."""
    return f"offer/{network_id}"


def peer_key(network_id: str, endpoint_id: str) -> str:
    """Where the host's copy of an endpoint elsewhere is."""
    return f"peer/{network_id}/{endpoint_id}"


def peers_thing(network_id: str) -> str:
    """What an operation holds that changes what the host knows of a network's peers."""
    return f"peer/{network_id}"


def clash_key(network_id: str, endpoint_id: str) -> str:
    """Where it is kept that an endpoint here has lost its address to another host's."""
    return f"clash/{network_id}/{endpoint_id}"


def behind_key(network_id: str) -> str:
    """Where it is kept why a network here is not as the cluster has it."""
    return f"behind/{network_id}/why"


LOOKS = "look/"


def look_key(network_id: str) -> str:
    """Where it is kept that this host's agent has to look at a network, though nobody told it."""
    return f"{LOOKS}{network_id}"


def dump_shared(network: Network) -> str:
    """A network as all hosts see it: without what is one host's."""
    return dump_network(as_shared(network), Wiring())


def as_shared(network: Network) -> Network:
    """Likewise, as a value."""
    return replace(
        network,
        subnets=tuple(replace(subnet, own=None) for subnet in network.subnets),
        underlay=None,
        borrowed=(),
        dns_port=53,
        state="ready",
    )


def load_shared(value: str) -> SharedEndpoint:
    """An endpoint elsewhere, or a host in a network, from its text."""
    return _SHARED.of(value)


def dump_endpoint(value: SharedEndpoint) -> str:
    """The text of one, as `records.dump` has it: by hand, in a sixth of its time."""
    known = _SHARED.text_of(value)
    if known is not None:
        return known
    text = _encode(
        {
            "id": value.id,
            "network": value.network,
            "node": value.node,
            "host": str(value.host),
            "mac": value.mac,
            "addresses": list(map(_interface_text, value.addresses)),
            "sandbox": value.sandbox,
            "hostname": value.hostname,
            "aliases": list(value.aliases),
            "is_host": value.is_host,
        }
    )
    return _SHARED.keep(text, value)


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _interface(text: str) -> IPInterface:
    """As ip_interface() has it, but packed by the C library: in a fourth of the time."""
    address, _, length = text.partition("/")
    try:
        if ":" in address:
            return IPv6Interface((inet_pton(AF_INET6, address), int(length)))
        return IPv4Interface((inet_pton(AF_INET, address), int(length)))
    except OSError as error:
        raise ValueError(f"{text!r} is no address") from error


def _interface_text(value: IPInterface) -> str:
    """As str() has it: of IPv6, Python's takes ten times as long as the C library's."""
    if value.version == 4:
        return str(value)
    return f"{inet_ntop(AF_INET6, value.packed)}/{value.network.prefixlen}"


_host_address = lru_cache(maxsize=1024)(ip_address)


def _shared(text: str) -> SharedEndpoint:
    """By hand, in a third of the codec's time: a thousand may come at once."""
    document = json.loads(text)
    return SharedEndpoint(
        id=document["id"],
        network=document["network"],
        node=document["node"],
        host=_host_address(document["host"]),
        mac=document["mac"],
        addresses=tuple(map(_interface, document["addresses"])),
        sandbox=document.get("sandbox", ""),
        hostname=document.get("hostname", ""),
        aliases=tuple(document.get("aliases", ())),
        is_host=document.get("is_host", False),
    )


# What comes is read, copied, and when it goes read again; a thousand go with a host.
_SHARED = Memo(_shared, 4096)


class ClusterState:
    """Reads the cluster's store, and makes and takes back claims. `node` is this host's id."""

    def __init__(self, membership: Membership, store: LeasedStore) -> None:
        self.membership = membership
        self.node = membership.node
        self.store = store
        self.state = State(store)

    def close(self) -> None:
        """Give back the store's sockets."""
        self.store.close()

    # -- reading ----------------------------------------------------------------------------------

    @cached_property
    def settings(self) -> Cluster:
        """What all members have in common, as it was when it was first asked for."""
        return cluster_of(self.store)[0]

    def nodes(self) -> dict[str, Node]:
        """All nodes by their ids."""
        records = self.store.range(*under(keys.NODES))
        return {node.id: node for node in (load_as(Node, r.value) for r in records)}

    def network(self, network_id: str) -> NetworkRecord | None:
        """A network as all hosts see it, None where there is none."""
        record = self.store.get(network_key(network_id))
        return load_network(record.value, record.revision) if record else None

    def endpoints(self, network_id: str) -> list[SharedEndpoint]:
        """A network's endpoints on all hosts."""
        return _all(self.store.range(*endpoints_of(network_id)))

    def hosts(self, network_id: str) -> list[SharedEndpoint]:
        """The hosts that take part in a network."""
        return _all(self.store.range(*under(f"host/{network_id}/")))

    # -- claims -----------------------------------------------------------------------------------

    def take(self, claim: Claim, lease: int) -> int:
        """Commit a claim; its revision. Raises StoreConflict, LeaseLost."""
        store = self.store.leased(lease) if claim.leased else self.store
        return store.commit(claim.commit)

    def take_back(self, claim: Claim, revision: int) -> None:
        """Undo a claim that was committed at a revision.

        One that changed something stays if somebody else has changed that since: the later word
        goes by all that was claimed.
        """
        if claim.restore:
            with suppress(StoreConflict):
                self.store.commit(
                    Commit(
                        conditions=tuple(Unchanged(key, revision) for key in claim.restore),
                        put=claim.restore,
                        delete=claim.release.keys if claim.release else (),
                    )
                )
        elif claim.release is not None:
            self.let_go(claim.release)

    def let_go(self, release: Release) -> None:
        """Remove the keys that are the holder's still."""
        for _ in range(_TRIES):
            found = [r for r in map(self.store.get, release.keys) if r is not None]
            mine = [r for r in found if release.holder in r.value]
            if not mine:
                return
            commit = Commit(
                conditions=tuple(Unchanged(r.key, r.revision) for r in mine),
                put={},
                delete=tuple(r.key for r in mine),
            )
            try:
                self.store.commit(commit)
            except StoreConflict:
                continue  # one was put again meanwhile
            return
        raise StoreError(f"{release.keys[0]} does not stay as it is long enough to be removed")


def cluster_of(store: Store) -> tuple[Cluster, int]:
    """The cluster that a store is of, and the revision of its record. Raises StoreError."""
    record = store.get(keys.CLUSTER)
    if record is None:
        raise StoreError(
            "the cluster's store is empty: somebody removed its records",
            "put back a copy (docs/cluster.md), or run: net cluster leave -f",
        )
    return load_as(Cluster, record.value), record.revision


def _all(records: Iterable[Record]) -> list[SharedEndpoint]:
    return [load_shared(record.value) for record in records]


__all__ = [
    "AWAY_KEY",
    "COPIES",
    "LEASE_KEY",
    "LOOKS",
    "POOLS",
    "SEEN_KEY",
    "VNIS",
    "VNI_CURSOR",
    "WIRING_KEY",
    "ClusterState",
    "as_shared",
    "behind_key",
    "clash_key",
    "cluster_of",
    "dump_shared",
    "host_key",
    "load_shared",
    "look_key",
    "node_key",
    "offer_key",
    "peer_key",
    "peers_thing",
    "vni_key",
]
