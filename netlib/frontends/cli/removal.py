"""`net rm` and `net prune`."""

from __future__ import annotations

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.command import NetCommand, dry_run, each, report
from netlib.frontends.cli.session import Session
from netlib.plan import Plan


@click.command("rm", cls=NetCommand)
@click.option("-f", "--force", is_flag=True, help="Disconnect whoever is on them.")
@click.argument(
    "networks", metavar="NETWORK...", nargs=-1, required=True, shell_complete=complete.networks
)
@dry_run
@click.pass_obj
def rm_command(
    session: Session, force: bool, networks: tuple[str, ...], dry_run: bool
) -> int | None:
    """Remove networks.

    One that sandboxes are on is kept, and they are named. Prints what was removed.

    Example:  net rm my-net
    Example:  net rm -f my-net back
    """
    with session.net() as net:
        if dry_run:
            from netlib.plan import joined

            plans = [net.plan.remove(network, force=force) for network in networks]
            session.show_plan(net, joined(plans))
            return None
        done, failures = each(
            session, "removing", networks, lambda network: net.remove(network, force=force)
        )
    return report(session, "removed", done, failures)


@click.command("prune", cls=NetCommand)
@click.option(
    "--filter",
    "filters",
    metavar="KEY=VALUE",
    multiple=True,
    help="Only networks that fit: label=K[=V], label!=K[=V], until=TIME.",
)
@dry_run
@click.pass_obj
def prune_command(session: Session, filters: tuple[str, ...], dry_run: bool) -> None:
    """Remove all networks that nobody is on.

    Built-in ones stay. TIME is an age like 24h or 1h30m, or a date like 2026-01-31T12:00:00;
    networks made before it fit. Prints what was removed.

    Example:  net prune --filter until=24h
    """
    with session.net() as net, session.progress("removing") as progress:
        pruned = net.plan.prune(filters) if dry_run else net.prune(filters, watch=progress)
        if isinstance(pruned, Plan):
            session.show_plan(net, pruned)
            return
    session.show({"removed": list(pruned)}, "\n".join(pruned))
