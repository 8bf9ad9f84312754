"""`net ps` and `net sandbox create|rm|ls`."""

from __future__ import annotations

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.arguments import pairs
from netlib.frontends.cli.command import NetCommand, NetGroup, dry_run, each, report
from netlib.frontends.cli.session import Session


@click.command("ps", cls=NetCommand)
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.pass_obj
def ps_command(session: Session, quiet: bool) -> None:
    """List sandboxes.

    With their networks, addresses and published ports. One that has ended without a chance
    to clean up is shown as such until `net gc` removes it.

    Example:  net ps
    """
    from netlib.frontends.cli.ports import arrow
    from netlib.frontends.cli.views import state_word, status_view

    with session.net() as net:
        boxes = net.status()
    if session.json:
        session.show({"sandboxes": [status_view(box, net.state_dir) for box in boxes]})
        return
    if quiet:
        session.show({}, "\n".join(box.sandbox.name for box in boxes))
        return
    from netlib.frontends.cli.output import paint, table

    rows = []
    for box in boxes:
        word = state_word(box)
        rows.append(
            (
                box.sandbox.name,
                str(box.sandbox.pid or "-"),
                paint(word, "red") if word == "ended" else word,
                ", ".join(one.network.name for one in box.joined) or "-",
                ", ".join(str(a.ip) for one in box.joined for a in one.endpoint.addresses) or "-",
                ", ".join(arrow(port) for one in box.joined for port in one.ports) or "-",
            )
        )
    heads = ("SANDBOX", "PID", "STATE", "NETWORKS", "ADDRESSES", "PORTS")
    session.show({}, table(heads, rows))


@click.group("sandbox", cls=NetGroup)
def sandbox_command() -> None:
    """Make, remove and list sandboxes without a process.

    A network namespace that stays until it is removed, and that `ip netns exec` knows too.

    Example:  net sandbox create web
    """


@sandbox_command.command("create", cls=NetCommand)
@click.option("--hostname", metavar="NAME", default="", help="What it calls itself.")
@click.option("--label", "labels", metavar="KEY[=VALUE]", multiple=True, help="A label.")
@click.option(
    "-e",
    "--env",
    "variables",
    metavar="KEY=VALUE",
    multiple=True,
    help="What links tell others of its environment.",
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@dry_run
@click.pass_obj
def sandbox_create(
    session: Session,
    *,
    hostname: str,
    labels: tuple[str, ...],
    variables: tuple[str, ...],
    names: tuple[str, ...],
    dry_run: bool,
) -> int | None:
    """Make sandboxes. Prints their names.

    Example:  net sandbox create web db
    """
    marks = pairs("--label", labels, bare=True)
    environment = pairs("--env", variables)
    if dry_run:
        from netlib.names import check_name
        from netlib.plan import Plan

        script = "".join(f"host  ip netns add {check_name(n, 'sandbox')}\n" for n in names)
        with session.net() as net:
            session.show_plan(net, Plan(), before=script)
        return None
    with session.net() as net:

        def act(name: str) -> None:
            net.create_sandbox(name, hostname=hostname, labels=marks, environment=environment)

        done, failures = each(session, "making", names, act)
    return report(session, "created", done, failures)


@sandbox_command.command("rm", cls=NetCommand)
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete.sandboxes
)
@dry_run
@click.pass_obj
def sandbox_rm(session: Session, names: tuple[str, ...], dry_run: bool) -> int | None:
    """Take sandboxes off all their networks and remove them. Prints their names.

    Example:  net sandbox rm web
    """
    with session.net() as net:
        if dry_run:
            from netlib.plan import joined

            plan = joined(net.plan.remove_sandbox(name) for name in names)
            boxes = [net.engine.state.sandbox(name) for name in names]
            ours = [box for box in boxes if box.kind == "name" and not (box.pid or box.shares)]
            script = "".join(f"host  ip netns delete {box.name}\n" for box in ours)
            session.show_plan(net, plan, after=script)
            return None
        done, failures = each(session, "removing", names, net.remove_sandbox)
    return report(session, "removed", done, failures)


@sandbox_command.command("ls", cls=NetCommand)
@click.option("-q", "--quiet", is_flag=True, help="Names only.")
@click.pass_obj
def sandbox_ls(session: Session, quiet: bool) -> None:
    """List all sandboxes that are known, of whatever kind.

    Example:  net sandbox ls
    """
    with session.net() as net:
        boxes = net.sandboxes()
    if session.json:
        from netlib.frontends.cli.views import sandbox_view

        session.show({"sandboxes": [sandbox_view(box, net.state_dir) for box in boxes]})
        return
    if quiet:
        session.show({}, "\n".join(box.name for box in boxes))
        return
    from netlib.frontends.cli.output import table

    rows = [(box.name, box.kind, str(box.pid or "-"), box.netns.path) for box in boxes]
    session.show({}, table(("SANDBOX", "KIND", "PID", "NETNS"), rows))
