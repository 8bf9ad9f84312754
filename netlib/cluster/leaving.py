"""`net cluster leave`: this host is a member no more, and keeps nothing of it."""

from __future__ import annotations

import time
from contextlib import suppress
from ipaddress import ip_address

from netlib.cluster import keys, member
from netlib.cluster.addresses import place
from netlib.cluster.copies import COPIES, LEASE_KEY, SEEN_KEY
from netlib.cluster.doors import Doors
from netlib.cluster.model import JOIN_PORT, Membership, Node
from netlib.cluster.nodes import SELF, all_nodes, etcdctl, find, forget, remove_server
from netlib.cluster.server import client_url
from netlib.engine import Engine
from netlib.errors import (
    DriverError,
    InUse,
    LastManager,
    NoSuchNode,
    NotAMember,
    StoreError,
    UnknownDriver,
)
from netlib.keys import MEMBERSHIP_KEY
from netlib.model import Network
from netlib.operation import Operation
from netlib.records import NetworkRecord
from netlib.store import Commit, under
from netlib.values import replace
from netlib.verbs.departing import leave as take_off
from netlib.verbs.peers import be_nobody
from netlib.verbs.remove import dissolve

_NOTICE_SECONDS, _PAUSE_SECONDS = 5.0, 0.02


def leave(doors: Doors, *, force: bool = False) -> str:
    """Give up this host's membership, its keys, and if it is a manager its server of the store.

    The id of the cluster; nothing where only keys were left of one.

    A host that sandboxes use the cluster's networks on, the last manager, and one that does not
    reach the cluster leave with `force` only. Raises NotAMember, InUse, LastManager, StoreError.

    Example:  net cluster leave
    """
    with doors.alone():
        if _has_left(doors, force=force):
            member.give_up(doors)
            return ""
        membership = doors.membership()
        networks = _global_networks(doors.engine)
        _check_unused(doors.engine, networks, force=force)
        try:
            node = _check_others(doors, membership, force=force)
        except StoreError as error:
            if not force:
                hint = "it can leave without the others' knowledge: net cluster leave -f"
                raise StoreError(error.message, hint) from error
            node = None
        for record in networks:
            _take_down(doors.engine, record)
        if node is not None:
            try:
                _tell_others(doors, membership, node)
            except StoreError as error:
                if not force:
                    raise
                doors.engine.warn(
                    f"the other members still know this host ({error.message}); run on one of "
                    f"them: net node rm -f {node.name}"
                )
        doors.engine.state.store.commit(
            Commit(
                put={},
                delete=(MEMBERSHIP_KEY, LEASE_KEY, SEEN_KEY),
                delete_ranges=tuple(under(prefix) for prefix in COPIES),
            )
        )
        for record in _global_networks(doors.engine):  # who came before the others knew
            _take_down(doors.engine, record)
        _until_closed(doors, membership)
        doors.engine.run(lambda: be_nobody(doors.engine))
        member.give_up(doors)
        return membership.cluster


def plan_leave(doors: Doors, *, force: bool = False) -> tuple[str, ...]:
    """What `leave` would do, as commands."""
    if _has_left(doors, force=force):
        return (f"host  rm -r {doors.files.folder}",)
    membership = doors.membership()
    networks = _global_networks(doors.engine)
    _check_unused(doors.engine, networks, force=force)
    with suppress(StoreError):
        _check_others(doors, membership, force=force)
    lines = []
    for record in networks:
        for one in doors.engine.state.endpoints(record.network.id):
            lines.append(f"host  net disconnect {record.network.name} {one.endpoint.sandbox.name}")
    lines.append(f"host  {etcdctl(membership, 'del', keys.node(membership.node))}")
    return (*lines, f"host  rm -r {doors.files.folder}")


def _has_left(doors: Doors, *, force: bool) -> bool:
    """Whether only keys, and an etcd maybe, are left: who left, or tried to join, was killed.

    Or the state was lost, and they are all that is left of a cluster: so not unasked.
    """
    folder = doors.files.folder
    if doors.record() is not None or not folder.exists():
        return False
    if not force:
        raise NotAMember(
            f"this host is not a member of a cluster, and has keys of one in {folder}",
            "if they are not needed any more: net cluster leave -f",
        )
    return True


def _until_closed(doors: Doors, membership: Membership) -> None:
    """Wait until this host's daemon lets nobody in any more, as it does when it notices."""
    if not membership.listen:
        return
    host, port = place(membership.listen, JOIN_PORT, "the address")
    deadline = time.monotonic() + _NOTICE_SECONDS
    while doors.engine.kernel.port_user("tcp", ip_address(host), port, 1) is not None:
        if time.monotonic() > deadline:
            return  # a daemon that hangs, or somebody else by now
        time.sleep(_PAUSE_SECONDS)


def _global_networks(engine: Engine) -> list[NetworkRecord]:
    """The networks here that span hosts."""
    return [record for record in engine.state.networks() if _is_global(engine, record.network)]


def _is_global(engine: Engine, network: Network) -> bool:
    try:
        return engine.driver(network).capabilities.scope == "global"
    except (UnknownDriver, DriverError):
        return False


def _check_unused(engine: Engine, networks: list[NetworkRecord], *, force: bool) -> None:
    users = [
        f"{record.endpoint.sandbox.name} on {network.network.name}"
        for network in networks
        for record in engine.state.endpoints(network.network.id)
    ]
    if users and not force:
        raise InUse(
            f"sandboxes use the cluster's networks here: {', '.join(users)}",
            "disconnect them first, or have it done: net cluster leave -f",
        )


def _check_others(doors: Doors, membership: Membership, *, force: bool) -> Node | None:
    """This host's node; None where the others have removed it. Raises LastManager, StoreError."""
    store = doors.open_store(membership)
    try:
        node, _ = find(store, membership, SELF)
        nodes = all_nodes(store)
    except NoSuchNode:
        return None
    finally:
        store.close()
    others = [one for one in nodes if one.role == "manager" and one.id != node.id]
    if node.role == "manager" and not others and not force:
        rest = len(nodes) - 1
        raise LastManager(
            "this host is the only manager: the cluster ends with it"
            + (f", for {rest} more nodes" if rest else ""),
            "let another manager join first (net cluster join-token manager); or end the "
            "cluster: net cluster leave -f",
        )
    return node


def _take_down(engine: Engine, record: NetworkRecord) -> None:
    """Take all sandboxes off a network, and the network off this host."""
    for one in engine.state.endpoints(record.network.id):
        name = one.endpoint.sandbox.name

        def prepare(name: str = name) -> Operation[None]:
            return take_off(engine, engine.state.endpoint(record.network, name), force=True)

        engine.run(prepare)
    engine.run(lambda: dissolve(engine, engine.state.network(record.network.id)))


def _tell_others(doors: Doors, membership: Membership, node: Node) -> None:
    """Have the cluster forget this host, by way of a server that stays."""
    mine = client_url(node.address) if membership.supervised else ""
    others = tuple(url for url in membership.endpoints if url != mine)
    if membership.supervised and not others:
        return  # the cluster ends
    there = replace(membership, endpoints=others)
    if membership.supervised:
        remove_server(there, node)
    store = doors.open_store(there)
    try:
        if [one.id for one in all_nodes(store)] == [node.id]:
            # The cluster ends, in a store that goes on: it may be used for another.
            store.commit(Commit(put={}, delete_ranges=keys.EVERYTHING))
        else:
            forget(store, node)
    finally:
        store.close()
