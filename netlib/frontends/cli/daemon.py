"""`net daemon` and `net events`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import click

from netlib.frontends.cli.command import NetCommand
from netlib.frontends.cli.output import moment
from netlib.frontends.cli.session import SCHEMA, Session


@click.command("daemon", cls=NetCommand)
@click.option("--trace-timing", is_flag=True, help="Tell on stderr what each step costs.")
@click.pass_obj
def daemon_command(session: Session, trace_timing: bool) -> None:
    """Serve commands and runtimes from a warm process.

    It listens on netlib.sock in the state's folder, mends what others break, and holds
    published ports. Commands work without it, only slower. SIGTERM ends it when what is under
    way is done; no packet notices.

    Example: net daemon
    """
    from netlib.frontends.daemon.run import run

    run(session.state_dir, firewall=session.firewall, trace_timing=trace_timing)


@click.command("events", cls=NetCommand)
@click.pass_obj
def events_command(session: Session) -> None:
    """Show what happens to networks and endpoints.

    Until it is interrupted: create, update and remove of networks; connect, disconnect,
    publish and unpublish of endpoints; and, where a daemon runs, repair. With --json a
    document a line.

    Example: net events
    """
    for event in _events(session):
        if session.json:
            told = {"version": SCHEMA, **event, "time": moment(event["time"])}
            click.echo(json.dumps(told))
        else:
            more = {k: v for k, v in event.items() if k not in ("time", "event")}
            words = " ".join(f"{key}={_word(value)}" for key, value in more.items() if value)
            click.echo(f"{moment(event['time'])} {event['event']} {words}".rstrip())


def _events(session: Session) -> Iterator[dict[str, Any]]:
    """Changes from the state, so that none is missed when a daemon ends; repairs from a daemon."""
    from netlib.frontends.daemon.events import Repairs, stream
    from netlib.net import Net

    with Net(session.state_dir) as net, Repairs(net.state_dir) as repairs:
        for event in stream(net.engine.state.store, threading.Event()):
            yield from repairs.told()
            if event:
                yield event


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_word(item) for item in value)
    if isinstance(value, dict) and "host_port" in value:
        return f"{value['host_port']}:{value['port']}/{value['protocol']}"
    return str(value)
