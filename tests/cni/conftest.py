"""A runtime that calls the plugin in this process, or through a daemon."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support.host import Host
from support.libcni import Runtime
from support.patience import eventually

from netlib import Net
from netlib.frontends.cni import answer
from netlib.frontends.daemon.messages import connect
from netlib.names import new_id

ROOT = Path(__file__).resolve().parents[2]

SUBNET = "198.51.100.0/24"
Runtimes = Callable[..., Runtime]

CAPABILITIES = ("portMappings", "ips", "mac", "dns", "aliases", "ipRanges", "bandwidth")


def conflist(*plugins: Mapping[str, Any], version: str = "1.1.0", name: str = "front") -> Any:
    """A conflist of these plugins; those without a type are ours with all capabilities."""
    ours = {"type": "netlib", "capabilities": dict.fromkeys(CAPABILITIES, True)}
    return {
        "cniVersion": version,
        "name": name,
        "plugins": [p if "type" in p else {**ours, **p} for p in plugins or [{"subnet": SUBNET}]],
    }


@pytest.fixture
def net(host: Host) -> Iterator[Net]:
    """The library on an empty host."""
    with Net(host.state_dir) as net:
        yield net


@pytest.fixture
def start_daemon(host: Host) -> Callable[..., subprocess.Popen[str]]:
    """Starts daemons of the host's state: `start_daemon()`."""

    def start(*options: str) -> subprocess.Popen[str]:
        """A daemon of the host's state that answers."""
        program = [sys.executable, "-m", "netlib", "--state-dir", str(host.state_dir), "daemon"]
        daemon = host.popen(*program, *options, cwd=ROOT)

        def answers() -> bool:
            assert daemon.poll() is None, daemon.communicate()[0]
            channel = connect(host.state_dir, 5)
            if channel is None:
                return False
            try:
                return "pid" in channel.call({"do": "hello"}).document
            finally:
                channel.close()

        eventually(answers, 20)
        return daemon

    return start


@pytest.fixture
def daemon(
    start_daemon: Callable[..., subprocess.Popen[str]],
) -> Iterator[subprocess.Popen[str]]:
    """A running daemon, which must end well."""
    daemon = start_daemon()
    yield daemon
    if daemon.poll() is None:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(20) == 0


@pytest.fixture
def runtime(request: pytest.FixtureRequest, host: Host, net: Net) -> Runtimes:
    """Makes runtimes: `runtime({"subnet": "198.51.100.0/24"})`.

    As parameter `daemon`: by one; `processes`: each call by a process of its own.
    """
    where = getattr(request, "param", "here")
    if where == "daemon":
        request.getfixturevalue("daemon")

    def run(kind: str, environment: Mapping[str, str], stdin: bytes) -> tuple[str, int]:
        if kind == "netlib" and where == "processes":
            return in_a_process(host, environment, stdin)
        if kind == "netlib" and where == "here":
            said = answer(lambda: net, environment, stdin)
            assert not said.log, said.log
            return said.stdout, said.status
        if kind == "netlib":
            return ask_daemon(host, environment, stdin)
        program = os.path.join(environment["CNI_PATH"], kind)
        done = subprocess.run([program], input=stdin, env={**os.environ, **environment},
                              capture_output=True, timeout=20, check=False)  # fmt: skip
        return done.stdout.decode(), done.returncode

    def make(*plugins: Mapping[str, Any], path: str = "/usr/lib/cni", **options: str) -> Runtime:
        return Runtime(conflist(*plugins, **options), run, path)

    return make


def ask_daemon(host: Host, environment: Mapping[str, str], stdin: bytes) -> tuple[str, int]:
    """What a daemon says to a call, as the plugin would send it."""
    channel = connect(host.state_dir, 30)
    assert channel is not None
    opened: tuple[int, ...] = ()
    with contextlib.suppress(OSError):
        opened = (os.open(environment.get("CNI_NETNS", ""), os.O_RDONLY | os.O_NONBLOCK),)
    try:
        request = {"do": "cni", "operation": new_id(), "environment": dict(environment)}
        said = channel.call(request, stdin, opened)
        return said.body.decode(), said.document["status"]
    finally:
        channel.close()
        for descriptor in opened:
            os.close(descriptor)


def in_a_process(host: Host, environment: Mapping[str, str], stdin: bytes) -> tuple[str, int]:
    """What a process says that has nothing in common with any other."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            with Net(host.state_dir) as net:
                said = answer(lambda: net, environment, stdin)
                os.write(writer, f"{said.stdout}{said.log}".encode())
            os._exit(said.status)
        finally:
            os._exit(2)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return text, os.waitstatus_to_exitcode(status)
