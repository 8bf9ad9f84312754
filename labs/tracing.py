"""Which rules of nftables a packet meets: the kernel's own trace of it, rule by rule."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from netlib.labs.stage import TIMEOUT, sh
from netlib.values import dataclass

_LINE = re.compile(r"trace id (\w+) inet netlib (\S+) rule (.*) \(verdict (.*)\)")
_NETFILTER = "12"  # NETLINK_NETFILTER in linux/netlink.h


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A rule of ours that a packet met: its chain, its text, and where it sent the packet."""

    chain: str
    rule: str
    verdict: str


class Trace:
    """What the kernel tells while it lasts."""

    def __init__(self, monitor: subprocess.Popen[str]) -> None:
        self._monitor = monitor

    def hits(self, until: str = "postrouting") -> list[Hit]:
        """The rules that the first packet met, until it left this chain or was dropped."""
        found: list[tuple[str, ...]] = []
        timer = threading.Timer(TIMEOUT, self._monitor.kill)
        timer.start()
        assert self._monitor.stdout is not None
        for line in self._monitor.stdout:
            found += _LINE.findall(line)
            if re.search(rf" {until} policy | {until} rule .*verdict accept|verdict drop", line):
                break
        timer.cancel()
        return [
            Hit(chain=chain, rule=rule, verdict=verdict)
            for packet, chain, rule, verdict in found
            if packet == found[0][0]
        ]


@contextlib.contextmanager
def trace(match: str) -> Iterator[Trace]:
    """Follow packets that `match`, in nft's words, through the rules for the length of a `with`.

    A table of its own marks them before all others, and goes again.
    """
    sh(
        "nft",
        "-f",
        "-",
        stdin=f"""
        add table inet lab-trace
        add chain inet lab-trace first {{ type filter hook prerouting priority -400; }}
        add rule inet lab-trace first {match} meta nftrace set 1
    """,
    )
    # Into a pipe nft writes by the block, unless it is told.
    monitor = subprocess.Popen(
        ["stdbuf", "-oL", "nft", "monitor", "trace"], stdout=subprocess.PIPE, text=True
    )
    try:
        _await(monitor)
        yield Trace(monitor)
    finally:
        monitor.kill()
        monitor.communicate(timeout=TIMEOUT)
        sh("nft", "delete", "table", "inet", "lab-trace")


def _await(monitor: subprocess.Popen[str]) -> None:
    """Until it has subscribed: what the kernel tells before is lost."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        # sk, protocol, port (its process), groups, …
        rows = [line.split() for line in Path("/proc/net/netlink").read_text().splitlines()]
        if any(row[1:3] == [_NETFILTER, str(monitor.pid)] and int(row[3], 16) for row in rows[1:]):
            return
        time.sleep(0.01)
    raise TimeoutError("nft monitor does not begin")
