"""Requests about one thing wait for each other, and for no others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class InOrder:
    """A lock for each name that somebody is at; names that nobody is at take no room."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._there: dict[str, tuple[threading.Lock, list[None]]] = {}

    @contextmanager
    def at(self, name: str) -> Iterator[None]:
        """Alone at `name` until the block ends."""
        with self._guard:
            lock, users = self._there.setdefault(name, (threading.Lock(), []))
            users.append(None)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                users.pop()
                if not users:
                    del self._there[name]
