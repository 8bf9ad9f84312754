"""`net run`, `net exec` and `net stop` with real processes and namespaces."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from support.host import Host
from support.patience import eventually
from support.program import Program

from netlib.net import Net
from netlib.run.joining import stop
from netlib.run.showing import keep_shown

pytestmark = pytest.mark.kernel
RESIDUE = [r"^nft table inet netlib", r"^sysctl .*forwarding=1"]


@pytest.fixture
def net(host: Host) -> Program:
    with Net(host.state_dir) as library:
        library.create("front", subnets=["198.51.100.0/24", "2001:db8:1::/64"], ipv6=True)
    return Program(host)


def nothing_is_left(net: Program) -> None:
    """No sandbox in the state, and no link of one on the host."""
    with Net(net.host.state_dir) as library:
        assert library.sandboxes() == ()
        assert library.check() == ()
        library.remove("front")
    assert not net.host.leftovers(allow=RESIDUE)


# -- what a command finds -----------------------------------------------------------------------


def test_command_starts_with_its_network_ready(net: Program) -> None:
    """Its first packet arrives: no waiting for links, addresses or routes."""
    said = net("run --network front -- ping -c1 -W1 198.51.100.1").stdout

    assert " 0% packet loss" in said
    nothing_is_left(net)


def test_several_networks_give_interfaces_in_order(net: Program) -> None:
    """eth0 is the first that was named; only one has the default route."""
    net("create back --subnet 203.0.113.0/24")

    said = net("run --network back --network front -- ip -o addr").stdout
    addresses = dict(re.findall(r"(eth\d) +inet (\S+)/", said))
    assert addresses == {"eth0": "203.0.113.2", "eth1": "198.51.100.2"}
    routes = net("run --network back --network front -- ip route show default").stdout
    assert routes.count("default") == 1
    assert "dev eth0" in routes
    routes = net("run --network back --network front:gw-priority=1 -- ip route show default").stdout
    assert "dev eth1" in routes


def test_options_of_an_attachment(net: Program) -> None:
    """Address, MAC address, interface name as asked for."""
    said = net(
        "run --network front:ip=198.51.100.9,ip=2001:db8:1::9,mac=02:00:5e:00:53:01,ifname=lan0"
        " -- ip addr show lan0"
    ).stdout

    assert "198.51.100.9/24" in said
    assert "2001:db8:1::9/64" in said
    assert "02:00:5e:00:53:01" in said


def test_on_none_there_is_only_loopback(net: Program) -> None:
    """Its own network stack, with `lo` up and nothing else."""
    said = net("run --network none -- ip -br link").stdout

    assert re.findall(r"^(\S+)", said, re.MULTILINE) == ["lo"]
    assert "UP" in said


def test_names_of_its_own(net: Program) -> None:
    """Hostname, hosts and hostname file are the sandbox's, and the host's stay as they are."""
    before = [Path("/etc", name).read_text() for name in ("hosts", "hostname", "resolv.conf")]

    said = net(
        "run --name web -h web.example --network front --add-host db:192.0.2.5"
        " --add-host out:host-gateway -- sh -c 'hostname; cat /etc/hostname /etc/hosts'"
    ).stdout
    assert said.splitlines()[:2] == ["web.example", "web.example"]
    assert "198.51.100.2\tweb.example web\n" in said
    assert "2001:db8:1::2\tweb.example web\n" in said
    assert "192.0.2.5\tdb\n" in said
    assert "198.51.100.1\tout\n" in said
    after = [Path("/etc", name).read_text() for name in ("hosts", "hostname", "resolv.conf")]
    assert before == after
    assert os.uname().nodename not in said.splitlines()[0]


def test_resolver_as_asked_for(net: Program) -> None:
    """Servers, search list and options; a dot asks for no search list."""
    said = net(
        "run --dns 192.0.2.53 --dns 2001:db8::53 --dns-search example.com --dns-opt ndots:2"
        " -- cat /etc/resolv.conf"
    ).stdout
    assert said.splitlines() == [
        "nameserver 192.0.2.53",
        "nameserver 2001:db8::53",
        "search example.com",
        "options ndots:2",
    ]
    assert "search" not in net("run --dns-search . -- cat /etc/resolv.conf").stdout


def test_the_host_may_put_another_file_in_their_place(net: Program) -> None:
    """As systemd-resolved and NetworkManager do with each lease; removed and written anew, too."""
    net("run -d --name web --network front -- sleep 100")
    own = net("exec web -- cat /etc/resolv.conf").stdout
    assert own.startswith("nameserver 198.51.100.1\n")
    path, fresh = Path("/etc/resolv.conf"), Path("/etc/resolv.conf.fresh")

    for text in ("nameserver 192.0.2.53\n", "nameserver 192.0.2.54\n"):
        fresh.write_text(text)
        fresh.replace(path)
        eventually(lambda: net("exec web -- cat /etc/resolv.conf").stdout == own)
    path.unlink()
    path.write_text("nameserver 192.0.2.55\n")
    eventually(lambda: net("exec web -- cat /etc/resolv.conf").stdout == own)
    assert path.read_text() == "nameserver 192.0.2.55\n", "the host keeps its own"

    net("stop web")
    nothing_is_left(net)


def test_what_the_command_mounts_on_its_files_stays(net: Program) -> None:
    """Though the host puts another file in place of one beside it, and that is shown again."""
    net("run -d --name web --network front -- sleep 100")
    shown = net("exec web -- cat /etc/hosts").stdout
    mine = Path("/run/mine")
    mine.write_text("nameserver 192.0.2.7\n")
    net(f"exec web -- mount --bind {mine} /etc/resolv.conf")
    fresh = Path("/etc/hosts.fresh")
    fresh.write_text("127.0.0.1 localhost\n")
    fresh.replace("/etc/hosts")

    eventually(lambda: net("exec web -- cat /etc/hosts").stdout == shown)
    assert net("exec web -- cat /etc/resolv.conf").stdout == mine.read_text()

    net("stop web")
    nothing_is_left(net)


def test_mounts_do_not_reach_the_host(net: Program) -> None:
    """What the command mounts is its own."""
    net("run -- mount -t tmpfs inside /mnt")

    assert "inside" not in Path("/proc/self/mounts").read_text()


def test_nothing_is_said_of_the_files_of_who_has_ended() -> None:
    """A command may be over before its files are looked after, and nobody has waited for it yet."""
    said: list[str] = []
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        keep_shown(child.pid, {"/etc/hosts": "/etc/hosts"}, said.append)
        for thread in threading.enumerate():
            if thread.name == "net-run-files":
                thread.join(10)

    assert said == []


def test_sysfs_shows_the_sandboxs_devices(net: Program) -> None:
    """Programs that look into /sys/class/net see what `ip` sees."""
    assert net("run --network front -- ls /sys/class/net").stdout.split() == ["eth0", "lo"]


@pytest.mark.parametrize("where", ["", "-d"])
def test_environment_and_folder_are_the_callers(net: Program, where: str) -> None:
    """The command gets what `net run` got, and nothing of ours."""
    said = Path("/run/said")
    said.unlink(missing_ok=True)
    net(f"run {where} -- sh -c 'pwd > /run/said.new; env >> /run/said.new;"
        " mv /run/said.new /run/said'")  # fmt: skip

    folder, *lines = eventually(lambda: said.exists() and said.read_text()).splitlines()
    assert folder == os.getcwd()
    theirs = {line.partition("=")[0] for line in lines if "=" in line and line[0].isalpha()}
    assert theirs - {"PWD", "OLDPWD", "SHLVL"} <= set(net.environment)
    assert f"PYTHONPATH={net.environment['PYTHONPATH']}" in lines


def test_signals_are_as_a_shell_gives_them(net: Program) -> None:
    """Nothing is blocked or ignored that would not be without us (SIGPIPE above all)."""
    said = net("run -- grep -E ^Sig(Blk|Ign) /proc/self/status").stdout

    plain = subprocess.run(
        ["sh", "-c", "exec grep -E '^Sig(Blk|Ign)' /proc/self/status"],
        capture_output=True, text=True, check=True, timeout=10,
    ).stdout  # fmt: skip
    assert said == plain


def test_helpers_can_be_ended(host: Host) -> None:
    """The processes that are first needed by `net run` do not inherit its blocked signals."""
    net = Program(host)
    net("create front")
    for pid in _helpers(host):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not _helpers(host))
    program = net.start("run --network front -p [::1]:8085:80 -- sleep 60")
    eventually(lambda: net("ps -q").stdout and _helpers(host), 15)

    def free() -> bool:
        with contextlib.suppress(FileNotFoundError):
            texts = [Path(f"/proc/{pid}/status").read_text() for pid in _helpers(host)]
            return all("SigBlk:\t0000000000000000\n" in text for text in texts)
        return False

    assert eventually(free)  # a helper that is just starting is not one yet
    program.terminate()
    program.wait(10)


def _helpers(host: Host) -> list[int]:
    """The relay and the resolver of a host."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes()
            ours = re.search(rb"netlib[./](relay|dns)", words)
            if ours and str(host.state_dir).encode() in words:
                found.append(int(path.parent.name))
    return found


