"""Golden texts: what an engineer can read and judge, compared to the letter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "golden"


@dataclass(frozen=True)
class Golden:
    """Compares texts with files below tests/golden; `--update-golden` rewrites them."""

    update: bool
    folder: Path = FOLDER

    def check(self, name: str, text: str) -> None:
        """Fail unless the file of this name holds exactly this text."""
        path = self.folder / name
        if self.update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        known = path.read_text() if path.exists() else ""
        assert known == text, f"{path} differs; if the new text is right: pytest --update-golden"
