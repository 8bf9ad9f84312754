"""Every lab is true here, and its README shows what it plays with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from netlib.labs.catalogue import TITLES, find

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(120)]

LABS = Path(__file__).resolve().parents[2] / "labs"
DRAWING = re.compile(r"^```mermaid\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# They tell of commands, not of packets.
WITHOUT_PACKETS = {"demo"}


def events(name: str, *options: str) -> list[dict[str, Any]]:
    """What happens in a lab."""
    done = subprocess.run(
        [sys.executable, "-m", "netlib", "lab", "run", name, "--json", *options],
        capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["events"]
    return found


@pytest.mark.parametrize("name", TITLES)
def test_a_lab_is_true_and_its_readme_shows_it(name: str, request: pytest.FixtureRequest) -> None:
    """It is played to its end, leaves nothing, and can be looked into on its way.

    Its README has a title, a paragraph, and the drawing that `net graph` makes in the middle of
    the story. One test of both, so that no two processes play the same lab.
    """
    told = events(name)

    def of_kind(kind: str) -> list[dict[str, Any]]:
        return [event for event in told if event["event"] == kind]

    assert told[-1]["event"] == "end"
    assert of_kind("pause")
    assert len(of_kind("packets")) >= (name not in WITHOUT_PACKETS)

    (picture,) = of_kind("picture")
    file = LABS / name.replace("-", "_") / "README.md"
    if request.config.getoption("--update-golden"):
        text = DRAWING.sub("", file.read_text()).rstrip("\n")
        file.write_text(f"{text}\n\n```mermaid\n{picture['mermaid']}```\n")
    title, paragraph, *_ = file.read_text().split("\n\n")
    assert re.fullmatch(r"# \S.*", title)
    assert find(name).introduction == paragraph.strip().replace("\n", " ")
    assert DRAWING.findall(file.read_text()) == [picture["mermaid"]]


@pytest.mark.parametrize("name", ["publish", "forwarding"])
def test_a_lab_that_looks_at_rules_is_true_with_iptables(name: str) -> None:
    """It tells of what there is then."""
    told = events(name, "--firewall", "iptables")

    assert told[-1]["event"] == "end"
    assert any("iptables" in event["line"] for event in told if event["event"] == "type")


def test_every_lab_is_listed() -> None:
    """A folder with a story is in the catalogue, and in the labs' own README."""
    folders = {file.parent.name for file in LABS.glob("*/story.py")}

    assert {name.replace("-", "_") for name in TITLES} == folders
    index = (LABS / "README.md").read_text()
    assert not [name for name in TITLES if f"({name.replace('-', '_')}/README.md)" not in index]
