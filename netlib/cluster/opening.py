"""How a membership is turned into the cluster's store."""

from __future__ import annotations

from netlib.cluster.etcd_members import credentials
from netlib.cluster.keys import UNTOLD
from netlib.cluster.model import Membership
from netlib.store import LeasedStore


def open_store(membership: Membership) -> LeasedStore:
    """The store; closed by the caller. Raises StoreError, NotPermitted."""
    from netlib.store.etcd import EtcdStore

    return EtcdStore(
        membership.endpoints,
        prefix=membership.prefix,
        untold=UNTOLD,
        credentials=credentials(membership),
    )
