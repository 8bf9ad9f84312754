"""Hosts make a cluster, join it and leave it: with real etcd, TLS and daemons."""

from __future__ import annotations

import contextlib
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.host import Host
from support.machines import Machine, end_process, machines
from support.patience import eventually

from netlib.cluster.server import Server

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture
def three(host: Host, tmp_path: Path) -> list[Machine]:
    """Three hosts that know nothing of each other."""
    return machines(host, tmp_path, 3)


def found(machine: Machine, options: str = "") -> None:
    """Make a cluster on a machine."""
    machine.net(f"cluster init --name {machine.name} {options}")


def join(machine: Machine, manager: Machine, options: str = "", *, role: str = "") -> None:
    """Let a machine into a manager's cluster."""
    machine.net(
        f"cluster join --token {manager.token(role)} --name {machine.name} {options} "
        f"{manager.address}:2377"
    )


def names_seen_by(machine: Machine) -> list[str]:
    return [node["name"] for node in machine.ask("node ls")["nodes"]]


def test_three_hosts_become_a_cluster_and_part_again(three: list[Machine]) -> None:
    """init, join, ls, update, rm, leave, as every host sees it."""
    first, second, third = three
    found(first, "--advertise-addr eth0 --lease 5 --default-addr-pool 198.51.100.0/24")
    join(second, first)
    join(third, first, "--availability pause")

    for one in three:
        assert names_seen_by(one) == ["host-1", "host-2", "host-3"]
    nodes = second.ask("node ls")["nodes"]
    assert [node["manager_status"] for node in nodes] == ["leader", None, None]
    assert [node["availability"] for node in nodes] == ["active", "active", "pause"]
    assert [node["self"] for node in nodes] == [False, True, False]
    assert third.ask("cluster status")["cluster"]["lease_seconds"] == 5

    second.net("node update --availability drain --label-add zone=east host-3")
    (seen,) = first.ask("node inspect host-3")["nodes"]
    assert (seen["availability"], seen["labels"]) == ("drain", {"zone": "east"})

    second.net("cluster leave")
    assert names_seen_by(first) == ["host-1", "host-3"]
    assert not (second.state_dir / "cluster").exists()
    assert second.refusal("cluster status", status=3)["code"] == "not-a-member"
    first.net("cluster leave -f")
    assert not Server(first.state_dir / "cluster").pid()


def test_a_cluster_outlives_daemons_and_servers(three: list[Machine]) -> None:
    """A daemon that is killed leaves etcd alone; the next one finds it, and starts a killed one."""
    first, second, _ = three
    found(first)
    join(second, first)
    server = Server(first.state_dir / "cluster")
    before = server.pid()

    first.kill_daemon()
    assert server.pid() == before
    assert names_seen_by(second) == ["host-1", "host-2"]
    first.start_daemon()
    assert server.pid() == before

    end_process(before)
    eventually(lambda: server.pid() not in (0, before), 20, what="a new etcd")
    eventually(lambda: names_seen_by(second) == ["host-1", "host-2"], 20)

    first.kill_daemon()
    end_process(server.pid())
    assert second.net("node ls", status=7).stderr.startswith("error: etcd")
    assert "unreachable" in second.net("cluster status", status=7).stdout
    first.start_daemon()
    eventually(lambda: names_seen_by(second) == ["host-1", "host-2"], 20)


def test_three_managers_go_on_without_one(three: list[Machine]) -> None:
    """A manager's token makes managers; one may die, leave, or be removed."""
    first, second, third = three
    found(first)
    for one in (second, third):
        join(one, first, role="manager")
    nodes = third.ask("node ls")["nodes"]
    assert sorted(node["manager_status"] for node in nodes) == ["leader", "reachable", "reachable"]

    second.kill_daemon()
    end_process(Server(second.state_dir / "cluster").pid())
    assert names_seen_by(third) == ["host-1", "host-2", "host-3"]
    (status,) = [
        n["manager_status"] for n in third.ask("node ls")["nodes"] if n["name"] == "host-2"
    ]
    assert status == "unreachable"
    third.net("node rm host-2")
    assert names_seen_by(first) == ["host-1", "host-3"]

    third.net("cluster leave")
    assert names_seen_by(first) == ["host-1"]
    assert first.refusal("cluster leave", status=4)["code"] == "last-manager"


