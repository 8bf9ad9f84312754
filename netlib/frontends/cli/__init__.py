"""`net`, the command line: each command parses, makes one call of the library, and prints."""

from __future__ import annotations

import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import click


def main() -> NoReturn:
    """The program `net`, and `contnet` where Samba's `net` comes first."""
    status = 128 + signal.SIGINT
    # Ctrl-C may come before there is a command, too.
    with suppress(KeyboardInterrupt):
        from netlib.frontends.cli.ending import ending_in_order

        with ending_in_order():
            from netlib.frontends.cli.streams import forgive_bytes, open_closed

            open_closed()  # before anything else is opened, and gets their numbers
            forgive_bytes()
            from netlib.frontends.cli.program import invoke

            status = invoke(sys.argv[1:])
    sys.exit(status)


def command_line() -> click.Command:
    """The whole command line, for who documents or tests it."""
    from netlib.frontends.cli.program import program

    return program
