"""systemd's side: the units are right, and a daemon takes over the socket that systemd opened."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
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
OWN_USERS = Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]


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


def listens(place: Path) -> bool:
    """Whether somebody listens at a unix socket: it has its name before (unix(7))."""
    sockets = Path("/proc/thread-self/net/unix").read_text().splitlines()
    flags = [line.split()[3] for line in sockets if line.endswith(f" {place}")]
    return "00010000" in flags  # __SO_ACCEPTCON in linux/net.h


@pytest.mark.kernel
def test_the_first_call_starts_the_daemon(host: Host) -> None:
    """By the protocol of socket activation (sd_listen_fds(3)); the socket outlives it."""
    place = host.state_dir / SOCKET
    state = f"NETLIB_STATE_DIR={host.state_dir}"
    activated = host.popen(
        "systemd-socket-activate", f"--listen={place}", f"--setenv={state}",
        f"--setenv=PATH={os.environ['PATH']}", *DAEMON, cwd=ROOT,
    )  # fmt: skip
    eventually(lambda: listens(place))
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


@pytest.mark.kernel
def test_a_socket_that_systemd_keeps_goes_on_listening(host: Host) -> None:
    """A daemon that ends does not shut down what is not its own: the next call starts another."""
    with socket.socket(socket.AF_UNIX) as kept:
        kept.bind(str(host.state_dir / SOCKET))
        kept.listen()
        (host.state_dir / SOCKET).chmod(0o600)
        script = f'exec 3<&{kept.fileno()}; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
        for name in ("front", "back"):
            daemon = host.popen(
                "bash", "-c", script, "sh", *DAEMON, cwd=ROOT, pass_fds=[kept.fileno()],
                env={**os.environ, "NETLIB_STATE_DIR": str(host.state_dir)},
            )  # fmt: skip
            with open_net(host.state_dir) as net:  # waits for its answer
                assert isinstance(net, Client)
                net.create(name)
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(20) == 0
            poller = select.poll()
            poller.register(kept, select.POLLIN)
            assert poller.poll(0) == []


# A host of its own for systemd: units and state, devices that are harmless, a console to read.
BOOT = """
mount -t tmpfs none /run
mount -t tmpfs none /var/lib/netlib
umount -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t proc none /proc
mkdir /run/dev
mount -t tmpfs none /run/dev
for device in null zero full random urandom; do
    touch /run/dev/$device
    mount --bind /dev/$device /run/dev/$device
done
touch /run/dev/console
ln -s /proc/self/fd /run/dev/fd
mount --move /run/dev /dev
exec env -i container=throwaway SYSTEMD_UNIT_PATH="$1" PATH="$PATH" /lib/systemd/systemd \
    --system --log-target=console --show-status=0
"""


class System:
    """A systemd that was booted, with our units and none of the machine's."""

    def __init__(self, host: Host, pid: int) -> None:
        self._host = host
        self._pid = pid

    def run(self, *command: str, check: bool = True) -> str:
        """What a command says there."""
        inside = ["nsenter", "-t", str(self._pid), "--mount", "--pid", "--wd=/", "env", "-u",
                  "NETLIB_STATE_DIR", f"PYTHONPATH={ROOT}"]  # fmt: skip
        return self._host.run(*inside, *command, check=check).stdout

    def is_in(self, unit: str, state: str) -> bool:
        """Whether a unit is in a state."""
        return self.run("systemctl", "is-active", unit, check=False).strip() == state

    def pid_of(self, unit: str) -> int:
        """A service's process, 0 where it has none."""
        return int(self.run("systemctl", "show", "-p", "MainPID", "--value", unit))

    def net(self, *arguments: str) -> str:
        """What our command says there."""
        return self.run(sys.executable, "-m", "netlib", *arguments)


@pytest.fixture
def system(host: Host, tmp_path: Path) -> Iterator[System]:
    """A systemd as the first process of namespaces of its own, in a control group of its own."""
    for unit in UNITS.iterdir():
        command = f"ExecStart={sys.executable} -m netlib"
        text = re.sub(r"^ExecStart=contnet\b", command, unit.read_text(), flags=re.M)
        text = text.replace("[Service]", f"[Service]\nEnvironment=PYTHONPATH={ROOT}")
        text = text.replace("WatchdogSec=60", "WatchdogSec=2")
        (tmp_path / unit.name).write_text(text)
    for name in ("default", "sysinit", "basic", "sockets", "shutdown"):
        wants = "Wants=netlib.socket" if name == "default" else "DefaultDependencies=no"
        (tmp_path / f"{name}.target").write_text(f"[Unit]\n{wants}\n")
    (tmp_path / "boot").write_text(BOOT)
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    group = Path(next(m[1] for m in mounts if m[2] == "cgroup2"), f"netlib-test-{host.netns.inode}")
    group.mkdir()
    first = host.popen(
        "sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh",
        "unshare", "--cgroup", "--mount", "--ipc", "--pid", "--fork", "--kill-child=KILL",
        "sh", "-e", str(tmp_path / "boot"), str(tmp_path),
    )  # fmt: skip
    try:
        children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
        eventually(lambda: bool(children.read_text()))
        booted = System(host, int(children.read_text()))
        eventually(lambda: booted.is_in("netlib.socket", "active"), 20)
        yield booted
    finally:
        first.kill()
        first.communicate()

        def is_empty() -> bool:
            """Whether all that ran in the control group has ended, so that it could be removed."""
            with contextlib.suppress(OSError):
                for folder, _, _ in os.walk(group, topdown=False):
                    os.rmdir(folder)
            return not group.exists()

        eventually(is_empty, 20)


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.skipif(OWN_USERS, reason="systemd needs the machine's own control groups")
def test_the_units_under_a_systemd_that_was_booted(system: System) -> None:
    """The first call starts the daemon; one that dies or stands still has a successor."""
    assert system.is_in("netlib.service", "inactive")
    system.net("create", "front")
    assert system.is_in("netlib.service", "active")

    def is_another_than(last: int) -> bool:
        return system.pid_of("netlib.service") not in (last, 0)

    for name in ("KILL", "STOP"):
        last = system.pid_of("netlib.service")
        system.run("systemctl", "kill", "--kill-whom=main", "-s", name, "netlib.service")
        eventually(partial(is_another_than, last), 30)
        eventually(lambda: system.is_in("netlib.service", "active"), 20)
    for command in ("restart", "stop"):
        system.run("systemctl", command, "netlib.service")
        assert system.is_in("netlib.socket", "active")
        system.net("update", "--label", f"by={command}", "front")
        assert system.is_in("netlib.service", "active")
    system.run("systemctl", "stop", "netlib.socket", "netlib.service")
    system.run("systemctl", "start", "netlib-repair.service")
    assert "Result=success" in system.run("systemctl", "show", "netlib-repair.service")
    assert system.net("check") == ""
    system.net("rm", "front")
