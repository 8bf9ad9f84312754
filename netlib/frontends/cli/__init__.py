"""`net`, the command line: each command parses, makes one call of the library, and prints."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import click


def main() -> NoReturn:
    """The program `net`, and `contnet` where Samba's `net` comes first."""
    from netlib.frontends.cli.ending import Ended, take_back_when_ended
    from netlib.frontends.cli.streams import forgive_bytes, open_closed

    open_closed()  # before anything else is opened, and gets their numbers
    forgive_bytes()
    take_back_when_ended()
    from netlib.frontends.cli.program import invoke

    try:
        status = invoke(sys.argv[1:])
    except Ended as ended:
        ended.die()
    sys.exit(status)


def command_line() -> click.Command:
    """The whole command line, for who documents or tests it."""
    from netlib.frontends.cli.program import program

    return program
