"""Compiles the CNI client while the wheel is built, where a compiler is at hand.

All else is in pyproject.toml. NETLIB_NO_SHIM=1 leaves it out: the wheel then fits any machine,
and `net cni install` writes a Python script instead.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

SOURCE = Path("netlib/_cni_shim.c")
PROGRAM = "netlib/_cni_shim"
FLAGS = ("-O2", "-Wall", "-Wextra", "-s")
# A runtime waits for the program to start and to end: with musl in it that takes a third of the
# time that it takes with glibc (0.19 ms and 0.6 to 0.7 on one machine).
COMPILERS = ("musl-gcc", "cc")
# A program without a C library of its own runs with any (PEP 600, PEP 656).
ANY_LINUX = "manylinux_2_17_{0}.musllinux_1_1_{0}"


def compiled(target: Path) -> str:
    """How the program was linked: static where the C library can be, else dynamic; "": not."""
    if os.environ.get("NETLIB_NO_SHIM"):
        return ""
    asked = os.environ.get("CC")
    target.parent.mkdir(parents=True, exist_ok=True)
    for name, linking in (("static", ("-static",)), ("dynamic", ())):
        for compiler in map(shlex.split, [asked] if asked else COMPILERS):
            command = [*compiler, *FLAGS, *linking, "-o", str(target), str(SOURCE)]
            if shutil.which(compiler[0]) is not None and _succeeds(command):
                return name
    return ""


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0


class BuildWithProgram(build_py):
    """Puts the program beside the modules; into the tree itself for an editable install."""

    def run(self) -> None:
        """Build."""
        super().run()
        target = Path(PROGRAM) if self.editable_mode else Path(self.build_lib, PROGRAM)
        self.distribution.program = compiled(target)


class WheelOfOnePlatform(bdist_wheel):
    """A wheel with a program in it is for one kind of machine; its Python is for any."""

    def get_tag(self) -> tuple[str, str, str]:
        """The wheel's tag."""
        program = getattr(self.distribution, "program", "")
        if not program:
            return "py3", "none", "any"
        system, _, machine = sysconfig.get_platform().replace(".", "_").partition("-")
        machine = machine.replace("-", "_")
        portable = program == "static" and system == "linux"
        return "py3", "none", ANY_LINUX.format(machine) if portable else f"{system}_{machine}"

    def write_wheelfile(self, *arguments: object, **named: object) -> None:
        """Say in the wheel whether it is pure."""
        self.root_is_pure = not getattr(self.distribution, "program", "")
        super().write_wheelfile(*arguments, **named)  # type: ignore[arg-type]


setup(cmdclass={"build_py": BuildWithProgram, "bdist_wheel": WheelOfOnePlatform})
