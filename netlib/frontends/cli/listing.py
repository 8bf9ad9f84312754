"""`net ls` and `net inspect`."""

from __future__ import annotations

from typing import Any

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.command import NetCommand, each, show_found
from netlib.frontends.cli.session import Session


@click.command("ls", cls=NetCommand)
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option(
    "-f",
    "--filter",
    "filters",
    metavar="KEY=VALUE",
    multiple=True,
    help="Only networks that fit; repeatable.",
)
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.pass_obj
def ls_command(session: Session, quiet: bool, filters: tuple[str, ...], no_trunc: bool) -> None:
    """List networks.

    Filters: driver=NAME, id=START, name=PART, label=KEY[=VALUE], scope=local|global,
    type=custom|builtin, dangling=true|false (nobody is on it). Given twice, a key lets more
    through; different keys, and different labels, must all fit.

    Example:  net ls
    Example:  net ls --filter driver=bridge --filter dangling=true
    """
    with session.net() as net:
        seen = net.listing(filters)
    if session.json:
        from netlib.frontends.cli.views import network_view

        session.show({"networks": [network_view(one.network, one.scope) for one in seen]})
        return
    ids = [one.network.id if no_trunc else one.network.short_id for one in seen]
    if quiet:
        session.show({}, "\n".join(ids))
        return
    from netlib.frontends.cli.output import table

    rows = [
        (shown, one.network.name, one.network.driver, one.scope)
        for shown, one in zip(ids, seen, strict=True)
    ]
    session.show({}, table(("NETWORK ID", "NAME", "DRIVER", "SCOPE"), rows))


@click.command("inspect", cls=NetCommand)
@click.option("-v", "--verbose", is_flag=True, help="With the wiring in the kernel.")
@click.argument(
    "networks", metavar="NETWORK...", nargs=-1, required=True, shell_complete=complete.networks
)
@click.pass_obj
def inspect_command(session: Session, verbose: bool, networks: tuple[str, ...]) -> int:
    """Show networks in full, as JSON.

    Subnets with how many addresses are used and free, options, labels and endpoints, each with
    the folder of its sandbox's resolv.conf and hosts, to be mounted in a container. A list of all
    that were found, also when others were not.

    Example:  net inspect my-net
    """
    from netlib.frontends.cli.views import details_view

    found: list[dict[str, Any]] = []
    with session.net() as net:

        def look(network: str) -> None:
            details = net.inspect(network)
            found.append(details_view(details, net.state_dir, verbose=verbose))

        _, failures = each(session, "looking", networks, look)
    return show_found(session, "networks", found, failures)
