"""`net check` beside operations that run."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from netlib.kernel.fake import FakeKernel
from netlib.lock import OperationLock
from netlib.net import Net


def test_what_is_under_way_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that comes into the middle of an operation waits for it before it tells of it."""
    kernel = FakeKernel()
    found: list[Any] = []
    waits = Event()
    alone, do = OperationLock.alone, FakeKernel.do

    def waiting(lock: OperationLock, *within: float) -> Any:
        waits.set()
        return alone(lock, *within)

    def doing(kernel: FakeKernel, stage: Any) -> None:
        if not watcher.ident:
            watcher.start()
            assert waits.wait(5)
        do(kernel, stage)

    with Net(tmp_path, kernel=kernel) as net, Net(tmp_path, kernel=kernel) as beside:
        net.create("app", subnets=["192.0.2.0/24"])
        net.create_sandbox("web")
        watcher = Thread(target=lambda: found.append(beside.check()))
        monkeypatch.setattr(OperationLock, "alone", waiting)
        monkeypatch.setattr(FakeKernel, "do", doing)
        net.connect("app", "web")
        watcher.join()
    assert found == [()]
