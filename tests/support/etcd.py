"""Real etcd servers on loopback, for tests that break them."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from netlib.errors import NetError
from netlib.store.etcd import EtcdStore
from netlib.store.etcd_servers import Credentials
from support.host import Place
from support.patience import eventually

START_SECONDS = 20.0


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody listens on now."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@dataclass
class Member:
    """One etcd server: its process can be stopped, killed, frozen and started again."""

    folder: Path
    name: str = "default"
    address: str = "127.0.0.1"
    options: tuple[str, ...] = ()
    scheme: str = "http"
    port: int = 0
    peer_port: int = 0
    cluster: str = ""
    place: Place | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Choose the ports: they stay the same when it is started again."""
        if self.place is not None:
            self.port, self.peer_port = 2379, 2380
        self.port = self.port or free_port(self.address)
        self.peer_port = self.peer_port or free_port(self.address)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"{self.scheme}://{self._host}:{self.port}"

    @property
    def peer_url(self) -> str:
        """Where other members find it."""
        return f"http://{self._host}:{self.peer_port}"

    @property
    def _host(self) -> str:
        return f"[{self.address}]" if ":" in self.address else self.address

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.folder / f"{self.name}.etcd"

    def start(self) -> Member:
        """Start the process, and do not wait for it to answer."""
        log = (self.folder / f"{self.name}.log").open("ab")
        command = [
            "etcd",
            f"--name={self.name}",
            f"--data-dir={self.data}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={self.peer_url}",
            f"--initial-advertise-peer-urls={self.peer_url}",
            f"--initial-cluster={self.cluster or f'{self.name}={self.peer_url}'}",
            "--logger=zap",
            *self.options,
        ]

        def popen() -> subprocess.Popen[bytes]:
            # Versions before 3.5 run on arm64, but want to be told that we know.
            env = {**os.environ, "ETCD_UNSUPPORTED_ARCH": "arm64"}
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env
            )

        with log:
            self.process = self.place.call(popen) if self.place else popen()
        return self

    def send(self, number: int) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the process, gently or not, and wait for its end."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.process = None

    def kill(self) -> None:
        """End the process as a crash does."""
        self.stop(signal.SIGKILL)

    def ctl(self, *words: str, check: bool = True) -> str:
        """What etcdctl says."""
        done = subprocess.run(
            ["env", "ETCDCTL_API=3", "etcdctl", f"--endpoints={self.url}", *words],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout


def answers(*members: Member, credentials: Credentials | None = None) -> None:
    """Wait until each of the members serves."""
    for member in members:
        store = EtcdStore([member.url], credentials=credentials, timeout_seconds=5)

        def serves(store: EtcdStore = store) -> bool:
            with suppress(NetError):
                return store.revision() > 0
            return False

        try:
            eventually(serves, START_SECONDS, what=f"{member.name} answers")
        finally:
            store.close()


@contextmanager
def etcd(folder: Path, **settings: object) -> Iterator[Member]:
    """A server of its own, that answers."""
    member = Member(folder, **settings)  # type: ignore[arg-type]
    member.start()
    try:
        answers(member)
        yield member
    finally:
        member.stop(signal.SIGKILL)


@contextmanager
def three_members(
    folder: Path, places: Sequence[tuple[str, Place | None]] = (("127.0.0.1", None),) * 3
) -> Iterator[list[Member]]:
    """A cluster of three at addresses in places, each of which answers. It elects quickly."""
    members = [
        Member(
            folder,
            name=f"m{number}",
            address=address,
            place=place,
            options=("--heartbeat-interval=50", "--election-timeout=500"),
        )
        for number, (address, place) in enumerate(places)
    ]
    cluster = ",".join(f"{member.name}={member.peer_url}" for member in members)
    for member in members:
        member.cluster = cluster
        member.start()
    try:
        answers(*members)
        yield members
    finally:
        for member in members:
            member.stop(signal.SIGKILL)


@functools.cache
def shared() -> Member:
    """A server for all tests of this process that do not harm it, each with its own prefix."""
    # In memory: what it costs to be sure of a disk is not what is tested.
    folder = Path(tempfile.mkdtemp(prefix="etcd-", dir="/run"))
    member = Member(folder).start()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    atexit.register(member.stop, signal.SIGKILL)
    answers(member)
    return member
