"""Starts a lab in a throw-away host of its own."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import netlib
from netlib import throwaway
from netlib.errors import LabFailed, NotPermitted, Unsupported
from netlib.labs.catalogue import Lab

# Packages of Python that every story uses, called python3-NAME in Debian: to decode packets.
_MODULES = ("scapy",)
# Programs that every story may use, with Debian's packages.
_PROGRAMS = {"ip": "iproute2", "nsenter": "util-linux", "curl": "curl", "ping": "iputils-ping"}
_CREDENTIALS = struct.Struct("@iII")  # struct ucred: pid, uid, gid (unix(7))


def play(
    lab: Lab,
    settings: Mapping[str, Any],
    *,
    pause: bool = False,
    firewall: str | None = None,
    debug: bool = False,
) -> None:
    """Play a lab on the terminal. Raises LabFailed where it tells something untrue.

    `debug`: where the lab's own code breaks, show where. BrokenPipeError: nobody reads on.
    """
    _run(lab, settings, pause=pause, firewall=firewall, debug=debug, to_terminal=True)


def transcript(
    lab: Lab, settings: Mapping[str, Any], *, firewall: str | None = None, debug: bool = False
) -> list[dict[str, Any]]:
    """What happens in a lab, event by event. Raises LabFailed likewise."""
    printed = _run(lab, settings, pause=False, firewall=firewall, debug=debug, to_terminal=False)
    return [json.loads(line) for line in printed.splitlines()]


def _run(
    lab: Lab,
    settings: Mapping[str, Any],
    *,
    pause: bool,
    firewall: str | None,
    debug: bool,
    to_terminal: bool,
) -> str:
    _check_ground(lab)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    asked = {
        "lab": [lab.name, lab.title, lab.module],
        "options": dict(settings),
        "pause": pause,
        "json": not to_terminal,
        "debug": debug,
        "door": theirs.fileno(),
        "user": os.readlink("/proc/self/ns/user"),
    }
    program = [sys.executable, "-m", "netlib.labs.player", json.dumps(asked)]
    # Where netlib itself is, in case it is hidden there (/var/lib/...).
    keep = f"--keep={Path(netlib.__file__).resolve().parent.parent}"
    parent = f"--parent={os.getpid()}"
    sys.stdout.flush()
    with ours:
        with theirs:
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", throwaway.__file__, keep, parent, "--", *program],
                env=_environment(firewall),
                stdout=None if to_terminal else subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                text=True,
            )
        try:
            _tell_pid(ours)
            printed, _ = child.communicate()
        except KeyboardInterrupt:
            child.wait()  # the terminal has told it as well
            raise
        except BaseException:
            child.kill()
            child.wait()
            raise
    if child.returncode == throwaway.REFUSED:
        raise NotPermitted("this system gives no throw-away host", "run it as root")
    if child.returncode == 128 + signal.SIGPIPE:
        raise BrokenPipeError
    if child.returncode:
        raise LabFailed(f"the lab {lab.name} did not come out as told", _reason(printed))
    return printed or ""


def _check_ground(lab: Lab) -> None:
    lacking = [name for name in (*_MODULES, *lab.modules) if importlib.util.find_spec(name) is None]
    if lacking:
        raise Unsupported(
            f"labs use Python packages that are not installed: {', '.join(lacking)}",
            "run: pip install 'contnet[labs]', or: apt-get install "
            + " ".join(f"python3-{name}" for name in lacking),
        )
    needed = {**_PROGRAMS, **lab.needs}
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [package for name, package in needed.items() if not shutil.which(name, path=path)]
    if missing:
        raise Unsupported(
            f"labs use programs that are not installed: {', '.join(missing)}",
            f"install them: apt-get install {' '.join(missing)}",
        )


def _environment(firewall: str | None) -> dict[str, str]:
    """Ours, but for what would lead out of the lab: a state's folder, proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("NETLIB_") and not name.lower().endswith("_proxy")
    }
    if "PYTHONPATH" in kept:  # the lab plays in another directory
        paths = kept["PYTHONPATH"].split(os.pathsep)
        kept["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in paths)
    if firewall is not None:
        kept["NETLIB_FIREWALL"] = firewall
    return {**kept, "LC_ALL": "C.UTF-8"}


def _tell_pid(line: socket.socket) -> None:
    """Tell the player which process it is out here, as the kernel tells us (unix(7))."""
    _, extra, _, _ = line.recvmsg(16, socket.CMSG_SPACE(_CREDENTIALS.size))
    for _level, _kind, data in extra:
        pid, _, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
        line.send(str(pid).encode())


def _reason(printed: str | None) -> str:
    for line in reversed((printed or "").splitlines()):
        event = json.loads(line)
        if event.get("event") == "untrue":
            return str(event["text"])
    return ""
