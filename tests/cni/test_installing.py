"""The plugin as runtimes run it: installed, as a program or a script, with a daemon and without."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.host import Host
from support.libcni import CniError, Runtime
from support.patience import eventually

from netlib import Net
from netlib.errors import NotPermitted
from netlib.frontends.cni import installing
from netlib.frontends.daemon.messages import SOCKET, connect

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["script", pytest.param("program", marks=pytest.mark.skipif(
    shutil.which("cc") is None, reason="there is no C compiler"))]  # fmt: skip


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled client, as setup.py makes it."""
    target = tmp_path_factory.mktemp("program") / "_cni_shim"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-static"]
    compiler = shutil.which("musl-gcc") or "cc"
    subprocess.run([compiler, *flags, "-o", target, installing.SOURCE], check=True, timeout=60)
    return target


@pytest.fixture(params=KINDS)
def folder(request: pytest.FixtureRequest, host: Host, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin folder in which `net cni install` put one of its two kinds."""
    if request.param == "program":
        monkeypatch.setattr(installing, "SHIM", request.getfixturevalue("program"))
    target = host.state_dir / "bin"
    script = request.param == "script"
    written = installing.install(target, host.state_dir, script=script)
    assert str(target / "netlib") in written
    return target


def runtime(host: Host, folder: Path, **more: object) -> Runtime:
    """A runtime that runs the plugin as a process."""

    def run(kind: str, environment: dict[str, str], stdin: bytes) -> tuple[str, int]:
        done = subprocess.run(
            [folder / kind], input=stdin, capture_output=True, timeout=30, check=False,
            env={**environment, "PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert not done.stderr, done.stderr
        return done.stdout.decode(), done.returncode

    plugin = {"type": "netlib", "subnet": "198.51.100.0/24",
              "capabilities": {"portMappings": True, "aliases": True}, **more}  # fmt: skip
    return Runtime({"cniVersion": "1.0.0", "name": "front", "plugins": [plugin]}, run)  # type: ignore[arg-type]


def attach_and_detach(host: Host, front: Runtime, name: str) -> None:
    """ADD, CHECK, a failing ADD, DEL twice."""
    web = host.sandbox(name)
    port = [{"hostPort": 8080, "containerPort": 80}]
    result = front.add(name, web.netns.path, portMappings=port, aliases=["www"])
    assert result["ips"][0]["address"] in web.run("ip", "addr").stdout
    front.check(name)
    with pytest.raises(CniError) as refusal:
        front.add("other", web.netns.path)
    assert refusal.value.code == 4
    front.delete(name)
    front.delete(name, netns=web.netns.path)
    assert "eth0" not in web.run("ip", "link").stdout


def test_it_works_without_a_daemon(host: Host, folder: Path) -> None:
    """In its own process, with an interpreter that knows no site-packages."""
    attach_and_detach(host, runtime(host, folder), "web")
    with Net(host.state_dir) as net:
        assert net.endpoints() == ()
        assert net.check() == ()


def test_a_warning_is_a_line_for_the_runtimes_log(host: Host, folder: Path) -> None:
    """Nothing of where in our code it was thought of."""
    ports = [{"hostPort": 8080, "containerPort": 80, "hostIP": "203.0.113.9"}]
    config = {"cniVersion": "1.0.0", "name": "front", "runtimeConfig": {"portMappings": ports}}
    done = subprocess.run(
        [folder / "netlib"], input=json.dumps(config).encode(), capture_output=True, check=True,
        env={"PATH": os.environ["PATH"], "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "one",
             "CNI_NETNS": host.sandbox("web").netns.path, "CNI_IFNAME": "eth0"},
    )  # fmt: skip
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("the host has no address 203.0.113.9")


def test_it_works_with_a_daemon(host: Host, folder: Path, daemon: subprocess.Popen[str]) -> None:
    """The daemon does it: the plugin's process is there for milliseconds."""
    attach_and_detach(host, runtime(host, folder), "web")
    front = runtime(host, folder)
    front.conflist["plugins"][0]["subnet"] = "nonsense"
    with pytest.raises(CniError, match="nonsense") as refusal:
        front.add("x", host.sandbox("x").netns.path)
    assert refusal.value.code == 7


@pytest.mark.parametrize("warm", [False, True], ids=["alone", "daemon"])
def test_paths_may_be_relative(
    host: Host, folder: Path, request: pytest.FixtureRequest, warm: bool
) -> None:
    """To where the runtime is, as people write them by hand: CNI_PATH=./bin, CNI_NETNS=./web."""
    if warm:
        request.getfixturevalue("daemon")
    web = Path(host.sandbox("web").netns.path)
    shutil.copy("/usr/lib/cni/host-local", folder)
    addresses = {"type": "host-local", "dataDir": str(host.state_dir / "ipam"),
                 "subnet": "198.51.100.0/24"}  # fmt: skip
    config = {"cniVersion": "1.0.0", "name": "front", "type": "netlib", "ipam": addresses}

    def call(command: str) -> str:
        done = subprocess.run(
            [folder / "netlib"], input=json.dumps(config), cwd=web.parent, text=True,
            capture_output=True, timeout=30, check=False,
            env={"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_CONTAINERID": "one",
                 "CNI_NETNS": web.name, "CNI_IFNAME": "eth0",
                 "CNI_PATH": os.path.relpath(folder, web.parent)},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        return done.stdout

    assert json.loads(call("ADD"))["interfaces"][-1]["sandbox"] == web.name
    with Net(host.state_dir) as net:
        assert net.check() == ()
        assert net.collect_garbage() == ()
        assert call("DEL") == ""
        assert net.endpoints() == ()


def test_it_goes_on_when_the_daemon_dies(
    host: Host, folder: Path, daemon: subprocess.Popen[str]
) -> None:
    """A stale socket is no obstacle."""
    daemon.kill()
    daemon.wait()
    assert (host.state_dir / SOCKET).exists()
    attach_and_detach(host, runtime(host, folder), "web")


def test_a_daemon_that_dies_midway(host: Host, folder: Path) -> None:
    """The connection ends without an answer: the call is made once, by the plugin itself."""
    heard: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.state_dir / SOCKET))
        listener.listen()

        def hang_up() -> None:
            client, _ = listener.accept()
            heard.append(client.recv(65536))
            client.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        runtime(host, folder).add("one", host.sandbox("web").netns.path)
        thread.join(5)
    assert json.loads(heard[0].partition(b"\n")[0])["do"] == "cni"
    (host.state_dir / SOCKET).unlink()
    with Net(host.state_dir) as net:
        assert len(net.endpoints()) == 1
        assert net.check() == ()


