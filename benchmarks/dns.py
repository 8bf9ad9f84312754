"""Names: dnsperf asks ours, dnsmasq and (where installed) aardvark-dns, in turn.

Servers are pinned to one core, dnsperf runs in a sandbox on another. What is compared is the
CPU time for each query, by the scheduler's own count: rates say more about dnsperf.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.measure import Series, ratio, show

GATEWAY = "198.51.100.1"
CLIENT = "198.51.100.2"
NAMES = 200
ROUNDS = 5
SECONDS = 1.0
AARDVARK = ("aardvark-dns", "/usr/lib/podman/aardvark-dns", "/usr/libexec/podman/aardvark-dns")


@dataclass(frozen=True)
class Server:
    """A name server that runs."""

    name: str
    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """What all its threads used so far."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def resident_mb(self) -> float:
        """The memory that it holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) / 1024


@dataclass(frozen=True)
class Load:
    """What dnsperf asks."""

    name: str
    questions: Callable[[], list[str]]
    options: tuple[str, ...] = ()


def addresses(count: int) -> list[tuple[str, str]]:
    """One of each family for each name, from the client's on."""
    return [
        (f"198.51.{100 + n // 200}.{n % 200 + 2}", f"2001:db8::{n + 2:x}") for n in range(count)
    ]


def _mixed_case() -> list[str]:
    return ["".join(c.upper() if i % 2 else c for i, c in enumerate(f"name{n}")) + " A"
            for n in range(NAMES)]  # fmt: skip


LOADS = (
    Load("A", lambda: [f"name{n} A" for n in range(NAMES)]),
    Load("AAAA", lambda: [f"name{n} AAAA" for n in range(NAMES)]),
    Load("A, mixed case", _mixed_case),
    Load("A, EDNS", lambda: [f"name{n} A" for n in range(NAMES)], ("-e",)),
    Load("forwarded, then kept", lambda: [f"kept{n}.example.com A" for n in range(NAMES)]),
    Load(
        "forwarded each time",
        lambda: [f"x{time.monotonic_ns() + n}.example.com A" for n in range(200_000)],
    ),
)


def run() -> None:
    """Measure all."""
    from support.host import new_host

    with new_host() as host, ExitStack() as stack:
        place = host.sandbox("client")
        host.run("ip", "-batch", "-", stdin="\n".join([
            f"link add bench0 type bridge\naddr add {GATEWAY}/16 dev bench0\nlink set bench0 up",
            f"link add bench1 type veth peer name eth0 netns {place.netns.path}",
            "link set bench1 master bench0 up",
        ]))  # fmt: skip
        place.run("ip", "addr", "add", f"{CLIENT}/16", "dev", "eth0")
        place.run("ip", "link", "set", "eth0", "up")
        folder = host.state_dir
        stack.enter_context(_upstream(folder))
        servers = [
            stack.enter_context(_ours(folder / "ours", NAMES)),
            stack.enter_context(_dnsmasq(folder, 5302)),
        ]
        if shutil.which("aardvark-dns") or any(map(os.path.exists, AARDVARK)):
            servers.append(stack.enter_context(_aardvark(folder, 5303)))
        for load in LOADS:
            _compare(place, servers, load, folder)
        _under_updates(place, servers[0], folder)
        _latency(place, servers, folder)
    with new_host() as host, _ours(host.state_dir, 1000) as ours:
        show("Memory with 1000 names", [f"  resident: {ours.resident_mb():.1f} MB (wanted ≤ 30)"])


# -- servers ---------------------------------------------------------------------------------------


@contextmanager
def _ours(folder: Path, names: int) -> Iterator[Server]:
    from netlib.dns.client import Resolver
    from netlib.dns.facts import EndpointNames, NetworkNames, Update

    net = NetworkNames(id="n1", name="my-net", subnets=("198.51.0.0/16",), servers=("127.0.0.1",))
    endpoints = [
        EndpointNames(
            id=f"e{n}",
            network="n1",
            sandbox=f"name{n}",
            short_id=f"{n:012x}",
            aliases=(f"alias{n}",),
            addresses=found,
        )
        for n, found in enumerate(addresses(names))
    ]
    resolver = Resolver(folder, source="", resolv_conf="/nonexistent")
    resolver.listen_network("n1", [GATEWAY])
    resolver.update(Update(revision=1, full=True, networks=(net,), endpoints=tuple(endpoints)))
    stats = resolver.stats()
    assert stats is not None
    os.sched_setaffinity(stats["pid"], {0})
    yield Server("netlib", stats["pid"], 53)
    resolver.forget_network("n1")


@contextmanager
def _dnsmasq(folder: Path, port: int) -> Iterator[Server]:
    hosts = folder / "hosts"
    hosts.write_text(
        "".join(
            f"{address} name{n}\n" for n, both in enumerate(addresses(NAMES)) for address in both
        )
    )
    command = f"dnsmasq -k -p {port} -a {GATEWAY} -z -h -H {hosts} -R -S 127.0.0.1 -c 10000 -0 1000 -C /dev/null -u root --pid-file="  # noqa: E501 - as typed  # fmt: skip
    with _program("dnsmasq", command.split(), port, 0) as server:
        yield server


@contextmanager
def _upstream(folder: Path) -> Iterator[Server]:
    """Answers any name, for those that are forwarded; on dnsperf's core."""
    command = "dnsmasq -k -p 53 -a 127.0.0.1 -z -h -R -C /dev/null -u root --pid-file= --address=/example.com/203.0.113.7 --local-ttl=600"  # noqa: E501 - as typed  # fmt: skip
    with _program("upstream", command.split(), 53, 1) as server:
        yield server


