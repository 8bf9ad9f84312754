"""A running daemon: its clients, what it watches and holds, and how it ends."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from support.host import HOST6, Host
from support.made import made
from support.names import query, values
from support.patience import eventually
from support.resolving import ask
from support.strangers import bound, free_at
from support.traffic import fetch, serve

from netlib import Net, keys
from netlib.apply import apply
from netlib.dns.client import Resolver
from netlib.dns.place import SOCKET as NAMES
from netlib.errors import AnotherFirewall, DaemonLost, KernelError, NetWarning, PortTaken
from netlib.frontends.daemon import news, starting
from netlib.frontends.daemon import watch as watching
from netlib.frontends.daemon.client import Client, open_net
from netlib.frontends.daemon.journal import Journal
from netlib.frontends.daemon.messages import SOCKET, connect
from netlib.frontends.daemon.ports import Holder
from netlib.frontends.daemon.run import run
from netlib.frontends.daemon.server import listening
from netlib.frontends.daemon.starting import ensure, launch
from netlib.frontends.daemon.watch import Watch
from netlib.kernel import Kernel
from netlib.kernel.sandboxes import resolve
from netlib.model import Protocol
from netlib.plan import Plan
from netlib.ports import parse
from netlib.records import dump_endpoint
from netlib.store import Commit

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).resolve().parents[2]
SUBNET = "198.51.100.0/24"
REPAIR_SECONDS = 1.0


@pytest.fixture
def client(host: Host, daemon: subprocess.Popen[str]) -> Iterator[Net]:
    """The library by way of the daemon."""
    with open_net(host.state_dir) as net:
        assert isinstance(net, Client)
        yield net


def net_command(host: Host, *arguments: str) -> str:
    """What the command line prints."""
    program = [sys.executable, "-m", "netlib", "--state-dir", str(host.state_dir), *arguments]
    return host.run("env", f"PYTHONPATH={ROOT}", *program).stdout


def test_a_client_does_what_the_library_does(host: Host, client: Net) -> None:
    """Same arguments, results, errors and state."""
    front = client.create("front", subnets=[SUBNET], options={"mtu": "1400"})
    web, db = host.sandbox("web"), host.sandbox("db")
    endpoint = client.connect("front", "netns:web", publish=["8080:80"], aliases=["www"])
    with Net(host.state_dir) as plain:
        assert plain.inspect("front").network == front
        assert plain.endpoints() == (replace(endpoint, state="ready"),)
        with pytest.raises(PortTaken, match="8080") as refusal:
            client.connect("front", f"pid:{db.popen('sleep', '60').pid}", publish=["8080:80"])
        assert refusal.value.exit_status == 4
        (port,) = client.publish("netns:web", ["8081:80"])
        assert port.host_port == 8081
        with serve(web, 80, "http", name="web"):
            assert fetch(host, "127.0.0.1", 8081) == b"web"
        client.unpublish("netns:web", ["8081:80"])
        plain.disconnect("front", "netns:web")
        client.remove("front")
        assert made(plain) == []


def test_the_command_line_uses_it(host: Host, daemon: subprocess.Popen[str]) -> None:
    """The result is that of a call without one."""
    net_command(host, "create", "front")
    host.sandbox("web")
    said = json.loads(net_command(host, "connect", "--json", "front", "netns:web"))
    assert said["endpoint"]["interface"] == "eth0"
    assert "front" in net_command(host, "ls")
    net_command(host, "disconnect", "front", "netns:web")
    assert net_command(host, "check") == ""


def test_whoever_needs_a_daemon_takes_one_that_somebody_else_starts_just_then(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two at once one is too many: it ends, before the other one answers."""
    started: list[subprocess.Popen[bytes]] = []
    asked: list[None] = []  # after that

    def start(*arguments: Any) -> subprocess.Popen[bytes]:
        started.append(launch(*arguments))
        return started[0]

    def answers(folder: Path) -> int:
        if started and started[0].poll() is not None:
            asked.append(None)
        return os.getpid() if len(asked) > 1 else 0

    monkeypatch.setattr(starting, "launch", start)
    monkeypatch.setattr(starting, "running", answers)
    with listening(host.state_dir):
        assert not ensure(host.state_dir)
    assert "serves" in (host.state_dir / "daemon.log").read_text()
    assert "Traceback" not in (host.state_dir / "daemon.log").read_text()