def states_of_threads(pid: int) -> list[str]:
    """How the threads of a process are; a stopped one is T (proc(5))."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return [stat.read_text().rpartition(") ")[2][0] for stat in stats]


@pytest.mark.parametrize("folder", KINDS[1:], indirect=True)
def test_a_daemon_that_is_stuck_is_no_good_status(
    host: Host, folder: Path, daemon: subprocess.Popen[str]
) -> None:
    """Code 50: an ADD would wait for it. Without one, or with one that is well, all is good."""
    front = runtime(host, folder)
    front.conflist["cniVersion"] = "1.1.0"  # type: ignore[index]
    front.status()
    daemon.send_signal(signal.SIGSTOP)
    try:
        eventually(lambda: set(states_of_threads(daemon.pid)) == {"T"})
        with pytest.raises(CniError, match="stands still") as refusal:
            front.status()
        assert refusal.value.code == 50
    finally:
        daemon.kill()
        daemon.wait()
    front.status()


def test_it_starts_a_daemon_where_the_conflist_says_so(host: Host, folder: Path) -> None:
    """For the calls to come."""
    front = runtime(host, folder, startDaemon=True)
    front.add("one", host.sandbox("web").netns.path)
    eventually(lambda: connect(host.state_dir, 1) is not None, 20)
    began = time.monotonic()
    front.delete("one")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("folder", KINDS[1:], indirect=True)
def test_a_script_whose_python_has_gone_is_told(folder: Path) -> None:
    """As after an update of what netlib was installed in; by an error that runtimes can read."""
    script = (folder / "netlib.py").read_text().splitlines(keepends=True)
    (folder / "netlib.py").write_text("".join(["#!/nowhere/python3 -IS\n", *script[1:]]))
    said = subprocess.run([folder / "netlib"], env={"CNI_COMMAND": "VERSION"}, input=b"{}",
                          capture_output=True, timeout=20, check=False)  # fmt: skip
    assert said.returncode == 1
    told = json.loads(said.stdout)
    assert told["code"] == 5
    assert "net cni install" in told["details"]


def test_version_and_a_person_are_answered(folder: Path) -> None:
    """Without configuration, and without a command."""
    said = subprocess.run([folder / "netlib"], env={"CNI_COMMAND": "VERSION"}, input=b"{}",
                          capture_output=True, timeout=20, check=True)  # fmt: skip
    assert "1.1.0" in json.loads(said.stdout)["supportedVersions"]
    said = subprocess.run([folder / "netlib"], env={}, stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=20, check=True)  # fmt: skip
    assert b"CNI protocol versions supported" in said.stderr


def test_the_command_installs_and_prints_conflists(host: Host) -> None:
    """`net cni install DIR` and `net cni conflist NETWORK`."""

    def run(*arguments: str) -> str:
        program = [sys.executable, "-m", "netlib", "--state-dir", str(host.state_dir)]
        return host.run("env", f"PYTHONPATH={ROOT}", *program, *arguments).stdout

    target = host.state_dir / "plugins"
    assert "netlib" in run("cni", "install", "--dry-run", str(target))
    assert not target.exists()
    run("cni", "install", str(target))
    assert os.access(target / "netlib", os.X_OK)
    assert json.loads((target / "netlib.conflist.sample").read_text())["plugins"]
    run("create", "back")
    conflist = json.loads(run("cni", "conflist", "back"))
    assert conflist["plugins"][0] == {
        "type": "netlib", "network": "back",
        "capabilities": dict.fromkeys(installing.CAPABILITIES, True)}  # fmt: skip


def test_a_conflist_declares_what_its_network_can_do(host: Host) -> None:
    """A runtime passes on no port for a network where it would be refused."""

    def run(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "netlib", "--state-dir", str(host.state_dir)]
        return host.run("env", f"PYTHONPATH={ROOT}", *program, *arguments, check=check)

    run("create", "--internal", "back")
    declared = json.loads(run("cni", "conflist", "back").stdout)["plugins"][0]["capabilities"]
    assert set(installing.CAPABILITIES) - set(declared) == {"portMappings"}
    refusal = run("cni", "conflist", "host", check=False)
    assert refusal.returncode == 2
    assert "can't be attached to host" in refusal.stderr


def test_a_folder_that_can_not_be_written_is_told(host: Host) -> None:
    """With what to do about it."""
    with pytest.raises(NotPermitted, match="can't be written"):
        installing.install("/proc/nothing", host.state_dir)


def test_the_script_loads_little(host: Host, folder: Path) -> None:
    """Until it has to do the work itself: what it imports, a runtime waits for."""
    text = installing.SCRIPT.read_text()
    before = text.partition("sys.path[:0]")[0]
    imports = {line.split()[1] for line in before.splitlines()
               if line.lstrip().startswith(("import ", "from "))}  # fmt: skip
    assert imports == {"posix", "sys", "_socket", "_json"}