# -- how it ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("true", 0),
        ("sh -c 'exit 7'", 7),
        ("sh -c 'kill -9 $$'", 137),
        ("sh -c 'kill -TERM $$'", 143),
        ("no-such-command", 127),
        ("/etc/passwd", 126),
    ],
)
def test_exit_status_is_the_commands(net: Program, command: str, status: int) -> None:
    """As a shell tells it; and nothing stays behind, whatever it is."""
    net(f"run --network front -- {command}", status=status)

    nothing_is_left(net)


def test_exec_has_the_variables_that_run_was_given(net: Program) -> None:
    """As the sandbox's own command; what the caller has besides stays."""
    net("run -d --network front --name web -e COLOUR=green -- sleep 100")

    said = net("exec web -- sh -c 'echo $COLOUR $PATH'").stdout.split()

    assert said[0] == "green"
    assert "/bin" in said[1]
    net("stop web")


def test_hands_that_type_it_as_with_docker_find_it(net: Program) -> None:
    """`-it` and `--rm` ask for what is so anyway."""
    assert net("run -it --rm --network front -- echo said").stdout == "said\n"
    net("run -d --name web --network front -- sleep 100")
    assert net("exec -it web echo said").stdout == "said\n"
    net("stop web")
    nothing_is_left(net)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on_once(net: Program, number: signal.Signals) -> None:
    """The command gets what is sent to `net run`, and its answer is ours."""
    program = net.start(
        "run --network front --name web -- sh -c '"
        f'trap "echo got; exit 9" {number.name[3:]}; echo ready; '
        "while :; do sleep 0.05; done'"
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(number)

    assert program.wait(10) == 9
    assert program.stdout.read() == "got\n"
    nothing_is_left(net)


def test_connecting_that_fails_leaves_nothing(net: Program) -> None:
    """The second network refuses: the command never starts, and the first is left again."""
    net("create back --subnet 203.0.113.0/24")

    done = net(
        "run --name web --network front --network back:ip=203.0.113.1 -- touch /run/started",
        status=2,
    )
    assert "203.0.113.1" in done.stderr
    assert not Path("/run/started").exists()
    net("rm back")
    nothing_is_left(net)


def test_a_name_is_given_once(net: Program) -> None:
    """A second sandbox of that name is refused, and the first goes on."""
    net("run -d --name web --network front -- sleep 60")

    assert "there is a sandbox 'web'" in net("run --name web -- true", status=4).stderr
    assert net("ps -q").stdout == "web\n"
    net("stop web")
    nothing_is_left(net)


def test_a_command_dies_with_its_keeper(net: Program) -> None:
    """After kill -9 of `net run` the command is gone too, and `net gc` removes the rest."""
    program = net.start("run --name web --network front -- sleep 60")
    eventually(lambda: net("ps -q").stdout == "web\n")
    (pid,) = [box["pid"] for box in net.ask("ps")["sandboxes"]]
    program.kill()
    program.wait(10)

    eventually(lambda: not Path(f"/proc/{pid}/ns/net").exists() or not os.path.exists(
        f"/proc/{pid}/root/etc"))  # fmt: skip
    assert eventually(lambda: net.ask("ps")["sandboxes"][0]["state"] == "ended")
    net("check", status=1)
    assert net("gc").stdout == "web\n"
    nothing_is_left(net)


def test_a_killed_sandbox_can_be_run_again(net: Program) -> None:
    """Its name, address and port are free for its successor, without a word of the user's."""
    line = "run --name web --network front:ip=198.51.100.9 -p 8080:80 -- "
    program = net.start(line + "sleep 60")
    eventually(lambda: net("port web", status=None).stdout)
    program.kill()
    program.wait(10)
    eventually(lambda: net.ask("ps")["sandboxes"][0]["state"] == "ended")

    net(line + "true")
    nothing_is_left(net)


# -- in the background --------------------------------------------------------------------------


def test_background_prints_the_name_and_cleans_up(net: Program) -> None:
    """`-d` returns when the command runs; its output is kept; at its end all is gone."""
    gate = net.host.state_dir / "gate"
    os.mkfifo(gate)
    name = net(f"run -d --network front -- sh -c 'echo hello; read line < {gate}'").stdout.strip()

    assert re.fullmatch(r"run-[0-9a-f]{6}", name)
    log = net.host.state_dir / "log" / f"{name}.log"
    eventually(lambda: "hello" in log.read_text())
    assert net("ps -q").stdout == f"{name}\n"
    gate.write_text("\n")
    eventually(lambda: net("ps -q").stdout == "")
    assert log.exists()
    net("gc")
    assert not log.exists()
    nothing_is_left(net)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("run -d --network nope -- true", 3),
        ("run -d --network none -- no-such-command", 127),
        ("run -d --network front:ip=198.51.100.1 -- true", 2),
        ("run -dit --network front -- true", 2),
    ],
)
def test_errors_of_the_background_are_told(net: Program, line: str, status: int) -> None:
    """What fails before the command runs fails in front of the user, with its own status."""
    done = net(line, status=status)

    assert done.stderr.startswith("error: ")
    nothing_is_left(net)


