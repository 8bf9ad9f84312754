"""Several hosts for one test: network namespaces on one Ethernet, each with its own state."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netlib.frontends.daemon.starting import running
from support.host import Host, Place
from support.patience import eventually
from support.shell import Shell

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "netlib")


@dataclass(frozen=True)
class Machine:
    """One of them, at `address`."""

    place: Place
    address: str
    state_dir: Path

    @property
    def name(self) -> str:
        """Its name, also in a cluster."""
        return self.place.name

    def net(
        self, line: str, *, status: int | None = 0, path: str = "", stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run `net LINE` here; the exit status must be `status` (None: any)."""
        command = f"--state-dir {self.state_dir} --firewall none {line}"
        if path or stdin:
            done = self._run(command, path, stdin)
        else:  # likewise, but in this process: that takes a tenth of the time
            said = self.place.call(lambda: Shell()(command, status=None))
            done = subprocess.CompletedProcess(line, said.status, said.out, said.err)
        assert status in (None, done.returncode), (
            f"{self.name}: net {line} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def start(self, line: str) -> subprocess.Popen[str]:
        """Start `net LINE` as a process of its own, and go on."""
        return self.place.popen(
            *PROGRAM, *shlex.split(line), env=self._environment(""), cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def _run(self, line: str, path: str, stdin: str) -> subprocess.CompletedProcess[str]:
        return self.place.call(
            lambda: subprocess.run(
                [*PROGRAM, *shlex.split(line)],
                env=self._environment(path), capture_output=True, text=True, timeout=60,
                check=False, input=stdin, cwd=ROOT,
            )
        )  # fmt: skip

    def ask(self, line: str, *, status: int = 0) -> Any:
        """The document that `net --json LINE` prints."""
        return json.loads(self.net(f"--json {line}", status=status).stdout)

    def refusal(self, line: str, *, status: int, path: str = "") -> Any:
        """The error that `net LINE` ends with."""
        done = self.net(f"--json {line}", status=status, path=path)
        return json.loads(done.stdout)["error"]

    def token(self, options: str = "") -> str:
        """A new token to join by."""
        return self.net(f"cluster join-token -q {options}").stdout.strip()

    @property
    def daemon(self) -> int:
        """The process id of its daemon, 0 where none answers."""
        return running(self.state_dir)

    def start_daemon(self) -> None:
        """Start a daemon and wait until it answers."""
        self.place.popen(
            *PROGRAM, "daemon", env=self._environment(""), cwd=ROOT, stdin=subprocess.DEVNULL
        )
        eventually(lambda: self.daemon, 20, what=f"a daemon of {self.name}")

    def kill_daemon(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End its daemon by a signal."""
        end_process(self.daemon, number)

    def _environment(self, path: str) -> dict[str, str]:
        return {
            **os.environ,
            "NETLIB_STATE_DIR": str(self.state_dir),
            "NETLIB_FIREWALL": "none",
            "PYTHONPATH": str(ROOT),
            **({"PATH": path} if path else {}),
        }


def end_process(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """End one that need not be our child, and wait until it has."""
    assert pid
    os.kill(pid, number)
    eventually(lambda: not _lives(pid), 20, what=f"the end of process {pid}")


def _lives(pid: int) -> bool:
    """Whether it runs still: one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # before it is opened, or read
        return False


def machines(host: Host, folder: Path, count: int) -> list[Machine]:
    """`count` machines host-1 … at 198.51.100.1 …, on a bridge of the test's host."""
    host.run("ip", "-batch", "-", stdin="link add lan type bridge\nlink set lan up\n")
    made = []
    for number in range(1, count + 1):
        place = host.empty(f"host-{number}")
        address = f"198.51.100.{number}"
        host.run("ip", "-batch", "-", stdin=(
            f"link add port{number} index {100 + number} type veth peer name eth0 "
            f"netns {place.netns.path}\nlink set port{number} master lan up\n"
        ))  # fmt: skip
        place.run("ip", "-batch", "-", stdin=(
            f"addr add {address}/24 dev eth0\n"
            f"addr add 2001:db8:100::{number}/64 dev eth0 nodad\nlink set eth0 up\n"
        ))  # fmt: skip
        made.append(Machine(place, address, folder / place.name))
    return made
