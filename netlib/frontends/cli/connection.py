"""`net connect` and `net disconnect`."""

from __future__ import annotations

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.arguments import (
    FROM_HELP,
    attach_sources,
    links,
    pairs,
    port_requests,
)
from netlib.frontends.cli.command import NetCommand, dry_run
from netlib.frontends.cli.session import Session
from netlib.plan import Plan


class _Publishes(NetCommand):
    """Takes `-p SPEC --from CIDR`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, attach_sources(args, positional=False))


@click.command("connect", cls=_Publishes)
@click.option(
    "--ip", "--ip6", "addresses", metavar="IP", multiple=True, help="An address of either family."
)
@click.option("--mac", "--mac-address", "mac", metavar="MAC", help="The interface's MAC address.")
@click.option("--alias", "aliases", metavar="NAME", multiple=True, help="A further name there.")
@click.option(
    "--link",
    "linked",
    metavar="SANDBOX[:ALIAS]",
    multiple=True,
    help="Know another sandbox by an alias.",
)
@click.option("-p", "--publish", "ports", metavar="SPEC", multiple=True, help="Publish a port.")
@click.option("--from", "sources", metavar="CIDR", multiple=True, help=FROM_HELP)
@click.option("--ifname", metavar="NAME", help="The interface's name in the sandbox.")
@click.option(
    "--gw-priority",
    metavar="N",
    type=int,
    default=0,
    help="The endpoint with the highest gives the sandbox its default route.",
)
@click.option(
    "-o",
    "--driver-opt",
    "options",
    metavar="KEY=VALUE",
    multiple=True,
    help="An option of the endpoint.",
)
@click.argument("network", shell_complete=complete.networks)
@click.argument("sandbox", shell_complete=complete.sandboxes)
@dry_run
@click.pass_obj
def connect_command(
    session: Session,
    *,
    addresses: tuple[str, ...],
    mac: str | None,
    aliases: tuple[str, ...],
    linked: tuple[str, ...],
    ports: tuple[str, ...],
    sources: tuple[str, ...],
    ifname: str | None,
    gw_priority: int,
    options: tuple[str, ...],
    network: str,
    sandbox: str,
    dry_run: bool,
) -> None:
    """Join a sandbox to a network.

    SANDBOX is a name, pid:N, netns:NAME, netns:/PATH, docker:NAME, podman:NAME or
    container:NAME; it may be running. SPEC is [[IP:][HOST[-HOST]]:]PORT[-PORT][/PROTOCOL].

    Example:  net connect my-net web -p 8080:80
    Example:  net connect my-net pid:1234 --ip 192.0.2.10 --alias db
    """
    with session.net() as net:
        made = (net.plan if dry_run else net).connect(
            network,
            sandbox,
            publish=port_requests(ports),
            addresses=addresses,
            mac=mac,
            aliases=aliases,
            links=links(linked),
            ifname=ifname,
            gateway_priority=gw_priority,
            options=pairs("-o", options),
        )
        if isinstance(made, Plan):
            session.show_plan(net, made)
            return
        if session.json:
            from netlib.frontends.cli.views import endpoint_view

            known = net.engine.state.network(made.network).network
            session.show({"endpoint": endpoint_view(made, known.name)})


@click.command("disconnect", cls=NetCommand)
@click.option("-f", "--force", is_flag=True, help="Forget the endpoint whatever can't be removed.")
@click.argument("network", shell_complete=complete.networks)
@click.argument("sandbox", shell_complete=complete.sandboxes)
@dry_run
@click.pass_obj
def disconnect_command(
    session: Session, force: bool, network: str, sandbox: str, dry_run: bool
) -> None:
    """Take a sandbox off a network.

    Its other networks go on as they are, and one of them takes over the default route. Works
    for a sandbox that has ended, too.

    Example:  net disconnect my-net web
    """
    with session.net() as net:
        done = (net.plan if dry_run else net).disconnect(network, sandbox, force=force)
        if isinstance(done, Plan):
            session.show_plan(net, done)
            return
    session.show({"disconnected": {"network": network, "sandbox": sandbox}})
