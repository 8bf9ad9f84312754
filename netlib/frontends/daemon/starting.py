"""Starting a daemon in the background, for who finds none and needs one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import netlib
from netlib.frontends.daemon.messages import Lost, connect
from netlib.settings import Backend

_HELLO_SECONDS = 5.0
_START_SECONDS = 20.0


def launch(state_dir: str | Path, firewall: Backend | None = None) -> None:
    """Start a daemon of a state, and go on. Raises OSError."""
    # Where we are ourselves, too: an editable installation is on nobody's path without `site`.
    path = [*sys.path, str(Path(netlib.__file__).parent.parent)]
    program = (
        f"import sys; sys.path[:0] = {path!r}; "
        "from netlib.frontends.daemon.run import run; "
        f"run({str(state_dir)!r}, firewall={firewall!r})"
    )
    subprocess.Popen(
        [sys.executable, "-IS", "-c", program],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        env={"PATH": os.environ.get("PATH", os.defpath)},
    )


def running(folder: Path) -> int:
    """The process id of a state's daemon; 0 where none answers."""
    channel = connect(folder, _HELLO_SECONDS)
    if channel is None:
        return 0
    try:
        return int(channel.call({"do": "hello"}).document.get("pid", 0))
    except Lost:
        return 0
    finally:
        channel.close()


def ensure(folder: Path, firewall: Backend | None = None) -> bool:
    """Have a daemon; whether one had to be started. Raises OSError, TimeoutError."""
    if running(folder):
        return False
    launch(folder.absolute(), firewall)
    deadline = time.monotonic() + _START_SECONDS
    while not running(folder):
        if time.monotonic() > deadline:
            raise TimeoutError("it does not answer")
        time.sleep(0.05)
    return True


def until_open(place: str) -> None:
    """Wait until a manager's daemon lets others in at ADDRESS:PORT. Raises OSError, TimeoutError.

    A worker's has no such place.
    """
    if not place:
        return
    host, _, port = place.rpartition(":")
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), _HELLO_SECONDS).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody can join at {place}: {error}") from error
            time.sleep(0.05)
        else:
            return
