"""`net run`, `net exec` and `net stop`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.arguments import FROM_HELP, attach_sources, pairs, port_requests
from netlib.frontends.cli.command import NetCommand, dry_run, each, report
from netlib.frontends.cli.session import Session

# What comes after the first word is the command's own, whether or not `--` stands before it.
_COMMAND = {"allow_interspersed_args": False}


_attached = click.option(
    "-i", "-t", "--interactive", "--tty", "attached", is_flag=True,
    help="For hands used to it: the command has the caller's stdin and terminal anyway.",
)  # fmt: skip


class _Run(NetCommand):
    """Takes `-p SPEC --from CIDR`, as far as the command line is not the command's own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = args[: args.index("--")] if "--" in args else args
        rest = args[len(own) :]
        return super().parse_args(ctx, attach_sources(own, positional=False) + rest)


@click.command("run", cls=_Run, context_settings=_COMMAND)
@click.option("--name", metavar="NAME", help="The sandbox's name; one is made up without it.")
@click.option(
    "--network",
    "networks",
    metavar="NETWORK[:KEY=VALUE,...]",
    multiple=True,
    shell_complete=complete.networks,
    help="Connect it; keys are ip, mac, alias, ifname, link, gw-priority, and the options of "
    "endpoints. Several give eth0, eth1, ... in their order.",
)
@click.option("-p", "--publish", "ports", metavar="SPEC", multiple=True, help="Publish a port.")
@click.option("--from", "sources", metavar="CIDR", multiple=True, help=FROM_HELP)
@click.option("-h", "--hostname", metavar="NAME", default="", help="What it calls itself.")
@click.option("--dns", "servers", metavar="IP", multiple=True, help="Whom it asks for names.")
@click.option("--dns-search", "search", metavar="DOMAIN", multiple=True,
              help="A domain to look names up in; . for none.")  # fmt: skip
@click.option("--dns-opt", "--dns-option", "resolver_options", metavar="OPTION", multiple=True,
              help="An option of resolv.conf(5).")  # fmt: skip
@click.option("--add-host", "hosts", metavar="NAME:IP", multiple=True,
              help="A line for /etc/hosts; the IP may be host-gateway.")  # fmt: skip
@click.option("--label", "labels", metavar="KEY[=VALUE]", multiple=True, help="A label.")
@click.option("-e", "--env", "variables", metavar="KEY[=VALUE]", multiple=True,
              help="A variable of its environment; links tell others of it. Without a value "
              "it is the caller's.")  # fmt: skip
@click.option(
    "--rm",
    "remove",
    is_flag=True,
    help="For hands used to it: a sandbox always goes when its command ends.",
)
@_attached
@click.option("-d", "--detach", is_flag=True, help="In the background; prints its name.")
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True,
                type=click.UNPROCESSED)  # fmt: skip
