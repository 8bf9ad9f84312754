"""What is shipped: one top-level name, the symlinked folders as packages, nothing in the way."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
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


def test_sources_come_with_their_documentation(dist: Path) -> None:
    """All of it, and no part of a test suite that could not run."""
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        names = {name.partition("/")[2] for name in sources.getnames()}

    wanted = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert wanted | {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"} <= names
    assert not any(name.startswith("tests") for name in names)


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


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_wheel_holds_the_compiled_client(dist: Path) -> None:
    """It can be run as it is unpacked, and the wheel is for this kind of machine."""
    (wheel,) = dist.glob("*.whl")
    machine = sysconfig.get_platform().partition("-")[2].replace("-", "_")
    assert wheel.stem.split("-")[2:] == [
        "py3", "none", f"manylinux_2_17_{machine}.musllinux_1_1_{machine}"]  # fmt: skip
    with zipfile.ZipFile(wheel) as archive:
        mode = archive.getinfo("netlib/_cni_shim").external_attr >> 16
        program = archive.read("netlib/_cni_shim")
        (about,) = (n for n in archive.namelist() if n.endswith(".dist-info/WHEEL"))
        assert "Root-Is-Purelib: false" in archive.read(about).decode()
    assert mode & 0o111 == 0o111
    assert program.startswith(b"\x7fELF")


def test_wheel_without_a_compiler_is_for_any_machine(dist: Path, tmp_path: Path) -> None:
    """`net cni install` then writes the script."""
    clone = dist.parent / "clone"
    (clone / "netlib/_cni_shim").unlink(missing_ok=True)
    shutil.rmtree(clone / "build", ignore_errors=True)
    python("-c", f"import os; os.environ['NETLIB_NO_SHIM'] = '1'; os.chdir({str(clone)!r}); "
           "from setuptools import build_meta; "
           f"print(build_meta.build_wheel({str(tmp_path)!r}))", cwd=clone)  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stem.split("-")[2:] == ["py3", "none", "any"]
    target = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(target)
    assert not (target / "netlib/_cni_shim").exists()
    program = (
        f"import sys; sys.path.insert(0, {str(target)!r}); "
        "from netlib.frontends.cni.installing import install; "
        f"print(install({str(tmp_path / 'bin')!r}, {str(tmp_path)!r}))"
    )
    assert "netlib.py" not in python("-c", program, cwd=tmp_path)
    assert (tmp_path / "bin/netlib").read_text().startswith("#!")


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
