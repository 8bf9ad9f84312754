"""The pages say what is so: examples run, references are complete, links lead somewhere."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.console import Command, commands, fences
from support.host import Host

from netlib.labs.catalogue import TITLES

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "labs").rglob("*.md")])
HAS_COMMAND_LINE = importlib.util.find_spec("netlib.frontends.cli") is not None


def by_path(path: Path) -> str:
    return str(path.relative_to(ROOT))


def environment(host: Host) -> dict[str, str]:
    """What a reader has: our programs first on the path, and a state of their own."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "NETLIB_STATE_DIR": str(host.state_dir)}


# -- examples -----------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.skipif(not HAS_COMMAND_LINE, reason="there is no command line yet")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if fences(page.read_text(), "console")], ids=by_path
)
def test_console_examples_run(page: Path, host: Host) -> None:
    """Every command of a page succeeds, in order, on one host, and prints what the page shows."""
    host.outsider()
    for block in fences(page.read_text(), "console"):
        for command in commands(block):
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command.line],
                cwd=ROOT, env=environment(host), stdin=subprocess.DEVNULL, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"$ {command.line}\n{done.stdout}"
            assert command.matches(done.stdout), (
                f"$ {command.line}\nprints:\n{done.stdout}\nthe page says:\n{command.expected}"
            )
    left = host.leftovers(allow=[r"^nft table inet netlib", "NETLIB-", r"^sysctl .*forwarding=1"])
    assert not left


@pytest.mark.kernel
@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs/library.md"], ids=by_path)
def test_python_examples_run(page: Path, host: Host, tmp_path: Path) -> None:
    """A reader who copies the example gets no error, and nothing is left on the host."""
    host.outsider()
    blocks = fences(page.read_text(), "python")
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block],
            cwd=tmp_path, env=environment(host), capture_output=True, text=True, timeout=30,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    left = host.leftovers(allow=[r"^nft table inet netlib", "NETLIB-", r"^sysctl .*forwarding=1"])
    assert not left


@pytest.mark.parametrize(
    ("shown", "printed", "fits"),
    [
        ("", "anything", True),
        ("a\nb", "a\nb\n", True),
        ("a\nb", "a\nc\n", False),
        ("...", "", True),
        ("...", "a\nb\n", True),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...\nd", "a\nb\nc\n", False),
        ("id ... made", "id 4f1d made\n", True),
        ("1.5 (x)", "1.5 (x)\n", True),
        ("1.5", "1x5\n", False),
    ],
)
def test_dots_stand_for_anything(shown: str, printed: str, fits: bool) -> None:
    """What a page shows is compared to the letter but for its dots."""
    assert Command("", shown).matches(printed) == fits


def test_commands_of_a_block() -> None:
    """A command may go on over lines; what follows it is what it prints."""
    block = "$ one \\\n  two\nprinted\n\n$ three\n"

    assert list(commands(block)) == [Command("one \\\n  two", "printed"), Command("three", "")]


# -- references ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """tools/docs.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generator", ROOT / "tools" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date(generator: ModuleType) -> None:
    """Every error class, driver option and command is on its page, as it is in the code."""
    stale = [path for path, text in generator.pages().items() if read(path) != text]

    assert not stale, f"not as the code says: {', '.join(stale)}; run: make docs"


@pytest.mark.skipif(not HAS_COMMAND_LINE, reason="there is no command line yet")
def test_every_command_has_an_example(generator: ModuleType) -> None:
    """`net COMMAND --help` shows how the command is used."""
    without = [
        name
        for name, command in generator.commands().items()
        if not re.search(rf"Example: .*{name}\b", command.help or "")
    ]

    assert not without


@pytest.mark.parametrize("page", PAGES, ids=by_path)
def test_links_lead_somewhere(page: Path) -> None:
    """Every link to a file of ours names one that is there."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]

    assert not missing


def test_every_decision_is_listed() -> None:
    """Decisions are found by their list."""
    folder = ROOT / "docs" / "decisions"
    listed = (folder / "README.md").read_text()

    assert not [file.name for file in folder.glob("0*.md") if f"({file.name})" not in listed]


def test_what_is_shown_is_where_the_page_says() -> None:
    """Every lab and test that docs/shown.md names is there."""
    page = (ROOT / "docs" / "shown.md").read_text()
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    rows = [re.split(r" ?\| ?", line) for line in page.splitlines() if "::" in line]
    labs = {row[2] for row in rows if row[2]}

    assert not [t for t in tests if not re.search(rf"def {t[1]}\b", read(t[0]))]
    assert len(tests) == page.count("::")
    assert labs == set(TITLES), "each lab shows something"


def test_makefile_targets_have_help() -> None:
    """`make` alone lists every target, and the pages name only targets that exist."""
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    documented = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))

    assert set(phony.split()) == documented
    for page in PAGES:
        blocks = "\n".join(fences(page.read_text(), "sh"))
        for line in re.findall(r"^make ([a-z -]+?)\s*(?:#.*)?$", blocks, re.MULTILINE):
            assert set(line.split()) <= documented, f"{by_path(page)}: make {line}"


def read(path: str) -> str:
    file = ROOT / path
    return file.read_text() if file.exists() else ""