@dry_run
@click.pass_obj
def run_command(
    session: Session,
    *,
    name: str | None,
    networks: tuple[str, ...],
    ports: tuple[str, ...],
    sources: tuple[str, ...],
    hostname: str,
    servers: tuple[str, ...],
    search: tuple[str, ...],
    resolver_options: tuple[str, ...],
    hosts: tuple[str, ...],
    labels: tuple[str, ...],
    variables: tuple[str, ...],
    remove: bool,
    attached: bool,
    detach: bool,
    command: tuple[str, ...],
    dry_run: bool,
) -> int | None:
    """Run a command as a sandbox with networks of its own.

    It has its own network, mounts and hostname, its own /etc/hosts, /etc/resolv.conf and
    /etc/hostname, and the host's files and processes. It starts when its networks are ready,
    and when it ends nothing of it is left. Signals are passed on to it, and its exit status is
    ours: 128 + n after signal n, 127 when there is no such command, 126 when it can't be run.
    Without --network it is on `bridge`; on `none` it has nothing but `lo`, on `host` it is not
    set apart from the host, and with container:NAME it shares that sandbox's network. In the
    background its output goes to
    log/NAME.log in the state's folder, until `net gc`.

    Example:  net run --network my-net -p 8080:80 -- python3 -m http.server 80
    Example:  net run -d --name db --network back:ip=192.0.2.5,alias=sql -- sleep infinity
    """
    from netlib.built_in import DEFAULT
    from netlib.engine import SHARED
    from netlib.run.request import RunRequest, parse_address, parse_attachment, parse_host

    shared = [t.removeprefix(SHARED) for t in networks if t.startswith(SHARED)]
    named = [text for text in networks if not text.startswith(SHARED)]
    if len(shared) > 1:
        raise click.UsageError("--network container:NAME can be given once.")
    if detach and attached:
        raise click.UsageError(
            "In the background (-d) it has neither stdin nor a terminal (-i, -t)."
        )
    if not networks:
        named = [DEFAULT]
    name_given = {"name": name} if name is not None else {}
    request = RunRequest(
        command=command,
        hostname=hostname,
        attachments=tuple(parse_attachment(text) for text in named),
        ports=tuple(port_requests(ports)),
        nameservers=tuple(parse_address(text) for text in servers),
        search=search,
        resolver_options=resolver_options,
        hosts=tuple(parse_host(text) for text in hosts),
        labels=pairs("--label", labels, bare=True),
        environment=pairs("--env", _with_values(variables)),
        shares=shared[0] if shared else "",
        **name_given,
    )
    with session.net() as net:
        if dry_run:
            from netlib.run.sandbox import plan

            session.show_plan(net, plan(net, request))
            return None
        if detach:
            from netlib.run.background import start

            started = start(net, request)
            session.show({"sandbox": started}, started)
            return None
        from netlib.run.sandbox import run

        return run(net, request, warn=lambda text: click.echo(f"net: {text}", err=True))


def _with_values(variables: Iterable[str]) -> Iterator[str]:
    """A name without a value has the caller's, where he has one."""
    for text in variables:
        if "=" in text:
            yield text
        elif text in os.environ:
            yield f"{text}={os.environ[text]}"


@click.command("exec", cls=NetCommand, context_settings=_COMMAND)
@_attached
@click.argument("sandbox", shell_complete=complete.sandboxes)
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True,
                type=click.UNPROCESSED)  # fmt: skip
@click.pass_obj
def exec_command(
    session: Session, *, attached: bool, sandbox: str, command: tuple[str, ...]
) -> None:
    """Run a command inside a sandbox.

    In the network of any sandbox, and with the names, files and variables of one that
    `net run` started.
    Its exit status is ours.

    Example:  net exec web -- ip address
    """
    from netlib.run.joining import enter

    command = command[1:] if command[0] == "--" else command
    if not command:
        raise click.UsageError("There is no command to run.")
    with session.net() as net:
        enter(net, sandbox, command)


@click.command("stop", cls=NetCommand)
@click.option(
    "-t", "--time", "seconds", type=click.FloatRange(min=0), default=10.0, show_default=True,
    metavar="SECONDS", help="How long it may take before it is killed.",
)  # fmt: skip
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=complete.sandboxes
)
@dry_run
@click.pass_obj
def stop_command(
    session: Session, seconds: float, names: tuple[str, ...], dry_run: bool
) -> int | None:
    """End the processes of sandboxes.

    SIGTERM, then SIGKILL; what belongs to them is removed. Prints their names.

    Example:  net stop web
    """
    from netlib.run.joining import plan_stop, stop

    with session.net() as net:
        if dry_run:
            from netlib.plan import joined

            plans = [plan_stop(net, name) for name in names]
            script = "".join(f"host  kill -TERM {pid}\n" for pid, _ in plans)
            session.show_plan(net, joined(plan for _, plan in plans), before=script)
            return None
        done, failures = each(session, "ending", names, lambda name: stop(net, name, seconds))
    return report(session, "stopped", done, failures)
