"""`net check`, `net repair` and `net gc`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.command import NetCommand, dry_run
from netlib.frontends.cli.failure import failure_of
from netlib.frontends.cli.session import Session
from netlib.plan import Plan
from netlib.verbs.check import Finding

if TYPE_CHECKING:
    from netlib.net import Net

FOUND = 1


@click.command("check", cls=NetCommand)
@click.argument("target", metavar="[NETWORK|SANDBOX]", required=False,
                shell_complete=complete.networks)  # fmt: skip
@click.pass_obj
def check_command(session: Session, target: str | None) -> int:
    """List every difference between the host and the state.

    Each with the commands that would mend it, which `net repair` does. The exit status is 1
    when there is any.

    Example:  net check
    Example:  net check my-net
    """
    from netlib.frontends.cli.views import finding_view

    with session.net() as net:
        findings = net.check(target)
        if target is None:
            findings += _agent_missing(session, net)
        firewall = net.engine.kernel.firewall if findings else ""
    session.show(
        {"findings": [finding_view(finding, firewall) for finding in findings]},
        "\n".join(_told(finding, firewall) for finding in findings),
    )
    return FOUND if findings else 0


@click.command("repair", cls=NetCommand)
@dry_run
@click.pass_obj
def repair_command(session: Session, dry_run: bool) -> int | None:
    """Make the host equal the state again.

    After a crash, a reboot, or somebody's `nft flush ruleset`. What a crash left half done is
    finished or taken back; what is not ours is not touched. With another --firewall than before
    all rules move there; with --firewall none they go, and somebody else has to filter.

    Example:  net repair
    """
    from netlib.frontends.cli.views import finding_view

    with session.net() as net, session.progress("repairing") as progress:
        done = net.plan.repair() if dry_run else net.repair(watch=progress)
        if isinstance(done, Plan):
            session.show_plan(net, done, before=_taken_away(net))
            return None
        firewall = net.engine.kernel.firewall
    failures = [(finding, failure_of(error)) for finding, error in done.failed]
    document: dict[str, object] = {
        "mended": [finding_view(finding, firewall) for finding in done.mended],
        "skipped": [finding_view(finding, firewall) for finding in done.skipped],
        "failed": [
            {**finding_view(finding, firewall), "error": failure.document()}
            for finding, failure in failures
        ],
    }
    if failures:
        document["error"] = failures[0][1].document()
    lines = [f"mended  {_told(finding, firewall)}" for finding in done.mended]
    lines += [f"left    {_told(finding, firewall)}" for finding in done.skipped]
    session.show(document, "\n".join(lines))
    if not session.json:
        for _, failure in failures:
            failure.warn()
    return failures[0][1].status if failures else 0


@click.command("gc", cls=NetCommand)
@dry_run
@click.pass_obj
def gc_command(session: Session, dry_run: bool) -> None:
    """Remove what belongs to sandboxes that have ended.

    Their endpoints, addresses, published ports and kept outputs, and whatever carries our mark
    on the host and belongs to nothing. Prints the sandboxes that were given up.

    Example:  net gc
    """
    with session.net() as net:
        done = net.plan.collect_garbage() if dry_run else net.collect_garbage()
        if isinstance(done, Plan):
            session.show_plan(net, done)
            return
        from netlib.run.background import collect_logs

        collect_logs(net)
    names = [box.name for box in done]
    session.show({"collected": names}, "\n".join(names))


def _taken_away(net: Net) -> str:
    """What becomes of the rules of other firewalls where none is to be used."""
    if net.engine.kernel.firewall != "none":
        return ""
    others = net.engine.kernel.switches().elsewhere()
    return "".join(f"host  {line}\n" for commands in others.values() for line in commands)


def _agent_missing(session: Session, net: Net) -> tuple[Finding, ...]:
    """A member's daemon keeps it alive in the cluster: what is here looks well without it, too."""
    if session.given is not None or net.cluster.doors.record() is None:
        return ()
    from netlib.frontends.daemon.starting import running

    if running(net.state_dir):
        return ()
    note = "no daemon keeps this host alive in the cluster, so others take it for dead: net daemon"
    return (Finding(subject="membership of the cluster", plan=Plan(), note=note),)


def _told(finding: Finding, firewall: str) -> str:
    """A finding as a heading with its plan below."""
    heading = f"{finding.subject}: {finding.note}" if finding.note else finding.subject
    script = finding.plan.text(firewall).splitlines() if finding.plan else []
    return "\n".join([heading, *(f"    {line}" for line in script)])
