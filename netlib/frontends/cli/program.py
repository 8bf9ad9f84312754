"""The program as a whole: its commands, loaded when they are run, and how it ends."""

from __future__ import annotations

import difflib
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import click

from netlib.errors import NetError
from netlib.frontends.cli.catalogue import COMMANDS
from netlib.frontends.cli.command import HelpfulGroup
from netlib.frontends.cli.failure import Failure, failure_of
from netlib.frontends.cli.session import Session
from netlib.frontends.cli.streams import drop_output, flush, is_of_output

_PACKAGE = "netlib.frontends.cli"


class Program(HelpfulGroup):
    """A group whose commands are found by the catalogue."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the catalogue's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the module of a command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(import_module(f"{_PACKAGE}.{entry.module}"), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Say what is near where there is no such command."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            if args[0] == "network":  # as Docker's hands type it
                raise click.UsageError("There is no command 'network': leave the word out.", ctx)
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Under their headings, without loading them."""
        for heading in dict.fromkeys(entry.heading for entry in COMMANDS.values()):
            with formatter.section(heading):
                formatter.write_dl(
                    [(name, e.help) for name, e in COMMANDS.items() if e.heading == heading]
                )


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import PackageNotFoundError, version

        try:
            known = version("contnet")
        except PackageNotFoundError:
            known = "(not installed)"
        click.echo(f"net {known}")
        ctx.exit()


@click.command(cls=Program)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version,
    help="Show the version.",
)  # fmt: skip
def program() -> None:
    """Networks for containers, and for anything else that has a network namespace.

    Run `net COMMAND --help` for a command's arguments and an example.
    """


def invoke(argv: Sequence[str], session: Session | None = None) -> int:
    """Run a command line; the exit status."""
    session = session or Session()
    try:
        return _invoke(argv, session)
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and any(k.endswith("_COMPLETE") for k in os.environ):
            return int(error.code or 0)  # click has served a shell that completes a line
        # Who read our output has seen enough, of which click makes a SystemExit too; what is
        # still buffered must not raise again.
        drop_output()
        return 128 + signal.SIGPIPE
    except OSError as error:  # of the output
        drop_output()
        return Failure.unsaid(error).tell(Session(debug=session.debug), error)


def _invoke(argv: Sequence[str], session: Session) -> int:
    name = Path(sys.argv[0]).name
    try:
        result = program.main(
            args=list(argv),
            prog_name=name if name in ("net", "contnet") else "net",
            obj=session,
            standalone_mode=False,
        )
        flush()
    except (KeyboardInterrupt, click.Abort):
        return 128 + signal.SIGINT
    except (click.ClickException, NetError) as error:
        return failure_of(error, argv).tell(session, error)
    except Exception as error:
        if isinstance(error, OSError) and is_of_output(error):
            raise
        return Failure.unforeseen(error).tell(session, error)
    return result if isinstance(result, int) else 0
