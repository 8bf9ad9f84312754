"""The etcd that a manager runs for its cluster: configured, started, found again, stopped.

It is no daemon's child that ends with it: a daemon that comes back, after an update or a
`kill -9`, finds it by a lock that goes with the process (flock(2)). The server's own pid stands in
that file, written by the process itself before it becomes etcd.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from netlib.cluster import files as names
from netlib.errors import EtcdMissing, StoreError
from netlib.logs import appended
from netlib.model import IPAddress, bracketed

CLIENT_PORT, PEER_PORT = 2379, 2380
CONFIG, DATA, LOCK, LOG = "etcd.json", "etcd", "etcd.lock", "etcd.log"
_LOG_BYTES = 4 << 20
_STOP_SECONDS = 10.0
_EXEC_SECONDS = 1.0
# A commit of ours may speak of a dead node's thousand endpoints at once; etcd's default is 128.
_MOST_OPERATIONS = 8192
_MOST_REQUEST_BYTES = 8 << 20
_QUOTA_BYTES = 4 << 30
# Notes the pid that etcd will have in the lock's file, and becomes etcd. Parent and child both
# write it: whichever comes first, it is there before anybody is told that etcd was started.
_LAUNCHER = """\
import os, sys
lock = int(sys.argv[1])
child = os.fork()
os.pwrite(lock, str(child or os.getpid()).encode(), 0)
if child:
    os._exit(0)
os.execv(sys.argv[2], sys.argv[2:])
"""
# Debian's families call the package so; elsewhere it bears the program's name.
_INSTALL = {
    "debian": "apt-get install etcd-server",
    "fedora": "dnf install etcd",
    "rhel": "dnf install etcd",
    "suse": "zypper install etcd",
    "arch": "pacman -S etcd",
    "alpine": "apk add etcd",
}


def program() -> str:
    """The path of etcd. Raises EtcdMissing."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which("etcd", path=path)
    if found is None:
        raise EtcdMissing(
            "etcd is not installed, which keeps a cluster's state",
            f"run: {_install()}; or name one that runs: net cluster init --etcd URL",
        )
    return found


def _install() -> str:
    known: Mapping[str, str] = {}
    with contextlib.suppress(OSError):
        known = platform.freedesktop_os_release()
    families = [known.get("ID", ""), *known.get("ID_LIKE", "").split()]
    return next((_INSTALL[name] for name in families if name in _INSTALL), _INSTALL["debian"])


def client_url(address: IPAddress) -> str:
    """Where a manager's etcd takes clients."""
    return f"https://{bracketed(address)}:{CLIENT_PORT}"


def peer_url(address: IPAddress) -> str:
    """Where it meets the other managers' servers."""
    return f"https://{bracketed(address)}:{PEER_PORT}"


