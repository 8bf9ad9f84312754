"""Names: dnsperf asks ours, dnsmasq and (where it is installed) aardvark-dns, in turn.

Servers are pinned to one core, dnsperf in a sandbox to another. What is compared is the CPU
time for each query, by the scheduler's own count: rates tell more about dnsperf.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.measure import Comparison, timed
from benchmarks.place import Place
from netlib.dns.client import Resolver
from netlib.dns.facts import EndpointNames, NetworkNames, Update

_GATEWAY, _CLIENT = "198.51.100.1", "198.51.100.2"
_NAMES = 200
_SECONDS = 1
_AARDVARK = ("/usr/libexec/podman/aardvark-dns", "/usr/lib/podman/aardvark-dns")
# A cached answer's cost beside theirs.
_AIMS = {"dnsmasq": 1.0, "aardvark-dns": 0.85}


@dataclass(frozen=True)
class _Server:
    name: str
    pid: int
    port: int

    def cpu_seconds(self) -> float:
        """What all its threads used so far."""
        return sum(int((t / "schedstat").read_text().split()[0]) for t in self._tasks()) / 1e9

    @contextmanager
    def first(self) -> Iterator[None]:
        """All its threads run before anything else."""
        for task in self._tasks():
            os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(10))
        yield
        for task in self._tasks():
            os.sched_setscheduler(int(task.name), os.SCHED_OTHER, os.sched_param(0))

    def pin(self, core: int) -> None:
        """Let all its threads run on one core."""
        for task in self._tasks():
            os.sched_setaffinity(int(task.name), {core})

    def _tasks(self) -> Iterator[Path]:
        return Path(f"/proc/{self.pid}/task").iterdir()

    def resident_mb(self) -> float:
        """The memory that it holds."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


@dataclass(frozen=True)
class _Load:
    name: str
    questions: Callable[[], list[str]]
    options: tuple[str, ...] = ()
    kept: bool = True


def _mixed_case(name: str) -> str:
    return "".join(c.upper() if i % 2 else c for i, c in enumerate(name))


_LOADS = (
    _Load("A", lambda: [f"name{n} A" for n in range(_NAMES)]),
    _Load("AAAA", lambda: [f"name{n} AAAA" for n in range(_NAMES)]),
    _Load("A, mixed case", lambda: [f"{_mixed_case(f'name{n}')} A" for n in range(_NAMES)]),
    _Load("A, EDNS", lambda: [f"name{n} A" for n in range(_NAMES)], ("-e",)),
    _Load("forwarded once, then kept", lambda: [f"x{n}.example.com A" for n in range(_NAMES)]),
    _Load(
        "forwarded each time",
        lambda: [f"x{time.monotonic_ns() + n}.example.com A" for n in range(100_000)],
        kept=False,
    ),
)


def names(bench: Bench) -> Iterator[Comparison]:
    """The CPU time for a query, latency, changes under load, memory."""
    host, sandbox = Place(), Place()
    folder = Path(bench.closing.enter_context(tempfile.TemporaryDirectory(dir="/run")))
    lines = [
        "link add bench0 type bridge",
        f"addr add {_GATEWAY}/16 dev bench0",
        "link set bench0 up",
        f"link add bench1 type veth peer name eth0 netns {sandbox.path}",
        "link set bench1 master bench0 up",
    ]
    host.run("ip", "-batch", "-", stdin="\n".join(lines))
    sandbox.run("ip", "addr", "add", f"{_CLIENT}/16", "dev", "eth0")
    sandbox.run("ip", "link", "set", "eth0", "up")
    servers = _servers(bench.closing, host, folder)
    for load in _LOADS:
        yield from _compared(bench, sandbox, servers, load, folder)
    yield from _under_changes(bench, sandbox, host, servers[0], folder)
    yield from _among_many(host, folder)
    yield from _latencies(bench, sandbox, servers, folder)
    yield from _memory(host, folder)


# -- servers ---------------------------------------------------------------------------------------


def _servers(closing: ExitStack, host: Place, folder: Path) -> list[_Server]:
    closing.enter_context(_upstream(host))
    servers = [closing.enter_context(_ours(host, folder / "ours", _NAMES))]
    if shutil.which("dnsmasq"):
        servers.append(closing.enter_context(_dnsmasq(host, folder)))
    aardvark = shutil.which("aardvark-dns") or next(filter(os.path.exists, _AARDVARK), None)
    if aardvark:
        servers.append(closing.enter_context(_aardvark(host, folder, aardvark)))
    return servers


def _addresses(count: int) -> list[tuple[str, str]]:
    """One of each family for each name; the first is the client's."""
    return [
        (f"198.51.{100 + n // 200}.{n % 200 + 2}", f"2001:db8::{n + 2:x}") for n in range(count)
    ]


