"""An etcd for measurements, in a throw-away host, and what it costs itself."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from netlib.cluster.keys import UNTOLD
from netlib.errors import StoreError
from netlib.store.etcd import EtcdStore
from netlib.store.etcd_servers import Credentials, Servers

_URL, _PEERS = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
_TICKS = os.sysconf("SC_CLK_TCK")


class OwnEtcd:
    """One server, its data below `folder`; ended with the block."""

    url = _URL

    def __init__(self, folder: str) -> None:
        self._folder = tempfile.TemporaryDirectory(dir=folder, prefix="etcd-")
        self._process = subprocess.Popen(
            [
                "etcd",
                f"--data-dir={self._folder.name}/data",
                f"--listen-client-urls={_URL}",
                f"--advertise-client-urls={_URL}",
                f"--listen-peer-urls={_PEERS}",
                f"--initial-advertise-peer-urls={_PEERS}",
                f"--initial-cluster=default={_PEERS}",
                "--logger=zap",
                "--log-outputs=/dev/null",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._servers = Servers([_URL], Credentials(), 10)

    def __enter__(self) -> OwnEtcd:
        with self.store() as store:
            deadline = time.monotonic() + 20
            while True:
                try:
                    store.revision()
                except StoreError:
                    if time.monotonic() > deadline:
                        raise
                else:
                    return self

    def __exit__(self, *exception: object) -> None:
        self._servers.close()
        self._process.kill()
        self._process.wait(10)
        self._folder.cleanup()

    def store(self, prefix: str = "/netlib/") -> OpenStore:
        """A handle, closed with its block."""
        return OpenStore(prefix)

    def cpu_ms(self) -> float:
        """How much processor time it has used, user's and system's (proc(5))."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / _TICKS

    def memory_kib(self) -> int:
        """How much memory it has now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def disk_bytes(self) -> int:
        """What its database has in use."""
        status: dict[str, Any] = self._servers.ask("/v3/maintenance/status", {})
        return int(status["dbSizeInUse"])

    def compact(self, revision: int) -> None:
        """Forget all older versions, now."""
        question = {"revision": str(revision), "physical": True}
        self._servers.ask("/v3/kv/compaction", question)


class OpenStore:
    """A store that is closed with its block."""

    def __init__(self, prefix: str) -> None:
        self._store = EtcdStore([_URL], prefix=prefix, untold=UNTOLD, timeout_seconds=20)

    def __enter__(self) -> EtcdStore:
        return self._store

    def __exit__(self, *exception: object) -> None:
        self._store.close()
