"""`net` as a process of its own on a test's host."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.host import Host

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = (sys.executable, "-m", "netlib")


@dataclass(frozen=True)
class Program:
    """Runs `net` in the host, with the host's own state."""

    host: Host
    firewall: str = "auto"

    @property
    def environment(self) -> dict[str, str]:
        """What `net` is started with."""
        return {
            **os.environ,
            "NETLIB_STATE_DIR": str(self.host.state_dir),
            "NETLIB_FIREWALL": self.firewall,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }

    def __call__(
        self, line: str, *, status: int | None = 0, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run `net LINE` to its end; its exit status must be `status` (None: any)."""
        done = subprocess.run(
            [*PROGRAM, *shlex.split(line)],
            env=self.environment, capture_output=True, text=True, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert status in (None, done.returncode), (
            f"net {line} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
        return done

    def start(self, line: str, **options: Any) -> subprocess.Popen[str]:
        """Start `net LINE`; the caller ends it."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        return subprocess.Popen(
            [*PROGRAM, *shlex.split(line)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            **options,
        )

    def ask(self, line: str, *, status: int = 0) -> Any:
        """The document that `net --json LINE` prints."""
        return json.loads(self(f"--json {line}", status=status).stdout)

    def address(self, network: str, sandbox: str, family: int = 4) -> str:
        """A sandbox's address on a network."""
        for endpoint in self.ask(f"inspect {network}")["networks"][0]["endpoints"]:
            if endpoint["sandbox"] == sandbox:
                addresses = [a.partition("/")[0] for a in endpoint["addresses"]]
                return next(a for a in addresses if (":" in a) == (family == 6))
        raise AssertionError(f"{sandbox} is not on {network}")
