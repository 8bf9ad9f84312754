"""docs/json.md describes every field that is printed, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.shell import Shell

from netlib.kernel.fake import FakeKernel
from netlib.net import Net
from netlib.store.memory import MemoryStore

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()


def fields(section: str) -> set[str]:
    """The fields that a section of the page names in the first column of its table."""
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", body, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with Net(tmp_path, store=MemoryStore(), kernel=FakeKernel()) as net:
        shell = Shell(net)
        shell("create front --subnet 192.0.2.0/24")
        shell("sandbox create web")
        shell("connect front web -p 8080:80")
        yield shell


def test_fields_of_networks(shell: Shell) -> None:
    """`ls`, `inspect` and what is below them."""
    (brief,) = shell("ls --json -f type=custom").document["networks"]
    (full,) = shell("inspect -v --json front").document["networks"]

    assert set(brief) == fields("network")
    assert set(full) == fields("network") | fields("network in full")
    assert set(full["subnets"][0]) == fields("subnet")
    assert set(full["endpoints"][0]) == fields("endpoint")
    assert set(full["endpoints"][0]["ports"][0]) == fields("port")
    assert all("noun" in noun for noun in full["wiring"])
    assert {frozenset(lease) for lease in full["leases"]} == {frozenset(fields("lease"))}


def test_fields_of_sandboxes(shell: Shell) -> None:
    """`ps` has more than `sandbox ls`."""
    (running,) = shell("ps --json").document["sandboxes"]
    (known,) = shell("sandbox ls --json").document["sandboxes"]

    assert set(running) == fields("sandbox")
    assert set(known) == fields("sandbox") - {"state", "endpoints"}
    assert set(running["endpoints"][0]) == fields("endpoint") - {"files"}
    assert shell.net is not None
    assert Path(running["files"]) == shell.net.files_of("web")


def test_fields_of_the_rest(shell: Shell) -> None:
    """Plans, facts, the host, drivers, findings."""
    assert set(shell("create --dry-run --json x").document["plan"]) == fields("plan")
    assert set(shell("rules --json").document["facts"][0]) == fields("fact")
    host = shell("host --json").document["host"]
    assert set(host) == fields("host")
    assert set(host["forwarding"][0]) == {"family", "on", "since", "network", "kept", "users"}
    (driver, *_) = shell("driver ls --json").document["drivers"]
    assert set(driver) == fields("driver") - {"problem"}
    assert set(driver["options"][0]) == {
        "key", "help", "aliases", "default", "choices", "live", "device",
    }  # fmt: skip
    assert shell.net is not None
    shell.net.engine.kernel.flush_firewall()  # type: ignore[attr-defined]
    (finding, *_) = shell("check --json", status=1).document["findings"]
    assert set(finding) == fields("finding") - {"error"}


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("create back", 0),
        ("update --label a=b front", 0),
        ("ls", 0),
        ("inspect front", 0),
        ("prune", 0),
        ("disconnect front web", 0),
        ("publish web 81:81", 0),
        ("unpublish web 80", 0),
        ("port web", 0),
        ("ps", 0),
        ("sandbox ls", 0),
        ("sandbox create db", 0),
        ("sandbox rm web", 0),
        ("check", 0),
        ("repair", 0),
        ("gc", 0),
        ("rules", 0),
        ("host status", 0),
        ("host forwarding on", 0),
        ("host forward-policy accept", 0),
        ("driver ls", 0),
        ("completion zsh", 0),
        ("rm -f front", 0),
    ],
)
def test_fields_of_each_command(shell: Shell, line: str, status: int) -> None:
    """The document has what the page's first table says, and its version."""
    document: dict[str, Any] = shell(f"--json {line}", status=status).document
    words = [word for word in line.split() if not word.startswith("-")]
    rows = re.findall(r"^\| (`.+?`) \| (`.+?`) \|", PAGE, re.MULTILINE)
    (named,) = (
        set(re.findall(r"`(\w+)`", names))
        for commands, names in rows
        if any(words[: len(c.split())] == c.split() for c in re.findall(r"`([^`]+)`", commands))
    )

    assert set(document) == {"version"} | named
    assert document["version"] == 1
