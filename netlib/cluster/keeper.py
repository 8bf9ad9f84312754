"""Keeps this host's lease alive: what stands in the cluster for it goes when this stops."""

from __future__ import annotations

import time
from collections.abc import Callable

from netlib.cluster import keys as cluster_keys
from netlib.cluster.copies import LEASE_KEY
from netlib.cluster.state import ClusterState
from netlib.engine import Engine
from netlib.errors import LeaseLost
from netlib.records import dump, load
from netlib.store import Commit

# So many times within its life, so that one lost answer does not end it.
_TIMES = 3


class Keeper:
    """One lease; `renewed` is called when it is another than before: nothing stands by it yet."""

    def __init__(self, engine: Engine, renewed: Callable[[], None]) -> None:
        self._engine = engine
        self._renewed = renewed
        self._lease: int | None = None
        self._node = ""

    def keep(self) -> float:
        """Start the lease's time anew, or take a new lease; seconds until that is due again.

        Raises NotAMember, StoreError.
        """
        cluster = self._engine.cluster
        if cluster.node != self._node:
            self._lease, self._node = None, cluster.node
        if self._lease is None:
            self._lease = self._known(cluster)
        if self._lease is not None:
            try:
                seconds = cluster.store.keep_alive(self._lease)
            except LeaseLost:
                self._lease = None
            else:
                self._note(self._lease)  # somebody may have put the state back from a copy
                return seconds / _TIMES
        wanted = cluster.settings.lease_seconds
        lease = cluster.store.grant(wanted)
        document = dump({"lease": lease, "since": time.time()})
        cluster.store.leased(lease).commit(Commit(put={cluster_keys.alive(cluster.node): document}))
        self._note(lease)
        self._lease = lease
        self._renewed()
        return wanted / _TIMES

    def _known(self, cluster: ClusterState) -> int | None:
        """The lease of an agent before this one, if it lives: then nobody notices the change."""
        record = cluster.store.get(cluster_keys.alive(cluster.node))
        if record is None:
            return None
        lease = int(load(record.value)["lease"])
        try:
            cluster.store.keep_alive(lease)
        except LeaseLost:
            return None
        self._note(lease)
        return lease

    def _note(self, lease: int) -> None:
        """Let every process of this host claim by it."""
        store = self._engine.state.store
        known = store.get(LEASE_KEY)
        if known is None or known.value != str(lease):
            store.commit(Commit(put={LEASE_KEY: str(lease)}, durable=False))