def test_its_rules_are_not_taken_away_beside_it(host: Host, daemon: subprocess.Popen[str]) -> None:
    """It would put them back: who wants no firewall is told to end it first."""
    net_command(host, "create", "front")

    with pytest.raises(AnotherFirewall, match="daemon") as refusal:
        open_net(host.state_dir, firewall="none")

    assert "net --firewall none daemon" in refusal.value.hint
    assert net_command(host, "check") == ""


def test_a_daemon_without_a_firewall_says_what_it_takes_away(
    host: Host, start_daemon: Callable[..., subprocess.Popen[str]]
) -> None:
    """In its log: at its start it makes the host as it is to be, and that is open."""
    with Net(host.state_dir) as plain:
        plain.create("front", subnets=[SUBNET])
    daemon = start_daemon("--firewall", "none")
    with open_net(host.state_dir) as client:
        assert client.check() == ()
        client.remove("front")
    daemon.terminate()

    said = daemon.communicate(timeout=20)[0]
    assert "netlib filters nothing on this host any more" in said
    assert "NetWarning" not in said


def test_its_socket_is_for_its_owner_alone(host: Host, daemon: subprocess.Popen[str]) -> None:
    """Mode 0600, and a second daemon of the state is refused."""
    assert stat.S_IMODE((host.state_dir / SOCKET).stat().st_mode) == 0o600
    program = [sys.executable, "-m", "netlib", "--state-dir", str(host.state_dir), "daemon"]
    second = host.run("env", f"PYTHONPATH={ROOT}", *program, check=False)
    assert second.returncode == 4
    assert "already" in second.stderr


def test_one_whose_socket_is_taken_away_makes_room_for_the_next(
    host: Host, start_daemon: Callable[..., subprocess.Popen[str]]
) -> None:
    """Nobody could reach it, and it would go on mending beside the next one of the same state."""
    lost = start_daemon()
    shutil.rmtree(host.state_dir)
    host.state_dir.mkdir()
    second = start_daemon()
    said, _ = lost.communicate(timeout=20)
    assert lost.returncode == 7
    assert "was taken away" in said
    channel = connect(host.state_dir, 5)  # it left the other one its socket
    assert channel is not None
    assert channel.call({"do": "hello"}).document["pid"] == second.pid
    channel.close()
    second.terminate()
    assert second.wait(20) == 0


def test_who_says_nothing_or_is_slow_holds_up_nobody(host: Host, client: Net) -> None:
    """However many there are: they make room for others, who are served at once."""
    client.create("front", subnets=[SUBNET])
    silent = [connect(host.state_dir, 5) for _ in range(12)]
    slow = [connect(host.state_dir, 5) for _ in range(12)]
    assert None not in [*silent, *slow]
    for channel in slow:
        assert channel is not None
        channel.sock.sendall(b'{"version":1,"do":"cni","environment":{"CNI_COMMAND":"ADD"')
    endpoints = []
    for name in ("web", "db"):
        host.sandbox(name)
        endpoints.append(client.connect("front", f"netns:{name}"))
    assert len(endpoints) == 2
    for channel in [*silent, *slow]:
        assert channel is not None
        channel.close()
    client.disconnect("front", "netns:web")


def test_followers_and_waiting_clients_leave_room_for_others(host: Host, client: Net) -> None:
    """Events are followed for ever, and a client may keep its connection between two requests."""
    followers = [connect(host.state_dir, 5) for _ in range(6)]
    for channel in followers:
        assert channel is not None
        channel.send({"do": "events"})
    kept = [connect(host.state_dir, 5) for _ in range(6)]
    for channel in kept:
        assert channel is not None
        assert "pid" in channel.call({"do": "hello"}).document
    client.create("front", subnets=[SUBNET])
    for channel in kept:
        assert channel is not None
        assert "pid" in channel.call({"do": "hello"}).document
    for channel in [*followers, *kept]:
        assert channel is not None
        channel.close()


