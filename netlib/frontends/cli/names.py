"""`net dns query|stats|log`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import click

from netlib.frontends.cli import complete
from netlib.frontends.cli.command import NetCommand, NetGroup
from netlib.frontends.cli.session import SCHEMA, Session

# What a script is told of an answer; of any other code that it failed.
_STATUS = {"NOERROR": 0, "NXDOMAIN": 3}


@click.group("dns", cls=NetGroup)
def dns_command() -> None:
    """Ask for names as a sandbox does, and see what is asked.

    Example:  net dns query db --from web
    """


@dns_command.command("query", cls=NetCommand)
@click.option("--from", "sandbox", metavar="SANDBOX", required=True,
              shell_complete=complete.sandboxes, help="Who asks.")  # fmt: skip
@click.argument("name")
@click.argument("type_", metavar="[TYPE]", default="")
@click.pass_obj
def dns_query(session: Session, sandbox: str, name: str, type_: str) -> int:
    """Show what a sandbox is told when it asks for a name: A, AAAA, PTR, SRV, ...

    An address is asked for its name.
    Its own name servers are asked, from inside its network namespace. The exit status is 3
    when there is no such name, and 1 when the answer is an error (SERVFAIL, REFUSED).

    Example:  net dns query db --from web
    Example:  net dns query _http._tcp.web SRV --from web
    Example:  net dns query 198.51.100.2 --from web
    """
    with session.net() as net:
        told = net.ask(name, type_, sandbox=sandbox)
    session.show(
        {
            "name": told.name,
            "type": told.type,
            "code": told.code,
            "answers": [
                {"name": one.name, "ttl": one.ttl, "type": one.type, "data": one.data}
                for one in told.answers
            ],
            "authoritative": told.authoritative,
            "server": told.server,
            "milliseconds": told.milliseconds,
        },
        "\n".join(f"{one.name} {one.ttl} {one.type} {one.data}" for one in told.answers)
        or f"{told.code}: no {told.type} for {told.name}",
    )
    return _STATUS.get(told.code, 1)


@dns_command.command("stats", cls=NetCommand)
@click.pass_obj
def dns_stats(session: Session) -> None:
    """Show what the resolver was asked and answered since it started.

    Queries, answers by code, answers of others that are kept, servers that say nothing, and the
    names asked for most.

    Example:  net dns stats
    """
    with session.net() as net:
        stats = net.resolver_stats()
    session.show(
        {"resolver": stats},
        "\n".join(_lines(stats)) if stats else "no resolver runs: no network has names",
    )


@dns_command.command("log", cls=NetCommand)
@click.pass_obj
def dns_log(session: Session) -> None:
    """Show each query as it comes, with who asks and what became of it, until Ctrl-C.

    Queries that come faster than they can be written are left out. With --json a document a
    line.

    Example:  net dns log
    """
    with session.net() as net:
        for line in net.resolver_log():
            if session.json:
                click.echo(json.dumps({"version": SCHEMA, **line}))
            else:
                click.echo(f"{line['asker']} {line['name']} {line['kind']} {line['outcome']}")


def _lines(stats: Mapping[str, Any]) -> Iterable[str]:
    answers = ", ".join(f"{count} {code}" for code, count in stats["answers"].items())
    yield f"queries    {stats['queries']}{f' ({answers})' if answers else ''}"
    cache = stats["cache"]
    yield f"forwarded  {stats['forwarded']}, {stats['in_flight']} in flight"
    for each in stats["silent"]:
        whose = f" of {each['sandbox']}" if each["sandbox"] else ""
        yield f"silent     {each['server']}{whose} ({each['times']} unanswered)"
    yield f"kept       {cache['entries']}, used {cache['hits']} times"
    processes = f"server {stats['pid']}, keeper {stats['keeper_pid']}"
    yield f"processes  {processes}, {stats['restarts']} restarts"
    for name, count in stats["names"].items():
        yield f"{count:>10} {name}"
