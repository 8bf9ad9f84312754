"""Runs the chapters that are named, or all; only in a throw-away host."""

from __future__ import annotations

import os
import platform
import sys
from importlib import import_module
from pathlib import Path

from netlib import throwaway

CHAPTERS = ("start", "networks", "attach", "ports", "cni")
ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Say where this runs, then measure."""
    throwaway.enter()
    sys.path.insert(0, str(ROOT / "tests"))  # hosts and places are those of the tests
    print(f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} cores")
    print("Medians; then the range of the middle 80 % of the samples.")
    for chapter in sys.argv[1:] or CHAPTERS:
        import_module(f"benchmarks.{chapter}").run()


if __name__ == "__main__":
    main()