# An IPAM plugin that takes as long as it is let.
SLOW = """#!/bin/sh
cat > /dev/null
[ "$CNI_COMMAND" = ADD ] || exit 0
touch {folder}/begun
read word < {folder}/go
echo '{{"ips": [{{"address": "203.0.113.7/24"}}]}}'
"""


def attach(host: Host, name: str, **config: Any) -> dict[str, Any]:
    """What the daemon answers to an ADD of a runtime's."""
    place = host.sandbox(name).netns.path
    environment = {"CNI_COMMAND": "ADD", "CNI_CONTAINERID": name, "CNI_NETNS": place,
                   "CNI_IFNAME": "eth0", "CNI_PATH": str(host.state_dir)}  # fmt: skip
    request = {"do": "cni", "operation": name, "environment": environment}
    stdin = json.dumps({"cniVersion": "1.1.0", "name": name, **config}).encode()
    channel = connect(host.state_dir, 20)
    assert channel is not None
    descriptor = os.open(place, os.O_RDONLY)
    try:
        said = channel.call(request, stdin, (descriptor,))
        assert said.document["status"] == 0, said
        return dict(json.loads(said.body))
    finally:
        os.close(descriptor)
        channel.close()


def test_an_ipam_plugin_at_work_holds_up_nobody(host: Host) -> None:
    """Another's plugin may take a minute."""
    os.mkfifo(host.state_dir / "go")
    (host.state_dir / "slow").write_text(SLOW.format(folder=host.state_dir))
    (host.state_dir / "slow").chmod(0o755)
    ready, stop = Event(), Event()
    daemon = Thread(target=partial(run, host.state_dir, ready=ready, stop=stop))
    daemon.start()
    slow: list[dict[str, Any]] = []
    first = Thread(target=lambda: slow.append(attach(host, "slow", ipam={"type": "slow"})))
    try:
        assert ready.wait(20)
        first.start()
        eventually((host.state_dir / "begun").exists)
        assert attach(host, "web", subnet=SUBNET)["ips"][0]["address"] == "198.51.100.2/24"
        assert slow == []
    finally:
        (host.state_dir / "go").write_text("word\n")
        first.join(20)
        stop.set()
        daemon.join(20)
    assert slow[0]["ips"][0]["address"] == "203.0.113.7/24"


def test_messages_it_can_not_read_are_refused(host: Host, daemon: subprocess.Popen[str]) -> None:
    """Other versions, unknown verbs, garbage: it goes on serving."""
    channel = connect(host.state_dir, 5)
    assert channel is not None
    assert "error" in channel.call({"do": "dance"}).document
    assert "error" in channel.call({"do": "hello", "version": 99}).document
    bad = {"do": "call", "operation": "x", "verb": "engine", "arguments": [], "named": {}}
    assert "error" in channel.call(bad).document
    bad = {"do": "call", "operation": "y", "verb": "create", "arguments": [5], "named": {}}
    assert "error" in channel.call(bad).document
    for garbage in (b"{\n", b'{"version":1,"body":-1}\n', b"[]\n", b'{"do":"cni","version":1}\n'):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(5)
            sock.connect(str(host.state_dir / SOCKET))
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
    assert "pid" in channel.call({"do": "hello"}).document
    channel.close()


@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_what_others_flush_is_back_within_a_second(
    host: Host, start_daemon: Callable[..., subprocess.Popen[str]], firewall: str
) -> None:
    """Rules, links, what these have. A busy machine gets more tries: the reaction counts."""
    daemon = start_daemon("--firewall", firewall)
    client = open_net(host.state_dir)
    client.create("front", subnets=[SUBNET, "2001:db8:a::/64"])
    web = host.sandbox("web")
    client.connect("front", "netns:web", publish=["8080:80"])
    (network,) = made(client)

    def reaction(*breakage: str) -> float:
        """How many seconds it takes until all is as it should be."""
        host.run(*breakage)
        began = time.monotonic()
        eventually(lambda: client.check() == (), 20, what=" ".join(breakage))
        return time.monotonic() - began

    flushes = {
        "nftables": ["nft", "flush", "chain", "inet", "netlib", "forward"],
        "iptables": ["iptables-nft", "-t", "nat", "-F"],
    }
    pair, bridge = f"nv-{client.endpoints()[0].id[:12]}", f"nl-{network.id[:12]}"
    with serve(web, 80, "http", name="web"):
        for breakage in (
            ["nft", "flush", "ruleset"],
            flushes[firewall],
            ["ip", "addr", "flush", "dev", bridge],
            ["ip", "link", "set", bridge, "down"],
            ["ip", "link", "set", bridge, "mtu", "1300"],
            ["ip", "link", "set", bridge, "address", "02:00:00:00:00:99"],
            ["sysctl", "-w", "net.ipv4.ip_forward=0"],
            ["sysctl", "-w", "net.ipv6.conf.all.forwarding=0"],
            ["ip", "link", "set", pair, "down"],
            ["ip", "link", "set", pair, "nomaster"],
            ["ip", "link", "del", pair],
            ["ip", "link", "del", bridge],
        ):
            assert any(reaction(*breakage) < REPAIR_SECONDS for _ in range(4)), breakage
            assert fetch(host, "127.0.0.1", 8080) == b"web"
    client.close()
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0


