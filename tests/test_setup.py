"""Set-up says in one line what is missing, or installs it; what is there is left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


class Clone:
    """A clone on a system whose `id` and `apt-get` are ours."""

    def __init__(self, folder: Path, uid: int) -> None:
        self.folder = folder
        self.log = folder / "apt-log"
        self.policy = folder / "policy-rc.d"
        (folder / "tools").mkdir()
        (folder / "requirements").mkdir()
        (folder / "bin").mkdir()
        shutil.copy(ROOT / "tools" / "setup", folder / "tools")
        self.program("id", f"echo {uid}")

    def needs(self, *lines: str) -> None:
        """Write the list of packages."""
        text = "# a remark\n" + "".join(f"{line}\n" for line in lines)
        (self.folder / "requirements" / "debian.txt").write_text(text)

    def program(self, name: str, script: str) -> None:
        """Put a program first on the path."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def setup(
        self,
        python: str = sys.executable,
        command: tuple[str, ...] = ("tools/setup", "packages"),
        programs: str = os.environ["PATH"],
    ) -> subprocess.CompletedProcess[str]:
        """Set up the packages."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env={
                **os.environ,
                "PATH": f"{self.folder}/bin:{programs}",
                "PYTHON": python,
                "POLICY_RC_D": str(self.policy),
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


def test_nothing_is_missing(tmp_path: Path) -> None:
    """Without a word, and without apt-get."""
    clone = Clone(tmp_path, uid=0)
    clone.needs("coreutils  ls", "bash\tbash")
    clone.program("apt-get", f"echo $* >> {clone.log}")
    done = clone.setup()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not clone.log.exists()


def test_an_ordinary_user_is_told_in_one_line(tmp_path: Path) -> None:
    """What is missing, and the command that installs it; nothing is tried."""
    clone = Clone(tmp_path, uid=1001)
    clone.needs("coreutils ls", "strange-package strange-program", "odd odd-program")
    clone.program("apt-get", f"echo $* >> {clone.log}")
    done = clone.setup(python="")

    assert done.returncode == 1
    assert done.stderr == ("setup: missing: strange-package odd; run: sudo tools/setup packages\n")
    assert not clone.log.exists()


def test_what_an_ordinary_user_is_told_installs_all(tmp_path: Path) -> None:
    """The same words, said by root; the lists are fetched where there are none."""
    clone = Clone(tmp_path, uid=1001)
    clone.needs("strange-package strange-program")
    clone.program("apt-get", f"echo $* >> {clone.log}")
    clone.program("sudo", 'exec env "$@"')
    command = clone.setup().stderr.partition("run: ")[2]
    clone.program("id", "echo 0")
    done = clone.setup(command=("sh", "-c", command))

    assert (done.returncode, done.stdout) == (0, "setup: installing strange-package\n")
    assert "strange-package" in clone.log.read_text()


@pytest.mark.parametrize("uid", [0, 1001], ids=["root", "ordinary user"])
def test_without_apt_the_names_are_all_that_is_told(tmp_path: Path, uid: int) -> None:
    """What other systems call these packages is not known."""
    clone = Clone(tmp_path, uid=uid)
    clone.needs("strange-package strange-program")
    for program in ("bash", "grep", "dirname"):
        (clone.folder / "bin" / program).symlink_to(shutil.which(program) or "")
    done = clone.setup(programs="")

    assert done.returncode == 1
    assert done.stderr == ("setup: missing: strange-package; install what this system calls them\n")


@pytest.mark.parametrize("lists", [True, False], ids=["with package lists", "fresh"])
def test_root_installs_what_is_missing(tmp_path: Path, *, lists: bool) -> None:
    """The lists of packages are fetched only where installing fails without."""
    clone = Clone(tmp_path, uid=0)
    clone.needs("coreutils ls", "strange-package strange-program")
    fails = "" if lists else f"[ $1 = install ] && ! grep -q update {clone.log} && exit 100"
    clone.program("apt-get", f"{fails}\necho $1 >> {clone.log}")
    done = clone.setup()

    assert (done.returncode, done.stdout) == (0, "setup: installing strange-package\n")
    assert clone.log.read_text().split() == (["install"] if lists else ["update", "install"])


def test_what_can_not_be_installed_fails(tmp_path: Path) -> None:
    """A set-up that failed must not look like one that worked."""
    clone = Clone(tmp_path, uid=0)
    clone.needs("strange-package strange-program")
    clone.program("apt-get", "echo no such package >&2; exit 100")
    done = clone.setup()

    assert done.returncode != 0
    assert "no such package" in done.stderr


@pytest.mark.parametrize("own", [False, True], ids=["none", "an administrator's"])
def test_no_service_is_started(tmp_path: Path, *, own: bool) -> None:
    """While packages are installed their services are refused; what was there is left alone."""
    clone = Clone(tmp_path, uid=0)
    clone.needs("strange-package strange-program")
    clone.program("apt-get", f"{clone.policy}; echo $? >> {clone.log}")
    if own:
        clone.policy.write_text("#!/bin/sh\nexit 104\n")
        clone.policy.chmod(0o755)
    done = clone.setup()

    assert done.returncode == 0
    assert clone.log.read_text().split() == ["104" if own else "101"]
    assert clone.policy.exists() == own


def test_a_python_without_venv_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PYTHON names one that is too old, or without venv: that is said, not worked around."""
    clone = Clone(tmp_path, uid=1001)
    clone.needs("coreutils ls")
    clone.program("python-without", "exit 1")
    done = clone.setup("python-without")

    assert done.returncode == 1
    assert "missing: python3-venv" in done.stderr
