"""The three streams that a program starts with, where they are not as one would have them."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from traceback import walk_tb

import click

_STANDARD = 3  # stdin, stdout, stderr


def open_closed() -> None:
    """Put nothing where a stream was closed (`net ls >&-`).

    Python has no such stream then, and the next file that is opened gets its number: what a
    program that we start prints would go there.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) < _STANDARD:
        os.set_inheritable(fd, True)
    os.close(fd)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115 - it stays
            setattr(sys, name, opened)


def forgive_bytes() -> None:
    """Let output that is no text of the locale's through, escaped: what was typed may be so."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def is_of_output(error: OSError) -> bool:
    """Whether it came up while something was printed.

    A broken pipe is of the output wherever it came up: labs print by themselves.
    """
    if isinstance(error, BrokenPipeError):
        return True
    *_, (frame, _) = walk_tb(error.__traceback__)
    return frame.f_code in (click.echo.__code__, flush.__code__)


def flush() -> None:
    """Have all that was printed go to where it is to go."""
    sys.stdout.flush()


def drop_output() -> None:
    """Forget what is printed and not written yet: it would be tried again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
