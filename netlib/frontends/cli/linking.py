"""`net env`."""

from __future__ import annotations

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.command import NetCommand
from netlib.frontends.cli.session import Session


@click.command("env", cls=NetCommand)
@click.argument("sandbox", shell_complete=complete.sandboxes)
@click.pass_obj
def env_command(session: Session, sandbox: str) -> None:
    """Print what links tell a sandbox, as variables.

    One KEY=VALUE on each line, as env(1) takes them: where the sandboxes that it is linked to
    are (ALIAS_PORT_5432_TCP_ADDR and so on), and their environment. Links of networks whose
    sandboxes have names are no part of it.

    Example:  net env web
    """
    with session.net() as net:
        found = net.link_environment(sandbox)
    session.show({"environment": found}, "\n".join(f"{k}={v}" for k, v in found.items()))
