"""Sysctls that are opened by a procfs of our own."""

from __future__ import annotations

import os

import pytest
from support.host import Host

from netlib.kernel import procfs
from netlib.kernel.procfs import Sysctls

pytestmark = pytest.mark.kernel

_PATH = "net/ipv4/conf/lo/rp_filter"
_MANY = 3 * procfs._USES + 1


def _set(sysctls: Sysctls, value: bytes) -> None:
    descriptor = sysctls.open(_PATH, os.O_WRONLY)
    try:
        os.write(descriptor, value)
    finally:
        os.close(descriptor)


def test_it_is_the_namespace_of_who_opens(host: Host) -> None:
    """Whatever mount it goes by: the first ones by /proc, the others by one of our own."""
    sysctls = Sysctls()
    sandboxes = [host.sandbox("web"), host.sandbox("db")]
    for turn in range(_MANY):
        for number, sandbox in enumerate(sandboxes):
            sandbox.call(lambda v=b"02"[(turn + number) % 2 :][:1]: _set(sysctls, v))
        shown = [box.run("cat", f"/proc/sys/{_PATH}").stdout.strip() for box in sandboxes]
        assert shown == [["0", "2"], ["2", "0"]][turn % 2], turn
    sysctls.close()
    sysctls.close()


def test_without_the_right_to_mount_it_goes_by_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """And asks for the right only once."""
    asked = 0

    def refuse() -> int:
        nonlocal asked
        asked += 1
        raise PermissionError

    monkeypatch.setattr(procfs, "_procfs", refuse)
    sysctls = Sysctls()
    for _ in range(_MANY):
        os.close(sysctls.open("net/ipv4/ip_forward", os.O_RDONLY))
    assert asked == 1
