"""systemd's side: the units are right, and a daemon takes over the socket that systemd opened."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.host import Host
from support.patience import eventually

from netlib import Net
from netlib.frontends.daemon.client import Client, open_net
from netlib.frontends.daemon.messages import SOCKET

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "netlib/systemd"
DAEMON = [sys.executable, "-m", "netlib", "daemon"]


def test_systemd_can_read_the_units(tmp_path: Path) -> None:
    """No unknown key, no impossible value; the commands are told apart from this."""
    for unit in UNITS.iterdir():
        text = re.sub(r"^ExecStart=contnet\b", "ExecStart=/bin/true", unit.read_text(), flags=re.M)
        (tmp_path / unit.name).write_text(text)
    program = shutil.which("systemd-analyze")
    assert program, "tools/setup installs it"
    units = [str(path) for path in sorted(tmp_path.iterdir())]
    said = subprocess.run([program, "verify", "--man=no", *units], capture_output=True, text=True,
                          timeout=30, check=False)  # fmt: skip
    ours = [line for line in said.stderr.splitlines() if "netlib" in line]
    assert ours == []


def test_the_units_say_what_the_program_does() -> None:
    """The socket is where clients look, for its owner alone; the service tells when it is ready."""
    assert f"ListenStream=/var/lib/netlib/{SOCKET}" in (UNITS / "netlib.socket").read_text()
    assert "SocketMode=0600" in (UNITS / "netlib.socket").read_text()
    service = (UNITS / "netlib.service").read_text()
    assert "Type=notify" in service
    assert "ExecStart=contnet daemon" in service


@pytest.mark.kernel
def test_the_first_call_starts_the_daemon(host: Host) -> None:
    """By the protocol of socket activation (sd_listen_fds(3)); the socket outlives it."""
    place = host.state_dir / SOCKET
    state = f"NETLIB_STATE_DIR={host.state_dir}"
    activated = host.popen(
        "systemd-socket-activate", f"--listen={place}", f"--setenv={state}",
        f"--setenv=PATH={os.environ['PATH']}", *DAEMON, cwd=ROOT,
    )  # fmt: skip
    eventually(place.exists)
    before = place.stat().st_ino
    with open_net(host.state_dir) as net:
        assert isinstance(net, Client)
        net.create("front")
    activated.send_signal(signal.SIGTERM)
    assert activated.wait(20) == 0
    assert place.stat().st_ino == before


@pytest.mark.kernel
def test_systemd_is_told_how_far_it_is(host: Host) -> None:
    """READY=1 when it answers, STOPPING=1 when it ends (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(host.state_dir / "notify"))
        notified.settimeout(20)
        place = f"NOTIFY_SOCKET={host.state_dir / 'notify'}"
        daemon = host.popen("env", place, f"NETLIB_STATE_DIR={host.state_dir}", *DAEMON, cwd=ROOT)
        assert notified.recv(100) == b"READY=1"
        with open_net(host.state_dir) as net:
            assert type(net) is not Net
        daemon.send_signal(signal.SIGTERM)
        assert notified.recv(100) == b"STOPPING=1"
        assert daemon.wait(20) == 0
