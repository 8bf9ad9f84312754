"""What the cluster's verbs reach the world by, and what all of them ask."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from netlib.cluster.files import Files
from netlib.cluster.model import Membership
from netlib.engine import Engine
from netlib.errors import NotAMember
from netlib.kernel.own_addresses import OwnAddress, own_addresses
from netlib.keys import MEMBERSHIP_KEY
from netlib.lock import OperationLock
from netlib.records import load_as
from netlib.store import Record, Store
from netlib.values import dataclass


@dataclass(frozen=True, slots=True)
class Doors:
    """The host's own engine and state, and how a membership is turned into a store."""

    engine: Engine
    state_dir: Path
    open_store: Callable[[Membership], Store]
    own_addresses: Callable[[], Sequence[OwnAddress]] = own_addresses
    hostname: Callable[[], str] = socket.gethostname

    @property
    def files(self) -> Files:
        """The folder of keys and certificates, by its whole path: the daemon works elsewhere."""
        return Files(self.state_dir.absolute())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other init, join or leave of this host meanwhile."""
        with OperationLock(self.state_dir / "cluster.lock").alone():
            yield

    def record(self) -> Record | None:
        """The record of this host's membership."""
        return self.engine.state.store.get(MEMBERSHIP_KEY)

    def membership(self) -> Membership:
        """This host's membership, or NotAMember."""
        record = self.record()
        if record is None:
            raise NotAMember(
                "this host is not a member of a cluster",
                "make one with: net cluster init; or join one with: net cluster join",
            )
        return load_as(Membership, record.value)

    @contextmanager
    def store(self) -> Iterator[tuple[Membership, Store]]:
        """The cluster's store, open meanwhile, and by which membership."""
        membership = self.membership()
        store = self.open_store(membership)
        try:
            yield membership, store
        finally:
            store.close()
