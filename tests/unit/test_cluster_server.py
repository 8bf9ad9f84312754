"""A manager's etcd as a process: found by its lock, and nobody else's process taken for it."""

from __future__ import annotations

import fcntl
import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from netlib.cluster.server import DATA, LOCK, Server
from netlib.errors import EtcdMissing, StoreError


def test_nothing_runs_where_there_is_no_folder(tmp_path: Path) -> None:
    """Not even a lock is made by looking."""
    server = Server(tmp_path / "cluster")

    assert server.pid() == 0
    assert server.wait(0)
    server.stop()
    assert not (tmp_path / "cluster").exists()


def test_a_pid_counts_only_with_its_lock(tmp_path: Path) -> None:
    """One that died leaves its number, which may be another's by now."""
    (tmp_path / LOCK).write_text(str(os.getpid()))

    assert Server(tmp_path).pid() == 0


@pytest.mark.parametrize("noted", [str(os.getpid()), "", "4194304"], ids=["own", "none", "beyond"])
def test_another_s_process_is_never_ended(tmp_path: Path, noted: str) -> None:
    """Somebody starts a server this moment, and the file still names an earlier one's process."""
    (tmp_path / LOCK).write_text(noted)
    with (tmp_path / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = Server(tmp_path)
        server.stop()  # this process is still here to tell
        assert server.wait(0)


def test_one_that_begins_to_run_is_not_taken_for_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a process becomes another program it has no command line."""
    (tmp_path / LOCK).write_text(str(os.getpid()))
    command = os.fsencode(f"etcd\0--data-dir={tmp_path / DATA}\0")
    seen = iter([b"", b"", command])
    monkeypatch.setattr(Path, "read_bytes", lambda path: next(seen))
    with (tmp_path / LOCK).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not Server(tmp_path).wait(0)


def test_one_that_can_not_run_says_why(tmp_path: Path) -> None:
    """Without its settings, or without the program."""
    with pytest.raises(StoreError, match=r"etcd\.json"):
        Server(tmp_path).start()


def test_a_system_without_etcd_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name that the package has there."""
    server = Server(tmp_path)
    flags = server.flags(
        node="a0" * 32, address=ip_address("2001:db8::1"), cluster="c1" * 32, members=None
    )
    assert flags["listen-client-urls"] == "https://[2001:db8::1]:2379"
    server.configure(flags)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EtcdMissing) as refusal:
        server.start()
    assert "install" in refusal.value.hint
    assert "--etcd" in refusal.value.hint
