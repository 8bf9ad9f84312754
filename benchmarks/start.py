"""What a person waits for: commands as processes, and the library's import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.host import new_host

from benchmarks.measure import Series, show
from netlib import Net

ROUNDS = 15


def run() -> None:
    """`net ls` with ten networks, beside a bare interpreter."""
    with new_host() as host:
        host.outsider()
        with Net(host.state_dir) as net:
            for number in range(10):
                net.create(f"network-{number}")
        program = str(Path(sys.executable).with_name("net"))
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "python -c 'import netlib'": [sys.executable, "-c", "import netlib"],
            "net ls": [program, "--state-dir", str(host.state_dir), "ls"],
            "net --help": [program, "--help"],
        }
        series = {name: Series(name) for name in commands}
        for _ in range(ROUNDS):
            for name, argv in commands.items():
                series[name].time(
                    lambda argv=argv: subprocess.run(argv, capture_output=True, check=True)  # type: ignore[misc]
                )
        listing = series["net ls"].median
        verdict = "met" if listing <= 150 else "MISSED"
        show("Start-up", [*series.values(), f"  → net ls: wanted ≤ 150 ms: {verdict}"])
