"""The command line on a real kernel: the story from `create` to `rm`, and bad surroundings."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from support.host import HOST4, HOST6, Host
from support.locks import waits_for
from support.patience import eventually
from support.program import PROGRAM, Program
from support.traffic import unreachable

from netlib import throwaway

pytestmark = pytest.mark.kernel
RESIDUE = [r"^nft table inet netlib", r"^sysctl .*forwarding=1"]


@pytest.fixture
def net(host: Host) -> Program:
    return Program(host)


# -- the story ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_story_of_a_web_server(net: Program, host: Host) -> None:
    """Create, run, connect, publish, move a running sandbox, remove: with packets at each step."""
    outsider = host.outsider()
    made = net("create front").stdout.strip()
    net("create back")
    assert made in net("ls --no-trunc").stdout
    page = host.state_dir / "index.html"
    page.write_text("hello")
    web = "run -d --name web --network front -p 8080:80 -- "
    net(web + f"python3 -m http.server --bind :: --directory {host.state_dir} 80")
    net("run -d --name friend --network front -- sleep 60")
    net("run -d --name stranger --network back -- sleep 60")
    inside = net.address("front", "web")

    def gets(line: str) -> bool:
        done = subprocess.run(
            [*PROGRAM, *line.split()], env=net.environment, capture_output=True, timeout=20,
            check=False,
        )  # fmt: skip
        return b"hello" in done.stdout

    ask = "-- curl -s -m 2 http://{}/index.html"
    assert eventually(lambda: fetch_page(outsider, HOST4, 8080) == b"hello")
    assert eventually(lambda: fetch_page(outsider, f"[{HOST6}]", 8080) == b"hello")
    assert eventually(lambda: gets(f"exec friend {ask.format(inside)}"))
    assert not gets(f"exec stranger {ask.format(inside)}")
    assert eventually(lambda: gets(f"exec stranger {ask.format(f'{HOST4}:8080')}"))
    assert "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp" in net("ps").stdout
    assert net("check").stdout == ""

    net("disconnect front web")
    assert unreachable(outsider, HOST4, 8080)
    net("connect back web -p 8081:80")
    assert eventually(lambda: fetch_page(outsider, HOST4, 8081) == b"hello")
    net("publish web 8082:80")
    assert eventually(lambda: fetch_page(outsider, HOST4, 8082) == b"hello")
    net("unpublish web 8082:80")
    assert unreachable(outsider, HOST4, 8082)
    assert net("port web").stdout.splitlines() == [
        "80/tcp -> 0.0.0.0:8081",
        "80/tcp -> [::]:8081",
    ]

    assert "is used by" in net("rm back", status=4).stderr
    assert net("stop web friend stranger").stdout.split() == ["web", "friend", "stranger"]
    assert net("rm front back").stdout.split() == ["front", "back"]
    assert net("ps -q").stdout == ""
    assert not host.leftovers(allow=RESIDUE)


def fetch_page(where: object, address: str, port: int) -> bytes:
    """A page from python's own web server, b"" when there is none."""
    done = where.run("curl", "-s", "-m", "2", f"http://{address}:{port}/index.html", check=False)  # type: ignore[attr-defined]
    return done.stdout.encode()


def test_sandboxes_without_a_process(net: Program, host: Host) -> None:
    """`net sandbox create` makes what `ip netns` knows, and `rm` takes it all away."""
    net("sandbox create web db")
    assert set(host.run("ip", "-o", "netns").stdout.split()) >= {"web", "db"}
    net("create front")
    net("connect front web")
    net("connect front db")

    assert " 0% packet loss" in net(f"exec web -- ping -c1 -W1 {net.address('front', 'db')}").stdout
    net("sandbox rm web db")
    net("rm front")
    assert not host.leftovers(allow=RESIDUE)


def test_dry_run_is_what_happens(net: Program, host: Host) -> None:
    """The lines of --dry-run, run by a shell, make what the command would make."""
    before = host.leftovers()
    text = net("create --dry-run front --subnet 198.51.100.0/24").stdout

    assert "ip link add" in text
    assert host.leftovers() == before
    assert net("ls -q -f type=custom").stdout == ""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("firewall", ["nftables", "iptables"])
def test_rules_of_a_real_firewall(host: Host, firewall: str) -> None:
    """All present; after somebody's flush all missing, and `net repair` brings them back."""
    net = Program(host, firewall)
    net("create front")
    net("sandbox create web")
    net("connect front web -p 8080:80")
    assert {fact["presence"] for fact in net.ask("rules")["facts"]} == {"present"}

    host.run("nft", "flush", "ruleset")
    missing = [f for f in net.ask("rules front")["facts"] if f["presence"] == "missing"]
    assert any(fact["fact"].startswith("publish *:8080/tcp") for fact in missing)
    net("check", status=1)
    net("repair")
    net("check")
    assert {fact["presence"] for fact in net.ask("rules")["facts"]} == {"present"}


