"""`net cluster init --force-new-cluster`: a manager goes on without those that are lost."""

from __future__ import annotations

import shlex

from netlib.cluster import member
from netlib.cluster.doors import Doors
from netlib.cluster.model import Node
from netlib.cluster.nodes import SELF, find
from netlib.cluster.server import Server
from netlib.errors import InvalidRequest
from netlib.keys import MEMBERSHIP_KEY
from netlib.records import dump
from netlib.store import Commit
from netlib.values import replace


def recover(doors: Doors) -> Node:
    """Make this manager's etcd the only server of the cluster's store; all records stay.

    For when so many managers are lost that the rest can't decide anything. Those must not come
    back as they were: remove them, and let them join anew. Raises NotAMember, InvalidRequest.

    Example:  net cluster init --force-new-cluster
    """
    with doors.alone():
        membership, server = doors.membership(), _server(doors)
        alone = replace(membership, endpoints=(server.client_url(),))
        server.stop()
        server.alone(forced=True)
        try:
            member.start(doors, alone)
        finally:
            server.alone(forced=False)
        doors.engine.state.store.commit(Commit(put={MEMBERSHIP_KEY: dump(alone)}))
        store = doors.open_store(alone)
        try:
            return find(store, alone, SELF)[0]
        finally:
            store.close()


def plan_recover(doors: Doors) -> tuple[str, ...]:
    """What `recover` would do, as commands."""
    server = _server(doors)
    pid = server.pid()
    start = f"host  {shlex.join(server.command())} --force-new-cluster"
    return (*((f"host  kill {pid}",) if pid else ()), start)


def _server(doors: Doors) -> Server:
    if not doors.membership().supervised:
        raise InvalidRequest(
            "this host runs no server of the cluster's store",
            "run it on a manager that is left; an etcd of your own is recovered by its own tools",
        )
    return Server(doors.files.folder)
