"""Tables and colours: for people, on terminals."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TextIO

import click


def colourful(stream: TextIO) -> bool:
    """Whether colours are wanted on a stream: a terminal, and no NO_COLOR (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(
    text: str, colour: str | None, stream: TextIO | None = None, *, bold: bool = False
) -> str:
    """The text in a colour, or that of all others, where colours are wanted.

    `stream` is stdout if none is named.
    """
    if not colourful(stream or sys.stdout):
        return text
    return click.style(text, fg=colour, bold=bold)


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Aligned columns under their headers."""
    heads = [paint(head, None, bold=True) for head in headers]
    lines = [heads, *(list(row) for row in rows)]
    # Heads have some air, so that a narrow column still reads as one.
    widths = [len(head) + 2 for head in headers]
    for line in lines[1:]:
        widths = [max(w, _width(cell)) for w, cell in zip(widths, line, strict=True)]
    return "\n".join(
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _width(cell: str) -> int:
    return len(click.unstyle(cell))


def moment(seconds: float) -> str:
    """A time in seconds since the epoch, as RFC 3339 writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
