"""The engine's way to the cluster: its store, opened when something needs it, and claims there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from netlib import keys
from netlib.errors import AgentDown, CommitUnknown, LeaseLost, NetError, NotAMember
from netlib.records import load_as
from netlib.store import Commit, LeasedStore, Store

if TYPE_CHECKING:
    from netlib.cluster.claims import Claim, Release
    from netlib.cluster.model import Membership
    from netlib.cluster.state import ClusterState

OpenCluster = Callable[["Membership"], LeasedStore]
# Claims that were made, each with its revision; 0 where it is not known whether it was.
Taken = list[tuple["Claim", int]]


class Meeting:
    """Loads and opens nothing until it is asked for: most hosts are no member of anything."""

    def __init__(self, store: Store, open_store: OpenCluster | None) -> None:
        self._store = store
        self._open = open_store
        self._cluster: ClusterState | None = None
        self._opening = threading.Lock()

    def membership(self) -> Membership | None:
        """How this host is a member of a cluster, if it is."""
        record = self._store.get(keys.MEMBERSHIP_KEY)
        if record is None:
            return None
        from netlib.cluster.model import Membership

        return load_as(Membership, record.value)

    @property
    def cluster(self) -> ClusterState:
        """The store where hosts meet. Raises NotAMember; StoreError where it can't be opened."""
        membership = self.membership()
        if membership is None or self._open is None:
            self.close()
            raise NotAMember(
                "this host is not a member of a cluster",
                "make one with: net cluster init; or join one with: net cluster join",
            )
        from netlib.cluster.state import ClusterState

        with self._opening:
            if self._cluster is None or self._cluster.membership != membership:
                if self._cluster is not None:
                    self._cluster.close()
                    self._cluster = None
                self._cluster = ClusterState(membership, self._open(membership))
            return self._cluster

    def close(self) -> None:
        """Give back what the store holds open."""
        with self._opening:
            if self._cluster is not None:
                self._cluster.close()
                self._cluster = None

    # -- claims -----------------------------------------------------------------------------------

    def take(self, claims: Iterable[Claim], taken: Taken) -> None:
        """Make claims, and note them one by one. Raises StoreConflict, AgentDown, StoreError."""
        for claim in claims:
            lease = self._lease() if claim.leased else 0
            try:
                taken.append((claim, self.cluster.take(claim, lease)))
            except LeaseLost as error:
                raise _no_agent() from error
            except CommitUnknown:
                taken.append((claim, 0))
                raise

    def take_back(self, taken: Taken) -> None:
        """Undo claims; what the cluster can't be told now, this host's agent tells it later."""
        while taken:
            claim, revision = taken.pop()
            try:
                self.cluster.take_back(claim, revision)
            except NetError:
                self._leave_word(claim.release)

    def let_go(self, releases: Iterable[Release]) -> None:
        """Let go what is taken away here: it is, whether the cluster can be told now or later."""
        for release in releases:
            try:
                self.cluster.let_go(release)
            except NetError:
                self._leave_word(release)

    def _leave_word(self, release: Release | None) -> None:
        """Have the agent look: it may never have missed the cluster, and hears of nothing."""
        if release is not None and release.network:
            from netlib.cluster.copies import look_key

            with suppress(NetError):
                self._store.commit(Commit(put={look_key(release.network): ""}))

    def _lease(self) -> int:
        """The lease that what this host claims goes with: its agent keeps it alive."""
        from netlib.cluster.copies import LEASE_KEY

        record = self._store.get(LEASE_KEY)
        if record is None:
            raise _no_agent()
        return int(record.value)


def _no_agent() -> AgentDown:
    return AgentDown(
        "this host's agent is not alive, so the cluster can't count on what is here",
        "start it: net daemon; if it runs, it was cut off, and needs a second to come back",
    )
