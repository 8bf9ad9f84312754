"""CNI calls as a runtime makes them: ours and the reference plugins in alternation.

Ours: the installed plugin, with a daemon and without. Theirs: Debian's
containernetworking-plugins, each list with the same things asked for.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measure import Comparison, table
from netlib import Net, throwaway
from netlib.frontends.cni.installing import install
from netlib.frontends.daemon.messages import SOCKET, connect

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # hosts and places are those of the tests

from support.host import Host, new_host  # noqa: E402
from support.patience import eventually  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "25"))
AT_ONCE = 40
PRESENT = int(os.environ.get("PRESENT", "1000"))
PER_NETWORK = 250
FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_TICKS = os.sysconf("SC_CLK_TCK")


def show(title: str, rows: Iterable[Comparison]) -> None:
    """Print a chapter."""
    print(f"\n{title}\n{table(rows)}", flush=True)


@dataclass
class List:
    """A conflist's plugins in one folder, run one after the other as libcni does."""

    name: str
    folder: Path
    plugins: list[dict[str, Any]]
    state: Path
    daemon: int = 0
    adds: list[float] = field(default_factory=list)
    dels: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)  # of both

    def forget(self) -> None:
        """Throw the samples away."""
        self.adds, self.dels, self.processor = [], [], []

    def add(self, sandbox: str, port: int = 0) -> dict[str, Any]:
        """ADD of all; the last one's result."""
        result: dict[str, Any] | None = None
        for plugin in self.plugins:
            result = json.loads(self._run("ADD", plugin, sandbox, port, result))
        assert result is not None
        return result

    def delete(self, sandbox: str, result: Mapping[str, Any], port: int = 0) -> None:
        """DEL of all, in reverse."""
        for plugin in reversed(self.plugins):
            self._run("DEL", plugin, sandbox, port, result)

    def sample(self, sandbox: str, port: int = 0) -> None:
        """One ADD and one DEL, with the processor time of both."""
        before = self._seconds()
        start = time.perf_counter()
        result = self.add(sandbox, port)
        added = time.perf_counter()
        self.adds.append((added - start) * 1000)
        self.delete(sandbox, result, port)
        self.dels.append((time.perf_counter() - added) * 1000)
        self.processor.append((self._seconds() - before) * 1000)

    def _seconds(self) -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        total = used.ru_utime + used.ru_stime
        if self.daemon:
            fields = Path(f"/proc/{self.daemon}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / _TICKS
        return total

    def _run(
        self,
        command: str,
        plugin: Mapping[str, Any],
        sandbox: str,
        port: int,
        result: Mapping[str, Any] | None,
    ) -> bytes:
        config: dict[str, Any] = {"cniVersion": "1.0.0", "name": "bench", **plugin}
        if result is not None:
            config["prevResult"] = result
        if port:
            config["runtimeConfig"] = {"portMappings": [
                {"hostPort": port, "containerPort": 80, "protocol": "tcp"}]}  # fmt: skip
        environment = {
            "PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_CONTAINERID": sandbox,
            "CNI_NETNS": f"/run/netns/{sandbox}", "CNI_IFNAME": "eth0",
            "CNI_PATH": str(self.folder), "NETLIB_STATE_DIR": str(self.state),
        }  # fmt: skip
        program = str(self.folder / plugin["type"])
        said, status = _spawned(program, json.dumps(config).encode(), environment)
        if status:
            raise RuntimeError(f"{self.name} {command}: {said!r}")
        return said


def _spawned(program: str, stdin: bytes, environment: dict[str, str]) -> tuple[bytes, int]:
    """What a program prints, and its status. `subprocess` would cost more than our plugin."""
    files = [os.memfd_create(name) for name in ("stdin", "stdout")]
    try:
        os.pwrite(files[0], stdin, 0)
        actions = [(os.POSIX_SPAWN_DUP2, files[0], 0), (os.POSIX_SPAWN_DUP2, files[1], 1)]
        pid = os.posix_spawn(program, [program], environment, file_actions=actions)
        _, status = os.waitpid(pid, 0)
        return os.pread(files[1], 1 << 20, 0), status
    finally:
        for descriptor in files:
            os.close(descriptor)


def run() -> None:
    """All chapters."""
    theirs = next((f for f in FOLDERS if (f / "bridge").exists()), None)
    if theirs is None:
        print("containernetworking-plugins is not installed: nothing to compare with")
        return
    with new_host() as host:
        host.outsider()
        _compare(host, theirs)


def _lists(host: Host, theirs: Path) -> dict[str, List]:
    ours = host.state_dir / "bin"
    install(ours, host.state_dir)
    ipam = {"type": "host-local", "dataDir": str(host.state_dir / "reference"),
            "subnet": "198.18.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}  # fmt: skip
    bridge = {"type": "bridge", "bridge": "reference0", "isGateway": True, "ipam": ipam}
    mine = {"type": "netlib", "subnet": "198.19.0.0/16"}
    return {
        "plain": List("netlib", ours, [{**mine, "ipMasq": False}], host.state_dir),
        "bridge": List("bridge + host-local", theirs, [bridge], host.state_dir),
        "full": List("netlib, masquerade and port", ours, [mine], host.state_dir),
        "chain": List(
            "bridge + portmap + firewall",
            theirs,
            [{**bridge, "ipMasq": True, "ipMasqBackend": "iptables"},
             {"type": "portmap", "backend": "iptables", "capabilities": {"portMappings": True}},
             {"type": "firewall", "backend": "iptables"}],
            host.state_dir,
        ),
    }  # fmt: skip


def _compare(host: Host, theirs: Path) -> None:
    lists = _lists(host, theirs)
    if os.environ.get("ONLY") == "at-once":
        with _daemon(host) as lists["full"].daemon:
            host.sandbox("warm")
            lists["full"].sample("warm")
            _at_once(host, "m", lists["full"], lists["bridge"])
        _least(host, lists["plain"], lists["bridge"])
        return
    once = List("netlib without a daemon, the same", lists["full"].folder,
                lists["full"].plugins, host.state_dir)  # fmt: skip
    host.sandbox("warm")
    _sample(host, "o", [once, lists["chain"]], max(5, ROUNDS // 3), port=20000)
    show("CNI without a daemon", _both(once, lists["chain"], add=1.5))
    with _daemon(host) as pid:
        for one in lists.values():
            one.daemon = pid if one.folder == once.folder else 0
            one.forget()
        lists["plain"].sample("warm")
        lists["plain"].forget()
        _sample(host, "p", [lists["plain"], lists["bridge"]], ROUNDS)
        show("CNI with a daemon", _both(lists["plain"], lists["bridge"], add=0.3, delete=0.8))
        Net(host.state_dir).update("bench", options={"masquerade": "true"})
        _sample(host, "f", [lists["full"], lists["chain"]], ROUNDS, port=21000)
        show("The same things asked for", _both(lists["full"], lists["chain"], add=0.1, delete=0.3))
        _at_once(host, "m", lists["full"], lists["bridge"])
        _with_many(host, lists["full"], pid)
    _least(host, lists["plain"], lists["bridge"])


def _both(
    ours: List, theirs: List, *, add: float | None = None, delete: float | None = None
) -> list[Comparison]:
    """A row for each of what two lists were measured by; the ratios of two are to be so low."""
    rows = [
        (f"{ours.name}: ADD", ours.adds, theirs.adds, add),
        ("DEL", ours.dels, theirs.dels, delete),
        ("processor time of both", ours.processor, theirs.processor, None),
    ]
    return [
        Comparison(name=name, ours=mine, other=theirs.name, others=its, aim=aim)
        for name, mine, its, aim in rows
    ]


def _sample(host: Host, letter: str, lists: list[List], rounds: int, port: int = 0) -> None:
    for number in range(rounds):
        for which, one in enumerate(lists):
            name = f"{letter}{which}-{number}"
            host.sandbox(name)
            one.sample(name, port + 2 * number + which if port else 0)


def _at_once(host: Host, letter: str, ours: List, theirs: List) -> None:
    """All ADDs, then all DELs, each as a process of its own."""
    rates = defaultdict[tuple[str, str], list[float]](list)
    for number in range(5):
        for one in (ours, theirs):
            names = [f"{letter}{number}-{one is ours}-{n}" for n in range(AT_ONCE)]
            for name in names:
                host.sandbox(name)
            results: dict[str, Any] = {}
            works: dict[str, Callable[[str], object]] = {
                "ADD": lambda n, o=one, r=results: r.update({n: o.add(n)}),  # type: ignore[misc]
                "DEL": lambda n, o=one, r=results: o.delete(n, r[n]),  # type: ignore[misc]
            }
            for command, work in works.items():
                rates[command, one.name].append(_rate(work, names))
    show(
        f"{AT_ONCE} at once",
        [
            Comparison(
                name=f"{ours.name}: {command}s",
                ours=rates[command, ours.name],
                other=theirs.name,
                others=rates[command, theirs.name],
                unit="/s",
                aim=aim,
                better="more",
            )
            for command, aim in (("ADD", 5), ("DEL", 2.5))
        ],
    )


def _least(host: Host, ours: List, theirs: List) -> None:
    """The same plugin with a daemon that only does the kernel's work: what ours can't undercut."""
    folder = host.state_dir / "least"
    folder.mkdir()
    for words in (["add", "least0", "type", "bridge"], ["set", "least0", "up"]):
        host.run("ip", "link", *words)
    host.run("ip", "address", "add", "198.20.0.1/16", "dev", "least0")
    program = [sys.executable, "-m", "benchmarks.least_daemon"]
    daemon = host.popen(*program, str(folder), "least0", "198.20.0.1/16", cwd=ROOT)
    try:
        eventually((folder / SOCKET).exists, 20)
        least = List("the least daemon", ours.folder, ours.plugins, folder, daemon.pid)
        host.sandbox("least")
        least.sample("least")
        for one in (least, theirs):
            one.forget()
        _sample(host, "l", [least, theirs], ROUNDS)
        show("What no daemon in Python could undercut", _both(least, theirs))
        _at_once(host, "n", least, theirs)
    finally:
        daemon.kill()
        daemon.wait(30)


def _rate(work: Callable[[str], object], names: list[str]) -> float:
    from concurrent.futures import ThreadPoolExecutor

    start = time.perf_counter()
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(work, names))
    return len(names) / (time.perf_counter() - start)


def _with_many(host: Host, ours: List, pid: int) -> None:
    first = ours.adds
    ours.forget()
    with Net(host.state_dir) as net:
        for number in range(PRESENT):
            network = f"full-{number // PER_NETWORK}"
            if number % PER_NETWORK == 0:
                net.create(network)
            host.sandbox(f"present-{number}")
            net.connect(network, f"netns:present-{number}", publish=[f"{30000 + number}:80"])
    _sample(host, "w", [ours], ROUNDS, port=25000)
    memory = Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]
    show(
        f"With {PRESENT} endpoints and ports",
        [
            Comparison(name="ADD", ours=ours.adds, other="the first ADDs", others=first, aim=1.2),
            Comparison(name="DEL", ours=ours.dels),
            Comparison(name="the daemon's memory", ours=[int(memory) / 1024], unit="MB"),
        ],
    )


@contextmanager
def _daemon(host: Host) -> Any:
    program = [sys.executable, "-m", "netlib", "--state-dir", str(host.state_dir), "daemon"]
    options = ["--trace-timing"] if os.environ.get("TRACE") else []
    log = open(os.environ.get("TRACE") or os.devnull, "w")  # noqa: SIM115 - closed with the daemon
    daemon = host.popen(*program, *options, stdout=log, stderr=log)
    eventually(lambda: connect(host.state_dir) is not None, 20)
    try:
        yield daemon.pid
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
        log.close()


if __name__ == "__main__":
    throwaway.enter(keep=[ROOT, Path(sys.prefix)])
    run()
