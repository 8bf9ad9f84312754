"""`net node ls|inspect|update|rm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.arguments import pairs
from netlib.frontends.cli.command import NetCommand, NetGroup, dry_run, each, report, show_found
from netlib.frontends.cli.session import Session

if TYPE_CHECKING:
    from netlib.cluster.model import Availability
    from netlib.cluster.nodes import NodeStatus


@click.group("node", cls=NetGroup)
def node_command() -> None:
    """List, change and remove the hosts of a cluster.

    NODE is a name, an id or the start of one, or `self`.

    Example:  net node ls
    """


@node_command.command("ls", cls=NetCommand)
@click.option("-q", "--quiet", is_flag=True, help="Ids only.")
@click.option(
    "-f",
    "--filter",
    "filters",
    metavar="KEY=VALUE",
    multiple=True,
    help="Only hosts that fit; repeatable.",
)
@click.option("--no-trunc", is_flag=True, help="Whole ids.")
@click.pass_obj
def node_ls(session: Session, quiet: bool, filters: tuple[str, ...], no_trunc: bool) -> None:
    """List the hosts of the cluster; a star marks this one.

    A host is down when its daemon has been silent for the cluster's lease.

    Filters: role=manager|worker, availability=active|pause|drain, status=ready|down, id=START,
    name=PART, label=KEY[=VALUE]. Given twice, a key lets more through; different keys, and
    different labels, must all fit.

    Example:  net node ls
    Example:  net node ls --filter role=worker --filter status=ready
    """
    with session.net() as net:
        seen = net.cluster.nodes(filters)
    if session.json:
        from netlib.frontends.cli.cluster_views import node_status_view

        session.show({"nodes": [node_status_view(one) for one in seen]})
        return
    ids = [one.node.id if no_trunc else one.node.id[:12] for one in seen]
    if quiet:
        session.show({}, "\n".join(ids))
        return
    from netlib.frontends.cli.output import paint, table

    rows = [
        (
            f"{shown} *" if one.is_self else shown,
            one.node.name,
            "Ready" if one.alive else paint("Down", "red"),
            one.node.availability.capitalize(),
            one.reach.capitalize(),
            one.node.version,
        )
        for shown, one in zip(ids, seen, strict=True)
    ]
    heads = ("ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION")
    session.show({}, table(heads, rows))


@node_command.command("inspect", cls=NetCommand)
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True, shell_complete=complete.nodes)
@click.pass_obj
def node_inspect(session: Session, nodes: tuple[str, ...]) -> int:
    """Show hosts of the cluster in full, as JSON.

    A list of all that were found, also when others were not.

    Example:  net node inspect self
    """
    from netlib.frontends.cli.cluster_views import node_status_view

    found: list[NodeStatus] = []
    with session.net() as net:
        _, failures = each(
            session, "looking", nodes, lambda node: found.append(net.cluster.node(node))
        )
    return show_found(session, "nodes", [node_status_view(one) for one in found], failures)


@node_command.command("update", cls=NetCommand)
@click.option(
    "--availability",
    type=click.Choice(["active", "pause", "drain"]),
    help="pause: no new endpoints; drain: none at all.",
)
@click.option("--label-add", "added", metavar="KEY[=VALUE]", multiple=True, help="A label.")
@click.option("--label-rm", "removed", metavar="KEY", multiple=True, help="A label to remove.")
@click.argument("node", metavar="NODE", shell_complete=complete.nodes)
@dry_run
@click.pass_obj
def node_update(
    session: Session,
    *,
    availability: Availability | None,
    added: tuple[str, ...],
    removed: tuple[str, ...],
    node: str,
    dry_run: bool,
) -> None:
    """Change what a host of the cluster takes, and its labels.

    Example:  net node update --availability drain host-2
    Example:  net node update --label-add zone=east --label-rm spare host-2
    """  # fmt: skip
    labels = pairs("--label-add", added, bare=True)
    if availability is None and not labels and not removed:
        raise click.UsageError("Give --availability, --label-add or --label-rm.")
    with session.net() as net:
        if dry_run:
            plan = net.cluster.plan_update_node(
                node, availability=availability, add_labels=labels, remove_labels=removed
            )
            session.show_commands(plan)
            return
        changed = net.cluster.update_node(
            node, availability=availability, add_labels=labels, remove_labels=removed
        )
    from netlib.frontends.cli.cluster_views import node_view

    session.show({"node": node_view(changed)}, changed.name)


@node_command.command("rm", cls=NetCommand)
@click.option("-f", "--force", is_flag=True, help="Also one that is up.")
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True, shell_complete=complete.nodes)
@dry_run
@click.pass_obj
def node_rm(session: Session, force: bool, nodes: tuple[str, ...], dry_run: bool) -> int | None:
    """Remove hosts that are down from the cluster. Prints their names.

    One that is up leaves by itself: `net cluster leave`. If a manager is removed, the others go
    on without it.

    Example:  net node rm host-3
    """
    with session.net() as net:
        if dry_run:
            session.show_commands(
                line for node in nodes for line in net.cluster.plan_remove_node(node, force=force)
            )
            return None

        def act(node: str) -> None:
            net.cluster.remove_node(node, force=force)

        done, failures = each(session, "removing", nodes, act)
    return report(session, "removed", done, failures)
