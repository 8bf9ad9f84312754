"""A daemon that was stopped, or is wedged: who asks is told, and nothing is done later."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from support.host import Host
from support.locks import waits_for
from support.made import made
from support.patience import eventually

from netlib import Net
from netlib.errors import DaemonStuck, NetWarning
from netlib.frontends.cni import installing
from netlib.frontends.daemon import client as client_module
from netlib.frontends.daemon import messages
from netlib.frontends.daemon.client import Client, open_net
from netlib.frontends.daemon.messages import Lost, connect

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["script", pytest.param("program", marks=pytest.mark.skipif(
    shutil.which("cc") is None, reason="there is no C compiler"))]  # fmt: skip
CONFIG = {"cniVersion": "1.1.0", "name": "front", "type": "netlib", "subnet": "198.51.100.0/24",
          "options": {"names": False}}  # fmt: skip


@pytest.fixture(scope="session")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled client, with less patience, and with the system's own C library."""
    target = tmp_path_factory.mktemp("hasty") / "_cni_shim"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-DPATIENCE_SECONDS=1"]
    subprocess.run(["cc", *flags, "-o", target, installing.SOURCE], check=True, timeout=60)
    return target


class Plugin:
    """Calls of an installed plugin, by a process each."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._program = folder / "netlib"
        self._host = host
        self._path = host.sandbox("web").netns.path

    def starts(self, command: str) -> subprocess.Popen[str]:
        """A call that is under way."""
        environment = {"PATH": os.environ["PATH"], "CNI_COMMAND": command,
                       "CNI_CONTAINERID": "web", "CNI_IFNAME": "eth0", "CNI_NETNS": self._path,
                       "CNI_PATH": "/usr/lib/cni"}  # fmt: skip
        started = self._host.popen("env", "-i", *(f"{k}={v}" for k, v in environment.items()),
                                   str(self._program), stdin=subprocess.PIPE)  # fmt: skip
        assert started.stdin is not None
        started.stdin.write(json.dumps(CONFIG))
        started.stdin.close()
        started.stdin = None
        return started

    def call(self, command: str) -> dict[str, Any]:
        """What a call says."""
        return result(self.starts(command))


def result(call: subprocess.Popen[str]) -> dict[str, Any]:
    """What a call that is under way says in the end."""
    said, _ = call.communicate(timeout=30)
    return dict(json.loads(said or "{}"))


@pytest.fixture(params=KINDS)
def plugin(request: pytest.FixtureRequest, host: Host, monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """The plugin as a script or as a program, with a second's patience."""
    script = request.param == "script"
    if not script:
        monkeypatch.setattr(installing, "SHIM", request.getfixturevalue("hasty"))
    folder = host.state_dir / "bin"
    installing.install(folder, host.state_dir, script=script)
    if script:
        text = (folder / "netlib").read_text()
        assert "PATIENCE_SECONDS = 5" in text
        (folder / "netlib").write_text(text.replace("PATIENCE_SECONDS = 5", "PATIENCE_SECONDS = 1"))
    return Plugin(host, folder)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of the library with less patience."""
    for module in (client_module, messages):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.5)


@contextmanager
def stopped(daemon: subprocess.Popen[str]) -> Iterator[None]:
    """All of its threads, until the block ends."""

    def states() -> set[str]:
        stats = Path(f"/proc/{daemon.pid}/task").glob("*/stat")
        return {stat.read_text().rpartition(") ")[2][0] for stat in stats}

    daemon.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: states() == {"T"})
        yield
    finally:
        daemon.send_signal(signal.SIGCONT)


def has_answered_all(host: Host) -> bool:
    """Whether a daemon that was stopped has come to the requests after those that it left."""
    channel = connect(host.state_dir, 20)
    assert channel is not None
    try:
        return "pid" in channel.call({"do": "hello"}).document
    finally:
        channel.close()


def test_a_runtime_is_told_to_try_again(
    host: Host, daemon: subprocess.Popen[str], plugin: Plugin
) -> None:
    """Code 11 for every command; what was not taken is never done, also when the daemon goes on."""
    with stopped(daemon):
        said = plugin.call("ADD")
        assert said["code"] == 11
        assert said["cniVersion"] == "1.1.0"
        assert "stands still" in said["msg"]
        assert f"kill -CONT {daemon.pid}" in said["details"]
    assert has_answered_all(host)
    with Net(host.state_dir) as net:
        assert made(net) == []
        assert plugin.call("ADD")["ips"][0]["address"] == "198.51.100.2/24"
        with stopped(daemon):
            assert plugin.call("DEL")["code"] == 11
        assert plugin.call("CHECK")["code"] == 7  # it has its turn after what was left
        assert len(net.endpoints()) == 1
        assert plugin.call("DEL") == {}
        assert net.endpoints() == ()


@contextmanager
def under_way(
    net: Net, daemon: subprocess.Popen[str], plugin: Plugin
) -> Iterator[subprocess.Popen[str]]:
    """An ADD that the daemon has begun, and does not end before the block does."""
    with net.engine.lock.alone():
        call = plugin.starts("ADD")
        eventually(lambda: waits_for(daemon.pid, net.state_dir / "lock"))
        yield call


def test_what_a_daemon_is_at_is_waited_for(
    host: Host, daemon: subprocess.Popen[str], plugin: Plugin
) -> None:
    """However long it takes: it says that it lives."""
    with Net(host.state_dir) as net:
        with under_way(net, daemon, plugin) as call, pytest.raises(subprocess.TimeoutExpired):
            call.wait(3)
        assert result(call)["ips"][0]["address"] == "198.51.100.2/24"
        assert len(net.endpoints()) == 1


def test_what_a_daemon_had_begun_is_taken_back(
    host: Host, daemon: subprocess.Popen[str], plugin: Plugin
) -> None:
    """It was stopped in the middle: the runtime is told, and finds nothing of it later."""
    with Net(host.state_dir) as net:
        with under_way(net, daemon, plugin) as call, stopped(daemon):
            assert result(call)["code"] == 11
        assert plugin.call("CHECK")["code"] == 7  # it has its turn when all that is over
        assert net.endpoints() == ()
        assert [n.name for n in made(net)] == ["front"]
        assert net.check() == ()


def test_who_asks_while_it_starts_waits(host: Host, plugin: Plugin, net: Net) -> None:
    """A first repair may take its time: that is no reason to be told to try again."""
    with net.engine.lock.alone():
        program = [sys.executable, "-m", "netlib", "--state-dir", str(host.state_dir), "daemon"]
        daemon = host.popen(*program, cwd=ROOT)

        def lives() -> bool:
            channel = connect(host.state_dir, 5)
            if channel is None:
                return False
            assert channel.call({"do": "ping"}).document["pid"] == daemon.pid
            channel.close()
            return True

        eventually(lives, 20)
        eventually(lambda: waits_for(daemon.pid, host.state_dir / "lock"), 20)
        call = plugin.starts("ADD")
        with pytest.raises(subprocess.TimeoutExpired):
            call.wait(3)
    assert result(call)["ips"][0]["address"] == "198.51.100.2/24"
    daemon.terminate()
    assert daemon.wait(20) == 0


@pytest.mark.usefixtures("hurried")
def test_a_verb_is_refused(host: Host, daemon: subprocess.Popen[str]) -> None:
    """With who stands still and what to do; lists are read all the same, and it is never done."""
    with open_net(host.state_dir) as client:
        assert isinstance(client, Client)
        front = client.create("front")
        with stopped(daemon):
            for _ in range(2):  # the second on a connection that is known to be silent
                with pytest.raises(DaemonStuck, match="takes no requests") as refusal:
                    client.remove("front")
                assert f"kill -9 {daemon.pid}" in refusal.value.hint
            with pytest.warns(NetWarning, match="does not answer"):
                late = open_net(host.state_dir)
            with late:
                assert made(late) == [front]
                assert late.plan.remove("front")
                with pytest.raises(DaemonStuck):
                    late.create("back")
        assert has_answered_all(host)
        assert made(client) == [front]
        client.remove("front")  # by itself: its connection has ended
        assert made(client) == []


@pytest.mark.usefixtures("hurried")
def test_a_verb_that_was_begun_is_told_so(host: Host, daemon: subprocess.Popen[str]) -> None:
    """It may be done yet, so that trying again is no advice."""
    told: list[Exception] = []
    with open_net(host.state_dir) as client, Net(host.state_dir) as plain:

        def create() -> None:
            try:
                client.create("front")
            except DaemonStuck as error:
                told.append(error)

        thread = Thread(target=create)
        with plain.engine.lock.alone():
            thread.start()
            eventually(lambda: waits_for(daemon.pid, host.state_dir / "lock"))
            with stopped(daemon):
                thread.join(20)
        (error,) = told
        assert "began this" in str(error)
        assert "net check" in str(error)
        eventually(lambda: [n.name for n in made(plain)] == ["front"])


def test_silence_is_told_from_an_end(host: Host, daemon: subprocess.Popen[str]) -> None:
    """Only who is there and says nothing is stuck."""
    channel = connect(host.state_dir, 0.1)
    assert channel is not None
    with pytest.raises(Lost) as silence:
        channel.receive()
    assert silence.value.is_silence
    daemon.terminate()
    daemon.wait(20)
    with pytest.raises(Lost) as end:
        channel.receive()
    assert not end.value.is_silence
    channel.close()
    assert not messages.is_stuck(host.state_dir)