def test_background_survives_its_terminal(net: Program) -> None:
    """It is in a session of its own, so a hang-up of the caller's does not reach it."""
    net("run -d --name web --network none -- sleep 60")
    (pid,) = [box["pid"] for box in net.ask("ps")["sandboxes"]]

    assert os.getsid(pid) != os.getsid(0)
    net("stop web")


def test_stop_kills_what_does_not_listen(net: Program) -> None:
    """SIGTERM first; after the given time SIGKILL."""
    net("run -d --name deaf --network front -- sh -c 'trap \"\" TERM; while :; do sleep 1; done'")

    assert net("stop -t 0.3 deaf").stdout == "deaf\n"
    nothing_is_left(net)


def test_stop_never_ends_another_process(net: Program) -> None:
    """A number that was used again is somebody else's: its start time tells."""
    bystander = subprocess.Popen(["sleep", "60"])
    try:
        program = net.start("run --name web -- sleep 60")
        eventually(lambda: net("ps -q").stdout == "web\n")
        program.kill()
        program.wait(10)
        _claim_that(net, "web", pid=bystander.pid)

        assert net("stop web").stdout == "web\n"
        assert bystander.poll() is None
        assert net("ps -q").stdout == ""
    finally:
        bystander.kill()
        bystander.wait(10)


