"""What a keeper holds, noted in the state's folder: should it be killed, its heir has the same."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from netlib.values import dataclass, fields

HELD = "names.held"


@dataclass(frozen=True, slots=True)
class Held:
    """A listener: `path` and `inode` are of a sandbox's network namespace."""

    kind: str
    name: str
    address: str
    port: int
    path: str = ""
    inode: int = 0


def note(folder: Path, held: list[Held]) -> None:
    """Write down all that is held; nothing held, no note."""
    path = folder / HELD
    if not held:
        path.unlink(missing_ok=True)
        return
    fresh = folder / f"{HELD}.new"
    text = json.dumps([{f.name: getattr(each, f.name) for f in fields(each)} for each in held])
    number = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(number, "w") as file:
        file.write(text)
    fresh.replace(path)


def noted(folder: Path) -> list[Held]:
    """What the last keeper held when it was killed; nothing when it ended by itself."""
    with contextlib.suppress(FileNotFoundError):
        return [Held(**each) for each in json.loads((folder / HELD).read_text())]
    return []
