"""Plugins, and the daemon behind them, that die midway: nothing stays that nobody has."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from support.crash import deaths
from support.host import Host
from support.locks import waits_for
from support.made import made
from support.patience import eventually

from netlib import Net
from netlib.frontends.cni import answer
from netlib.frontends.cni.installing import install
from netlib.frontends.daemon.client import open_net
from netlib.frontends.daemon.messages import connect

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(200)]

CONFIG: dict[str, Any] = {
    "cniVersion": "1.1.0",
    "name": "front",
    "type": "netlib",
    "subnet": "198.51.100.0/24",
    "options": {"names": False},  # a resolver that starts would be most of the time
}
PORTS = {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}


class Plugin:
    """Calls of the plugin, each as by a process of its own."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.paths = {name: host.sandbox(name).netns.path for name in ("one", "other")}

    def call(
        self, net: Net, command: str, container: str = "one", *, operation: str = "", **more: Any
    ) -> dict[str, Any]:
        """The result of a call. AssertionError with what is said where it fails."""
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": self.paths.get(container, ""),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/usr/lib/cni",
        }
        runtime = {"runtimeConfig": PORTS} if container == "one" else {}
        given = {**CONFIG, **runtime, **more}
        stdin = json.dumps({k: v for k, v in given.items() if v is not None}).encode()
        said = answer(lambda: net, environment, stdin, operation=operation)
        assert said.status == 0, said
        return dict(json.loads(said.stdout or "{}"))

    def by_itself(self, command: str, container: str = "one", **more: Any) -> dict[str, Any]:
        """Likewise, in a process that knows nothing of earlier ones."""
        with Net(self.host.state_dir) as net:
            return self.call(net, command, container, **more)

    def only_the_other_is_there(self) -> None:
        """Of the container nothing is left: on the host, in its namespace, in the state."""
        with Net(self.host.state_dir) as net:
            assert net.check() == ()
            assert [e.sandbox.name for e in net.endpoints()] == ["cni-other"]
            leases = net.engine.state.store.range("lease/", "lease0")
            assert len(leases) == 1
        assert os.listdir("/run/netns")
        assert "eth0" not in self.host.run("ip", "-n", "one", "link").stdout


@pytest.fixture
def plugin(host: Host) -> Plugin:
    """With a container that is there all the time."""
    made = Plugin(host)
    made.by_itself("ADD", "other")
    return made


def attachments(*names: str) -> dict[str, Any]:
    """What GC is told of those that are valid."""
    valid = [{"containerID": name, "ifname": "eth0"} for name in names]
    return {"cni.dev/valid-attachments": valid}


def repaired(plugin: Plugin) -> None:
    """As after a reboot; an attachment that had been made whole is still there."""
    with Net(plugin.host.state_dir) as net:
        assert net.repair().failed == ()
        assert net.check() == ()
    plugin.by_itself("DEL")


FOLLOWED: dict[str, Callable[[Plugin], object]] = {
    "DEL": lambda plugin: plugin.by_itself("DEL"),
    "GC": lambda plugin: plugin.by_itself("GC", **attachments("other")),
    "repair": repaired,
}


@pytest.mark.parametrize("follow_up", FOLLOWED)
def test_an_add_that_dies_leaves_nothing_for_long(plugin: Plugin, follow_up: str) -> None:
    """At any step: DEL frees what it took, or GC, or repair."""
    died = 0
    for step in deaths(plugin.host.state_dir, lambda net: plugin.call(net, "ADD")):
        died = step
        FOLLOWED[follow_up](plugin)
        plugin.only_the_other_is_there()
    assert died > 3


def test_a_del_that_dies_is_ended_by_the_next(plugin: Plugin) -> None:
    """At any step."""
    died = 0

    def work(net: Net) -> None:
        plugin.call(net, "DEL")

    plugin.by_itself("ADD")
    for step in deaths(plugin.host.state_dir, work):
        died = step
        plugin.by_itself("DEL")
        plugin.only_the_other_is_there()
        plugin.by_itself("ADD")
    assert died > 3


def test_a_call_that_is_sent_twice_is_done_once(plugin: Plugin) -> None:
    """The daemon died with it at any step: the plugin looks up what came of it."""
    died = 0

    def work(net: Net) -> None:
        plugin.call(net, "ADD", operation="it")

    for step in deaths(plugin.host.state_dir, work):
        died = step
        result = plugin.by_itself("ADD", operation="it")
        again = plugin.by_itself("ADD", operation="it")
        assert result == again
        with Net(plugin.host.state_dir) as net:
            assert net.check() == ()
            (mine,) = net.endpoints("cni-one")
            assert [str(a) for a in mine.addresses] == [ip["address"] for ip in result["ips"]]
        plugin.by_itself("DEL")
        plugin.only_the_other_is_there()
    assert died > 3


def test_addresses_of_a_call_that_is_sent_twice_are_given_back(host: Host) -> None:
    """Another plugin gave one to the daemon that died, and would refuse it as taken."""
    plugin = Plugin(host)
    folder = host.state_dir / "ipam"
    ipam = {"type": "host-local", "dataDir": str(folder), "subnet": "198.51.100.0/24"}
    more: dict[str, Any] = {"cniVersion": "1.0.0", "ipam": ipam, "subnet": None}

    def work(net: Net) -> None:
        plugin.call(net, "ADD", operation="it", **more)

    def given() -> set[str]:
        return {name for name in os.listdir(folder / "front") if name[0].isdigit()}

    died = 0
    for step in deaths(host.state_dir, work):
        died = step
        result = plugin.by_itself("ADD", operation="it", **more)
        address = result["ips"][0]["address"].partition("/")[0]
        assert given() == {address}
        plugin.by_itself("DEL", **more)
        assert given() == set()
        with Net(host.state_dir) as net:
            assert net.engine.state.store.range("operation/", "operation0") == []
            assert net.check() == ()
    assert died > 3


