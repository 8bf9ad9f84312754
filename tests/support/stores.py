"""The implementations of the Store protocol, as the contract's tests get at them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from netlib.store import Store
from netlib.store.etcd import EtcdStore
from netlib.store.memory import MemoryStore
from netlib.store.sqlite import SqliteStore
from support import etcd


@dataclass(frozen=True)
class Kind:
    """How tests get at one implementation.

    `make` gives, for an empty folder, a function that opens one more handle on the same
    data; a handle keeps few events if it is asked to. `processes`: the function can be
    called in a child process. `lease_seconds`: the shortest lease; 0 where there are none.
    `examples`: of random use, as many as are worth their time. `forget`: have events up to a
    revision forgotten, where a store does not by itself.
    """

    name: str
    make: Callable[[Path], Callable[..., Store]]
    processes: bool = True
    lease_seconds: float = 0.0
    examples: int = 40
    forget: Callable[[Store, int], None] = lambda store, revision: None

    def __str__(self) -> str:
        return self.name


def _memory(_: Path) -> Callable[..., Store]:
    handles: list[MemoryStore] = []

    def open_store(keep_events: int = 10_000) -> Store:
        handles.append(handles[0].another() if handles else MemoryStore(keep_events=keep_events))
        return handles[-1]

    return open_store


def _sqlite(folder: Path) -> Callable[..., Store]:
    return lambda keep_events=10_000: SqliteStore(
        folder / "state" / "state.db", keep_events=keep_events
    )


_prefixes = itertools.count()


def _etcd(_: Path) -> Callable[..., Store]:
    url, prefix = etcd.shared().url, f"/test{next(_prefixes)}/"
    return lambda keep_events=0: EtcdStore([url], prefix=prefix)


def _compact(_: Store, revision: int) -> None:
    etcd.shared().ctl("compaction", str(revision))


KINDS = (
    Kind("memory", _memory, processes=False, lease_seconds=0.1),
    Kind("sqlite", _sqlite),
    Kind("etcd", _etcd, lease_seconds=2.0, examples=20, forget=_compact),
)


class Opener:
    """Opens handles on one store's data, and closes them with the test."""

    def __init__(self, kind: Kind, folder: Path, stack: ExitStack) -> None:
        self.kind = kind
        self._open = kind.make(folder)
        self._stack = stack

    def __call__(self, **options: int) -> Store:
        """One more handle."""
        store = self._open(**options)
        self._stack.callback(store.close)
        return store
