"""Hosts make a cluster, join it and leave it: with real etcd, TLS and daemons."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certificates import Authority
from support.console import fences
from support.etcd import Member, answers
from support.host import Host
from support.machines import ROOT, Machine, end_process, machines
from support.patience import eventually
from support.shell import Said, Shell

from netlib import Net
from netlib.cluster.admission import pin, token_key
from netlib.cluster.files import Files
from netlib.cluster.server import Server
from netlib.cluster.tokens import Token
from netlib.store.etcd_servers import Credentials

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture
def three(host: Host, tmp_path: Path) -> list[Machine]:
    """Three hosts that know nothing of each other."""
    return machines(host, tmp_path, 3)


def found(machine: Machine, options: str = "") -> None:
    """Make a cluster on a machine."""
    machine.net(f"cluster init --name {machine.name} --lease 3 {options}")


def join(machine: Machine, manager: Machine, options: str = "", *, role: str = "") -> None:
    """Let a machine into a manager's cluster."""
    machine.net(
        f"cluster join --token {manager.token(role)} --name {machine.name} {options} "
        f"{manager.address}:2377"
    )


def remove_dead(machine: Machine, name: str) -> None:
    """Remove a member that died, as soon as the cluster takes it for dead."""
    eventually(
        lambda: machine.net(f"node rm {name}", status=None).returncode == 0, 20, what=f"{name} down"
    )


def names_seen_by(machine: Machine) -> list[str]:
    return [node["name"] for node in machine.ask("node ls")["nodes"]]


def managers(machine: Machine) -> list[str]:
    """How the managers are that a machine sees."""
    seen = [node["manager_status"] for node in machine.ask("node ls")["nodes"]]
    return sorted(status for status in seen if status)


def test_three_hosts_become_a_cluster_and_part_again(three: list[Machine]) -> None:
    """All that `net cluster` and `net node` do, as every host sees it; who is removed is out."""
    first, second, third = three
    found(first, "--advertise-addr eth0 --default-addr-pool 10.10.0.0/16")
    first.net("create -d overlay app")
    join(second, first)
    join(third, first, "--availability pause")

    # They are, and know, what members are and know when these commands are done.
    assert {n["status"] for n in first.ask("node ls")["nodes"]} == {"ready"}
    for one in three:
        assert names_seen_by(one) == ["host-1", "host-2", "host-3"]
        assert "app" in one.net("ls").stdout
    workers = first.ask("node ls --filter role=worker --filter availability=active")["nodes"]
    assert [node["name"] for node in workers] == ["host-2"]
    assert first.refusal("node ls --filter size=1", status=2)["code"] == "invalid-request"
    nodes = second.ask("node ls")["nodes"]
    assert [node["role"] for node in nodes] == ["manager", "worker", "worker"]
    eventually(lambda: managers(second) == ["leader"], 20)
    assert [node["availability"] for node in nodes] == ["active", "active", "pause"]
    assert [node["self"] for node in nodes] == [False, True, False]
    assert third.ask("cluster status")["cluster"]["lease_seconds"] == 3

    second.net("node update --availability drain --label-add zone=east host-3")
    (seen,) = first.ask("node inspect host-3")["nodes"]
    assert (seen["availability"], seen["labels"]) == ("drain", {"zone": "east"})

    first.net("node rm -f host-3")
    assert names_seen_by(second) == ["host-1", "host-2"]
    eventually(lambda: third.net("node ls", status=None).returncode == 7, 20, what="a closed door")

    second.net("cluster leave")
    assert names_seen_by(first) == ["host-1"]
    assert not (second.state_dir / "cluster").exists()
    assert second.refusal("cluster status", status=3)["code"] == "not-a-member"
    first.net("cluster leave -f")
    assert not Server(first.state_dir / "cluster").pid()


def test_who_is_killed_half_way_may_try_again(three: list[Machine]) -> None:
    """What a killed init left, an etcd that runs among it, is cleared away."""
    first, *_ = three
    server = Server(first.state_dir / "cluster")

    def killed_half_way() -> bool:
        init = first.start("cluster init --name host-1")
        eventually(server.pid, 20)
        init.kill()
        init.wait(10)
        if first.net("cluster status", status=None).returncode == 3:
            return True
        first.net("cluster leave -f")  # it was done already
        return False

    eventually(killed_half_way, 50)
    left = server.pid()
    assert left
    error = first.refusal("cluster leave", status=3)
    assert "has keys of one" in error["message"]
    assert first.ask("cluster leave -f")["left"] is None
    assert not server.pid()
    assert not (first.state_dir / "cluster").exists()

    eventually(killed_half_way, 50)
    left = server.pid()
    assert left
    found(first)
    assert server.pid() != left
    assert names_seen_by(first) == ["host-1"]