def test_stop_in_a_process_with_many_open_files(net: Program) -> None:
    """Who has netlib as a library may have thousands."""
    net("run -d --name web --network front -- sleep 1000")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, limits[1]), limits[1]))
    with contextlib.ExitStack() as files, Net(net.host.state_dir) as library:
        files.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        for _ in range(1100):
            files.callback(os.close, os.open("/dev/null", os.O_RDONLY))
        stop(library, "web")
    nothing_is_left(net)


def test_stop_of_several(net: Program) -> None:
    """Each is tried; the exit status tells of the first that could not be ended."""
    net("run -d --name a -- sleep 60")
    net("sandbox create plain")

    done = net("stop a plain nobody", status=2)
    assert done.stdout == "a\n"
    assert "net sandbox rm plain" in done.stderr


# -- from outside -------------------------------------------------------------------------------


def test_a_command_that_has_ended_at_once_is_shown_nothing_and_warned_of_nothing(
    host: Host, tmp_path: Path
) -> None:
    """Its mounts are gone before it is: whoever would keep an eye on them finds none."""
    process = host.popen("true")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    warnings: list[str] = []
    keep_shown(process.pid, {"/etc/hosts": str(tmp_path / "hosts")}, warnings.append)
    for thread in threading.enumerate():
        if thread.name == "net-run-files":
            thread.join(10)
    assert warnings == []
    process.wait()


def test_exec_sees_what_the_command_sees(net: Program) -> None:
    """Network, names and files of the sandbox; the exit status is the command's."""
    net("run -d --name web --network front -- sleep 60")

    said = net("exec web -- sh -c 'hostname; cat /etc/hosts; ls /sys/class/net'").stdout
    assert said.startswith("web\n")
    assert "198.51.100.2\tweb\n" in said
    assert said.endswith("eth0\nlo\n")
    net("exec web -- sh -c 'exit 5'", status=5)
    net("exec web sh -c 'exit 6'", status=6)
    net("exec web -- no-such-command", status=127)
    net("stop web")


def test_exec_shows_nobody_the_files_of_an_earlier_namespace_of_that_name(
    host: Host, net: Program
) -> None:
    """Who has ended is known until `net gc`, and so are its files."""
    host.run("ip", "netns", "add", "plain")
    net("connect front netns:plain")
    assert "198.51.100.2" in net("exec netns:plain -- cat /etc/hosts").stdout
    host.run("ip", "netns", "del", "plain")
    host.run("ip", "netns", "add", "plain")
    assert net("exec netns:plain -- cat /etc/hosts").stdout == Path("/etc/hosts").read_text()
    host.run("ip", "netns", "del", "plain")
    net("gc")


