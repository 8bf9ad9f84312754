"""Work in the network namespace that a firewall was opened in, whatever thread asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Thread
from typing import TypeVar

from netlib.errors import KernelError, NotPermitted
from netlib.kernel.netns import set_netns
from netlib.values import dataclass

R = TypeVar("R")

_THIS_THREAD = "/proc/thread-self/ns/net"
TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended."""

    status: int
    out: str
    err: str


class Place:
    """A network namespace, held open, to run functions and programs in."""

    def __init__(self) -> None:
        self._fd = os.open(_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC)
        self.inode = os.fstat(self._fd).st_ino

    def call(self, work: Callable[[], R]) -> R:
        """The result of `work`, done with this namespace as the current one.

        A thread of its own when the caller is elsewhere: namespaces are a thread's
        (setns(2)), and the caller's is left alone.
        """
        if os.stat(_THIS_THREAD).st_ino == self.inode:
            return work()
        results: list[R] = []
        failures: list[BaseException] = []

        def there() -> None:
            try:
                self._enter()
                results.append(work())
            except BaseException as error:  # handed to the caller
                failures.append(error)

        thread = Thread(target=there, name="netlib-firewall")
        thread.start()
        thread.join()
        if failures:
            raise failures[0]
        return results[0]

    def _enter(self) -> None:
        try:
            set_netns(self._fd)
        except OSError as error:
            raise NotPermitted(f"the firewall's network namespace: {error.strerror}") from error

    def run(self, argv: Sequence[str], text: str = "") -> Result:
        """A program's result; KernelError when it can't be started or hangs."""
        return self.call(lambda: _run(argv, text))

    def close(self) -> None:
        """Let the namespace go."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def is_installed(name: str) -> bool:
    """Whether a program is on the path."""
    return any(
        os.access(os.path.join(folder, name), os.X_OK)
        for folder in os.environ.get("PATH", os.defpath).split(os.pathsep)
    )


def _run(argv: Sequence[str], text: str) -> Result:
    import subprocess  # not needed where nftables is a library: it costs several ms

    try:
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise KernelError(f"{argv[0]} is not installed", f"install {argv[0]}") from error
    except PermissionError as error:
        raise NotPermitted(f"{argv[0]} can not be run") from error
    except subprocess.TimeoutExpired as error:
        raise KernelError(
            f"{argv[0]} did not end within {TIMEOUT_SECONDS} seconds",
            "another program may hold the firewall's lock",
        ) from error
    return Result(done.returncode, done.stdout, done.stderr)
