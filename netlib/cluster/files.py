"""The folder `cluster` of a member's state: its keys and certificates, and a manager's etcd.

Only its owner can look into it, and files with secrets are made so, not made so later.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from netlib.errors import NotPermitted, StoreError

FOLDER = "cluster"
CA, CA_KEY = "ca.crt", "ca.key"
CERTIFICATE, KEY = "node.crt", "node.key"
REVOKED = "revoked.crl"
TOKEN_KEY = "token.key"  # noqa: S105 - a file's name
STORE_CA, STORE_CERTIFICATE, STORE_KEY = "store-ca.crt", "store.crt", "store.key"


class Files:
    """Reads and writes them."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / FOLDER

    def path(self, name: str) -> str:
        """Where a file is."""
        return str(self.folder / name)

    def there(self, name: str) -> bool:
        """Whether a file is."""
        return (self.folder / name).exists()

    def read(self, name: str) -> str:
        """A file's text. Raises StoreError."""
        try:
            return (self.folder / name).read_text(encoding="ascii")
        except PermissionError as error:
            raise NotPermitted(
                f"{self.path(name)} can't be read: {error.strerror}", "run as root"
            ) from error
        except (OSError, UnicodeError) as error:
            raise StoreError(f"{self.path(name)} can't be read: {error}") from error

    def write(self, name: str, text: str) -> str:
        """Write a file of its own, whole or not at all; its path."""
        self.make()
        part = self.folder / f".{name}.new"
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            part.rename(self.folder / name)
        except OSError as error:
            raise _refused(self.folder, error) from error
        return self.path(name)

    def make(self) -> None:
        """Have the folder."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(self.folder, error) from error

    def remove(self) -> None:
        """Remove all of it."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.folder)


def _refused(folder: Path, error: OSError) -> StoreError | NotPermitted:
    if isinstance(error, PermissionError):
        return NotPermitted(
            f"{folder} can't be written to: {error.strerror}",
            "run as root, or choose a folder of your own with --state-dir",
        )
    return StoreError(f"{folder} can't be written to: {error.strerror}")