def _everything(count: int) -> Update:
    endpoints = [
        EndpointNames(
            id=f"e{n}",
            network="n1",
            sandbox=f"name{n}",
            short_id=f"{n:012x}",
            aliases=(f"alias{n}",),
            addresses=both,
        )
        for n, both in enumerate(_addresses(count))
    ]
    net = NetworkNames(id="n1", name="my-net", subnets=("198.51.0.0/16",), servers=("127.0.0.1",))
    return Update(revision=1, full=True, networks=(net,), endpoints=tuple(endpoints))


def _resolver(folder: Path) -> Resolver:
    return Resolver(folder, source="", resolv_conf="/nonexistent")


@contextmanager
def _ours(host: Place, folder: Path, count: int, address: str = _GATEWAY) -> Iterator[_Server]:
    resolver = _resolver(folder)
    host.call(resolver.listen_network, "n1", [address])
    resolver.update(_everything(count))
    stats = resolver.stats()
    assert stats is not None
    server = _Server("netlib", stats["pid"], 53)
    server.pin(0)
    yield server
    resolver.forget_network("n1")


@contextmanager
def _dnsmasq(host: Place, folder: Path) -> Iterator[_Server]:
    hosts = folder / "hosts"
    lines = [f"{a} name{n}" for n, both in enumerate(_addresses(_NAMES)) for a in both]
    hosts.write_text("\n".join(lines) + "\n")
    options = f"-p 5302 -a {_GATEWAY} -H {hosts} -S 127.0.0.1 -c 10000 -0 1000"
    with _program(host, "dnsmasq", f"dnsmasq -k -z -h -R {options}", 5302, 0) as server:
        yield server


@contextmanager
def _upstream(host: Place) -> Iterator[_Server]:
    """Knows any name below example.com; on dnsperf's core."""
    options = "-p 53 -a 127.0.0.1 --address=/example.com/203.0.113.7 --local-ttl=600"
    with _program(host, "upstream", f"dnsmasq -k -z -h -R {options}", 53, 1) as server:
        yield server


@contextmanager
def _program(host: Place, name: str, command: str, port: int, core: int) -> Iterator[_Server]:
    words = f"taskset -c {core} {command} -C /dev/null -u root --pid-file=".split()
    process = host.call(subprocess.Popen, words)
    _wait(lambda: f":{port} " in host.run("ss", "-Hlnu"))
    yield _Server(name, process.pid, port)
    process.terminate()
    process.wait(10)


@contextmanager
def _aardvark(host: Place, folder: Path, program: str) -> Iterator[_Server]:
    config = folder / "aardvark"
    config.mkdir()
    lines = [
        f"{n:064x} {v4} {v6} name{n},alias{n}" for n, (v4, v6) in enumerate(_addresses(_NAMES))
    ]
    (config / "my-net").write_text("\n".join([f"{_GATEWAY} 127.0.0.1", *lines]) + "\n")
    words = [program, "--config", str(config), "-p", "5303", "run"]
    host.call(subprocess.run, words, check=True, capture_output=True, timeout=10)
    _wait((config / "aardvark.pid").exists)
    server = _Server("aardvark-dns", int((config / "aardvark.pid").read_text()), 5303)
    server.pin(0)
    yield server
    os.kill(server.pid, 15)


