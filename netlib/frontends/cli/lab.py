"""`net lab ls|run`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.command import NetCommand, NetGroup
from netlib.frontends.cli.output import table
from netlib.frontends.cli.session import Session

if TYPE_CHECKING:
    from netlib.labs.catalogue import Lab

# What is none of ours is the lab's: `--hosts 3`.
_LAB_OPTIONS = {"ignore_unknown_options": True}


@click.group("lab", cls=NetGroup)
def lab_command() -> None:
    """Play stories about networks, in hosts to throw away.

    Example:  net lab run publish
    """


@lab_command.command("ls", cls=NetCommand)
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.pass_obj
def lab_ls(session: Session, quiet: bool) -> None:
    """List the labs, in the order to read them.

    Example:  net lab ls
    """
    from netlib.labs.catalogue import TITLES

    session.show(
        {"labs": [{"name": name, "title": title} for name, title in TITLES.items()]},
        "\n".join(TITLES) if quiet else table(["LAB", "TELLS OF"], TITLES.items()),
    )


class _Run(NetCommand):
    """Shows a lab's own options to who asks for help with its name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        from netlib.labs.catalogue import TITLES, find

        named = [word for word in args if word in TITLES]
        if "--help" in args and named:
            with _parser(find(named[0])) as context:
                click.echo(context.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)


@lab_command.command("run", cls=_Run, context_settings=_LAB_OPTIONS)
@click.option("--pause", is_flag=True, help="Stop at the telling moments, and say how to get in.")
@click.argument("name", shell_complete=complete.labs)
@click.argument("options", metavar="[LAB OPTION]...", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def lab_run(session: Session, pause: bool, name: str, options: tuple[str, ...]) -> None:
    """Play a lab: real commands, real packets, and an error where it tells something untrue.

    It plays in a host of its own that is thrown away, without root where the system allows
    user namespaces: the machine that it runs on is never touched. What stands after `$` is what
    a user types, and under it what comes back. Packets are captured and decoded with scapy
    (pip install 'contnet[labs]'). `net lab run NAME --help` shows a lab's own options.

    Example:  net lab run publish
    Example:  net lab run crash --pause
    """
    from netlib.labs import launch
    from netlib.labs.catalogue import find

    lab = find(name)
    settings = _settings(lab, options)
    if session.json:
        events = launch.transcript(lab, settings, firewall=session.firewall, debug=session.debug)
        session.show({"lab": lab.name, "title": lab.title, "events": events})
        return
    launch.play(lab, settings, pause=pause, firewall=session.firewall, debug=session.debug)


def _settings(lab: Lab, words: Sequence[str]) -> dict[str, Any]:
    """A lab's own options, as its `tell` takes them."""
    with _parser(lab, words) as context:
        return dict(context.params)


def _parser(lab: Lab, words: Sequence[str] = ()) -> click.Context:
    command = click.Command(lab.name, params=list(_options(lab)), help=lab.introduction)
    return command.make_context(f"net lab run {lab.name}", list(words))


def _options(lab: Lab) -> Iterable[click.Option]:
    for setting in lab.settings:
        within = setting.within
        yield click.Option(
            [f"--{setting.name.replace('_', '-')}"],
            type=click.IntRange(within[0], within[-1]) if within else setting.type,
            default=setting.default,
            show_default=True,
            help=setting.help,
        )