def test_a_cluster_meets_by_ipv6(three: list[Machine]) -> None:
    """Addresses in brackets, everywhere."""
    first, second, _ = three
    made = first.ask("cluster init --name host-1 --advertise-addr [2001:db8:100::1]:2400")
    assert made["invitation"]["address"] == "[2001:db8:100::1]:2400"
    second.net(f"cluster join --name host-2 --token {first.token('manager')} "
               "[2001:db8:100::1]:2400")  # fmt: skip
    (node,) = second.ask("node inspect self")["nodes"]
    assert node["data_address"] == "2001:db8:100::2"
    assert sorted(second.ask("cluster status")["cluster"]["servers"]) == [
        "https://[2001:db8:100::1]:2379",
        "https://[2001:db8:100::2]:2379",
    ]


def test_who_leaves_takes_its_sandboxes_off(three: list[Machine]) -> None:
    """Not unasked; the others forget them, and its host is as it was."""
    first, second, _ = three
    found(first)
    join(second, first)
    first.net("create -d overlay --attachable app --subnet 203.0.113.0/24")
    eventually(lambda: "app" in second.net("ls").stdout, 20)
    second.net("sandbox create web")
    second.net("connect app web")

    error = second.refusal("cluster leave", status=4)
    assert error["code"] == "in-use"
    assert "web on app" in error["message"]
    assert "net disconnect app web" in second.net("cluster leave --dry-run -f").stdout
    second.net("cluster leave -f")
    assert "app" not in second.net("ls").stdout
    assert second.ask("ps")["sandboxes"][0]["endpoints"] == []
    links = second.place.run("ip", "-o", "link").stdout
    assert "nl-" not in links
    assert "nx-" not in links
    assert names_seen_by(first) == ["host-1"]
    first.net("rm app")


def test_every_change_can_be_planned(three: list[Machine]) -> None:
    """--dry-run prints commands, and changes nothing anywhere."""
    first, second, _ = three
    assert "--max-txn-ops" in first.net("cluster init --dry-run").stdout
    assert not (first.state_dir / "cluster").exists()
    found(first)
    token = first.token("manager")
    plan = second.ask(f"cluster join --dry-run --name x --token {token} {first.address}")["plan"]
    assert any("/netlib/node/" in line for line in plan["script"])
    assert not (second.state_dir / "cluster").exists()
    assert "drain" in first.net("node update --dry-run --availability drain self").stdout
    assert "rm -r" in first.net("cluster leave --dry-run -f").stdout
    assert "--force-new-cluster" in first.net("cluster init --force-new-cluster --dry-run").stdout
    assert "generation" in first.net("cluster join-token --rotate --dry-run").stdout
    assert first.net("cluster join-token --dry-run").stdout == "nothing to do\n"
    join(second, first)
    assert "/netlib/node-name/host-2" in first.net("node rm -f --dry-run host-2").stdout
    assert [n["availability"] for n in first.ask("node ls")["nodes"]] == ["active", "active"]


def test_fields_of_json(three: list[Machine]) -> None:
    """docs/json.md names every field that is printed, and no other."""
    first, *_ = three
    made = first.ask("cluster init --name host-1")
    (node,) = first.ask("node ls")["nodes"]

    assert set(made) == {"version", "node", "invitation", "warnings"}
    assert set(made["node"]) == fields("node")
    assert set(made["invitation"]) == fields("invitation")
    assert set(node) == fields("node") | fields("node with its state")
    assert set(first.ask("cluster status")["cluster"]) == fields("cluster")
    assert set(first.ask("cluster join-token")) == {"version", "invitation"}
    assert set(first.ask("node inspect self")) == {"version", "nodes"}
    assert set(first.ask("node update --label-add a=b self")) == {"version", "node"}
    assert set(first.ask("cluster leave -f")) == {"version", "left"}