# -- the host -----------------------------------------------------------------------------------


def test_forwarding_and_its_drop_in(net: Program, host: Host) -> None:
    """On is written down for the next boot, and off takes both back."""
    drop_in = Path("/etc/sysctl.d/60-netlib.conf")
    net("host forwarding on --ipv6")
    assert drop_in.read_text().splitlines()[1:] == [
        "net.ipv4.ip_forward = 1",
        "net.ipv6.conf.all.forwarding = 1",
    ]
    read = ("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding")
    assert host.run(*read).stdout.split() == ["1", "1"]
    assert "IPv4 forwarding  on (by net host" in net("host").stdout

    net("host forwarding off --ipv6")
    assert not drop_in.exists()
    assert host.run(*read).stdout.split() == ["0", "0"]


def test_router_advertisements_are_heard_while_forwarding(net: Program, host: Host) -> None:
    """A host that learned its IPv6 default route so does not lose the next one."""
    from scapy.layers.inet6 import ICMPv6ND_RA, IPv6
    from scapy.layers.l2 import Ether

    outsider = host.outsider()
    host.run("sysctl", "-qw", "net.ipv6.conf.eth0.accept_ra=1")
    net("host forwarding on --ipv6")
    # RFC 4861 section 6.1.2: from a link-local address, and not forwarded by anybody.
    packet = IPv6(src="fe80::2", dst="ff02::1", hlim=255) / ICMPv6ND_RA(routerlifetime=1800)
    frame = bytes(Ether(src="02:00:00:00:00:01", dst="33:33:00:00:00:01") / packet)
    with outsider.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as wire:
        wire.sendto(frame, ("eth0", 0))

    learned = ("ip", "-6", "route", "show", "default", "proto", "ra")
    eventually(lambda: "via fe80::2 dev eth0" in host.run(*learned).stdout)


def test_forwarding_that_others_switched_on(net: Program, host: Host) -> None:
    """It is theirs: off refuses, --force does it."""
    host.run("sysctl", "-qw", "net.ipv4.ip_forward=1")

    assert "somebody else" in net("host forwarding off", status=4).stderr
    net("host forwarding off --force")
    assert host.run("cat", "/proc/sys/net/ipv4/ip_forward").stdout.strip() == "0"


def test_forward_policy_and_back(net: Program, host: Host) -> None:
    """`leave` gives back what was there before."""
    host.run("iptables", "-P", "FORWARD", "DROP")
    net("host forward-policy accept")
    assert "-P FORWARD ACCEPT" in host.run("iptables", "-S", "FORWARD").stdout
    assert "was drop" in net("host").stdout

    net("host forward-policy leave")
    assert "-P FORWARD DROP" in host.run("iptables", "-S", "FORWARD").stdout


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_forward_policy_drop_closes_no_published_port(
    net: Program, host: Host, backend: str
) -> None:
    """The way past is made with it: what networks let through passes whatever the policy is."""
    outsider = host.outsider()
    net.environment["NETLIB_FIREWALL"] = backend
    net("create front")
    (host.state_dir / "index.html").write_text("hello")
    serve = f"python3 -m http.server --directory {host.state_dir} 80"
    net(f"run -d --name web --network front -p 8080:80 -- {serve}")
    assert eventually(lambda: fetch_page(outsider, HOST4, 8080) == b"hello")
    lines = net("host forward-policy drop --dry-run").stdout.splitlines()

    net("host forward-policy drop")
    assert fetch_page(outsider, HOST4, 8080) == b"hello"
    assert "-P FORWARD DROP" in host.run("iptables", "-S", "FORWARD").stdout
    assert net("check").stdout == ""
    assert "-P FORWARD DROP" in lines[-2]
    for line in lines:
        if " -A FORWARD " in line:
            variant, rule = line.removeprefix("host  ").split(" -A ")
            assert f"-A {rule}" in host.run(variant, "-S", "FORWARD").stdout
    net("stop web")


# -- bad surroundings ---------------------------------------------------------------------------


def without_rights(net: Program, line: str) -> subprocess.CompletedProcess[str]:
    """`net LINE` without a single capability."""
    return subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *PROGRAM, *line.split()],
        env=net.environment, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "line", ["create front", "sandbox create web", "run -- true", "host forwarding on"]
)
def test_without_privileges(net: Program, host: Host, line: str) -> None:
    """Exit status 6 and what to do, in two lines; nothing was done."""
    done = without_rights(net, line)

    assert done.returncode == 6, done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert "sudo" in hint or "root" in hint
    assert net("ls -q -f type=custom").stdout == ""
    assert net("ps -q").stdout == ""
    assert not host.leftovers()


