"""Links go together: a deletion waits for RCU, 10 to 40 ms, however many links are in it.

So those that are asked for while one is under way are done by one request; and who asked goes
on as soon as the links can't be found any more: from then on no packet passes them and their
names are free (unlist_netdevice in net/core/dev.c), while the kernel still waits for readers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from netlib.kernel.errnos import Refusal

_AT_ONCE = 3
_POLL_SECONDS = 0.0005

Delete = Callable[[Sequence[int]], Refusal | None]
IsGone = Callable[[int], bool]


class _Entry:
    """What one caller wants deleted."""

    __slots__ = ("done", "error", "indexes", "refusal")

    def __init__(self, indexes: Sequence[int]) -> None:
        self.indexes = indexes
        self.done = threading.Event()
        self.refusal: Refusal | None = None
        self.error: BaseException | None = None


class Deletions:
    """Deletes links of the host for many threads. `delete` does some by one request."""

    def __init__(self, delete: Delete) -> None:
        self._delete = delete
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._threads: set[threading.Thread] = set()

    def delete(self, indexes: Sequence[int], is_gone: IsGone) -> Refusal | None:
        """Delete these; return when they are gone, or with the kernel's refusal."""
        entry = _Entry(indexes)
        with self._lock:
            self._waiting.append(entry)
            if len(self._threads) < _AT_ONCE:
                thread = threading.Thread(target=self._work, name="netlib-deletions", daemon=True)
                self._threads.add(thread)
                thread.start()
        while not entry.done.wait(_POLL_SECONDS * (1 + len(self._waiting))):
            if all(is_gone(index) for index in indexes):
                return None
        if entry.error is not None:
            raise entry.error
        return entry.refusal

    def close(self) -> None:
        """Wait for what is under way."""
        while True:
            with self._lock:
                thread = next(iter(self._threads), None)
            if thread is None:
                return
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._threads.discard(threading.current_thread())
                    return
            try:
                self._do(batch)
            except BaseException as error:  # belongs to those who wait
                for entry in batch:
                    entry.error = error
            for entry in batch:
                entry.done.set()

    def _do(self, batch: list[_Entry]) -> None:
        refusal = self._delete([index for entry in batch for index in entry.indexes])
        if refusal is None:
            return
        if len(batch) == 1:
            batch[0].refusal = refusal
            return
        for entry in batch:  # whose fault was it?
            entry.refusal = self._delete(entry.indexes)