def fields(section: str) -> set[str]:
    """The fields that a section of docs/json.md names."""
    page = (ROOT / "docs" / "json.md").read_text()
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", body, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


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
    eventually(lambda: managers(third) == ["leader", "reachable", "reachable"], 20)
    # The first knew of no other server when it began.
    eventually(lambda: len(first.ask("cluster status")["cluster"]["servers"]) == 3, 20)

    second.kill_daemon()
    end_process(Server(second.state_dir / "cluster").pid())
    assert names_seen_by(third) == ["host-1", "host-2", "host-3"]
    (status,) = [
        n["manager_status"] for n in third.ask("node ls")["nodes"] if n["name"] == "host-2"
    ]
    assert status == "unreachable"
    remove_dead(third, "host-2")
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
    said = wrong(second, "cluster init --advertise-addr 198.51.100.2:2380", 4, "port-taken")
    assert "etcd" in said

    for machine in (first, second):
        machine.place.run("ip", "address", "add", "198.51.100.77/32", "dev", "lo")
    found(first, "--advertise-addr 198.51.100.1 --data-path-addr 198.51.100.77")
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
    said = wrong(second, f"cluster join --name x --data-path-addr 2001:db8:100::2 --token {token} "
                 f"{join_port}", 2, "invalid-address")  # fmt: skip
    assert "IPv4" in said
    said = wrong(second, f"cluster join --name x --data-path-addr 198.51.100.77 --token {token} "
                 f"{join_port}", 4, "address-taken")  # fmt: skip
    assert "--data-path-addr" in said
    found(third)
    other = third.token()
    wrong(second, f"cluster join --token {other} {join_port}", 6, "wrong-token")
    third.net("cluster leave -f")

    files = Files(first.state_dir)
    old = Token(role="worker", generation=0, expires=1.0, pin=pin(files)).signed(token_key(files))
    wrong(second, f"cluster join --token {old} {join_port}", 6, "expired-token")
    said = second.place.call(
        lambda: _an_hour_ahead(second, f"cluster join --token {token} {join_port}")
    )
    assert said.document["error"]["code"] == "clock-skew"
    rotated = first.token("--rotate")
    said = wrong(second, f"cluster join --token {token} {join_port}", 6, "wrong-token")
    assert "rotated" in said
    second.net(f"cluster join --name host-2 --token-file - {join_port}", stdin=rotated + "\n")
    assert second.refusal("cluster join-token", status=6)["code"] == "not-permitted"
    assert second.refusal("node rm self", status=2)["code"] == "invalid-request"
    assert "did you mean host-2" in wrong(first, "node rm host-22", 3, "no-such-node")
    eventually(lambda: first.ask("node inspect host-2")["nodes"][0]["status"] == "ready", 20)
    assert "net cluster leave" in wrong(first, "node rm host-2", 4, "node-alive")
    first.net("node rm -f host-2")
    eventually(lambda: "removed" in second.net("cluster status", status=None).stdout, 20)
    said = json.loads(second.net("cluster status --json", status=None).stdout)
    assert said["cluster"]["removed"]
    second.net("cluster leave -f")


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
    assert not [line for line in command_lines() if token.encode() in line]


def _an_hour_ahead(machine: Machine, line: str) -> Said:
    """What a machine says whose clock is wrong."""
    with Net(machine.state_dir, firewall="none") as net:
        net.engine.clock = lambda: time.time() + 3600
        return Shell(net)(f"--json {line}", status=1)


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
    remove_dead(first, "host-2")
    assert names_seen_by(third) == ["host-1", "host-3"]
    second.net("cluster leave -f")
    join(second, first, role="manager")
    assert names_seen_by(second) == ["host-1", "host-3", "host-2"]


