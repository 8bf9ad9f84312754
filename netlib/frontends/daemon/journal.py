"""What became of requests, for who lost the daemon before the answer came."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from netlib import keys
from netlib.errors import StoreError
from netlib.records import load, reading
from netlib.store import Commit, Store, under

# A client that lost its daemon asks at once.
_KEPT_SECONDS = 600.0


class Journal:
    """Notes each operation's beginning and result in the state.

    Notes go when their clients have the answers; those of a daemon that died with the next.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._answered: list[str] = []

    def clear(self) -> None:
        """Forget what nobody asks for any more: notes of a former daemon that are old."""
        old = tuple(
            record.key
            for record in self._store.range(*under("operation/"))
            if _since(record.value) < time.time() - _KEPT_SECONDS
        )
        self._store.commit(Commit(put={}, delete=old, durable=False))

    def begin(self, operation: str) -> None:
        """Note that it begins."""
        with self._lock:
            answered, self._answered = self._answered, []
        self._note(operation, None, tuple(answered))

    def end(self, operation: str, answer: dict[str, Any]) -> None:
        """Note what is answered."""
        self._note(operation, answer)

    def _note(
        self, operation: str, answer: dict[str, Any] | None, gone: tuple[str, ...] = ()
    ) -> None:
        note = json.dumps({"since": time.time(), "answer": answer})
        put = {keys.operation_key(operation): note}
        self._store.commit(Commit(put=put, delete=gone, durable=False))

    def answered(self, operation: str) -> None:
        """The client has it."""
        with self._lock:
            self._answered.append(keys.operation_key(operation))


def look_up(store: Store, operation: str) -> dict[str, Any] | None:
    """The answer of an operation; {} if it began and nothing more is known; None if it did not."""
    record = store.get(keys.operation_key(operation))
    if record is None:
        return None
    with reading(record.value):
        found: dict[str, Any] = load(record.value)
        return found["answer"] or {}


def _since(note: str) -> float:
    """When an operation began; long ago where the note can't be read."""
    try:
        with reading(note):
            return float(load(note)["since"])
    except StoreError:
        return 0.0
