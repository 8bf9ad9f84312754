"""How `net run` and `net exec` become a command: as a shell would, or say why not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_BECOME = """
import sys
from netlib.run.launcher import execute
try:
    execute(sys.argv[1:])
except FileNotFoundError:
    sys.exit(127)
except OSError:
    sys.exit(126)
"""
# Root may search every folder; without its capabilities it is like everybody else.
_POWERLESS = ["setpriv", "--inh-caps", "-all", "--bounding-set", "-all"]


@pytest.mark.parametrize(
    ("command", "status"), [("nowhere", 127), ("here", 126), ("true", 0), ("./here", 126)]
)
def test_a_folder_that_can_not_be_searched_hides_what_is_in_it(
    tmp_path: Path, command: str, status: int
) -> None:
    """What is in no other folder of PATH is not there (127); what can't be run is 126."""
    locked, folder = tmp_path / "locked", tmp_path / "folder"
    for place in (locked, folder):
        place.mkdir()
    (folder / "here").write_text("no program")
    locked.chmod(0)
    path = f"{locked}:{folder}:{os.environ['PATH']}"
    done = subprocess.run(
        [*_POWERLESS, sys.executable, "-c", _BECOME, command],
        env={**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=folder, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode == status
