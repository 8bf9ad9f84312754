"""Compiles the CNI client while the wheel is built, where a compiler is at hand.

All else is in pyproject.toml. NETLIB_NO_SHIM=1 leaves it out: the wheel then fits any machine,
and `net cni install` writes a Python script instead.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

SOURCE = Path("netlib/_cni_shim.c")
PROGRAM = "netlib/_cni_shim"
FLAGS = ("-O2", "-Wall", "-Wextra", "-s")


def compiled(target: Path) -> bool:
    """Whether the program was made: static where the C library can be linked so, else not."""
    compiler = shlex.split(os.environ.get("CC", "cc"))
    if os.environ.get("NETLIB_NO_SHIM") or shutil.which(compiler[0]) is None:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    for linking in (("-static",), ()):
        command = [*compiler, *FLAGS, *linking, "-o", str(target), str(SOURCE)]
        if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return True
    return False


class BuildWithProgram(build_py):
    """Puts the program beside the modules; into the tree itself for an editable install."""

    def run(self) -> None:
        """Build."""
        super().run()
        target = Path(PROGRAM) if self.editable_mode else Path(self.build_lib, PROGRAM)
        compiled(target)


class WheelOfOnePlatform(bdist_wheel):
    """A wheel with a program in it is for one kind of machine; its Python is for any."""

    def get_tag(self) -> tuple[str, str, str]:
        """The wheel's tag."""
        _, _, platform = super().get_tag()
        if not Path(self.bdist_dir or "", PROGRAM).exists():
            return "py3", "none", "any"
        return "py3", "none", platform if platform != "any" else _platform()

    def write_wheelfile(self, *arguments: object, **named: object) -> None:
        """Say in the wheel whether it is pure."""
        self.root_is_pure = not Path(self.bdist_dir or "", PROGRAM).exists()
        super().write_wheelfile(*arguments, **named)  # type: ignore[arg-type]


def _platform() -> str:
    import sysconfig

    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


setup(cmdclass={"build_py": BuildWithProgram, "bdist_wheel": WheelOfOnePlatform})