def test_a_cluster_is_restored_as_its_page_says(three: list[Machine], tmp_path: Path) -> None:
    """The commands of docs/cluster.md, in a copy of the state from before a change."""
    first, second, _ = three
    found(first)
    join(second, first)
    page = (ROOT / "docs" / "cluster.md").read_text().partition("## Back up and restore")[2]
    save, restore, anew = (
        block.replace("/var/lib/netlib", str(first.state_dir))
        .replace("192.0.2.1", first.address)
        .replace("/root/", f"{tmp_path}/")
        for block in fences(page, "sh")[:3]
    )
    first.place.run("bash", "-e", "-c", save)
    first.net("node update --availability drain host-2")
    first.kill_daemon(signal.SIGTERM)
    first.place.run("bash", "-e", "-c", restore)
    first.start_daemon()

    def availabilities() -> list[str]:
        return [node["availability"] for node in second.ask("node ls")["nodes"]]

    eventually(lambda: second.net("node ls", status=None).returncode == 0, 20)
    assert availabilities() == ["active", "active"]

    first.net("node update --availability drain host-2")
    first.kill_daemon(signal.SIGTERM)
    end_process(Server(first.state_dir / "cluster").pid())
    shutil.rmtree(first.state_dir)
    first.state_dir.mkdir()
    kept = "".join(restore.splitlines(keepends=True)[2:])
    first.place.run("bash", "-e", "-c", anew + kept)
    first.start_daemon()
    eventually(lambda: second.net("node ls", status=None).returncode == 0, 20)
    assert availabilities() == ["active", "active"]
    assert names_seen_by(first) == ["host-1", "host-2"]


def test_a_cluster_keeps_its_state_in_an_etcd_that_runs(
    host: Host, three: list[Machine], tmp_path: Path
) -> None:
    """With certificates of somebody else's authority, which joiners are given; one cluster each."""
    first, second, third = three
    host.run("ip", "address", "add", "198.51.100.9/24", "dev", "lan")
    authority = Authority(tmp_path).create()
    certificate, key = authority.sign("server", "198.51.100.9")
    tls = (
        f"--cert-file={certificate}", f"--key-file={key}", "--client-cert-auth",
        f"--trusted-ca-file={authority.ca}",
    )  # fmt: skip
    client = authority.sign("client")
    shown = Credentials(ca=authority.ca, certificate=client[0], key=client[1])
    member = Member(tmp_path, address="198.51.100.9", scheme="https", options=tls)
    with started(member, shown):
        files = f"--cacert {authority.ca} --cert {client[0]} --key {client[1]}"
        found(first, f"--etcd {member.url} {files}")
        assert not Server(first.state_dir / "cluster").pid()
        join(second, first)
        kept = second.state_dir / "cluster"
        assert (kept / "store.key").read_text() == Path(client[1]).read_text()
        assert names_seen_by(second) == ["host-1", "host-2"]
        # Both certificates are needed: the store's, and the one of the daemon where others join.
        join(third, first, role="manager")
        assert third.token() != first.token()
        assert names_seen_by(third) == ["host-1", "host-2", "host-3"]

        first.net("cluster leave")
        second.net("cluster leave")
        assert names_seen_by(third) == ["host-3"]
        error = second.refusal(f"cluster init --name x --etcd {member.url} {files}", status=4)
        assert error["code"] == "cluster-exists"
        error = second.refusal(f"cluster init --name x --etcd {member.url}", status=7)
        assert "certificate" in error["message"]
        third.net("cluster leave -f")
        found(third, f"--etcd {member.url} {files}")
        assert names_seen_by(third) == ["host-3"]


def test_an_etcd_that_knows_users_by_name(host: Host, three: list[Machine], tmp_path: Path) -> None:
    """A user who may write below the prefix is enough; joiners become that user, too."""
    first, second, _ = three
    host.run("ip", "address", "add", "198.51.100.9/24", "dev", "lan")
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    with started(Member(tmp_path, address="198.51.100.9")) as member:
        for words in (
            "user add root:root", "role add root", "user grant-role root root",
            "user add netlib:secret", "role add netlib",
            "role grant-permission netlib --prefix=true readwrite /netlib/",
            "user grant-role netlib netlib", "auth enable",
        ):  # fmt: skip
            member.ctl(*words.split())
        error = first.refusal(f"cluster init --etcd {member.url}", status=6)
        assert error["code"] == "not-permitted"
        found(first, f"--etcd {member.url} --user netlib --password-file {secret}")
        join(second, first)
        assert names_seen_by(second) == ["host-1", "host-2"]
        assert not [line for line in command_lines() if b"secret" in line.split(b"\0")]


def command_lines() -> Iterator[bytes]:
    """Of all processes, as everybody can read them."""
    for pid in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended
            yield (pid / "cmdline").read_bytes()


@contextlib.contextmanager
def started(member: Member, credentials: Credentials | None = None) -> Iterator[Member]:
    """A server of the test's own, that answers meanwhile."""
    member.start()
    try:
        answers(member, credentials=credentials)
        yield member
    finally:
        member.kill()
