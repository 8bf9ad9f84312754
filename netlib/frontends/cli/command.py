"""What our commands have in common: options that every one takes, examples, `--dry-run`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar, get_args

import click

from netlib.errors import NetError
from netlib.frontends.cli.failure import USAGE, Failure, failure_of
from netlib.frontends.cli.session import Session, dump
from netlib.settings import Backend

T = TypeVar("T")
EXAMPLE = "Example:"


def _note(ctx: click.Context, parameter: click.Parameter, value: object) -> None:
    """Keep a common option wherever it stood; the last one that was given counts."""
    session = ctx.find_object(Session)
    if value not in (None, False) and session is not None and parameter.name is not None:
        setattr(session, parameter.name, value)


def _common() -> list[click.Parameter]:
    def option(*names: str, **attributes: Any) -> click.Option:
        return click.Option(
            list(names), expose_value=False, is_eager=True, callback=_note, **attributes
        )

    return [
        option("--json", is_flag=True, help="Print JSON on stdout, errors too."),
        option(
            "--state-dir",
            metavar="DIR",
            type=click.Path(file_okay=False),
            help="Where the state is kept.  [NETLIB_STATE_DIR, /var/lib/netlib]",
        ),
        option(
            "--firewall",
            type=click.Choice(get_args(Backend)),
            help="The firewall's backend.  [NETLIB_FIREWALL, auto]",
        ),
        option("--debug", is_flag=True, help="Show where in the code an error came up."),
    ]


class CommonOptions(click.Command):
    """Takes the options that every command takes, and lists them apart in its help."""

    common: ClassVar[frozenset[str]] = frozenset({"json", "state_dir", "firewall", "debug"})

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        attributes["params"] = [*(attributes.get("params") or []), *_common()]
        # A command whose own option is called -h (Docker's `run`) keeps it.
        attributes["context_settings"] = {
            "help_option_names": ["-h", "--help"],
            **(attributes.get("context_settings") or {}),
        }
        super().__init__(*arguments, **attributes)

    @property
    def examples(self) -> list[str]:
        """The command lines that its help shows."""
        return [
            line.removeprefix(EXAMPLE).strip()
            for line in inspect.cleandoc(self.help or "").splitlines()
            if line.startswith(EXAMPLE)
        ]

    @property
    def prose(self) -> str:
        """Its help without the examples."""
        lines = inspect.cleandoc(self.help or "").splitlines()
        return "\n".join(line for line in lines if not line.startswith(EXAMPLE)).strip()

    def get_short_help_str(self, limit: int = 80) -> str:
        """The first line of its help."""
        return self.prose.partition("\n")[0]

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The prose, rewrapped."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(self.prose)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Its own options, then those that every command takes, then the examples."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            if not isinstance(parameter, click.Option):
                continue
            record = parameter.get_help_record(ctx)
            if record is not None:
                (shared if parameter.name in self.common else own).append(record)
        if own:
            with formatter.section("Options"):
                formatter.write_dl(own)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)
        with formatter.section("Common options"):
            formatter.write_dl(shared)
        if self.examples:
            with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
                for example in self.examples:
                    formatter.write(f"{' ' * formatter.current_indent}{example}\n")


class NetCommand(CommonOptions):
    """One command."""


class HelpfulGroup(CommonOptions, click.Group):
    """Without a further word it shows its help, and that is wrong usage."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Show the help to who typed nothing more; under --json say what is missing."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(USAGE)
        return super().parse_args(ctx, args)


class NetGroup(HelpfulGroup):
    """A command of several words, like `net sandbox create`."""


def dry_run(function: Callable[..., T]) -> Callable[..., T]:
    """Give a command that changes something `--dry-run`."""
    option = click.option("--dry-run", is_flag=True, help="Print the plan, and change nothing.")
    return option(function)


def each(
    session: Session, verb: str, targets: Sequence[str], act: Callable[[str], None]
) -> tuple[list[str], list[Failure]]:
    """Do one thing to several targets, whatever becomes of the others.

    Returns the targets that went well, and what is to be told of those that did not.
    """
    done: list[str] = []
    failures: list[Failure] = []
    with session.progress(verb) as progress:
        for number, target in enumerate(targets):
            progress(target, number, len(targets))
            try:
                act(target)
            except NetError as error:
                if session.debug or len(targets) == 1:
                    raise
                failures.append(failure_of(error))
            else:
                done.append(target)
    return done, failures


def show_found(
    session: Session, word: str, found: Sequence[object], failures: Sequence[Failure]
) -> int:
    """Show as JSON what was found of what was asked for; the exit status, as that of `report`."""
    if session.json:
        session.show({word: list(found), **_errors(failures)})
    else:
        click.echo(dump(list(found)))
    return _ended(session, failures)


def report(session: Session, word: str, done: Sequence[str], failures: Sequence[Failure]) -> int:
    """Print what `each` did; the exit status: that of the first failure."""
    session.show({word: list(done), **_errors(failures)}, "\n".join(done))
    return _ended(session, failures)


def _errors(failures: Sequence[Failure]) -> dict[str, Any]:
    errors = [failure.document() for failure in failures]
    return {"error": errors[0], "errors": errors} if errors else {}


def _ended(session: Session, failures: Sequence[Failure]) -> int:
    """Warn of what failed, where it is not in a document; the exit status."""
    if not session.json:
        for failure in failures:
            failure.warn()
    return failures[0].status if failures else 0
