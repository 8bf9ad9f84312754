"""Threads of one engine work in turn."""

from __future__ import annotations

import threading

from support.patience import eventually

from netlib.engine import Engine
from netlib.kernel.fake import FakeKernel
from netlib.lock import OperationLock
from netlib.registry import Registry
from netlib.store.memory import MemoryStore


def test_a_thread_may_enter_again_and_nobody_waits_forever() -> None:
    """Who is slow inside does not hold up the others for long."""
    engine = Engine(MemoryStore(), FakeKernel, Registry(), OperationLock(None))
    entered = threading.Event()

    def other() -> None:
        with engine.room():
            entered.set()

    with engine.room(), engine.room():
        thread = threading.Thread(target=other)
        thread.start()
        assert not entered.is_set()
        eventually(entered.is_set)  # it went ahead
        thread.join()
    with engine.room():
        entered.clear()
    other()
    assert entered.is_set()
