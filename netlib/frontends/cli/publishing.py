"""`net publish`, `net unpublish` and `net port`."""

from __future__ import annotations

from collections.abc import Iterable

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.arguments import FROM_HELP, attach_sources, port_requests
from netlib.frontends.cli.command import NetCommand, dry_run
from netlib.frontends.cli.session import Session
from netlib.model import PublishedPort
from netlib.plan import Plan


class _Publishes(NetCommand):
    """Takes `SPEC --from CIDR`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, attach_sources(args, positional=True))


@click.command("publish", cls=_Publishes)
@click.option("--from", "sources", metavar="CIDR", multiple=True, help=FROM_HELP)
@click.argument("sandbox", shell_complete=complete.sandboxes)
@click.argument("ports", metavar="SPEC...", nargs=-1, required=True)
@dry_run
@click.pass_obj
def publish_command(
    session: Session, sources: tuple[str, ...], sandbox: str, ports: tuple[str, ...], dry_run: bool
) -> None:
    """Publish more ports of a running sandbox.

    SPEC is [[IP:][HOST[-HOST]]:]PORT[-PORT][/tcp|udp|sctp], IPv6 in brackets; without HOST a
    free port is chosen. Prints what was published.

    Example:  net publish web 8443:443
    Example:  net publish web 127.0.0.1:5000:5000 192.0.2.1:53:53/udp --from 198.51.100.0/24
    """
    with session.net() as net:
        made = (net.plan if dry_run else net).publish(sandbox, port_requests(ports))
        if isinstance(made, Plan):
            session.show_plan(net, made)
            return
    _show(session, "published", made)


@click.command("unpublish", cls=NetCommand)
@click.argument("sandbox", shell_complete=complete.sandboxes)
@click.argument("ports", metavar="SPEC...", nargs=-1, required=True)
@dry_run
@click.pass_obj
def unpublish_command(
    session: Session, sandbox: str, ports: tuple[str, ...], dry_run: bool
) -> None:
    """Take published ports back.

    Each SPEC as it was published; without a host port, all that lead to the port. Prints what
    was taken back.

    Example:  net unpublish web 8443:443
    """
    with session.net() as net:
        gone = (net.plan if dry_run else net).unpublish(sandbox, port_requests(ports))
        if isinstance(gone, Plan):
            session.show_plan(net, gone)
            return
    _show(session, "unpublished", gone)


@click.command("port", cls=NetCommand)
@click.argument("sandbox", shell_complete=complete.sandboxes)
@click.pass_obj
def port_command(session: Session, sandbox: str) -> None:
    """List the published ports of a sandbox.

    Example:  net port web
    """
    from netlib.frontends.cli.ports import lines
    from netlib.frontends.cli.views import port_view

    with session.net() as net:
        joined = net.ports(sandbox)
    ports = [port for one in joined for port in one.ports]
    session.show({"ports": [port_view(port) for port in ports]}, "\n".join(lines(ports)))


def _show(session: Session, word: str, ports: Iterable[PublishedPort]) -> None:
    from netlib.frontends.cli.views import port_view

    ports = list(ports)
    session.show({word: [port_view(port) for port in ports]}, "\n".join(map(str, ports)))
