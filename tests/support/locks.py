"""Who waits for a lock file: a process that has it open, and no lock on it (proc(5))."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def waits_for(pid: int, lock: Path) -> bool:
    """Whether a thread of the process waits for this lock, which somebody else is to have."""
    file = lock.stat()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # it was closed just now
            found = descriptor.stat()
            if (found.st_dev, found.st_ino) == (file.st_dev, file.st_ino):
                told = Path(f"/proc/{pid}/fdinfo", os.path.basename(descriptor)).read_text()
                if "FLOCK" not in told:
                    return True
    return False
