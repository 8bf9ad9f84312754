"""`net lab`: lists labs, plays them, lets people in, and says what is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.shell import Shell

from netlib.errors import LabFailed, NoSuchLab, Unsupported
from netlib.labs import catalogue, launch, player
from netlib.labs.catalogue import TITLES, Lab, find, load
from netlib.labs.teller import Aloud, Written

STORIES = Path(__file__).with_name("stories")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def shell() -> Shell:
    """A command line."""
    return Shell()


@pytest.fixture
def stories(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stories of these tests can be imported, here and where they are played."""
    monkeypatch.syspath_prepend(STORIES)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(STORIES)]))


def lab(name: str) -> Lab:
    """A lab of these tests."""
    return load(name, f"The story of {name}.", f"{name}.story")


def typed(events: list[dict[str, Any]]) -> list[str]:
    """What was typed in a transcript."""
    return [event["line"] for event in events if event["event"] == "type"]


# -- without a lab ------------------------------------------------------------------------------


def test_labs_are_listed(shell: Shell) -> None:
    """With what they tell of; only their names for scripts; and as JSON."""
    listed = shell("lab ls").out

    assert all(title in listed for title in TITLES.values())
    assert shell("lab ls -q").lines == list(TITLES)
    first = {"name": "demo", "title": TITLES["demo"]}
    assert shell("lab ls --json").document["labs"][0] == first


def test_a_lab_that_there_is_not(shell: Shell) -> None:
    """What is near is named."""
    said = shell("lab run publsh", status=NoSuchLab.exit_status)

    assert "did you mean publish?" in said.err


@pytest.mark.parametrize("option", ["--nope", "--hosts 3", "word"])
def test_an_option_that_the_lab_does_not_have(shell: Shell, option: str) -> None:
    """Is wrong usage, before anything is played."""
    said = shell(f"lab run demo {option}", status=2)

    assert option.split(maxsplit=1)[0] in said.err


@pytest.mark.parametrize("hosts", ["1", "10", "many"])
def test_an_option_that_is_beyond_what_the_lab_can(shell: Shell, hosts: str) -> None:
    """Is wrong usage, too: the lab has not begun."""
    said = shell(f"lab run overlay --hosts {hosts}", status=2)

    assert "--hosts" in said.err
    assert said.out == ""


