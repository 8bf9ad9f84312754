"""Network namespaces that a thread works in: hosts beside each other, and what is outside."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from netlib import throwaway

P = ParamSpec("P")
T = TypeVar("T")
_HERE = "/proc/thread-self/ns/net"


class Place:
    """A new network namespace with `lo` up, and a thread of its own in it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, initializer=_settle)
        self.path = f"/proc/{os.getpid()}/fd/{self.call(os.open, _HERE, os.O_RDONLY)}"

    def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function returns that is called in there."""
        return self._thread.submit(work, *args, **kwargs).result()

    def start(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Likewise, but not waited for."""
        return self._thread.submit(work, *args, **kwargs)

    def run(self, *argv: str, stdin: str = "", env: dict[str, str] | None = None) -> str:
        """What a program says that is run in there; it has to succeed."""
        done = self.call(
            subprocess.run, argv, input=stdin, env=env, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(argv)} ended with {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done.stdout

    def python(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        """A Python program that runs in there."""
        command = [sys.executable, "-c", program, *arguments]
        return self.call(subprocess.Popen, command, stdout=subprocess.PIPE, text=True)

    def uplink(self) -> Place:
        """A place outside, at the other end of a new `eth0`: 192.0.2.1 here, .2 there."""
        outside = Place()
        self.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "up0")
        self.run("ip", "link", "set", "up0", "netns", outside.path)
        for place, device, address in ((self, "eth0", "192.0.2.1"), (outside, "up0", "192.0.2.2")):
            place.run("ip", "addr", "add", f"{address}/24", "dev", device)
            place.run("ip", "link", "set", device, "up")
        self.run("ip", "route", "add", "default", "via", "192.0.2.2")
        return outside


def _settle() -> None:
    throwaway.unshare(throwaway.NEW_NET)
    throwaway.raise_loopback()