def test_exec_in_a_named_namespace(net: Program) -> None:
    """Any sandbox's network can be entered, also by its path."""
    net("sandbox create plain")
    net("connect front plain")

    assert "198.51.100.2" in net("exec plain -- ip -4 addr").stdout
    assert "198.51.100.2" in net("exec netns:plain -- ip -4 addr").stdout
    said = net("exec plain -- sh -c 'hostname; cat /etc/hosts; ls /sys/class/net'").stdout
    assert said.startswith("plain\n")
    assert "198.51.100.2\tplain\n" in said
    assert said.endswith("eth0\nlo\n")
    assert os.uname().nodename != "plain"


def test_a_running_sandbox_is_not_removed_under_its_process(net: Program) -> None:
    """`net sandbox rm` is for those without one: `net stop` ends the others."""
    net("run -d --name web --network none -- sleep 60")

    assert "net stop web" in net("sandbox rm web", status=4).stderr
    assert "net stop web" in net("sandbox rm --dry-run web", status=4).stderr
    assert net("stop --dry-run web").stdout.startswith("host  kill -TERM ")
    assert net("stop web").stdout == "web\n"


def test_what_others_run_is_forgotten_and_goes_on(net: Program) -> None:
    """Processes and namespaces that `net` did not begin are none of its to end, also as planned."""
    net.host.sandbox("theirs")
    with subprocess.Popen(["unshare", "--net", "sleep", "60"]) as process:
        own = os.readlink("/proc/self/ns/net")
        assert eventually(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != own)
        for name in (f"pid:{process.pid}", "netns:theirs"):
            net(f"connect front {name}")
            hint = f"run: net sandbox rm {name}"
            assert hint in net(f"stop {name}", status=2).stderr
            assert hint in net(f"stop --dry-run {name}", status=2).stderr
            (line,) = net(f"sandbox rm --dry-run {name}").stdout.splitlines()
            assert line.startswith("host  ip link del nv-")
            assert net(f"sandbox rm {name}").stdout.split() == [name]
        assert net("sandbox ls -q").stdout == ""
        assert "theirs" in net.host.run("ip", "netns").stdout
        assert process.poll() is None
        process.kill()


def test_a_running_sandbox_is_connected_and_disconnected(net: Program) -> None:
    """Its networks change under a process that goes on."""
    net("run -d --name web --network none -- sleep 60")
    net("connect front web")
    assert " 0% packet loss" in net("exec web -- ping -c1 -W1 198.51.100.1").stdout
    net("disconnect front web")
    assert net("exec web -- ls /sys/class/net").stdout.split() == ["lo"]
    net("stop web")
    nothing_is_left(net)


@pytest.mark.skipif(shutil.which("script") is None, reason="script(1) is not installed")
def test_interrupt_on_a_terminal_comes_once(net: Program) -> None:
    """Ctrl-C reaches the whole foreground group: passing it on too would double it."""
    script = (
        "n=0; trap 'n=$((n+1)); echo got $n' INT; echo ready; "
        "for i in 1 2 3 4 5 6; do sleep 0.1; done; echo total $n"
    )
    Path("/run/counted").write_text(script)
    pid, descriptor = os.forkpty()
    if pid == 0:
        from support.program import PROGRAM

        os.environ.update(net.environment)
        os.execv(PROGRAM[0], [*PROGRAM, "run", "--", "sh", "/run/counted"])
    seen = b""

    def read_until(wanted: bytes) -> None:
        nonlocal seen
        while wanted not in seen:
            seen += os.read(descriptor, 4096)

    read_until(b"ready")
    os.write(descriptor, b"\x03")
    read_until(b"total")
    read_until(b"\n")
    os.waitpid(pid, 0)
    os.close(descriptor)
    assert b"total 1" in seen


def _claim_that(net: Program, name: str, *, pid: int) -> None:
    """Write down another process as the sandbox's, as after its number was used again."""
    from dataclasses import replace

    from netlib import keys
    from netlib.records import dump
    from netlib.store import Commit

    with Net(net.host.state_dir) as library:
        box = replace(library.engine.state.sandbox(name), pid=pid)
        library.engine.state.store.commit(Commit(put={keys.sandbox_key(name): dump(box)}))