@pytest.mark.usefixtures("stories")
def test_help_shows_the_labs_own_options(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what they are unless somebody says otherwise."""
    monkeypatch.setattr(catalogue, "TITLES", {"greeting": "Hello."})
    monkeypatch.setattr(catalogue, "find", lab)

    said = shell("lab run greeting --help").out

    assert "Usage: net lab run greeting" in said
    assert re.search(r"--times INTEGER +How often.  \[default: 1\]", said)
    assert "net lab run crash --pause" in shell("lab run --help").out


@pytest.mark.parametrize(
    ("name", "package"), [("demo", "scapy"), ("overlay", "scapy"), ("overlay", "cryptography")]
)
def test_without_its_packages_a_lab_says_how_to_get_them(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    """They are an extra of ours."""
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda asked, *a: there(asked, *a) if asked != package else None,
    )

    said = shell(f"lab run {name}", status=Unsupported.exit_status)

    assert f"not installed: {package}" in said.err
    assert f"pip install 'contnet[labs]', or: apt-get install python3-{package}" in said.err
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(wanted.startswith(package) for wanted in extra["labs"])


def test_programs_that_are_missing_are_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the packages that have them."""
    monkeypatch.setattr(launch.shutil, "which", lambda name, path: None)

    said = shell("lab run publish", status=Unsupported.exit_status)

    assert "apt-get install iproute2 util-linux curl iputils-ping conntrack" in said.err


def test_every_lab_can_be_loaded() -> None:
    """Its title, its introduction and its options are there before it is played."""
    for name in TITLES:
        found = find(name)
        assert found.introduction.endswith((".", ":"))
        assert callable(found.tell)


# -- playing ------------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.usefixtures("stories")
def test_a_lab_that_tells_something_untrue_fails() -> None:
    """And says what."""
    with pytest.raises(LabFailed) as failure:
        launch.transcript(lab("untrue"), {})

    assert failure.value.hint == (
        "this should have worked, but its exit status is 1: echo not at all; false"
    )


@pytest.mark.kernel
@pytest.mark.usefixtures("stories")
def test_a_lab_that_leaves_something_fails() -> None:
    """What it made it must take away."""
    with pytest.raises(LabFailed, match="sandbox web"):
        launch.transcript(lab("greeting"), {"tidy": False})


@pytest.mark.kernel
@pytest.mark.usefixtures("stories")
def test_a_lab_whose_scenery_breaks_says_why_and_shows_where_only_if_asked(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """People are told no traceback; who writes labs needs one."""
    with pytest.raises(LabFailed, match="File exists"):
        launch.transcript(lab("broken"), {})
    assert "Traceback" not in capfd.readouterr().err

    with pytest.raises(LabFailed):
        launch.transcript(lab("broken"), {}, debug=True)
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.kernel
def test_a_lab_that_nobody_reads_to_its_end_is_quiet_about_it() -> None:
    """As behind `net lab run demo | head`."""
    done = subprocess.run(
        ["sh", "-c", f"{shlex.quote(sys.executable)} -m netlib lab run demo | head -n 2"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip

    assert done.stdout.startswith("demo: ")
    assert done.stderr == ""


@pytest.mark.kernel
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_lab_ends_with_who_plays_it(number: signal.Signals) -> None:
    """It does not go on unseen, nor wait for ever where it was to be paused."""
    player = subprocess.Popen(
        [sys.executable, "-m", "netlib", "lab", "run", "crash", "--pause"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert player.stdout is not None
    with player:
        assert player.stdout.readline().startswith("crash: ")
        player.send_signal(number)
        assert player.wait(20) == -number
        rest = player.stdout.read()  # to its end: nobody has it any more

    assert "Paused" not in rest


@pytest.mark.parametrize(("columns", "widest"), [("50", 50), ("200", 92)])
def test_prose_is_as_wide_as_the_terminal_but_not_too_wide(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str, widest: int
) -> None:
    """Long lines are hard to read."""
    monkeypatch.setenv("COLUMNS", columns)
    Aloud(pauses=False, outer_pid=1, has_user_namespace=False).event("say", text="words " * 99)

    lines = capsys.readouterr().out.splitlines()
    assert widest - 6 < max(map(len, lines)) <= widest


def test_what_fails_silently_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """It would look like what worked."""
    teller = Aloud(pauses=False, outer_pid=1, has_user_namespace=False)
    for status, output in ((2, ""), (2, "said"), (0, ""), (None, "")):
        teller.event("type", at="", line="getent hosts web", status=status, output=output)

    typed = "  $ getent hosts web"
    assert capsys.readouterr().out.splitlines() == [
        typed, "    (exit status 2)", typed, "    said", typed, typed,
    ]  # fmt: skip


@pytest.mark.kernel
@pytest.mark.usefixtures("stories")
def test_a_lab_takes_options_and_nothing_else_of_who_plays_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own, after its name; the state's folder and proxies stay outside."""
    monkeypatch.setenv("NETLIB_STATE_DIR", "/nowhere")
    monkeypatch.setenv("http_proxy", "http://192.0.2.9:3128")
    monkeypatch.setattr(catalogue, "TITLES", {"greeting": "Hello."})
    monkeypatch.setattr(catalogue, "find", lab)

    said = shell("lab run greeting --json --whom 'you there' --times 2").document

    assert said["lab"] == "greeting"
    assert typed(said["events"])[:2] == ["echo hello you there"] * 2
    assert said["events"][-1]["event"] == "end"


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.usefixtures("stories")
def test_a_lab_of_several_hosts() -> None:
    """They do not see each other but for the cable between them."""
    events = launch.transcript(lab("several_hosts"), {"hosts": 2})

    cable, inside = [event["lines"] for event in events if event["event"] == "packets"]
    assert [line[0] for line in cable[:2]] == ["host-1 right", "host-2 left"]
    assert {line[0] for line in inside} == {"web eth0"}


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.usefixtures("stories")
def test_a_lab_that_is_paused_can_be_entered() -> None:
    """By the command that it names: the host, a machine beside it, a sandbox."""
    program = (
        "from netlib.labs import launch; from netlib.labs.catalogue import load; "
        "launch.play(load('greeting', 'Hello.', 'greeting.story'), {}, pause=True)"
    )
    player = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert player.stdin is not None
    assert player.stdout is not None
    try:
        doors: dict[str, list[str]] = {}
        for line in player.stdout:
            if found := re.match(r"    (nsenter .* (\S+))$", line):
                doors[found[2]] = shlex.split(found[1])
            if "Press Enter" in line:
                break

        assert list(doors) == ["host", "beside", "web"]
        assert enter(doors["host"], "net", "ps", "-q") == "web\n"
        assert "eth0" not in enter(doors["beside"], "ip", "-o", "link")
        inside = enter(doors["web"], "readlink", "/proc/self/ns/net")
        assert inside != enter(doors["host"], "readlink", "/proc/self/ns/net")

        rest, _ = player.communicate("\n", timeout=20)
        assert player.returncode == 0
        assert "nothing is left" in rest
    finally:
        player.kill()
        player.wait()


def enter(door: list[str], *command: str) -> str:
    """What a command prints in a place of a lab."""
    done = subprocess.run(
        [*door, *command], capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_lab_plays_in_throw_away_hosts_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does to a host would stay there."""
    monkeypatch.setattr(player.throwaway, "inside", lambda: False)

    with pytest.raises(RuntimeError, match="net lab run"):
        player.main(["{}"])


def test_transcripts_are_lines_of_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a story prints stays one line."""
    printed: list[str] = []
    monkeypatch.setattr("builtins.print", lambda text, **_: printed.append(text))
    Written().event("say", text="two\nlines")

    assert json.loads(printed[0]) == {"event": "say", "text": "two\nlines"}
