"""What is shipped: one top-level name, the symlinked folders as packages, nothing in the way."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


def python(*arguments: str, cwd: Path) -> str:
    """What a fresh interpreter prints, without what surrounds these tests."""
    done = subprocess.run(
        [sys.executable, "-I", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source distribution, and the wheel that is made of it."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("build")
    shutil.copytree(ROOT, folder / "clone", symlinks=True, ignore=shutil.ignore_patterns(
        ".git", ".venv", "build", "*.egg-info", ".*_cache", "__pycache__"))  # fmt: skip
    python("-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), cwd=folder / "clone")
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(dist: Path) -> Path:
    """A folder with what the wheel holds."""
    (wheel,) = dist.glob("*.whl")
    target = dist / "installed"
    zipfile.ZipFile(wheel).extractall(target)
    return target


def test_wheel_has_one_top_level_name(installed: Path) -> None:
    """Nobody's `dns`, `drivers` or `labs` is overwritten."""
    names = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}

    assert names == {"netlib"}


def test_wheel_holds_all_modules(installed: Path) -> None:
    """Every module of the source tree is there, those behind symlinks too."""
    # Path.rglob follows no symlinks before Python 3.13.
    links = [path for path in (ROOT / "netlib").iterdir() if path.is_symlink()]
    wanted = {
        path.relative_to(ROOT)
        for folder in [ROOT / "netlib", *links]
        for path in [*folder.rglob("*.py"), *folder.rglob("py.typed")]
    }

    assert Path("netlib/dns/__init__.py") in wanted
    assert wanted == {path.relative_to(installed) for path in installed.rglob("netlib/**/*.py")} | {
        Path("netlib/py.typed")
    }


def test_wheel_holds_what_labs_are_introduced_by(installed: Path) -> None:
    """`net lab run` begins with the README of a lab."""
    wanted = {path.relative_to(ROOT) for path in (ROOT / "labs").rglob("README.md")}

    assert Path("labs/README.md") in wanted
    assert wanted == {
        path.relative_to(installed / "netlib") for path in installed.rglob("labs/**/README.md")
    }


def test_wheel_has_its_entry_points(installed: Path) -> None:
    """The commands and the drivers are declared."""
    (points,) = installed.glob("*.dist-info/entry_points.txt")

    for line in ("[console_scripts]", "net = ", "contnet = ", "[netlib.drivers]", "bridge = "):
        assert line in points.read_text()


def test_dns_stays_dnspython(installed: Path) -> None:
    """Beside netlib, `import dns` is still the package that everybody else means."""
    pytest.importorskip("dns.resolver")
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r}); import dns.resolver, netlib.dns; "
        "print(dns.__file__); print(netlib.dns.__file__)"
    )
    theirs, ours = python("-c", program, cwd=installed).splitlines()

    assert Path(theirs).parent.parent.name == "site-packages"
    assert Path(ours) == installed / "netlib/dns/__init__.py"
