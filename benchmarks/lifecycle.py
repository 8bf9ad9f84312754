"""What the verbs cost in a warm process."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Iterator

from benchmarks import cni
from benchmarks.bench import Bench, Host
from benchmarks.measure import Comparison, timed
from netlib.settings import Backend

_CROWD_NETWORKS = 4
_CROWD_PER_NETWORK = 250  # a bridge has 1023 ports at most (BR_MAX_PORTS)
_RULE = ("FORWARD", "-s", "203.0.113.0/24", "-j", "ACCEPT")


def connect(bench: Bench) -> Iterator[Comparison]:
    """A sandbox joins a network and leaves it; beside the reference CNI plugins."""
    host = bench.host()
    host.do(host.net.create, "my-net")
    theirs = cni.find(host.place)
    took = defaultdict[str, list[float]](list)
    for number in range(bench.runs + 1):
        ours, its = host.sandbox(), host.sandbox()
        ports = [f"{8000 + number}:80"]
        took["connect"].append(host.time(host.net.connect, "my-net", ours, publish=ports))
        if theirs is not None:
            took["add"].append(timed(theirs.add, its, f"/run/netns/{its}"))
            took["del"].append(timed(theirs.delete, its, f"/run/netns/{its}"))
        took["disconnect"].append(host.time(host.net.disconnect, "my-net", ours))
    yield Comparison(
        name="connect with one published port",
        ours=took["connect"][1:],
        other="CNI bridge + host-local, no port: ADD",
        others=took["add"][1:],
        aim=0.35,
    )
    yield Comparison(
        name="disconnect",
        ours=took["disconnect"][1:],
        other="likewise: DEL",
        others=took["del"][1:],
    )


def crowd(bench: Bench, firewall: Backend) -> Iterator[Comparison]:
    """Likewise, where a thousand endpoints with published ports are, and where none are."""
    hosts = {"none": bench.host(firewall), "thousand": bench.host(firewall)}
    for host in hosts.values():
        host.do(host.net.create, "my-net")
    _populate(hosts["thousand"])
    took = defaultdict[tuple[str, str], list[float]](list)
    for number in range(bench.runs + 1):
        for which, host in hosts.items():
            name, ports = host.sandbox(), [f"{8000 + number}:80"]
            joined = host.time(host.net.connect, "my-net", name, publish=ports)
            took["connect", which].append(joined)
            took["disconnect", which].append(host.time(host.net.disconnect, "my-net", name))
    for verb in ("connect", "disconnect"):
        yield Comparison(
            name=f"{verb} beside 1000 endpoints and ports ({firewall})",
            ours=took[verb, "thousand"][1:],
            other="beside none",
            others=took[verb, "none"][1:],
            aim=1.2 if firewall == "nftables" else None,
        )


def _populate(host: Host) -> None:
    networks = [f"crowd-{number}" for number in range(_CROWD_NETWORKS)]
    for network in networks:
        host.do(host.net.create, network)
    port = 20000
    for _ in range(_CROWD_PER_NETWORK):
        name = host.sandbox()
        for network in networks:
            host.do(host.net.connect, network, name, publish=[f"{port}:80"])
            port += 1


def networks(bench: Bench) -> Iterator[Comparison]:
    """A network is made and removed; beside ten started programs, as a script would be."""
    host = bench.host()
    took = defaultdict[str, list[float]](list)
    for _ in range(bench.runs + 1):
        took["create"].append(host.time(host.net.create, "my-net"))
        took["-A"].append(host.time(_ten, "iptables", "-A", *_RULE))
        took["remove"].append(host.time(host.net.remove, "my-net"))
        took["-D"].append(host.time(_ten, "iptables", "-D", *_RULE))
    for verb, option in (("create", "-A"), ("remove", "-D")):
        yield Comparison(
            name=f"{verb} a network",
            ours=took[verb][1:],
            other=f"ten iptables {option}",
            others=took[option][1:],
            aim=0.5,
        )


def _ten(*command: str) -> None:
    for _ in range(10):
        subprocess.run(command, check=True, capture_output=True)