@contextmanager
def _aardvark(folder: Path, port: int) -> Iterator[Server]:
    program = shutil.which("aardvark-dns") or next(filter(os.path.exists, AARDVARK))
    config = folder / "aardvark"
    config.mkdir()
    lines = "".join(
        f"{n:064x} {v4} {v6} name{n},alias{n}\n" for n, (v4, v6) in enumerate(addresses(NAMES))
    )
    (config / "my-net").write_text(f"{GATEWAY} 127.0.0.1\n{lines}")
    subprocess.run(
        [program, "--config", str(config), "-p", str(port), "run"],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=10,
    )  # fmt: skip
    pid_file = config / "aardvark.pid"
    deadline = time.monotonic() + 5
    while not (pid_file.exists() and pid_file.read_text()):
        assert time.monotonic() < deadline, "aardvark-dns did not start"
        time.sleep(0.01)
    pid = int(pid_file.read_text())
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {0})
    yield Server("aardvark-dns", pid, port)
    os.kill(pid, 15)


@contextmanager
def _program(name: str, command: list[str], port: int, core: int) -> Iterator[Server]:
    process = subprocess.Popen(["taskset", "-c", str(core), *command])
    time.sleep(0.3)
    yield Server(name, process.pid, port)
    process.terminate()
    process.wait(10)


# -- chapters --------------------------------------------------------------------------------------


def _dnsperf(place: object, server: Server, file: Path, *options: str) -> str:
    done = place.run(  # type: ignore[attr-defined]
        *("taskset", "-c", "1", "dnsperf", "-s", GATEWAY, "-p", str(server.port), "-d", str(file)),
        *("-c", "10", "-q", "100", "-t", "2", "-l", str(SECONDS), *options),
    )
    output: str = done.stdout
    return output


def _number(output: str, label: str) -> float:
    found = re.search(rf"{label}:\s+([\d.]+)", output)
    assert found is not None, output
    return float(found[1])


def _compare(place: object, servers: list[Server], load: Load, folder: Path) -> None:
    file = folder / "questions"
    cpu = {server.name: Series(f"{server.name}, CPU for a query", "µs") for server in servers}
    rate = {server.name: Series(f"{server.name}, queries a second", "/s") for server in servers}
    lost: dict[str, int] = {}
    for _ in range(ROUNDS):
        for server in servers:
            file.write_text("\n".join(load.questions()) + "\n")
            before = server.cpu_seconds()
            output = _dnsperf(place, server, file, *load.options)
            used = server.cpu_seconds() - before
            completed = _number(output, "Queries completed")
            lost[server.name] = lost.get(server.name, 0) + int(_number(output, "Queries lost"))
            if not completed:
                continue
            cpu[server.name].samples.append(used / completed * 1e6)
            rate[server.name].samples.append(_number(output, "Queries per second"))
    limits = {"dnsmasq": 1.0, "aardvark-dns": 0.85}
    ours = cpu["netlib"]
    others = [cpu[server.name] for server in servers[1:] if cpu[server.name].samples]
    ratios = [ratio(ours, other, limits[other.name.partition(",")[0]]) for other in others]
    lines = [ours, *others, *(series for series in rate.values() if series.samples), *ratios]
    lines += [f"  lost: {name} {count}" for name, count in lost.items() if count]  # type: ignore[list-item]
    show(f"Names: {load.name}", lines)


def _under_updates(place: object, server: Server, folder: Path) -> None:
    """A hundred changes a second while it is asked for all it can give: nothing may be lost."""
    from netlib.dns.client import Resolver
    from netlib.dns.facts import EndpointNames, Update

    resolver = Resolver(folder / "ours", source="", resolv_conf="/nonexistent")
    stop = threading.Event()
    took = Series("an update, until it is served", "ms")

    def change() -> None:
        revision = 1
        while not stop.wait(0.01):
            revision += 1
            moved = EndpointNames(
                id="moving", network="n1", sandbox="moving",
                addresses=(f"198.51.200.{revision % 250 + 1}",),
            )  # fmt: skip
            update = Update(revision=revision, since=revision - 1, endpoints=(moved,))
            took.time(lambda: resolver.update(update))  # noqa: B023 - called at once

    file = folder / "questions"
    file.write_text("\n".join(LOADS[0].questions()) + "\n")
    thread = threading.Thread(target=change)
    thread.start()
    cpu = Series("CPU for a query, with the changes", "µs")
    lost = 0.0
    for _ in range(ROUNDS):
        before = server.cpu_seconds()
        output = _dnsperf(place, server, file)
        completed = _number(output, "Queries completed")
        cpu.samples.append((server.cpu_seconds() - before) / completed * 1e6)
        lost += _number(output, "Queries lost")
    stop.set()
    thread.join()
    show("Names: A, under 100 changes a second", [cpu, took, f"  lost: {lost:.0f} (wanted 0)"])


def _latency(place: object, servers: list[Server], folder: Path) -> None:
    file = folder / "questions"
    file.write_text("\n".join(LOADS[0].questions()) + "\n")
    lines = []
    for server in servers:
        output = _dnsperf(place, server, file, "-Q", "1000", "-v")
        times = sorted(float(t) * 1000 for t in re.findall(r"> NOERROR \S+ A ([\d.]+)", output))
        p99 = times[len(times) * 99 // 100]
        lines.append(f"  {server.name:<14} median {median(times):.3f} ms, p99 {p99:.3f} ms")
    show("Names: 1000 queries a second (wanted: p99 ≤ 1 ms)", lines)
