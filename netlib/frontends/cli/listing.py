"""`net ls` and `net inspect`."""

from __future__ import annotations

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.command import NetCommand
from netlib.frontends.cli.failure import Failure, failure_of
from netlib.frontends.cli.session import Session, dump


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
    from netlib.errors import NetError
    from netlib.frontends.cli.views import details_view

    found = []
    failures: list[Failure] = []
    with session.net() as net:
        for network in networks:
            try:
                details = net.inspect(network)
                found.append(details_view(details, net.state_dir, verbose=verbose))
            except NetError as error:
                if len(networks) == 1:
                    raise
                failures.append(failure_of(error))
    if not session.json:
        click.echo(dump(found))
        for failure in failures:
            failure.warn()
    elif failures:
        errors = [failure.document() for failure in failures]
        session.show({"networks": found, "error": errors[0], "errors": errors})
    else:
        session.show({"networks": found})
    return failures[0].status if failures else 0
