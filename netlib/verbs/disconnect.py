"""Take a sandbox off a network."""

from __future__ import annotations

from netlib.engine import Engine
from netlib.errors import NetError
from netlib.model import Sandbox
from netlib.plan import Plan, joined
from netlib.records import EndpointRecord
from netlib.verbs.departing import depart, leave


def disconnect(
    engine: Engine, network: str, sandbox: str | Sandbox, *, force: bool = False
) -> None:
    """Take a sandbox off a network; its address is free once the link is gone.

    The default route moves to the sandbox's next endpoint. Works for a sandbox that has
    ended too. `force`: forget the endpoint even if parts of it can't be removed.

    Raises NoSuchNetwork, NotConnected, LeftOver.

    Example:  net disconnect my-net web
    """
    for record in _between(engine, network, sandbox):
        depart(engine, record, force=force)


def plan_disconnection(
    engine: Engine, network: str, sandbox: str | Sandbox, *, force: bool = False
) -> Plan:
    """What `disconnect` would do."""
    engine.settle(act=False)
    records = _between(engine, network, sandbox)
    return joined(leave(engine, record, force=force).plan for record in records)


def _between(engine: Engine, network: str, sandbox: str | Sandbox) -> list[EndpointRecord]:
    """The endpoints, oldest first. Raises NoSuchNetwork, NotConnected."""
    known = engine.state.network(network).network
    name = sandbox.name if isinstance(sandbox, Sandbox) else _name(engine, sandbox)
    engine.state.endpoint(known, name)
    return engine.state.endpoints_between(known.id, name)


def _name(engine: Engine, reference: str) -> str:
    """The state's name of a sandbox, also when the sandbox itself is gone."""
    found = engine.state.find_sandbox(reference)
    if found is not None:
        return engine.state.owner(found).name
    try:
        return engine.sandbox(reference).name
    except NetError:
        return reference  # then it is not connected, which is what the caller is told
