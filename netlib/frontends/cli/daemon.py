"""`net daemon` and `net events`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import click

from netlib.frontends.cli.command import NetCommand
from netlib.frontends.cli.output import moment
from netlib.frontends.cli.session import Session


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
            click.echo(json.dumps(event))
        else:
            more = {k: v for k, v in event.items() if k not in ("time", "event")}
            words = " ".join(f"{key}={_word(value)}" for key, value in more.items() if value)
            click.echo(f"{moment(event['time'])} {event['event']} {words}".rstrip())


def _events(session: Session) -> Iterator[dict[str, Any]]:
    """From the daemon, which knows of repairs too; else from the state."""
    from netlib.frontends.daemon.events import stream
    from netlib.frontends.daemon.messages import Lost, connect
    from netlib.net import Net
    from netlib.settings import state_folder

    channel = connect(state_folder(session.state_dir))
    if channel is not None:
        try:
            channel.send({"do": "events"})
            while True:
                event = channel.receive().document.get("event")
                if event:
                    yield event
        except Lost:
            pass  # it ended: go on by ourselves
        finally:
            channel.close()
    with Net(session.state_dir) as net:
        yield from (event for event in stream(net.engine.state.store, threading.Event()) if event)


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_word(item) for item in value)
    if isinstance(value, dict) and "host_port" in value:
        return f"{value['host_port']}:{value['port']}/{value['protocol']}"
    return str(value)