def test_a_network_that_was_half_made_is_no_obstacle(host: Host) -> None:
    """Whoever comes next makes it anew."""
    plugin = Plugin(host)
    died = 0
    for step in deaths(host.state_dir, lambda net: plugin.call(net, "ADD")):
        died = step
        plugin.by_itself("ADD", "other")
        plugin.by_itself("DEL")
        plugin.only_the_other_is_there()
        plugin.by_itself("DEL", "other")
        with Net(host.state_dir) as net:
            net.remove("front")
            assert net.check() == ()
    assert died > 3


def test_a_client_that_dies_takes_its_attachment_along(
    host: Host, daemon: subprocess.Popen[str]
) -> None:
    """The runtime was told nothing, and may have called DEL before the daemon came to the ADD."""
    plugin = Plugin(host)
    environment = {
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "one",
        "CNI_NETNS": plugin.paths["one"],
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/usr/lib/cni",
    }
    events, channel = connect(host.state_dir, 20), connect(host.state_dir, 20)
    assert events is not None
    assert channel is not None
    assert events.call({"do": "events"}).document["ok"]
    netns = os.open(plugin.paths["one"], os.O_RDONLY)
    request = {"do": "cni", "operation": "it", "environment": environment}

    with Net(host.state_dir) as net, net.engine.lock.alone():
        channel.send(request, json.dumps(CONFIG).encode(), (netns,))
        eventually(lambda: waits_for(daemon.pid, host.state_dir / "lock"))
        channel.close()
    os.close(netns)

    told: list[str] = []
    while "disconnect" not in told:
        event = events.receive().document.get("event")
        if event:
            told.append(event["event"])
    events.close()
    assert told == ["create", "connect", "disconnect"]
    with Net(host.state_dir) as net:
        eventually(lambda: net.check() == ())
        assert len(made(net)) == 1
        assert net.endpoints() == ()


def test_an_add_whose_client_died_before_is_not_done(
    host: Host, daemon: subprocess.Popen[str]
) -> None:
    """It waits for the same container's call before it, and finds that nobody wants it any more."""
    plugin = Plugin(host)
    environment = {
        "CNI_CONTAINERID": "one",
        "CNI_NETNS": plugin.paths["one"],
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/usr/lib/cni",
    }
    netns = os.open(plugin.paths["one"], os.O_RDONLY)
    channels = [connect(host.state_dir, 20) for _ in range(3)]
    with Net(host.state_dir) as net:
        with net.engine.lock.alone():
            for channel, command in zip(channels, ("ADD", "ADD", "DEL"), strict=True):
                assert channel is not None
                asked = {"do": "cni", "environment": {**environment, "CNI_COMMAND": command}}
                channel.send(asked, json.dumps(CONFIG).encode(), (netns,))
                if command == "ADD":  # both were killed
                    channel.close()
        os.close(netns)
        assert channels[2] is not None
        assert channels[2].receive().document["status"] == 0
        channels[2].close()
        # Whichever of them came first: a new ADD finds nothing of them.
        eventually(lambda: net.endpoints() == ())
    with open_net(host.state_dir) as client:
        assert client.check() == ()


def test_calls_go_on_when_the_daemon_is_killed_under_them(
    host: Host, start_daemon: Callable[..., subprocess.Popen[str]]
) -> None:
    """Each is made once: by the daemon, or by the plugin after a look at what came of it."""
    daemon = start_daemon()
    folder = host.state_dir / "bin"
    install(folder, host.state_dir, script=True)
    names = [f"c{number}" for number in range(8)]
    paths = {name: host.sandbox(name).netns.path for name in names}
    told: dict[str, tuple[int, str]] = {}

    def call(command: str, name: str) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": name,
            "CNI_NETNS": paths[name],
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(folder),
        }
        done = host.run(*("env", "-i"), *(f"{k}={v}" for k, v in environment.items()),
                        str(folder / "netlib"), stdin=json.dumps(CONFIG), check=False)  # fmt: skip
        told[name] = done.returncode, done.stdout + done.stderr

    def all_at_once(command: str) -> list[Thread]:
        threads = [Thread(target=call, args=(command, name)) for name in names]
        for thread in threads:
            thread.start()
        return threads

    threads = all_at_once("ADD")
    with Net(host.state_dir) as net:
        eventually(lambda: len(net.endpoints()) > 1)
        daemon.kill()
        daemon.wait()
        for thread in threads:
            thread.join()
        assert {name: status for name, (status, _) in told.items()} == dict.fromkeys(names, 0), told
        given = {json.loads(said)["ips"][0]["address"] for _, said in told.values()}
        assert {str(e.addresses[0]) for e in net.endpoints()} == given
        assert len(given) == len(names)
        assert net.check() == ()
    second = start_daemon()
    for thread in all_at_once("DEL"):
        thread.join()
    assert {status for status, _ in told.values()} == {0}
    with Net(host.state_dir) as net:
        assert net.endpoints() == ()
        assert net.check() == ()
    second.terminate()
    assert second.wait(20) == 0
