"""What all commands of one call share: the options that every command has, and how to print."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from netlib.values import dataclass, field

if TYPE_CHECKING:
    from netlib.net import Net
    from netlib.plan import Plan
    from netlib.settings import Backend

# Of the JSON documents; it grows when a field goes or changes its meaning, not for new fields.
SCHEMA = 1


@dataclass(slots=True)
class Session:
    """The common options as given, and a `Net` where there is one already (tests have one)."""

    json: bool = False
    state_dir: str | None = None
    firewall: Backend | None = None
    debug: bool = False
    given: Net | None = None
    warnings: list[str] = field(default_factory=list)

    @contextmanager
    def net(self) -> Iterator[Net]:
        """The library, opened for one command."""
        if self.given is not None:
            yield self.given
            return
        from netlib.frontends.daemon.client import open_net

        with open_net(self.state_dir, firewall=self.firewall, warn=self.warn) as net:
            yield net

    def warn(self, text: str) -> None:
        """Tell what was asked for and is not done: at once, or in the JSON document."""
        if self.json:
            self.warnings.append(text)
            return
        from netlib.frontends.cli.output import paint

        click.echo(f"{paint('warning:', 'yellow', sys.stderr)} {text}", err=True)

    def show(self, document: Mapping[str, Any], text: str = "") -> None:
        """Print a result: the document under --json, else the text where there is any."""
        if self.json:
            told = {"warnings": self.warnings} if self.warnings else {}
            click.echo(dump({"version": SCHEMA, **document, **told}))
        elif text:
            click.echo(text)

    def show_plan(self, net: Net, plan: Plan, *, before: str = "", after: str = "") -> None:
        """Print what a change would do, in the firewall's words that it would be done in."""
        firewall = net.engine.kernel.firewall
        script = before + plan.text(firewall) + after
        self.show(
            {"plan": {"firewall": firewall, "script": script.splitlines()}},
            script.rstrip("\n") or "nothing to do",
        )

    def show_commands(self, commands: Iterable[str]) -> None:
        """Print what a change would do that no plan of nouns describes."""
        script = list(commands)
        self.show({"plan": {"script": script}}, "\n".join(script) or "nothing to do")

    def progress(self, verb: str) -> Progress:
        """Where long work tells how far it is."""
        return Progress(verb, visible=sys.stderr.isatty() and not self.json)


@dataclass(slots=True)
class Progress:
    """One line on a terminal's stderr that is written over and over, and wiped at the end."""

    verb: str
    visible: bool

    def __call__(self, subject: str, number: int, total: int) -> None:
        """Tell that `subject`, the `number`th (from 0) of `total`, has its turn."""
        if self.visible and total > 1:
            # ECMA-48: EL, erase to the end of the line
            click.echo(f"\r{self.verb} {number + 1}/{total}: {subject}\x1b[K", nl=False, err=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.visible:
            click.echo("\r\x1b[K", nl=False, err=True)


def dump(document: object) -> str:
    """JSON for people and programs alike."""
    return json.dumps(document, indent=2, ensure_ascii=False)
