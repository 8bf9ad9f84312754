"""The cluster's store in the words of the model, and the claims that are made there."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property

from netlib.cluster import keys
from netlib.cluster.claims import Claim, Release
from netlib.cluster.model import Cluster, Membership, Node, SharedEndpoint
from netlib.cluster.records import load_shared
from netlib.errors import StoreConflict, StoreError
from netlib.keys import endpoints_of, network_key
from netlib.records import NetworkRecord, load_as, load_network
from netlib.state import State
from netlib.store import Commit, LeasedStore, Record, Store, Unchanged, under

_TRIES = 20


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
        return _all(self.store.range(*under(keys.host(network_id, ""))))

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