def test_state_of_another_user(net: Program, host: Host) -> None:
    """A state that may not be read: status 6, with its path, in JSON too."""
    host.state_dir.chmod(0)
    try:
        done = without_rights(net, "ls --json")
    finally:
        host.state_dir.chmod(0o700)
    error = json.loads(done.stdout)["error"]
    assert done.returncode == 6
    assert str(host.state_dir) in error["message"]
    assert "--state-dir" in error["hint"] or "root" in error["hint"]


def devices(host: Host) -> list[str]:
    """The names of the host's devices: their state may change by itself."""
    return [line.split()[1] for line in host.run("ip", "-o", "link").stdout.splitlines()]


def test_read_only_state(net: Program, host: Host) -> None:
    """Reading works or is refused with status 7; writing is refused, and nothing is made."""
    net("create front")
    throwaway.bind(str(host.state_dir), str(host.state_dir))
    subprocess.run(["mount", "-o", "remount,bind,ro", str(host.state_dir)], check=True)
    try:
        before = devices(host)
        done = net("create back", status=7)
        assert "error: " in done.stderr
        assert devices(host) == before
        assert "daemon.lock can not be opened" in net("daemon", status=7).stderr
    finally:
        throwaway.unmount(str(host.state_dir))
    net("rm front")


def test_read_only_sysctls(net: Program, host: Host) -> None:
    """As in a container without privileges: status 6 and why, and nothing is made."""
    throwaway.bind("/proc/sys", "/proc/sys")
    subprocess.run(["mount", "-o", "remount,bind,ro", "/proc/sys"], check=True)
    try:
        assert "hint: /proc/sys is mounted read-only" in net("create front", status=6).stderr
    finally:
        throwaway.unmount("/proc/sys")
    assert net("ls -q -f type=custom").stdout == ""
    assert not host.leftovers(allow=RESIDUE)


def test_full_disk(host: Host) -> None:
    """No room for the state: status 7, and nothing is made."""
    small = host.state_dir / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "small", small], check=True)
    net = Program(host)
    try:
        done = net(f"--state-dir {small} create front", status=7)
        assert "error: " in done.stderr
        assert not host.leftovers()
    finally:
        throwaway.unmount(str(small))


def test_a_sandbox_that_dies_midway(net: Program) -> None:
    """Its namespace goes while it is connected: an error with a hint, and no traces."""
    net("create front")
    net("sandbox create web")
    subprocess.run(["umount", "/run/netns/web"], check=True)

    done = net("connect front web", status=3)
    assert "has ended" in done.stderr
    assert net("gc").stdout == "web\n"
    net("check")
    Path("/run/netns/web").unlink(missing_ok=True)


def test_no_nft(net: Program, host: Host, tmp_path: Path) -> None:
    """Asked for a backend that is not there: the error says what to install or choose."""
    environment = {**net.environment, "PATH": str(tmp_path), "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run(
        [*PROGRAM, "--firewall", "iptables", "create", "front"],
        env=environment, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip

    assert done.returncode == 2, done.stderr
    assert "install" in done.stderr
    assert net("ls -q -f type=custom").stdout == ""
    assert not host.leftovers()


def test_without_a_firewall(net: Program, host: Host) -> None:
    """--firewall none touches no rule."""
    environment = {**net.environment, "NETLIB_FIREWALL": "none"}
    for line in ("create front", "sandbox create web", "connect front web"):
        subprocess.run(
            [*PROGRAM, *line.split()], env=environment, check=True, timeout=20,
            capture_output=True,
        )  # fmt: skip

    assert host.run("nft", "list", "ruleset").stdout == ""


def test_output_that_nobody_reads(net: Program) -> None:
    """`net ls | head -0`: no traceback, no noise."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, "ls"], env=net.environment, stdout=writer, stderr=subprocess.PIPE, text=True,
        timeout=20, check=False,
    )  # fmt: skip
    os.close(writer)

    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize("line", ["ls", "create front", "graph", "--help", "nonsense --json"])
def test_output_that_finds_no_room(net: Program, line: str) -> None:
    """Said in two lines on stderr, and no fault of ours."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [*PROGRAM, *line.split()], env=net.environment, stdout=full, stderr=subprocess.PIPE,
            text=True, timeout=20, check=False,
        )  # fmt: skip

    assert done.returncode == 1
    (error, hint) = done.stderr.splitlines()
    assert error == "error: the output can't be written: No space left on device"
    assert hint.startswith("hint:")