def _wait(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not ready():
        if time.monotonic() > deadline:
            raise RuntimeError("a name server does not start")
        time.sleep(0.01)


# -- questions -------------------------------------------------------------------------------------


def _dnsperf(sandbox: Place, server: _Server, file: Path, *options: str) -> str:
    words = f"taskset -c 1 dnsperf -s {_GATEWAY} -p {server.port} -c 10 -q 100 -l {_SECONDS}"
    return sandbox.run(*words.split(), "-d", str(file), *options)


def _number(output: str, label: str) -> float:
    return float(re.findall(rf"{label}:\s+([\d.]+)", output)[0])


def _compared(
    bench: Bench, sandbox: Place, servers: list[_Server], load: _Load, folder: Path
) -> Iterator[Comparison]:
    file = folder / "questions"
    micros: dict[str, list[float]] = {server.name: [] for server in servers}
    for _ in range(bench.runs):
        for server in servers:
            file.write_text("\n".join(load.questions()) + "\n")
            before = server.cpu_seconds()
            completed = _number(_dnsperf(sandbox, server, file, *load.options), "Queries completed")
            if completed:
                used = server.cpu_seconds() - before
                micros[server.name].append(used / completed * 1e6)
    for other in servers[1:]:
        yield Comparison(
            name=f"a query: {load.name}",
            ours=micros["netlib"],
            other=other.name,
            others=micros[other.name],
            unit="µs",
            aim=_AIMS[other.name] if load.kept else None,
        )


def _under_changes(
    bench: Bench, sandbox: Place, host: Place, server: _Server, folder: Path
) -> Iterator[Comparison]:
    """A hundred changes a second while dnsperf asks as fast as it can."""
    resolver = _resolver(folder / "ours")
    stop = threading.Event()
    took: list[float] = []

    def change() -> None:
        revision = 1
        while not stop.wait(0.01):
            revision += 1
            moved = EndpointNames(
                id="moving",
                network="n1",
                sandbox="moving",
                addresses=(f"198.51.200.{revision % 250 + 1}",),
            )
            update = Update(revision=revision, since=revision - 1, endpoints=(moved,))
            took.append(timed(resolver.update, update))

    file = folder / "questions"
    file.write_text("\n".join(_LOADS[0].questions()) + "\n")
    micros, lost = [], 0.0
    thread = threading.Thread(target=change)
    thread.start()
    for _ in range(bench.runs):
        before = server.cpu_seconds()
        output = _dnsperf(sandbox, server, file)
        used = server.cpu_seconds() - before
        micros.append(used / _number(output, "Queries completed") * 1e6)
        lost += _number(output, "Queries lost")
    stop.set()
    thread.join()
    yield Comparison(name="a query: A, under 100 changes a second", ours=micros, unit="µs")
    yield Comparison(name="a change, until it is served", ours=took)
    yield Comparison(name="queries lost meanwhile", ours=[lost], unit="", limit=0)


def _among_many(host: Place, folder: Path) -> Iterator[Comparison]:
    """One endpoint comes and goes while nobody asks, among ever more."""
    took: dict[int, list[float]] = {}
    for number, count in enumerate((10, 5000)):
        state = folder / f"among-{count}"
        with _ours(host, state, count, f"198.51.99.{number + 1}"):
            resolver = _resolver(state)
            moving = EndpointNames(
                id="moving", network="n1", sandbox="moving", addresses=("198.51.99.200",)
            )
            took[count] = []
            for revision in range(2, 202, 2):
                comes = Update(revision=revision, since=revision - 1, endpoints=(moving,))
                goes = Update(revision=revision + 1, since=revision, gone=(moving.id,))
                took[count] += [timed(resolver.update, comes), timed(resolver.update, goes)]
    yield Comparison(
        name="a change among 5000 names, until it is served",
        ours=took[5000],
        other="among 10",
        others=took[10],
        aim=1.2,
    )


def _latencies(
    bench: Bench, sandbox: Place, servers: list[_Server], folder: Path
) -> Iterator[Comparison]:
    """How long the slowest hundredth of a steady 1000 queries a second waits.

    Once by dnsperf, among whatever else runs on the machine; and once by a client that, with the
    servers, runs before it (sched(7)): a kernel that does not preempt lets others finish their
    4 ms first, which says nothing of a server.
    """
    file = folder / "questions"
    file.write_text("\n".join(_LOADS[0].questions()) + "\n")

    def by_dnsperf(server: _Server) -> float:
        output = _dnsperf(sandbox, server, file, "-Q", "1000", "-v")
        found = re.findall(r"> NOERROR \S+ A ([\d.]+)", output)
        return sorted(map(float, found))[len(found) * 99 // 100] * 1000

    def by_first(server: _Server) -> float:
        with server.first():
            client = sandbox.python(_FIRST, _GATEWAY, str(server.port), str(_NAMES))
            return float(client.communicate(timeout=60)[0])

    for name, measure, limit in (
        ("99th percentile at 1000 queries a second", by_dnsperf, None),
        ("likewise, before all else that runs", by_first, 1),
    ):
        if measure is by_first and not _may_go_first():
            continue
        slowest: dict[str, list[float]] = {server.name: [] for server in servers}
        for _ in range(bench.runs):
            for server in servers:
                slowest[server.name].append(measure(server))
        yield Comparison(name=name, ours=slowest["netlib"], limit=limit)
        for other in servers[1:]:
            yield Comparison(
                name=name, ours=slowest["netlib"], other=other.name, others=slowest[other.name]
            )


def _may_go_first() -> bool:
    """Whether we may run before all else: root may, an ordinary user may not."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


_FIRST = """
import os, socket, sys, time
gateway, port, names = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
os.sched_setaffinity(0, {1})
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(5)
sock.connect((gateway, port))
times = []
due = time.perf_counter()
for n in range(1000):
    label = b"name%d" % (n % names)
    query = n.to_bytes(2) + b"\\1\\0\\0\\1" + bytes(6)
    query += bytes([len(label)]) + label + b"\\0\\0\\1\\0\\1"
    due += 0.001
    time.sleep(max(0, due - time.perf_counter()))
    began = time.perf_counter()
    sock.send(query)
    while sock.recv(512)[:2] != query[:2]:
        pass
    times.append(time.perf_counter() - began)
print(sorted(times)[990] * 1000)
"""


def _memory(host: Place, folder: Path) -> Iterator[Comparison]:
    with _ours(host, folder / "large", 1000, "198.51.101.1") as server:
        resident = server.resident_mb()
    yield Comparison(name="memory with 1000 names", ours=[resident], unit="MB", limit=30)
