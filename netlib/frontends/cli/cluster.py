"""`net cluster init|join|join-token|leave|status`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from netlib.frontends.cli.arguments import seconds_of
from netlib.frontends.cli.command import NetCommand, NetGroup, dry_run
from netlib.frontends.cli.session import Session

if TYPE_CHECKING:
    from netlib.cluster.model import Role
    from netlib.cluster.status import ClusterStatus, Invitation
    from netlib.net import Net

T = TypeVar("T")
_ROLES = click.Choice(["worker", "manager"])


@click.group("cluster", cls=NetGroup)
def cluster_command() -> None:
    """Make a cluster of hosts, join it, leave it.

    Its hosts share networks of the driver overlay, see docs/cluster.md.

    Example:  net cluster init --advertise-addr eth0
    """


def _placing(function: Callable[..., T]) -> Callable[..., T]:
    """Options of who becomes a member."""
    for option in reversed(
        [
            click.option("--advertise-addr", "advertise", metavar="ADDR|DEVICE[:PORT]", default="",
                         help="Where the others reach this host."),
            click.option("--data-path-addr", "data_path", metavar="ADDR|DEVICE", default="",
                         help="Where it takes tunnelled frames, if that is elsewhere."),
            click.option("--name", metavar="NAME", default="",
                         help="What it is called in the cluster, if not by its hostname."),
        ]
    ):  # fmt: skip
        function = option(function)
    return function


@cluster_command.command("init", cls=NetCommand)
@_placing
@click.option(
    "--data-path-port",
    "data_port",
    metavar="PORT",
    type=click.IntRange(1, 65535),
    default=4789,
    help="UDP port of tunnelled frames, on all hosts.  [4789]",
)
@click.option(
    "--default-addr-pool",
    "pools",
    metavar="CIDR",
    multiple=True,
    help="Where networks get their subnets; repeatable.",
)
@click.option(
    "--lease",
    "lease_seconds",
    metavar="SECONDS",
    type=int,
    default=10,
    help="After as long a silent host counts as down.  [10]",
)
@click.option("--etcd", metavar="URL,...", default="", help="Keep the state in an etcd that runs.")
@click.option("--cacert", "ca", metavar="FILE", default="", help="Who signed its certificate.")
@click.option(
    "--cert", "certificate", metavar="FILE", default="", help="The certificate that is shown to it."
)
@click.option("--key", metavar="FILE", default="", help="The key of that certificate.")
@click.option("--user", metavar="NAME", default="", help="The user that it knows us as.")
@click.option("--password-file", metavar="FILE", default="", help="That user's password.")
@click.option(
    "--force-new-cluster",
    "recover",
    is_flag=True,
    help="Of a manager: go on with its state and without the other managers.",
)
@dry_run
@click.pass_obj
def cluster_init(
    session: Session,
    /,
    *,
    etcd: str,
    password_file: str,
    recover: bool,
    dry_run: bool,
    **asked: Any,
) -> None:
    """Make a cluster, with this host as its first manager.

    The state of the cluster is kept in etcd: in one that this host runs from now on, or in one
    that runs already and is named with --etcd. Prints how other hosts join.

    --force-new-cluster is for when more than half of the managers are lost, see docs/cluster.md.

    Example:  net cluster init --advertise-addr 192.0.2.1
    Example:  net cluster init --advertise-addr eth0 --etcd https://192.0.2.9:2379 --cacert ca.pem
    """  # fmt: skip
    urls = [url for url in etcd.split(",") if url]
    password = _secret(password_file, "--password-file") if password_file else ""
    with session.net() as net:
        if recover:
            _recover(session, net, dry_run=dry_run)
            return
        if dry_run:
            session.show_commands(net.cluster.plan_init(**asked, etcd=urls, password=password))
            return
        node = net.cluster.init(**asked, etcd=urls, password=password)
        _have_daemon(session, net)
        invitation = net.cluster.invite("worker")
    from netlib.frontends.cli.cluster_views import invitation_view, node_view

    session.show(
        {"node": node_view(node), "invitation": invitation_view(invitation)},
        f"node {node.id[:12]} ({node.name}) is the first manager of a new cluster\n\n"
        f"{_invited(invitation)}\n\nto add a manager, run: net cluster join-token manager",
    )


@cluster_command.command("join", cls=NetCommand)
@click.option("--token", metavar="TOKEN", default="", help="What a manager printed.")
@click.option(
    "--token-file",
    metavar="FILE",
    default="",
    help="The file that has it, - for stdin: other users see arguments.",
)
@_placing
@click.option(
    "--availability",
    type=click.Choice(["active", "pause", "drain"]),
    default="active",
    help="Whether it takes endpoints of overlays.  [active]",
)
@click.argument("manager", metavar="HOST[:PORT]")
@dry_run
@click.pass_obj
def cluster_join(
    session: Session, /, *, token: str, token_file: str, manager: str, dry_run: bool, **asked: Any
) -> None:
    """Join the cluster that a token lets this host into.

    HOST:PORT is a manager's address, as `net cluster join-token` prints it there.

    Example:  net cluster join --token TOKEN 192.0.2.1:2377
    """  # fmt: skip
    if bool(token) == bool(token_file):
        raise click.UsageError("Give --token or --token-file.")
    token = token or _secret(token_file, "--token-file")
    with session.net() as net:
        if dry_run:
            session.show_commands(net.cluster.plan_join(manager, token, **asked))
            return
        node = net.cluster.join(manager, token, **asked)
        _have_daemon(session, net)
    from netlib.frontends.cli.cluster_views import node_view

    session.show(
        {"node": node_view(node)},
        f"node {node.id[:12]} ({node.name}) joined the cluster as a {node.role}",
    )


@cluster_command.command("join-token", cls=NetCommand)
@click.option("--rotate", is_flag=True, help="Let nobody in any more by tokens made before.")
@click.option("--expires", metavar="TIME", default="24h", help="How long it is good.  [24h]")
@click.option("-q", "--quiet", is_flag=True, help="The token only.")
@click.argument("role", metavar="[worker|manager]", type=_ROLES, default="worker")
@dry_run
@click.pass_obj
def cluster_join_token(
    session: Session, *, rotate: bool, expires: str, quiet: bool, role: Role, dry_run: bool
) -> None:
    """Print a new token by which hosts join as workers, or as managers.

    It may be used by many hosts until it expires, or is rotated away.

    Example:  net cluster join-token
    Example:  net cluster join-token --rotate --expires 1h manager
    """
    seconds = seconds_of("--expires", expires)
    with session.net() as net:
        if dry_run:
            session.show_commands(net.cluster.plan_invite(rotate=rotate))
            return
        invitation = net.cluster.invite(role, rotate=rotate, seconds=seconds)
    from netlib.frontends.cli.cluster_views import invitation_view

    session.show(
        {"invitation": invitation_view(invitation)},
        invitation.token if quiet else _invited(invitation),
    )


@cluster_command.command("leave", cls=NetCommand)
@click.option(
    "-f",
    "--force",
    is_flag=True,
    help="Also with endpoints here, as the last manager, or out of the others' reach.",
)
@dry_run
@click.pass_obj
def cluster_leave(session: Session, force: bool, dry_run: bool) -> None:
    """Leave the cluster, and keep nothing of it on this host.

    With -f the sandboxes here are taken off the cluster's networks first. If the last manager
    leaves, the cluster is gone.

    Example:  net cluster leave
    """  # fmt: skip
    with session.net() as net:
        if dry_run:
            session.show_commands(net.cluster.plan_leave(force=force))
            return
        left = net.cluster.leave(force=force)
    text = f"left cluster {left[:12]}" if left else "removed the keys of a cluster it had left"
    session.show({"left": left or None}, text)


@cluster_command.command("status", cls=NetCommand)
@click.pass_obj
def cluster_status(session: Session) -> int:
    """Show this host's cluster, its managers, and whether all can be reached.

    Ends with status 3 where the host is no member, and 7 where the cluster's store does not answer.

    Example:  net cluster status
    """
    from netlib.frontends.cli.cluster_views import cluster_view
    from netlib.frontends.daemon.starting import running

    with session.net() as net:
        status = net.cluster.status()
        daemon = running(net.state_dir)
    session.show({"cluster": cluster_view(status, daemon)}, "\n".join(_lines(status, daemon)))
    return 7 if status.problem else 0


def _recover(session: Session, net: Net, *, dry_run: bool) -> None:
    from netlib.frontends.cli.cluster_views import node_view

    if dry_run:
        session.show_commands(net.cluster.plan_recover())
        return
    node = net.cluster.recover()
    _have_daemon(session, net)
    text = (
        f"{node.name} keeps the cluster's state alone; remove the managers that are lost "
        "(net node rm NAME), and let others join: net cluster join-token manager"
    )
    session.show({"node": node_view(node)}, text)


def _have_daemon(session: Session, net: Net) -> None:
    """A member needs one that keeps up with the others; tell how to have it after a boot."""
    if session.given is not None:
        return
    from netlib.frontends.daemon.starting import ensure, until_open

    try:
        if ensure(net.state_dir, session.firewall):
            session.warn(
                "a daemon was started, which a member needs; to have it after a boot: "
                "systemctl enable netlib.service netlib.socket"
            )
        until_open(net.cluster.doors.membership().listen)
        if not net.cluster.settled():
            session.warn("the daemon has not seen yet what the cluster has: net cluster status")
    except OSError as error:
        session.warn(f"a member needs a daemon, and none serves ({error}): run net daemon")


def _secret(path: str, option: str) -> str:
    """The first line of a file, or of stdin."""
    try:
        with click.open_file(path, encoding="utf-8") as file:
            return str(file.readline()).strip()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.UsageError(f"{option} {path} can't be read: {reason}.") from error


def _invited(invitation: Invitation) -> str:
    from netlib.frontends.cli.output import moment

    return (
        f"to add a {invitation.role}, run there, until {moment(invitation.expires)}:\n\n"
        f"    {invitation.command}"
    )


def _lines(status: ClusterStatus, daemon: int) -> Iterable[str]:
    from netlib.frontends.cli.output import moment, paint

    membership, cluster = status.membership, status.cluster
    yield f"cluster   {membership.cluster[:12]}"
    mine = next((one.node for one in status.nodes if one.is_self), None)
    if mine is not None:
        where = f" at {mine.data_address}" if mine.data_address != mine.address else ""
        yield f"this node {mine.id[:12]} {mine.name}, {mine.role}, {mine.availability}"
        yield f"address   {mine.address}, frames{where} by UDP port {mine.data_port}"
    if status.removed:
        yield paint("this host was removed by another member: net cluster leave -f", "red")
    yield f"daemon    {f'pid {daemon}' if daemon else paint('does not run: net daemon', 'red')}"
    if cluster is not None:
        alive = sum(one.alive for one in status.nodes)
        yield f"nodes     {len(status.nodes)}, {alive} ready"
        yield f"made      {moment(cluster.created)}"
        yield f"lease     {cluster.lease_seconds} s: who is silent for as long counts as down"
        if cluster.pools:
            yield f"pools     {', '.join(map(str, cluster.pools))}"
    for url, reach in status.servers.items():
        yield f"etcd      {url} {paint(reach, 'red') if reach == 'unreachable' else reach}"
    if status.problem:
        yield paint(f"problem   {status.problem}", "red")
