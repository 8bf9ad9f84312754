"""Where a daemon's time goes, as it tells it."""

from __future__ import annotations

import threading
from functools import partial

from support.patience import eventually

from netlib import Net
from netlib.frontends.daemon.timing import trace
from netlib.kernel.fake import FakeKernel
from netlib.model import Endpoint
from netlib.operation import Operation
from netlib.side_by_side import run_with_others
from netlib.store.memory import MemoryStore
from netlib.verbs.connect import connect


def test_what_is_done_for_many_at_once_is_told_of_as_well() -> None:
    """How many they were, and what each step cost them all."""
    said: list[str] = []
    began, go_on = threading.Event(), threading.Event()
    with Net(store=MemoryStore(), kernel=FakeKernel()) as net:
        net.create("front", subnets=["198.51.100.0/24"])
        for name in ("a", "b", "c"):
            net.create_sandbox(name)
        trace(net, said.append)
        engine = net.engine

        def first() -> Operation[Endpoint]:
            began.set()
            assert go_on.wait(20)
            return connect(engine, "front", "a")

        others = [partial(connect, engine, "front", name) for name in ("b", "c")]
        threads = [
            threading.Thread(target=run_with_others, args=(engine, prepare))
            for prepare in (first, *others)
        ]
        threads[0].start()
        assert began.wait(20)
        for thread in threads[1:]:
            thread.start()
        eventually(lambda: len(engine.gathered.built._waiting) == 2)
        go_on.set()
        for thread in threads:
            thread.join(20)
        assert len(net.endpoints()) == 3
    alone, both = (line for line in said if "kernel.do link" in line)
    assert alone.startswith("timing: ")
    assert both.startswith("timing of 2 at once: ")
    assert "kernel.do link x1 " in both
