"""The files that programs in the background write to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def appended(path: Path, most: int) -> Iterator[int]:
    """A log to be handed on to a program, which begins anew where it has more bytes than `most`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        if os.fstat(descriptor).st_size > most:
            os.truncate(descriptor, 0)
        yield descriptor
    finally:
        os.close(descriptor)