class Server:
    """The etcd of the state whose folder for the cluster is `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def flags(
        self, *, node: str, address: IPAddress, cluster: str, members: Mapping[str, str] | None
    ) -> dict[str, Any]:
        """How it runs. `members`: the peer URLs of those it joins, by name.

        Flags, since a configuration file can't name lists of revoked certificates (etcd 3.4, 3.5).
        """

        def path(name: str) -> str:
            return str(self._folder / name)

        everybody = {**(members or {}), node: peer_url(address)}
        flags: dict[str, Any] = {
            "name": node,
            "data-dir": path(DATA),
            # Not on every address: another etcd may well serve this host's own ones.
            "listen-client-urls": client_url(address),
            "advertise-client-urls": client_url(address),
            "listen-peer-urls": peer_url(address),
            "initial-advertise-peer-urls": peer_url(address),
            "initial-cluster": ",".join(f"{name}={url}" for name, url in everybody.items()),
            "initial-cluster-state": "existing" if members else "new",
            "initial-cluster-token": cluster,
            "strict-reconfig-check": True,
            "max-txn-ops": _MOST_OPERATIONS,
            "max-request-bytes": _MOST_REQUEST_BYTES,
            "quota-backend-bytes": _QUOTA_BYTES,
            # Who was away for longer reads everything again.
            "auto-compaction-mode": "periodic",
            "auto-compaction-retention": "1h",
            "logger": "zap",
            "log-level": "warn",
            "log-outputs": "stderr",
        }
        for side in ("", "peer-"):
            flags |= {
                f"{side}cert-file": path(names.CERTIFICATE),
                f"{side}key-file": path(names.KEY),
                f"{side}trusted-ca-file": path(names.CA),
                f"{side}client-cert-auth": True,
                f"{side or 'client-'}crl-file": path(names.REVOKED),
            }
        return flags

    def configure(self, flags: Mapping[str, Any]) -> None:
        """Write down how it runs from now on."""
        part = self._folder / f".{CONFIG}.new"
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(flags, file, indent=1)
        part.rename(self._folder / CONFIG)

    def client_url(self) -> str:
        """Where it takes clients."""
        return str(self._flags()["advertise-client-urls"])

    def alone(self, *, forced: bool) -> None:
        """Whether it begins its next run by expecting no other servers any more."""
        self.configure({**self._flags(), "force-new-cluster": forced})

    def _flags(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self._folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{self._folder / CONFIG} can't be read: {error}") from error
        return found

    def command(self, flags: Mapping[str, Any] | None = None) -> list[str]:
        """What runs it: by what is written down, or by these flags."""
        chosen = self._flags() if flags is None else flags
        return [program(), *(f"--{name}={_word(value)}" for name, value in chosen.items())]

    def start(self) -> bool:
        """Start it; False where it runs already. Raises EtcdMissing, StoreError."""
        command = self.command()
        with self._lock() as lock:
            while not _taken(lock, fcntl.LOCK_EX):
                if self.pid():
                    return False
                time.sleep(0.01)  # somebody only looks
            os.ftruncate(lock, 0)
            with appended(self._folder / LOG, _LOG_BYTES) as log:
                # The child of a child: whoever starts it has nothing to wait for.
                done = subprocess.run(
                    [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(lock), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),
                    cwd="/",
                    start_new_session=True,
                    env=_environment(),
                    check=False,
                )
            if done.returncode:
                raise StoreError(f"etcd can't be started: {command[0]}: {self.last_words()}")
        return True

    def pid(self) -> int:
        """Its process id; 0 where it does not run."""
        try:
            with self._lock() as lock:
                if not _taken(lock, fcntl.LOCK_SH):
                    return int(os.pread(lock, 20, 0) or b"0")
        except FileNotFoundError:
            pass  # there is not even a folder
        return 0

    def wait(self, seconds: float) -> bool:
        """Wait for it to end; whether it does not run."""
        descriptor = self._open_process()
        if descriptor < 0:
            return True
        try:
            return _ended(descriptor, seconds)
        finally:
            os.close(descriptor)

    def stop(self) -> None:
        """End it and wait until it has ended."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            descriptor = self._open_process()
            if descriptor < 0:
                return
            try:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, number)
                if _ended(descriptor, _STOP_SECONDS):
                    return
            finally:
                os.close(descriptor)

    def last_words(self) -> str:
        """The end of its log, for messages."""
        try:
            lines = (self._folder / LOG).read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        for line in reversed(lines[-20:]):
            with contextlib.suppress(ValueError, AttributeError):
                entry = json.loads(line)
                if entry.get("level") in ("error", "fatal", "panic"):
                    return f"{entry.get('msg', '')}: {entry.get('error', '')}".strip(": ")
        return lines[-1] if lines else ""

    def _open_process(self) -> int:
        """A descriptor of the process (pidfd_open(2)), -1 where none runs."""
        pid = self.pid()
        if not pid:
            return -1
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return -1
        # Else it ended, and the pid is another's.
        if os.fsencode(f"--data-dir={self._folder / DATA}") in _words(pid, descriptor):
            return descriptor
        os.close(descriptor)
        return -1

    @contextlib.contextmanager
    def _lock(self) -> Iterator[int]:
        descriptor = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _words(pid: int, process: int) -> list[bytes]:
    """The command line of a process, nothing if it ended."""
    path, deadline = Path(f"/proc/{pid}/cmdline"), time.monotonic() + _EXEC_SECONDS
    while True:
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            return []
        # In the midst of execve(2) it has none: then it is there, and soon known.
        if any(words) or _ended(process, 0.01) or time.monotonic() > deadline:
            return words


def _ended(process: int, seconds: float) -> bool:
    """Whether a process ends meanwhile. By poll: select takes no more than 1024 descriptors."""
    poller = select.poll()
    poller.register(process, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _word(value: Any) -> str:
    """A flag's value."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _taken(lock: int, how: int) -> bool:
    """Whether we have the lock now."""
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _environment() -> dict[str, str]:
    """Nothing of the caller's: settings of another etcd (ETCD_…) would count here."""
    found = {"PATH": os.environ.get("PATH", os.defpath)}
    # Versions before 3.5 run there, but want to be told that we know.
    if platform.machine() == "aarch64":
        found["ETCD_UNSUPPORTED_ARCH"] = "arm64"
    return found


def until(ready: Callable[[], bool], server: Server, seconds: float) -> None:
    """Wait until a server that was started serves. Raises StoreError with what it said."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not server.pid():
            raise StoreError(f"etcd ended: {server.last_words()}", "put that right, and try again")
        if time.monotonic() > deadline:
            raise StoreError(
                f"etcd does not serve within {seconds:.0f} s: {server.last_words()}",
                "can this host reach itself at that address, and the other managers?",
            )
        time.sleep(0.05)
