"""The operation lock: whoever holds it lets it go, whatever else the process did meanwhile."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Thread

import pytest
from support.patience import eventually

from netlib import lock as module
from netlib.errors import LockStuck, StoreError
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


@pytest.mark.parametrize("how", HOLDS)
def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Not as an OSError that nobody expects."""
    flock, control = fcntl.flock, fcntl.fcntl

    def whole(descriptor: int, what: int) -> None:
        if what != fcntl.LOCK_UN:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        flock(descriptor, what)

    def part(descriptor: int, what: int, lock: bytes) -> bytes:
        if what == fcntl.F_OFD_SETLK and lock != module._UNLOCK:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return control(descriptor, what, lock)

    monkeypatch.setattr(fcntl, "flock", whole)
    monkeypatch.setattr(fcntl, "fcntl", part)
    with (
        pytest.raises(StoreError, match="No locks available"),
        HOLDS[how](OperationLock(tmp_path / "lock")),
    ):
        pytest.fail("nobody holds it")


@contextmanager
def stopped(hold: AbstractContextManager[None]) -> Iterator[int]:
    """A process that was stopped while it held something: its id."""
    child = os.fork()
    if not child:
        with hold:
            os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        _, status = os.waitpid(child, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("alone", "shared"), ("alone", "alone"), ("shared", "alone"), ("things", "things")],
)
def test_who_was_stopped_with_a_lock_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str, ours: str
) -> None:
    """Nobody waits for ever; who goes on is waited for."""
    lock = OperationLock(tmp_path / "lock")
    with stopped(HOLDS[theirs](lock)) as child:
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.02)
        with pytest.raises(LockStuck, match=f"process {child} .* was stopped") as told:
            HOLDS[ours](lock).__enter__()
        assert f"kill -CONT {child}" in told.value.hint
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 60)
        os.kill(child, signal.SIGCONT)
        with HOLDS[ours](lock):
            pass


def test_who_was_stopped_with_something_else_is_nobody_to_wait_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who has what is wanted is named, and only while he stands still."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.02)
    lock = OperationLock(tmp_path / "lock")
    told: list[str] = []

    def wait() -> None:
        with lock.of({"web": True}):
            told.append("web")

    with stopped(lock.of({"db": True})), lock.shared():
        with lock.of({"web": True}):
            waiting = Thread(target=wait)
            waiting.start()
            waiting.join(0.2)
            assert not told
        waiting.join(20)
        assert told == ["web"]


def test_who_wants_to_be_alone_is_not_overtaken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operations that come meanwhile follow, or repair would wait as long as there are any."""
    monkeypatch.setattr(module, "_POLITE_SECONDS", 60)
    lock = OperationLock(tmp_path / "lock")
    order: list[str] = []

    def enter(name: str, held: AbstractContextManager[None]) -> Thread:
        def run() -> None:
            with held:
                order.append(name)

        thread = Thread(target=run)
        thread.start()
        return thread

    def is_shut() -> bool:
        inode = os.stat(tmp_path / "lock").st_ino
        locks = Path("/proc/locks").read_text().splitlines()
        return any("OFDLCK" in line and f":{inode} " in line for line in locks)

    with lock.shared():
        first = enter("alone", lock.alone())
        eventually(is_shut)
        second = enter("shared", lock.shared())
        second.join(0.1)
        assert order == []
    for thread in (first, second):
        thread.join(20)
    assert order == ["alone", "shared"]


def test_who_has_waited_for_long_goes_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Politeness is no lock: who holds it already may be waited for by who wants to be alone."""
    monkeypatch.setattr(module, "_POLITE_SECONDS", 0.05)
    lock = OperationLock(tmp_path / "lock")
    waiting = Thread(target=lambda: lock.alone().__enter__(), daemon=True)
    with lock.shared():
        waiting.start()
        for _ in range(3):
            with lock.shared():
                pass
    waiting.join(20)
    assert not waiting.is_alive()


def test_who_would_be_alone_soon_or_not_at_all_gives_up(tmp_path: Path) -> None:
    """And keeps nobody out after that."""
    lock = OperationLock(tmp_path / "lock")
    with lock.shared():
        with pytest.raises(BlockingIOError), lock.alone(0.02):
            pass
        with OperationLock(tmp_path / "lock").shared():
            pass
    with lock.alone(0.02):
        pass


def test_who_is_not_patient_is_told_at_once(tmp_path: Path) -> None:
    """And keeps nothing locked of what it could have had; what is only needed can be shared."""
    lock = OperationLock(tmp_path / "lock")
    with lock.of({"web": True, "front": False}):
        with pytest.raises(BlockingIOError), lock.of({"db": True, "web": True}, patient=False):
            pass
        with lock.of({"db": True, "front": False}, patient=False):
            pass
    with lock.of({"web": True, "front": True}, patient=False):
        pass