def test_what_others_take_while_it_begins_is_put_back(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after its first look, by whoever comes at that moment."""
    with Net(host.state_dir) as net:
        net.create("front", subnets=[SUBNET])
        host.sandbox("web")
        net.connect("front", "netns:web")
        look = Net.repair

        def look_and_lose(net: Net, *arguments: Any, **named: Any) -> Any:
            found = look(net, *arguments, **named)
            host.run("ip", "link", "del", f"nv-{net.endpoints()[0].id[:12]}")
            return found

        monkeypatch.setattr(Net, "repair", look_and_lose)
        ready, stop = Event(), Event()
        daemon = Thread(target=partial(run, host.state_dir, ready=ready, stop=stop))
        daemon.start()
        try:
            assert ready.wait(20)
            eventually(lambda: net.check() == ())
        finally:
            stop.set()
            daemon.join(20)
        assert not daemon.is_alive()


def test_what_the_kernel_has_no_room_to_tell_is_looked_at(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So much happens at once that the end of our link is not among what is told."""
    monkeypatch.setattr(news, "_BUFFER_BYTES", 1)  # the kernel takes the least there can be
    with Net(host.state_dir) as net:
        net.create("front", subnets=[SUBNET])
        host.sandbox("web")
        port = f"nv-{net.connect('front', 'netns:web').id[:12]}"
        told: list[str] = []
        watch = Watch(net, told.append)
        others = "".join(f"link add other{n} type bridge\n" for n in range(50))
        host.run("ip", "-batch", "-", stdin=f"{others}link del {port}\n")
        assert net.check() != ()
        watch.start()  # it listens since it was made
        try:
            eventually(lambda: net.check() == ())
        finally:
            watch.stop()
        assert told == ["mended: netns:web on front"]


@pytest.mark.parametrize("loss", ["ip link del {port}", "nft flush ruleset"])
def test_what_can_not_be_mended_at_once_is_mended_later(
    host: Host, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """It is told of once, however often it is tried."""
    monkeypatch.setattr(watching, "_FIRST_RETRY", 0.05)
    with Net(host.state_dir, firewall="nftables") as net:
        net.create("front", subnets=[SUBNET])
        host.sandbox("web")
        port = f"nv-{net.connect('front', 'netns:web').id[:12]}"
        tries: list[None] = []

        def fail(plan: Plan, kernel: Kernel) -> None:
            tries.append(None)
            if len(tries) < 4:
                raise KernelError("the device is busy")
            apply(plan, kernel)

        monkeypatch.setattr(watching, "apply", fail)
        told: list[str] = []
        watch = Watch(net, told.append)
        watch.start()
        try:
            host.run(*loss.format(port=port).split())
            eventually(lambda: net.check() == ())
        finally:
            watch.stop()
        subject = "firewall" if "nft" in loss else "netns:web on front"
        assert told[0] == f"not mended: {subject}: the device is busy"
        assert told[-1].startswith("mended: ")
        assert len(told) == len(set(told))


def test_forwarding_that_no_network_needs_is_left_alone(host: Host) -> None:
    """It is the administrator's: only what is needed is switched on again."""
    with Net(host.state_dir) as net:
        net.create("front", subnets=[SUBNET])
        host.run("sysctl", "-w", "net.ipv6.conf.all.forwarding=1")
        told: list[str] = []
        watch = Watch(net, told.append)
        watch.start()
        try:
            host.run("sysctl", "-w", "net.ipv6.conf.all.forwarding=0")
            host.run("sysctl", "-w", "net.ipv4.ip_forward=0")
            eventually(lambda: net.check() == ())
        finally:
            watch.stop()
        assert told == ["mended: IPv4 forwarding"]
        assert "= 0" in host.run("sysctl", "net.ipv6.conf.all.forwarding").stdout


def test_news_that_was_lost_is_looked_up(host: Host) -> None:
    """So many links came at once that the kernel could not tell of one that went."""
    with Net(host.state_dir) as net:
        network = net.create("front", subnets=[SUBNET])
        told: list[str] = []
        watch = Watch(net, told.append)
        watch._links.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is
        watch.start()
        try:
            flood = "".join(f"link add flood{n} type bridge\n" for n in range(20))
            host.run("ip", "-batch", "-", stdin=f"{flood}link del nl-{network.id[:12]}\n")
            eventually(lambda: net.check() == ())
        finally:
            watch.stop()
        assert told[0] == "mended: network front"
        for number in range(20):
            host.run("ip", "link", "del", f"flood{number}")


def test_legacy_iptables_is_looked_at_now_and_then(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells nobody of its changes."""
    programs = host.state_dir / "programs"
    programs.mkdir()
    (programs / "iptables").symlink_to(str(shutil.which("iptables-legacy")))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    with Net(host.state_dir, firewall="iptables") as net:
        net.create("front", subnets=[SUBNET])
        assert "NETLIB" in host.run("iptables-legacy-save").stdout
        told: list[str] = []
        watch = Watch(net, told.append, poll_seconds=0.1)
        watch.start()
        try:
            host.run("iptables-legacy", "-t", "nat", "-F")
            eventually(lambda: told == ["mended: firewall"], 20)
            assert net.check() == ()
        finally:
            watch.stop()
        assert told == ["mended: firewall"]


def is_free(host: Host, protocol: str, address: str, port: int) -> bool:
    """Whether a program of the host would get the port."""
    return bool(free_at(host, protocol, [address], port))


PUBLISHED = ["8080:80", "5353:53/udp", "9000-9003:90-93", "192.0.2.1:7000:70",
             "[2001:db8:2::1]:7001:71/udp"]  # fmt: skip
HELD = [
    ("tcp", "0.0.0.0", 8080),
    ("tcp", "::", 8080),
    ("tcp", "127.0.0.1", 8080),
    ("udp", "0.0.0.0", 5353),
    ("udp", "::", 5353),
    ("tcp", "0.0.0.0", 9000),
    ("tcp", "::", 9003),
    ("tcp", "192.0.2.1", 7000),
    ("tcp", "0.0.0.0", 7000),
    ("udp", "2001:db8:2::1", 7001),
]


def test_published_ports_are_held(host: Host, client: Net) -> None:
    """No process of the host gets one, and our own checks do not take the holder for a user."""
    host.outsider()
    client.create("front", subnets=[SUBNET, "2001:db8:a::/64"])
    for name in ("web", "db"):
        host.sandbox(name)
    client.connect("front", "netns:web", publish=PUBLISHED)
    for port in HELD:
        eventually(lambda port=port: not is_free(host, *port), what=str(port))  # type: ignore[misc]
    assert is_free(host, "tcp", "127.0.0.1", 7000)
    assert is_free(host, "tcp", "0.0.0.0", 9004)
    client.disconnect("front", "netns:web")
    client.connect("front", "netns:db", publish=PUBLISHED)
    client.disconnect("front", "netns:db")
    for port in HELD:
        eventually(lambda port=port: is_free(host, *port), what=str(port))  # type: ignore[misc]


def test_a_relay_of_ours_is_nobody_who_takes_a_port(
    host: Host, start_daemon: Callable[..., subprocess.Popen[str]]
) -> None:
    """It listens at [::1] and holds [::] itself; who wants an address is refused all the same."""
    daemon = start_daemon()
    host.outsider()
    host.sandbox("web")
    with Net(host.state_dir) as net:
        net.create("front", subnets=[SUBNET, "2001:db8:a::/64"])
        net.connect("front", "netns:web", publish=["8080:80", "9000-9001:90-91"])
        for port in (8080, 9000, 9001):
            eventually(lambda port=port: not is_free(host, "tcp", "0.0.0.0", port))  # type: ignore[misc]
            assert not is_free(host, "tcp", "::", port)
            assert not is_free(host, "tcp", "::1", port)
            assert not is_free(host, "tcp", HOST6, port)
        net.disconnect("front", "netns:web")
        eventually(lambda: is_free(host, "tcp", "::", 8080))
    daemon.send_signal(signal.SIGTERM)
    assert "used by" not in daemon.communicate(timeout=20)[0]


TCP = pytest.param("tcp", marks=pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < (6, 8),
    reason="this kernel does not tell of bound TCP sockets",
))  # fmt: skip


@pytest.mark.parametrize("protocol", [TCP, "udp"])
def test_a_relay_waits_until_a_held_port_is_let_go(
    host: Host, client: Net, protocol: Protocol
) -> None:
    """The daemon has the port of an endpoint that is gone for a moment more, at [::] as well."""
    client.create("front", subnets=[SUBNET, "2001:db8:a::/64"])
    for name in ("web", "db"):
        host.sandbox(name)
    for count in (1, 3):
        ports = f"8080-{8079 + count}:80-{79 + count}/{protocol}"
        client.connect("front", "netns:web", publish=[parse(ports, sources=["192.0.2.0/24"])])
        eventually(lambda: not is_free(host, protocol, "::", 8080))
        client.disconnect("front", "netns:web")
        client.connect("front", "netns:db", publish=[ports])
        assert not is_free(host, protocol, "::1", 8080)
        client.disconnect("front", "netns:db")
    assert client.check() == ()


def test_who_takes_a_port_while_no_daemon_runs_is_named(
    host: Host, start_daemon: Callable[..., subprocess.Popen[str]]
) -> None:
    """The next daemon tells of it, and has the port as soon as that program ends."""
    first = start_daemon()
    with Net(host.state_dir) as net:
        net.create("front", subnets=[SUBNET])
        host.sandbox("web")
        net.connect("front", "netns:web", publish=["8080:80", "8081:81"])
    eventually(lambda: not is_free(host, "tcp", "0.0.0.0", 8080))
    first.kill()
    first.wait()
    thief = bound(host, "tcp", "0.0.0.0", 8080)
    assert thief is not None
    with thief:
        thief.listen()
        second = start_daemon()
        eventually(lambda: not is_free(host, "tcp", "0.0.0.0", 8081))
    eventually(lambda: not is_free(host, "tcp", "0.0.0.0", 8080))
    second.send_signal(signal.SIGTERM)
    said, _ = second.communicate(timeout=20)
    assert "a published port is used by" in said
    assert said.count("on tcp port 8080") == 1


def test_runtimes_may_hold_ports_themselves(host: Host) -> None:
    """Some bind a container's ports right after the ADD; later those are ours to hold."""
    web = host.sandbox("web")
    with Net(host.state_dir) as net:
        now = time.time()
        net.engine.clock = lambda: now
        told: list[str] = []
        holder = Holder(net, told.append)
        holder.start()
        box = replace(resolve(f"netns:{web.netns.path}", net.engine.kernel), kind="cni")
        net.create("front", subnets=[SUBNET])
        net.connect("front", box, publish=["8080:80", "8081:81"])
        monitor = bound(host, "tcp", "0.0.0.0", 8080)
        assert monitor is not None
        assert is_free(host, "tcp", "0.0.0.0", 8081)
        now += 60
        eventually(lambda: not is_free(host, "tcp", "0.0.0.0", 8081))
        monitor.close()
        eventually(lambda: not is_free(host, "tcp", "0.0.0.0", 8080))
        net.publish(box.name, ["8082:82"])
        now -= 86400  # somebody set the clock back
        eventually(lambda: not is_free(host, "tcp", "0.0.0.0", 8082))
        holder.stop()


def test_events_are_told(host: Host, start_daemon: Callable[..., subprocess.Popen[str]]) -> None:
    """Of all kinds, whoever does it, while daemons come and go."""
    first = start_daemon()
    program = [sys.executable, "-u", "-m", "netlib", "--state-dir", str(host.state_dir)]
    follower = host.popen(*program, "--json", "events", cwd=ROOT)
    assert follower.stdout is not None
    host.sandbox("web")

    def told(*kinds: str) -> list[dict[str, Any]]:
        """The next events; as many as are expected."""
        lines = [json.loads(follower.stdout.readline()) for _ in kinds]  # type: ignore[union-attr]
        assert [line["event"] for line in lines] == list(kinds)
        assert {line["version"] for line in lines} == {1}
        return lines

    with Net(host.state_dir) as plain:
        plain.create("back")
        number = iter(range(10000))

        def begun() -> bool:
            """It follows from now on: a process takes its time to start."""
            plain.update("back", labels={"number": str(next(number))})
            return bool(select.select([follower.stdout], [], [], 0.1)[0])

        eventually(begun, 20)
        plain.remove("back")
        while json.loads(follower.stdout.readline())["event"] != "remove":
            pass
        plain.create("front", subnets=[SUBNET])
        plain.connect("front", "netns:web", publish=["8080:80"])
        (network, endpoint) = told("create", "connect")
        assert (network["network"], network["driver"]) == ("front", "bridge")
        assert endpoint["sandbox"] == "netns:web"
        assert endpoint["addresses"] == ["198.51.100.2/24"]
        assert endpoint["ports"][0]["host_port"] == 8080
        host.run("nft", "flush", "ruleset")
        assert told("repair")[0]["subject"] == "firewall"
        with open_net(host.state_dir) as client:
            client.publish("netns:web", ["8081:80"])
            client.unpublish("netns:web", ["8080:80"])
        told("publish", "unpublish")
        first.kill()
        first.wait()
        plain.update("front", labels={"a": "b"})
        told("update")
        second = start_daemon()
        plain.disconnect("front", "netns:web")
        told("disconnect")
        host.run("nft", "flush", "ruleset")
        told("repair")
        plain.remove("front")
        told("remove")
    follower.kill()
    follower.communicate()
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0


def test_a_killed_daemon_stops_no_packet(
    host: Host, daemon: subprocess.Popen[str], client: Net
) -> None:
    """Clients go on by themselves, and the next daemon finds nothing to mend."""
    client.create("front", subnets=[SUBNET])
    web = host.sandbox("web")
    client.connect("front", "netns:web", publish=["8080:80"])
    daemon.kill()
    daemon.wait()
    with serve(web, 80, "http", name="web"):
        assert fetch(host, "127.0.0.1", 8080) == b"web"
    assert client.publish("netns:web", ["8081:80"])[0].host_port == 8081
    assert client.check() == ()
    assert type(open_net(host.state_dir)) is Net


def test_a_killed_keeper_of_names_has_an_heir(
    host: Host, net: Net, daemon: subprocess.Popen[str]
) -> None:
    """Nobody has to ask for anything first; one that ended by itself has none."""
    net.create("front", subnets=[SUBNET])
    box = host.sandbox("web")
    net.register_sandbox("web", box.netns)
    net.connect("front", "web")
    resolver = Resolver(host.state_dir)
    stats = resolver.stats()
    assert stats is not None
    os.kill(stats["keeper_pid"], signal.SIGKILL)

    def answers() -> bool:
        try:
            answer = ask(box, query("web"), "198.51.100.1", timeout=0.2)
        except ConnectionRefusedError:
            return False
        return answer is not None and values(answer) == ["198.51.100.2"]

    eventually(answers)
    net.disconnect("front", "web")
    net.remove("front")
    eventually(lambda: not (host.state_dir / NAMES).exists())
    daemon.send_signal(signal.SIGTERM)
    assert "killed, and is there again" in daemon.communicate(timeout=20)[0]
    assert not (host.state_dir / NAMES).exists()


def test_a_request_that_died_with_the_daemon_is_looked_up(
    host: Host, daemon: subprocess.Popen[str], client: Net
) -> None:
    """What is known of it is told; it is never done a second time."""
    assert isinstance(client, Client)
    front = client.create("front", subnets=[SUBNET])
    daemon.kill()
    daemon.wait()
    store = client.engine.state.store
    journal = Journal(store)
    journal.begin("done")
    journal.end("done", {"error": {"code": "no-such-network", "message": "gone", "hint": ""}})
    journal.begin("begun")

    with pytest.raises(Exception, match="gone"):
        client._looked_up("remove", "done", partial(client.remove, "front"))
    with pytest.raises(DaemonLost):
        client._looked_up("remove", "begun", partial(client.remove, "front"))
    assert made(client) == [front]


def test_it_ends_when_what_is_under_way_is_done(
    host: Host, start_daemon: Callable[[], subprocess.Popen[str]]
) -> None:
    """SIGTERM while clients connect: each gets its answer, from the daemon or by itself."""
    daemon = start_daemon()
    names = [f"c{number}" for number in range(10)]
    for name in names:
        host.sandbox(name)
    failures: list[Exception] = []
    with open_net(host.state_dir) as net:
        net.create("front", subnets=[SUBNET])

    def work(name: str) -> None:
        try:
            with open_net(host.state_dir) as net:
                net.connect("front", f"netns:{name}")
        except Exception as error:
            failures.append(error)

    threads = [Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    for thread in threads:
        thread.join()
    with Net(host.state_dir) as net:
        assert failures == []
        assert len(net.endpoints()) == len(names)
        assert net.check() == ()


def test_half_done_work_is_settled_at_the_start(
    host: Host, start_daemon: Callable[[], subprocess.Popen[str]]
) -> None:
    """What a crash left is mended before the first request."""
    with Net(host.state_dir) as net:
        net.create("front", subnets=[SUBNET])
        net.create_sandbox("web")
        net.connect("front", "web")
        record = net.engine.state.endpoints_of("web")[0]
        pending = replace(record.endpoint, state="pending")
        key = keys.endpoint_key(pending.network, pending.id)
        put = {key: dump_endpoint(pending, record.wiring)}
        net.engine.state.store.commit(Commit(put=put))
        host.run("nft", "flush", "ruleset")
        daemon = start_daemon()
        assert net.endpoints() == ()
        assert net.check() == ()
        os.kill(daemon.pid, signal.SIGTERM)
        assert daemon.wait(20) == 0


def test_warnings_reach_who_asked(host: Host, client: Net) -> None:
    """What is needless is told by the client, as the library itself would."""
    with pytest.warns(NetWarning, match="needless"):
        client.connect("host", f"pid:{os.getpid()}", publish=["8080:80"])
    client.disconnect("host", f"pid:{os.getpid()}")


def test_health_is_looked_after_by_the_daemon(host: Host, client: Net) -> None:
    """check, repair, gc and prune: what it finds and did is what the library says."""
    client.create("front", subnets=[SUBNET])
    client.create("unused")
    web = host.sandbox("web")
    client.connect("front", "netns:web", publish=["8080:80"])
    with Net(host.state_dir) as plain, plain.engine.lock.alone():  # the watch has to wait
        web.run("ip", "route", "del", "default")
        host.run("nft", "flush", "ruleset")
        found = client.check()
        assert found == plain.check()
        subjects = ["network front", "network unused", "netns:web on front"]
        assert [f.subject for f in found] == subjects
    seen: list[str] = []
    done = client.repair(lambda subject, number, total: seen.append(subject))
    assert "netns:web on front" in seen
    assert {f.subject for f in done.mended} == set(seen)
    assert (done.failed, done.skipped, client.check()) == ((), (), ())
    assert client.prune() == ("unused",)
    host.run("ip", "netns", "del", "web")
    assert [box.name for box in client.collect_garbage()] == ["netns:web"]
    assert client.endpoints() == ()


def test_what_may_be_done_again_is_when_the_daemon_dies(
    host: Host, daemon: subprocess.Popen[str], client: Net
) -> None:
    """By the client itself, without a look at what came of it."""
    client.create("front", subnets=[SUBNET])
    daemon.kill()
    daemon.wait()
    host.run("nft", "flush", "ruleset")
    assert [f.subject for f in client.repair().mended] == ["network front"]
    assert client.prune() == ("front",)
