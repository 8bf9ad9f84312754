"""Network namespaces without `ip netns exec`: a thread enters one, which takes 0.1 ms."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from netlib import throwaway

T = TypeVar("T")

CURRENT = "/proc/thread-self/ns/net"


def call_in(namespace: int, function: Callable[[], T]) -> T:
    """What `function` returns, or raises, when a thread calls it inside a network namespace.

    `namespace` is a file descriptor. Sockets and processes made there stay there.
    """

    def work() -> T:
        throwaway.join(namespace, throwaway.NEW_NET)
        return function()

    return throwaway.in_a_thread(work)


def new_namespace(at: str = "") -> int:
    """A descriptor of a fresh network namespace with `lo` up; `at` names a path to show it at."""

    def work() -> int:
        throwaway.unshare(throwaway.NEW_NET)
        throwaway.raise_loopback()
        if at:
            os.close(os.open(at, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o444))
            throwaway.bind(CURRENT, at)
        return os.open(CURRENT, os.O_RDONLY | os.O_CLOEXEC)

    return throwaway.in_a_thread(work)


def inode(namespace: int | str) -> int:
    """The number that tells network namespaces apart (namespaces(7))."""
    return os.stat(namespace).st_ino


def end_processes(namespaces: set[int]) -> None:
    """Kill every process whose network namespace has one of these inodes, but this one."""
    import signal

    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            if pid != os.getpid() and inode(f"/proc/{pid}/ns/net") in namespaces:
                os.kill(pid, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
