"""Runs `net`, and kills it before a step of it: `python3 -m netlib.labs.killed STEP COMMAND…`.

Steps are what it does to the kernel, one after the other: 1 is the first. It is as if somebody
had used `kill -9`, or the power had failed, at that moment and no other.
"""

from __future__ import annotations

import os
import signal
import sys

from netlib.frontends.cli.program import invoke
from netlib.kernel.linux import LinuxKernel
from netlib.plan import Stage


def main(step: int, command: list[str]) -> int:
    """Run it; the exit status, if it lives that long."""
    do, remove = LinuxKernel.do, LinuxKernel.remove
    left = step

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)

    def counted_do(self: LinuxKernel, stage: Stage) -> None:
        count()
        do(self, stage)

    def counted_remove(self: LinuxKernel, stage: Stage) -> None:
        count()
        remove(self, stage)

    LinuxKernel.do, LinuxKernel.remove = counted_do, counted_remove  # type: ignore[method-assign]
    return invoke(command)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
