"""What is imported when: start-up is paid for by every command and every CNI call."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SLOW = {
    "asyncio", "click", "ctypes", "dataclasses", "dnslib", "inspect", "netaddr", "pyroute2",
    "scapy", "subprocess",
}  # fmt: skip


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded for a statement."""
    program = (
        "import sys, json; before = set(sys.modules); "
        f"{statement}; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return set(json.loads(done.stdout))


def test_import_netlib_costs_next_to_nothing() -> None:
    """The package alone loads none of its modules, and of the standard library only typing."""
    loaded = modules_after("import typing, importlib; before = set(sys.modules); import netlib")

    assert loaded <= {"netlib", "__future__"}


@pytest.mark.parametrize(
    "statement",
    [
        "import netlib.throwaway",
        "from netlib import Net",
        "import netlib.drivers.bridge",
        "import netlib.kernel.linux, netlib.relay.door",
        "import netlib.frontends.cni.plugin, netlib.frontends.daemon.client",
    ],
)
def test_roads_that_are_often_taken_load_no_slow_module(statement: str) -> None:
    """pyroute2 takes a quarter of a second, scapy one, netaddr 70 ms: more than an attach."""
    slow = SLOW - ({"ctypes"} if "throwaway" in statement else set())

    assert not {name.partition(".")[0] for name in modules_after(statement)} & slow
