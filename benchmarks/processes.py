"""What whole processes cost: time from start to end, and memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench, Host
from benchmarks.measure import Comparison, timed

_NETWORKS = 5
_SELF = "print(open('/proc/self/status').read())"


def listing(bench: Bench) -> Iterator[Comparison]:
    """`net ls` from its start to its end."""
    host = bench.host()
    for number in range(_NETWORKS):
        host.do(host.net.create, f"net-{number}")
    command = (sys.executable, "-m", "netlib", "--state-dir", str(host.net.state_dir), "ls")
    ours, bare = [], []
    for _ in range(bench.runs + 1):
        ours.append(timed(host.place.run, *command))
        bare.append(timed(host.place.run, sys.executable, "-c", ""))
    yield Comparison(name="net ls", ours=ours[1:], other="python -c ''", others=bare[1:], limit=150)


def memory(bench: Bench) -> Iterator[Comparison]:
    """What the relay process keeps for a thousand ports."""
    host = bench.host()
    host.do(host.net.create, "my-net")
    name = host.sandbox()
    host.do(host.net.connect, "my-net", name, publish=["[::1]:20000-20999:10000-10999"])
    interpreter = host.place.run(sys.executable, "-I", "-S", "-c", _SELF)
    yield Comparison(
        name="the relay process with 1000 ports",
        ours=[_resident(Path("/proc", pid, "status").read_text()) for pid in _relays(host)],
        other="python -c ''",
        others=[_resident(interpreter)],
        unit="MiB",
    )
    host.do(host.net.disconnect, "my-net", name)


def _relays(host: Host) -> list[str]:
    inode = os.stat(host.place.path).st_ino
    return [pid for pid in os.listdir("/proc") if pid.isdigit() and _is_relay(pid, inode)]


def _is_relay(pid: str, netns: int) -> bool:
    try:
        return (
            Path("/proc", pid, "comm").read_text() == "netlib-relay\n"
            and os.stat(f"/proc/{pid}/ns/net").st_ino == netns
        )
    except OSError:  # ended
        return False


def _resident(status: str) -> float:
    """What a process has in memory, of its status (proc_pid_status(5))."""
    lines = dict(line.split(":", 1) for line in status.splitlines() if line)
    return int(lines["VmRSS"].split()[0]) / 1024
