"""How our own processes are started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PROCESS = "netlib-names"  # 15 bytes at most (proc_pid_comm(5))


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs `main` of one of our modules, whatever the current folder holds.

    Isolated (-I), so that nothing of the environment leads it astray; modules are found where
    this process finds them.
    """
    package = str(Path(sys.modules["netlib"].__path__[0]).resolve().parent)
    paths = [package, *(os.path.abspath(path) for path in sys.path if path)]
    code = (
        f"import sys; sys.path[:0] = [p for p in {paths!r} if p not in sys.path]; "
        f"from {module} import main; main(*sys.argv[1:])"
    )
    return [sys.executable, "-I", "-c", code, *arguments]


def be_known() -> None:
    """Be shown as what we are where processes are listed: every one of ours is a Python."""
    Path("/proc/self/comm").write_text(PROCESS, encoding="ascii")
