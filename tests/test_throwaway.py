"""A throw-away host hides the machine it runs on, and hands through what a command is given."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.patience import eventually

from netlib.throwaway import MARKER

pytestmark = pytest.mark.kernel

PYTHON = shlex.quote(sys.executable)  # for the shell: a clone's path may have blanks
THROWAWAY = (sys.executable, "-m", "netlib.throwaway")


def throwaway(*command: str, cwd: str | Path = "/") -> subprocess.CompletedProcess[str]:
    """Run a command in a throw-away host inside the one that these tests are in."""
    return subprocess.run(
        [*THROWAWAY, "--", *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def shell(script: str, cwd: str | Path = "/") -> str:
    """What a shell script prints in a throw-away host."""
    done = throwaway("sh", "-euc", script, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_status_and_output_are_handed_through() -> None:
    """The caller sees what it would see without the throw-away host."""
    done = throwaway("sh", "-c", "echo said; echo warned >&2; exit 7")

    assert (done.returncode, done.stdout, done.stderr) == (7, "said\n", "warned\n")


@pytest.mark.parametrize("command", ["/nowhere/program", "nowhere-program"])
def test_a_program_that_is_not_there_is_named(command: str) -> None:
    """One line, and the status that shells use."""
    done = throwaway(command)

    assert done.returncode == 127
    assert done.stderr == f"throwaway: {command}: there is no such program\n"


def test_usage() -> None:
    """Without a command there is nothing to do."""
    done = subprocess.run(THROWAWAY, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_network_is_empty_and_usable() -> None:
    """Only `lo`, up; sysctls, rules and named namespaces can be made."""
    said = shell(
        "ip -br link; sysctl -w net.ipv4.ip_forward=1; nft add table inet mine; ip netns add mine;"
        "nft list tables; ip netns"
    ).splitlines()

    assert said[0].split()[:2] == ["lo", "UNKNOWN"]
    assert said[1:] == ["net.ipv4.ip_forward = 1", "table inet mine", "mine"]


@pytest.mark.parametrize("folder", ["/run", "/var/lib/netlib", "/etc/cni", "/etc/sysctl.d", "/etc"])
def test_what_is_written_is_forgotten(folder: str) -> None:
    """Run-time state, our state and the configuration of the machine stay as they are."""
    name = f"{folder}/written-by-{os.getpid()}"
    shell(f"echo secret > {name}; cat {name}")

    assert not Path(name).exists()


def test_state_folders_are_empty() -> None:
    """Nothing of the machine's own networks shows."""
    said = shell("ls -A /run/netns /var/lib/netlib /var/lib/cni /etc/cni /etc/sysctl.d | grep -v :")

    assert said.split() == []


def test_working_directory_is_kept_even_where_it_would_be_hidden(tmp_path: Path) -> None:
    """A clone below /run or /var/lib can be worked in, and what is written there stays."""
    hidden = Path("/run/hidden") / tmp_path.name
    hidden.mkdir(parents=True)
    (hidden / "before").write_text("here")

    assert shell("cat before; echo kept > after; pwd", cwd=hidden) == f"here{hidden}\n"
    assert (hidden / "after").read_text() == "kept\n"


def test_inside_knows_namespaces_not_names() -> None:
    """Another network namespace inside counts; a forged marker in the invoker's does not."""
    ask = f"{PYTHON} -c 'from netlib.throwaway import inside; print(inside())'"

    assert shell(f"{ask}; unshare --net {ask}") == "True\nTrue\n"
    forged = shell(
        f"cd {MARKER.parent}; cp {MARKER} saved; sed -i 's/pid:/pid:9/' {MARKER}; {ask};"
        'sed -i "s/net:[^\\"]*/$(readlink /proc/self/ns/net)/" saved;'
        f"mv saved {MARKER}; {ask}"
    )
    assert forged == "False\nFalse\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_signals_reach_the_command(number: signal.Signals) -> None:
    """Who stops the throw-away host stops the command in it, which may have its say."""
    script = (
        f"trap 'exit 9' {number.name.removeprefix('SIG')}; echo ready; while :; do sleep 0.02; done"
    )
    with subprocess.Popen(
        [*THROWAWAY, "--", "sh", "-c", script], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)

        assert process.wait(10) == 9


def test_a_command_killed_by_a_signal_tells_which() -> None:
    """128 and the signal's number, as shells do it."""
    assert throwaway("sh", "-c", "kill -KILL $$").returncode == 128 + signal.SIGKILL


def test_nothing_survives_who_waits_outside() -> None:
    """Not even after kill -9 of the one process that can be seen."""
    mark = f"{os.getpid()}.125"
    process = subprocess.Popen([*THROWAWAY, "--", "sleep", mark])
    eventually(lambda: running("sleep", mark), 10)
    process.kill()
    process.wait()

    eventually(lambda: not running("sleep", mark))


def running(*argv: str) -> bool:
    """Whether a process runs with exactly these arguments."""
    wanted = "".join(f"{word}\0" for word in argv).encode()
    for pid in os.listdir("/proc"):
        try:
            if pid.isdigit() and Path("/proc", pid, "cmdline").read_bytes() == wanted:
                return True
        except OSError:  # it ended meanwhile
            continue
    return False


def test_refusal_is_one_line_that_says_what_to_do() -> None:
    """Where the system grants neither rights nor user namespaces (here: in a chroot)."""
    script = (
        "mkdir /run/root; mount --rbind / /run/root; exec chroot /run/root setpriv "
        f"--bounding-set=-all --inh-caps=-all {PYTHON} -m netlib.throwaway -- true"
    )
    done = throwaway("sh", "-euc", script)

    assert done.returncode == 6
    (line,) = done.stderr.splitlines()
    assert "refuses user namespaces" in line
    assert "run it as root" in line
    assert "kernel.unprivileged_userns_clone=1" in line


def test_refusal_for_their_number_names_the_limit() -> None:
    """The limit is each user namespace's own: this one's is none of the machine's."""
    script = (
        "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-all "
        f"--inh-caps=-all {PYTHON} -m netlib.throwaway -- true"
    )
    done = throwaway("unshare", "--user", "--map-root-user", "sh", "-euc", script)

    assert done.returncode == 6
    (line,) = done.stderr.splitlines()
    assert "sysctl -w user.max_user_namespaces=" in line