def test_streams_that_are_closed(net: Program) -> None:
    """What is started is the same, and prints into no file of ours."""
    line = f"exec {sys.executable} -m netlib"
    for command in ("ls", "create front", "run -d --name web --network front -- sleep 60"):
        closed = ["sh", "-c", f"{line} {command} <&- >&- 2>&-"]
        subprocess.run(closed, env=net.environment, timeout=20, check=True)
    seen = ["sh", "-c", f"{line} run --network front -- sh -c 'echo said; echo said >&2' >&- 2>&-"]
    subprocess.run(seen, env=net.environment, timeout=20, check=True)

    assert net("check").stdout == ""
    assert "said" not in "".join(
        path.read_text(errors="replace") for path in net.host.state_dir.rglob("*") if path.is_file()
    )
    net("stop web")


def test_bytes_that_are_no_text(net: Program) -> None:
    """What was typed comes back escaped, and the JSON stays JSON."""
    done = subprocess.run(
        [*[word.encode() for word in PROGRAM], b"--json", b"rm", b"\xff"],
        env=net.environment, capture_output=True, timeout=20, check=False,
    )  # fmt: skip

    assert done.returncode == 3
    assert r"'\udcff'" in json.loads(done.stdout)["error"]["message"]


def test_interrupt(net: Program) -> None:
    """Ctrl-C while it waits: status 130, no traceback."""
    path = net.host.state_dir / "lock"
    path.touch()
    with open(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = net.start("create front")
        eventually(lambda: waits_for(program.pid, path))
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=10)

    assert program.returncode == 130
    assert "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_who_is_ended_takes_back_what_is_half_done(net: Program, number: signal.Signals) -> None:
    """As `timeout` ends it, or a terminal that is closed: no need for a repair."""
    net("create front")
    net("sandbox create web")

    def there() -> list[str]:
        """The kernel sees a while later that a bridge has no port any more."""
        return [fact.replace(" linkdown", "") for fact in net.host.leftovers()]

    before = there()
    folder = net.host.state_dir / "sandboxes"
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # who connects waits for it when all is made
        program = net.start("connect front web -p 8080:80")
        assert eventually(lambda: waits_for(program.pid, folder))
        assert there() != before
        program.send_signal(number)
    finally:
        os.close(lock)
    _, said = program.communicate(timeout=10)

    assert program.returncode == -number
    assert said == ""
    assert net("check").returncode == 0
    assert there() == before


def test_who_ignores_that_the_terminal_is_closed_goes_on(net: Program) -> None:
    """As nohup(1) has it."""
    path = net.host.state_dir / "lock"
    path.touch()
    with open(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ignoring = partial(signal.signal, signal.SIGHUP, signal.SIG_IGN)
        program = net.start("create front", preexec_fn=ignoring)
        eventually(lambda: waits_for(program.pid, path))
        program.send_signal(signal.SIGHUP)
    program.communicate(timeout=10)

    assert program.returncode == 0


def test_completion_of_a_shell(net: Program) -> None:
    """What a shell asks when somebody types `net rm <TAB>`."""
    net("create front")
    done = subprocess.run(
        [*PROGRAM],
        env={**net.environment, "_NET_COMPLETE": "bash_complete", "COMP_WORDS": "net rm ",
             "COMP_CWORD": "2"},
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip

    assert "plain,front" in done.stdout.splitlines()
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("exec netns : th", "theirs"),
        ("exec netns :", "theirs"),
        ("exec net", "netns:theirs"),
        ("run --network = fr", "front"),
        ("run --network =", "bridge host none front"),
        ("dns query --from = netns : th", "theirs"),
        ("rm fr", "front"),
        ("rm ''", "bridge host none front"),
    ],
)
def test_bash_completes_names_behind_colons_and_equals_signs(
    net: Program, tmp_path: Path, words: str, offered: str
) -> None:
    """It takes what is on both sides of one for words, and replaces the last of them only."""
    net("create front")
    net.host.sandbox("theirs")
    net("connect front netns:theirs")
    program = tmp_path / "net"
    program.write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    code = net("completion bash").stdout + (
        f"COMP_WORDS=(net {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        f'_net_completion {program}; echo "${{COMPREPLY[*]}}"'
    )
    done = subprocess.run(
        ["bash", "-c", code], env=net.environment, capture_output=True, text=True, timeout=20,
        check=True,
    )  # fmt: skip

    assert done.stdout.strip() == offered
    assert done.stderr == ""


def test_ls_loads_little(net: Program) -> None:
    """What lists does not wait for what acts: none of the heavy packages, no kernel."""
    code = (
        "import sys; from netlib.frontends.cli.program import invoke; invoke(['ls']);"
        "print('\\n'.join(sys.modules))"
    )
    done = subprocess.run(
        [PROGRAM[0], "-c", code], env=net.environment, capture_output=True, text=True, check=True,
        timeout=20,
    )  # fmt: skip

    loaded = set(done.stdout.split())
    assert not loaded & {
        "pyroute2", "netaddr", "scapy", "dnslib", "asyncio", "netlib.kernel.linux",
        "netlib.kernel.netlink", "netlib.run.sandbox",
    }  # fmt: skip
