"""`net graph`."""

from __future__ import annotations

from pathlib import Path

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.command import NetCommand
from netlib.frontends.cli.session import Session
from netlib.pictures import FORMATS


@click.command("graph", cls=NetCommand)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="text is for a terminal, mermaid for Markdown, dot for Graphviz.",
)
@click.option(
    "-O",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False, writable=True),
    help="Write it to a file.",
)
@click.argument("networks", metavar="[NETWORK]...", nargs=-1, shell_complete=complete.networks)
@click.pass_obj
def graph_command(
    session: Session, form: str, output: str | None, networks: tuple[str, ...]
) -> None:
    """Draw networks and who is on them.

    With addresses and published ports; `*`, or a thick line, is a sandbox's way out. Without
    NETWORK all that are in use, and sandboxes that are on none.

    Example:  net graph
    Example:  net graph --format mermaid my-net
    """
    with session.net() as net:
        picture = net.draw(networks, form=form)
    if output is not None:
        try:
            Path(output).write_text(picture, encoding="utf-8")
        except OSError as error:
            raise click.FileError(output, error.strerror) from error
        session.show({"graph": {"format": form, "file": output}})
        return
    session.show({"graph": {"format": form, "picture": picture}}, picture.rstrip("\n"))
