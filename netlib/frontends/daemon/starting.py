"""Starting a daemon in the background, for who finds none and needs one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import netlib
from netlib.errors import InUse
from netlib.frontends.daemon.messages import Lost, connect
from netlib.logs import appended
from netlib.settings import FIREWALL, Backend

LOG = "daemon.log"
_LOG_BYTES = 1 << 20
_HELLO_SECONDS = 5.0
_START_SECONDS = 20.0


def launch(folder: Path, firewall: Backend | None = None) -> subprocess.Popen[bytes]:
    """Start a daemon of a state, and go on; what it tells is in daemon.log. Raises OSError."""
    # Where we are ourselves, too: an editable installation is on nobody's path without `site`.
    places = [*sys.path, str(Path(netlib.__file__).parents[1])]
    program = (
        f"import sys; sys.path[:0] = {places!r}\n"
        "from netlib.errors import InUse\n"
        "from netlib.frontends.daemon.run import run\n"
        "try:\n"
        f"    run({str(folder.absolute())!r}, firewall={firewall!r})\n"
        "except InUse as error:\n"
        "    sys.stderr.write(f'{error}\\n')\n"
        f"    sys.exit({InUse.exit_status})\n"
    )
    with appended(folder / LOG, _LOG_BYTES) as log:
        return subprocess.Popen(
            [sys.executable, "-IS", "-c", program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            cwd="/",
            # The firewall that is asked for by the environment counts for it as for us: with two
            # backends in turn each would take away what the other makes.
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                **{name: os.environ[name] for name in (FIREWALL,) if name in os.environ},
            },
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
    process = launch(folder, firewall)
    deadline = time.monotonic() + _START_SECONDS
    while not running(folder):
        # Somebody else's may be first, and answer soon.
        has_failed = process.poll() not in (None, InUse.exit_status)
        if has_failed or time.monotonic() > deadline:
            raise TimeoutError(f"it says why in {folder / LOG}")
        time.sleep(0.05)
    return process.poll() is None


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
