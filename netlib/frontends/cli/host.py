"""`net host status|forwarding|forward-policy`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import click

from netlib.frontends.cli.command import NetCommand, NetGroup, dry_run
from netlib.frontends.cli.session import Session
from netlib.model import Family
from netlib.verbs.host import ForwardingStatus, HostStatus


@click.group("host", cls=NetGroup, invoke_without_command=True)
@click.pass_context
def host_command(ctx: click.Context) -> None:
    """Show and set what the whole host does with packets.

    Without a further word: the status.

    Example:  net host
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(host_status)


@host_command.command("status", cls=NetCommand)
@click.pass_obj
def host_status(session: Session) -> None:
    """Show forwarding, the policy of FORWARD, and what stands in the way.

    Who switched what on, what of ours is there though no network is, and foreign chains that
    refuse what we let through, with the rule that would let us pass.

    Example:  net host status
    """
    with session.net() as net:
        status = net.host_status()
    session.show({"host": _view(status)}, "\n".join(_lines(status)))


@host_command.command("forwarding", cls=NetCommand)
@click.option("--ipv6", is_flag=True, help="IPv6 too.")
@click.option("--force", is_flag=True,
              help="Off, also when others switched it on or networks need it.")  # fmt: skip
@click.argument("switch", metavar="on|off", type=click.Choice(["on", "off"]))
@dry_run
@click.pass_obj
def host_forwarding(session: Session, ipv6: bool, force: bool, switch: str, dry_run: bool) -> None:
    """Switch forwarding on, also after a boot, or off again.

    That is sysctl net.ipv4.conf.all.forwarding; with --ipv6 that of IPv6 as well, while router
    advertisements are heard as before. Off takes back only what netlib switched on.

    Example:  net host forwarding on --ipv6
    """
    families: tuple[Family, ...] = (4, 6) if ipv6 else (4,)
    on = switch == "on"
    with session.net() as net:
        if dry_run:
            session.show_commands(net.plan.set_forwarding(families, on=on, force=force))
            return
        changed = net.set_forwarding(families, on=on, force=force)
    session.show(
        {"forwarding": switch, "changed": list(changed)},
        "\n".join(f"IPv{family} forwarding is {switch}" for family in changed),
    )


@host_command.command("forward-policy", cls=NetCommand)
@click.argument(
    "policy", metavar="accept|drop|leave", type=click.Choice(["accept", "drop", "leave"])
)
@dry_run
@click.pass_obj
def host_forward_policy(
    session: Session, policy: Literal["accept", "drop", "leave"], dry_run: bool
) -> None:
    """Set the policy of iptables' FORWARD chains, or give back what they were.

    That is `iptables -P FORWARD`. netlib leaves it alone otherwise: what its networks let
    through passes whatever the policy is. `leave` restores what was before the first change.

    Example:  net host forward-policy accept
    """
    with session.net() as net:
        if dry_run:
            session.show_commands(net.plan.set_forward_policy(policy))
            return
        changed = net.set_forward_policy(policy)
    session.show(
        {"policy": policy, "changed": dict(changed)},
        "\n".join(f"{name}: FORWARD {wanted}" for name, wanted in changed.items()),
    )


def _view(status: HostStatus) -> dict[str, object]:
    from netlib.frontends.cli.output import moment

    return {
        "firewall": status.firewall,
        "base": status.base,
        "elsewhere": list(status.elsewhere),
        "forwarding": [
            {
                "family": one.family,
                "on": one.on,
                "since": moment(one.since) if one.since is not None else None,
                "network": one.network or None,
                "kept": one.kept,
                "users": list(one.users),
            }
            for one in status.forwarding
        ],
        "policies": dict(status.policies),
        "policies_before": dict(status.policies_before),
        "obstacles": [
            {
                "where": one.where,
                "hook": one.hook,
                "why": one.why,
                "rules": list(one.rules),
                "ours_to_set": one.ours_to_set,
            }
            for one in status.obstacles
        ],
    }


def _lines(status: HostStatus) -> Iterable[str]:
    from netlib.frontends.cli.output import paint

    base = "its base is there" if status.base else "no base of ours is there"
    if status.firewall == "none":
        base = "netlib filters nothing"
    if status.elsewhere:
        base = f"rules of netlib's are in {' and '.join(status.elsewhere)}"
    yield f"firewall         {status.firewall}; {base}"
    for one in status.forwarding:
        yield f"IPv{one.family} forwarding  {'on' if one.on else 'off'}{_who(one)}"
    for program, policy in status.policies.items():
        before = status.policies_before.get(program)
        note = f" (was {before}; `net host forward-policy leave` restores it)" if before else ""
        yield f"{program} FORWARD policy {policy}{note}"
    for obstacle in status.obstacles:
        yield f"{paint('in the way:', 'yellow')} {obstacle.where} ({obstacle.hook}): {obstacle.why}"
        who = "net repair runs" if obstacle.ours_to_set else "its owner may run"
        yield from (f"    {who}: {rule}" for rule in obstacle.rules)


def _who(one: ForwardingStatus) -> str:
    from netlib.frontends.cli.output import moment

    notes = []
    if one.since is not None:
        who = f"network {one.network}" if one.network else "net host"
        notes.append(f"by {who} at {moment(one.since)}")
    elif one.on:
        notes.append("not by netlib")
    if one.kept:
        notes.append("after a boot too")
    if one.users:
        notes.append(f"needed by {', '.join(one.users)}")
    return f" ({'; '.join(notes)})" if notes else ""
