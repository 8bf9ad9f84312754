"""The operation lock: whoever holds it lets it go, whatever else the process did meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from support.patience import eventually

from netlib.lock import OperationLock

HOLDS: dict[str, Callable[[OperationLock], AbstractContextManager[None]]] = {
    "shared": OperationLock.shared,
    "alone": OperationLock.alone,
    "things": lambda lock: lock.of({"web": True, "db": False}),
}


@pytest.mark.parametrize("how", HOLDS)
def test_a_child_that_was_forked_meanwhile_keeps_nothing_locked(tmp_path: Path, how: str) -> None:
    """It has the open file still, as long as it lives."""
    reader, writer = os.pipe()
    with HOLDS[how](OperationLock(tmp_path / "lock")):
        child = os.fork()
        if not child:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    try:
        locks = Path("/proc/locks").read_text()
        inode = os.stat(tmp_path / "lock").st_ino
        assert f":{inode} " not in locks
    finally:
        os.close(reader)
        os.close(writer)
        eventually(lambda: os.waitpid(child, os.WNOHANG)[0])
