"""A process that waits in namespaces of its own until it is told which command to become."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import netlib
from netlib.errors import CommandRefused, KernelError, NetError, NoSuchCommand, NotPermitted
from netlib.run.launcher import HOST_NETWORK, OWN_NETWORK

_ROOT = str(Path(netlib.__file__).resolve().parent.parent)
_PROGRAM = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from netlib.run.launcher import main; main(*map(int, sys.argv[1:]))"
)


class Child:
    """Started at once; it dies with the thread that started it (prctl(2), PR_SET_PDEATHSIG)."""

    def __init__(self, *, output: IO[bytes] | None = None, network: int = OWN_NETWORK) -> None:
        """`output` takes its stdout and stderr, and it reads nothing; None: it has ours.

        `network` is a descriptor of the network namespace that it shares, or HOST_NETWORK.
        """
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        try:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _PROGRAM, _ROOT]
                + [str(number) for number in (orders, answers, network)],
                pass_fds=(orders, answers, *([network] if network >= 0 else [])),
                stdin=None if output is None else subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        finally:
            os.close(orders)
            os.close(answers)
        self._reader = os.fdopen(self._answers, "rb")
        try:
            self._answer("start")
        except BaseException:
            self.abandon()
            raise

    @property
    def pid(self) -> int:
        """Its process id; that of the command, too."""
        return self.process.pid

    @property
    def netns_path(self) -> str:
        """Where its network namespace opens."""
        return f"/proc/{self.pid}/ns/net"

    def become(
        self,
        command: Sequence[str],
        files: Mapping[str, str],
        hostname: str,
        scratch: Path,
        environment: Mapping[str, str],
    ) -> tuple[str, ...]:
        """Let it run the command; the files that could not be shown, as the host has none there.

        `scratch` is any folder. Raises NoSuchCommand, CommandRefused, KernelError.
        """
        orders = {
            "command": list(command),
            "files": dict(files),
            "hostname": hostname,
            "scratch": str(scratch),
            "environment": dict(environment),
        }
        with os.fdopen(self._orders, "wb") as pipe:
            self._orders = -1
            pipe.write(json.dumps(orders).encode())
        missing = tuple(self._answer(command[0])["missing"])
        # At the exec(2) the pipe closes; whatever is said before is why there was none.
        said = self._reader.readline()
        self._reader.close()
        if said:
            raise _refusal(command[0], json.loads(said))
        return missing

    def abandon(self) -> None:
        """End it, whatever it does, and wait until it has ended."""
        if self._orders >= 0:
            os.close(self._orders)
            self._orders = -1
        self._reader.close()
        self.process.kill()
        self.process.wait()

    def _answer(self, command: str) -> dict[str, Any]:
        said = self._reader.readline()
        if not said:
            raise KernelError(f"the process for {command} died before it was ready", "try again")
        answer: dict[str, Any] = json.loads(said)
        if "errno" in answer:
            raise _refusal(command, answer)
        return answer


def start_time(pid: int) -> int:
    """When a process began, in clock ticks since the boot (proc_pid_stat(5)); 0 if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    # The name in parentheses may hold anything, also blanks and parentheses.
    return int(text.rpartition(")")[2].split()[19])


def ends(process: int, within_seconds: float) -> bool:
    """Whether the process of a pidfd ends in that time (pidfd_open(2))."""
    poll = select.poll()  # select(2) takes no descriptor above 1023
    poll.register(process, select.POLLIN)
    return bool(poll.poll(within_seconds * 1000))


def _refusal(command: str, answer: Mapping[str, Any]) -> NetError:
    number, reason, doing = answer["errno"], answer["reason"], answer["doing"]
    if not doing:
        if number == errno.ENOENT:
            return NoSuchCommand(
                f"there is no command {command!r}",
                "give a path, or look at PATH: it is a program of this host, and no image",
            )
        return CommandRefused(f"{command} can't be run: {reason}", "see: execve(2)")
    if number in (errno.EPERM, errno.EACCES):
        return NotPermitted(f"the sandbox can't {doing}: {reason}", "run it as root")
    return KernelError(f"the sandbox can't {doing}: {reason}")


__all__ = ["HOST_NETWORK", "OWN_NETWORK", "Child", "start_time"]
