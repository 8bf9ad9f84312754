"""Speed and memory on one host, beside the reference CNI plugins, iptables, and ourselves.

What is compared is measured in turn within one run: figures of two runs, or of two machines,
say nothing about each other.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import cluster, dns, lifecycle, overlay, processes, traffic
from benchmarks.bench import Bench
from benchmarks.measure import Comparison, table, write_json
from netlib import throwaway

QUESTIONS: dict[str, Callable[[Bench], Iterator[Comparison]]] = {
    "connect": lifecycle.connect,
    "networks": lifecycle.networks,
    "listing": processes.listing,
    "memory": processes.memory,
    "connections": traffic.connections,
    "names": dns.names,
    "overlay-carried": overlay.carried,
    "overlay-entries": overlay.entries,
    "overlay-told": cluster.told,
    "overlay-crowd": cluster.crowd,
    # Last: the kernel clears away a thousand endpoints in the background.
    "crowd-nftables": partial(lifecycle.crowd, firewall="nftables"),
    "crowd-iptables": partial(lifecycle.crowd, firewall="iptables"),
}


def main() -> None:
    """Ask all questions, or those that are named, and show what came out."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=9, help="samples of each (default: 9)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there, too")
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    asked = parser.parse_args()
    if unknown := set(asked.questions) - set(QUESTIONS):
        parser.error(f"there is no question {', '.join(sorted(unknown))}")
    throwaway.enter(keep=[asked.json.absolute().parent] if asked.json else [])
    done: list[Comparison] = []
    for name in asked.questions or QUESTIONS:
        begin = time.monotonic()
        with Bench(asked.runs) as bench:
            done += QUESTIONS[name](bench)
        print(f"{name}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    print(table(done))
    if asked.json:
        write_json(asked.json, done)
