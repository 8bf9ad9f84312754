"""`net rules`."""

from __future__ import annotations

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.command import NetCommand
from netlib.frontends.cli.session import Session


@click.command("rules", cls=NetCommand)
@click.argument("network", required=False, shell_complete=complete.networks)
@click.pass_obj
def rules_command(session: Session, network: str | None) -> None:
    """Show what the firewall is told, why, and what is missing.

    The facts of every network and endpoint, or of one network's, with the reason for each and
    whether the kernel has it. PACKETS are those that met it, the first ones of connections
    mostly. docs/rules.md tells how a backend renders them.

    Example:  net rules my-net
    """
    with session.net() as net:
        facts = net.facts(network)
        firewall = net.engine.kernel.firewall if session.json else ""
    if session.json:
        from netlib.codec import to_json

        documents = [
            {
                "network": fact.network,
                "sandbox": fact.sandbox or None,
                "fact": fact.what,
                "reason": fact.reason,
                "presence": fact.presence,
                "packets": fact.met.packets if fact.met else None,
                "bytes": fact.met.bytes if fact.met else None,
                "noun": to_json(fact.noun),
            }
            for fact in facts
        ]
        session.show({"firewall": firewall, "facts": documents})
        return
    from netlib.frontends.cli.output import paint, table

    rows = [
        (
            fact.network,
            fact.sandbox or "-",
            fact.what,
            fact.presence if fact.presence == "present" else paint(fact.presence, "red"),
            str(fact.met.packets) if fact.met else "-",
            fact.reason,
        )
        for fact in facts
    ]
    session.show({}, table(("NETWORK", "SANDBOX", "FACT", "KERNEL", "PACKETS", "WHY"), rows))
