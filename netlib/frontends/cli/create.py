"""`net create` and `net update`."""

from __future__ import annotations

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.arguments import pairs
from netlib.frontends.cli.command import NetCommand, dry_run
from netlib.frontends.cli.session import Session
from netlib.plan import Plan


@click.command("create", cls=NetCommand)
@click.option(
    "-d",
    "--driver",
    default="bridge",
    show_default=True,
    shell_complete=complete.drivers,
    help="Which kind of network.",
)
@click.option("--subnet", "subnets", metavar="CIDR", multiple=True, help="A prefix; repeatable.")
@click.option("--gateway", "gateways", metavar="IP", multiple=True, help="A subnet's gateway.")
@click.option(
    "--ip-range",
    "ip_ranges",
    metavar="RANGE",
    multiple=True,
    help="Give endpoints addresses of CIDR or FIRST-LAST only.",
)
@click.option(
    "--aux-address",
    "aux_addresses",
    metavar="NAME=IP",
    multiple=True,
    help="Never give this address to an endpoint.",
)
@click.option("--ipv6", is_flag=True, help="With IPv6 addresses too.")
@click.option("--no-ipv4", is_flag=True, help="Without IPv4 addresses.")
@click.option("--internal", is_flag=True, help="No way out of the network, and none in.")
@click.option(
    "--attachable",
    is_flag=True,
    help="Sandboxes may join it by hand; others always may, the cluster's networks only so.",
)
@click.option(
    "--dns-record", "records", metavar="RECORD", multiple=True, help="A further record for names."
)
@click.option(
    "--dns", "servers", metavar="IP", multiple=True, help="Whom to ask for names of elsewhere."
)
@click.option(
    "-o", "--opt", "options", metavar="KEY=VALUE", multiple=True, help="An option of the driver."
)
@click.option("--label", "labels", metavar="KEY[=VALUE]", multiple=True, help="A label.")
@click.argument("name")
@dry_run
@click.pass_obj
def create_command(
    session: Session,
    *,
    driver: str,
    subnets: tuple[str, ...],
    gateways: tuple[str, ...],
    ip_ranges: tuple[str, ...],
    aux_addresses: tuple[str, ...],
    ipv6: bool,
    no_ipv4: bool,
    internal: bool,
    attachable: bool,
    records: tuple[str, ...],
    servers: tuple[str, ...],
    options: tuple[str, ...],
    labels: tuple[str, ...],
    name: str,
    dry_run: bool,
) -> None:
    """Make a network.

    Prints its id. Without --subnet prefixes are chosen that no other network has and the host
    has no route to. With --ipv6 there are both families, and the one that no --subnet is of is
    chosen so; an IPv6 --subnet alone makes a network without IPv4. A gateway, range or aux
    address belongs to the subnet that contains it; on a LAN, a link-local gateway to each IPv6
    subnet without one. See `net driver ls` for the drivers' options.

    Example:  net create my-net
    Example:  net create --subnet 192.0.2.0/24 --ipv6 -o mtu=1400 back
    """
    with session.net() as net:
        made = (net.plan if dry_run else net).create(
            name,
            driver=driver,
            subnets=subnets,
            gateways=gateways,
            ip_ranges=ip_ranges,
            aux_addresses=aux_addresses,
            ipv4=not no_ipv4,
            ipv6=ipv6,
            internal=internal,
            attachable=attachable,
            records=records,
            servers=servers,
            options=pairs("-o", options, bare=True),
            labels=pairs("--label", labels, bare=True),
        )
        if isinstance(made, Plan):
            session.show_plan(net, made)
            return
        from netlib.frontends.cli.views import network_view
        from netlib.verbs.overview import scope_of

        scope = scope_of(net.engine, made)
        session.show({"network": network_view(made, scope)}, made.id)


@click.command("update", cls=NetCommand)
@click.option(
    "-o",
    "--opt",
    "options",
    metavar="KEY=VALUE",
    multiple=True,
    help="Change an option of the driver; an empty value takes it away.",
)
@click.option(
    "--label",
    "labels",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set a label; an empty value takes it away.",
)
@click.option("--subnet", "subnets", metavar="CIDR", multiple=True, help="Add a prefix.")
@click.option("--gateway", "gateways", metavar="IP", multiple=True, help="An added subnet's.")
@click.option("--ip-range", "ip_ranges", metavar="RANGE", multiple=True, help="Likewise.")
@click.option("--aux-address", "aux_addresses", metavar="NAME=IP", multiple=True, help="Likewise.")
@click.option(
    "--dns-add",
    "add_servers",
    metavar="IP",
    multiple=True,
    help="Ask this one too for names of elsewhere.",
)
@click.option(
    "--dns-drop", "drop_servers", metavar="IP", multiple=True, help="Ask this one no more."
)
@click.option(
    "--attachable/--no-attachable",
    default=None,
    help="Whether sandboxes may join a network of the cluster's by hand.",
)
@click.argument("network", shell_complete=complete.networks)
@dry_run
@click.pass_obj
def update_command(
    session: Session,
    *,
    options: tuple[str, ...],
    labels: tuple[str, ...],
    subnets: tuple[str, ...],
    gateways: tuple[str, ...],
    ip_ranges: tuple[str, ...],
    aux_addresses: tuple[str, ...],
    add_servers: tuple[str, ...],
    drop_servers: tuple[str, ...],
    attachable: bool | None,
    network: str,
    dry_run: bool,
) -> None:
    """Change a network while it is in use.

    What can't change while endpoints are there is refused; nothing is made anew. Endpoints
    keep the addresses they have. A network of the cluster's changes on all hosts.

    Example:  net update -o mtu=1400 my-net
    Example:  net update --label team= --label stage=test my-net
    """
    subnet = subnets or gateways or ip_ranges or aux_addresses
    changes = options or labels or subnet or add_servers or drop_servers
    if not changes and attachable is None:
        raise click.UsageError(
            "Nothing to change: give -o, --label, --subnet, --dns-add, --dns-drop or --attachable."
        )
    with session.net() as net:
        changed = (net.plan if dry_run else net).update(
            network,
            options=pairs("-o", options),
            labels=pairs("--label", labels, bare=True),
            subnets=subnets,
            gateways=gateways,
            ip_ranges=ip_ranges,
            aux_addresses=aux_addresses,
            add_servers=add_servers,
            drop_servers=drop_servers,
            attachable=attachable,
        )
        if isinstance(changed, Plan):
            session.show_plan(net, changed)
            return
        from netlib.frontends.cli.views import network_view
        from netlib.verbs.overview import scope_of

        scope = scope_of(net.engine, changed)
        session.show({"network": network_view(changed, scope)}, changed.name)