def test_each_mistake_has_an_error_of_its_own(three: list[Machine], tmp_path: Path) -> None:
    """What is wrong is said, the exit status is right, and nothing is left behind."""
    first, second, third = three
    join_port = f"{first.address}:2377"

    def wrong(machine: Machine, line: str, status: int, code: str, path: str = "") -> str:
        error = machine.refusal(line, status=status, path=path)
        assert error["code"] == code, error
        assert error["hint"]
        assert machine is first or not (machine.state_dir / "cluster").exists()
        return str(error["message"] + "; " + error["hint"])

    assert "cluster init" in wrong(second, "cluster status", 3, "not-a-member")
    wrong(second, "node ls", 3, "not-a-member")
    wrong(second, "cluster leave", 3, "not-a-member")
    wrong(second, "cluster join-token", 3, "not-a-member")
    said = wrong(second, "cluster init --advertise-addr 192.0.2.9", 2, "not-local")
    assert "198.51.100.2 (eth0)" in said
    wrong(second, "cluster init --advertise-addr wlan7", 3, "no-such-device")
    wrong(second, "cluster init --lease 1", 2, "invalid-option")
    assert "apt-get install etcd-server" in wrong(
        second, "cluster init", 3, "etcd-missing", path=str(tmp_path)
    )
    with _holding(second, "udp", 4789):
        said = wrong(second, "cluster init", 4, "port-taken")
        assert "--data-path-port" in said
    with _holding(second, "tcp", 2379):
        assert "--etcd" in wrong(second, "cluster init", 4, "port-taken")

    found(first)
    assert "leave" in wrong(first, "cluster init", 4, "already-member")
    token = first.token()
    wrong(first, f"cluster join --token {token} {join_port}", 4, "already-member")
    altered = token[:-1] + ("A" if token[-1] != "A" else "B")
    wrong(second, f"cluster join --token {altered} {join_port}", 6, "wrong-token")
    wrong(second, f"cluster join --token {token[:40]} {join_port}", 6, "wrong-token")
    wrong(second, f"cluster join --token {token} 198.51.100.1:9", 7, "manager-unreachable")
    wrong(second, f"cluster join --token {token} 198.51.100.1:2379", 7, "manager-unreachable")
    with _holding(second, "udp", 4789):
        wrong(second, f"cluster join --name x --token {token} {join_port}", 4, "port-taken")
    said = wrong(second, f"cluster join --name host-1 --token {token} {join_port}", 4, "name-taken")
    assert "--name" in said
    found(third)
    other = third.token()
    wrong(second, f"cluster join --token {other} {join_port}", 6, "wrong-token")
    third.net("cluster leave -f")

    rotated = first.token("--rotate")
    said = wrong(second, f"cluster join --token {token} {join_port}", 6, "wrong-token")
    assert "rotated" in said
    second.net(f"cluster join --name host-2 --token-file - {join_port}", stdin=rotated + "\n")
    assert second.refusal("cluster join-token", status=6)["code"] == "not-permitted"
    assert second.refusal("node rm self", status=2)["code"] == "invalid-request"
    assert "did you mean host-2" in wrong(first, "node rm host-22", 3, "no-such-node")
    first.net("node rm host-2")
    assert second.ask("cluster status")["cluster"]["removed"]
    assert second.refusal("node inspect self", status=3)["code"] == "no-such-node"
    second.net("cluster leave")


def test_no_secret_is_shown(three: list[Machine]) -> None:
    """Keys are their owner's alone; logs and processes tell no token."""
    first, second, _ = three
    found(first)
    token = first.token()
    second.net(f"cluster join --name host-2 --token-file - {first.address}:2377", stdin=token)

    for machine in (first, second):
        for file in (machine.state_dir / "cluster").rglob("*"):
            assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
    assert not (second.state_dir / "cluster" / "ca.key").exists()
    assert not (second.state_dir / "cluster" / "token.key").exists()
    log = (first.state_dir / "cluster" / "etcd.log").read_text()
    assert token not in log
    for pid in Path("/proc").glob("[0-9]*"):
        assert token.encode() not in (pid / "cmdline").read_bytes()


@contextlib.contextmanager
def _holding(machine: Machine, protocol: str, port: int) -> Iterator[None]:
    """Somebody else's socket on a machine."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    with machine.place.call(lambda: socket.socket(socket.AF_INET, kind)) as sock:
        sock.bind(("0.0.0.0", port))
        if protocol == "tcp":
            sock.listen()
        yield


def test_a_manager_goes_on_when_most_are_lost(three: list[Machine]) -> None:
    """Its state becomes that of the cluster, and the cluster can grow again."""
    first, second, third = three
    found(first)
    join(second, first, role="manager")
    join(third, first)
    second.kill_daemon()
    end_process(Server(second.state_dir / "cluster").pid())

    assert first.refusal("node ls", status=7)
    first.net("cluster init --force-new-cluster")
    assert names_seen_by(first) == ["host-1", "host-2", "host-3"]
    first.net("node rm host-2")
    assert names_seen_by(third) == ["host-1", "host-3"]
    second.net("cluster leave -f")
    join(second, first, role="manager")
    assert names_seen_by(second) == ["host-1", "host-3", "host-2"]
