"""Errors as people and programs are told them: what happened, what to do, and an exit status."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence

import click

from netlib.errors import NetError
from netlib.frontends.cli.catalogue import COMMANDS
from netlib.frontends.cli.output import paint
from netlib.frontends.cli.session import SCHEMA, Session, dump
from netlib.values import dataclass

USAGE = 2
# What `docker run` has for a container is, with several networks, a key of the one it is meant for.
_OF_A_NETWORK = {
    "--gw-priority": "gw-priority",
    "--ip": "ip",
    "--ip6": "ip",
    "--link": "link",
    "--mac-address": "mac",
    "--network-alias": "alias",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is told of an error. `json`: it was asked for, though it may not have been parsed."""

    code: str
    message: str
    hint: str
    status: int
    json: bool = False

    def document(self) -> dict[str, str]:
        """Its JSON form."""
        return {"code": self.code, "message": self.message, "hint": self.hint}

    @classmethod
    def unforeseen(cls, error: Exception) -> Failure:
        """An error that is none of netlib's: a fault of ours, or of the machine's."""
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return cls(
            code="unforeseen",
            message=what,
            hint="run it again with --debug, and report what it shows",
            status=NetError.exit_status,
        )

    @classmethod
    def unsaid(cls, error: OSError) -> Failure:
        """Where it was to be printed it can't be, whatever was done before that."""
        return cls(
            code="unsaid",
            message=f"the output can't be written: {error.strerror}",
            hint="what was asked for may be done all the same; see: net ls, net ps",
            status=NetError.exit_status,
        )

    def tell(self, session: Session, error: BaseException) -> int:
        """Print it: a document on stdout under --json, else two lines on stderr; the status."""
        if session.debug:
            traceback.print_exception(error)
        if session.json or self.json:
            click.echo(dump({"version": SCHEMA, "error": self.document()}))
        else:
            self.warn()
        return self.status

    def warn(self) -> None:
        """The two lines."""
        click.echo(f"{paint('error:', 'red', sys.stderr, bold=True)} {self.message}", err=True)
        if self.hint:
            click.echo(f"{paint('hint:', 'yellow', sys.stderr)} {self.hint}", err=True)


def failure_of(error: click.ClickException | NetError, argv: Sequence[str] = ()) -> Failure:
    """What is told of an error of the library's, or of a command line that can't be read."""
    if isinstance(error, NetError):
        return Failure(
            code=error.code, message=error.message, hint=error.hint, status=error.exit_status
        )
    mine = list(argv)[: list(argv).index("--")] if "--" in argv else argv
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        path = context.command_path
    else:  # the parser itself does not say for which command it read
        path = " ".join(["net", *[word for word in mine if word in COMMANDS][:1]])
    message = error.format_message()
    if isinstance(error, click.MissingParameter):
        message = " ".join(message.split())  # click lists choices on lines of their own
    hint = f"see: {path} --help"
    if isinstance(error, click.NoSuchOption):
        hint += _instead(error.option_name, path)
    return Failure(
        code="usage",
        message=message,
        hint=hint,
        status=USAGE,
        json="--json" in mine,
    )


def _instead(option: str, path: str) -> str:
    """What does what an option of Docker's does that is none here."""
    if option == "--format":
        return ", and --json there"
    if path == "net run" and option in _OF_A_NETWORK:
        return f", and --network there: --network bridge:{_OF_A_NETWORK[option]}=..."
    return ""
