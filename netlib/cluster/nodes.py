"""`net node`: the members of a cluster as all of them see it, changed and removed."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Literal, get_args

from netlib.cluster import keys
from netlib.cluster.doors import Doors
from netlib.cluster.etcd_members import EtcdMembers
from netlib.cluster.member import records_of
from netlib.cluster.model import Availability, Membership, Node, Role, SharedEndpoint
from netlib.cluster.server import client_url
from netlib.cluster.state import cluster_of
from netlib.errors import (
    InvalidOption,
    InvalidRequest,
    LastManager,
    NetError,
    NodeAlive,
    NoSuchNode,
    StoreConflict,
)
from netlib.filters import Maker, label_test, matcher
from netlib.keys import address_key
from netlib.records import dump, load_as
from netlib.store import Commit, Record, Store, Unchanged, under
from netlib.values import dataclass, replace

Reach = Literal["leader", "reachable", "unreachable", ""]
SELF = "self"
_STATUS_SECONDS = 2.0
_TRIES = 10
_AT_ONCE = 16
_BATCH = 1000  # keys that are removed in one commit


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """A node, whether its agent lives, and how its server of the store is (managers only).

    `is_self`: it is the host that was asked.
    """

    node: Node
    alive: bool
    reach: Reach
    is_self: bool


def listing(doors: Doors, filters: Iterable[str] = ()) -> tuple[NodeStatus, ...]:
    """The members that fit, oldest first. Raises NotAMember, InvalidRequest.

    `filters` are `KEY=VALUE`: id (its start), name (a part), role, availability, label, status.

    Example:  net node ls --filter role=worker
    """
    fits = matcher(filters, _FILTERS, doors.engine.clock())
    with doors.store() as (membership, store):
        return tuple(one for one in statuses(membership, store, all_nodes(store)) if fits(one))


def _one_of(
    what: str, values: tuple[str, ...], of: Callable[[NodeStatus], str]
) -> Maker[NodeStatus]:
    """The filter of what has few values."""

    def test(value: str, _now: float) -> Callable[[NodeStatus], bool]:
        if value not in values:
            raise InvalidRequest(f"there is no {what} {value!r}", f"use {' or '.join(values)}")
        return lambda seen: of(seen) == value

    return test


def _has_label(value: str, _now: float) -> Callable[[NodeStatus], bool]:
    fits = label_test(value)
    return lambda seen: fits(seen.node.labels)


_FILTERS: Mapping[str, Maker[NodeStatus]] = {
    "id": lambda value, _: lambda seen: seen.node.id.startswith(value.lower()),
    "name": lambda value, _: lambda seen: value in seen.node.name,
    "role": _one_of("role", get_args(Role), lambda seen: seen.node.role),
    "availability": _one_of(
        "availability", get_args(Availability), lambda seen: seen.node.availability
    ),
    "status": _one_of("status", ("ready", "down"), lambda seen: "ready" if seen.alive else "down"),
    "label": _has_label,
}


def inspect(doors: Doors, reference: str = SELF) -> NodeStatus:
    """A member by name, id, unique start of it, or `self`. Raises NoSuchNode.

    Example:  net node inspect host-2
    """
    with doors.store() as (membership, store):
        (found,) = statuses(membership, store, [find(store, membership, reference)[0]])
        return found


def update(
    doors: Doors,
    reference: str,
    *,
    availability: Availability | None = None,
    add_labels: Mapping[str, str] | None = None,
    remove_labels: Iterable[str] = (),
) -> Node:
    """Change a member's availability and labels; as it is then. Raises NoSuchNode.

    `pause` gives a host no new endpoints, `drain` takes those away that it has.

    Example:  net node update --availability drain host-2
    """
    with doors.store() as (membership, store):
        for _ in range(_TRIES):
            node, revision = find(store, membership, reference)
            changed = _changed(node, availability, add_labels or {}, set(remove_labels))
            key = keys.node(node.id)
            with suppress(StoreConflict):  # somebody else changed it: look again
                store.commit(
                    Commit(conditions=(Unchanged(key, revision),), put={key: dump(changed)})
                )
                return changed
    raise StoreConflict(key)


def plan_update(
    doors: Doors,
    reference: str,
    *,
    availability: Availability | None = None,
    add_labels: Mapping[str, str] | None = None,
    remove_labels: Iterable[str] = (),
) -> tuple[str, ...]:
    """What `update` would do, as commands."""
    with doors.store() as (membership, store):
        node, _ = find(store, membership, reference)
        changed = _changed(node, availability, add_labels or {}, set(remove_labels))
        return (f"host  {etcdctl(membership, 'put', keys.node(node.id), dump(changed))}",)


def remove(doors: Doors, reference: str, *, force: bool = False) -> Node:
    """Take a member that is down off the cluster; with `force` one that is up as well.

    What it had is free again. Raises NoSuchNode, NodeAlive, LastManager.

    Example:  net node rm host-3
    """
    with doors.store() as (membership, store):
        node = _removable(store, membership, reference, force=force)
        if node.role == "manager":
            remove_server(membership, node)
        forget(store, node)
        return node


def plan_remove(doors: Doors, reference: str, *, force: bool = False) -> tuple[str, ...]:
    """What `remove` would do, as commands."""
    with doors.store() as (membership, store):
        node = _removable(store, membership, reference, force=force)
        return tuple(f"host  {etcdctl(membership, 'del', key)}" for key in records_of(node))


def _changed(
    node: Node, availability: str | None, labels: Mapping[str, str], gone: set[str]
) -> Node:
    chosen = node.availability if availability is None else check_availability(availability)
    unknown = gone - node.labels.keys()
    if unknown:
        raise InvalidRequest(
            f"{node.name} has no label {', '.join(sorted(unknown))}",
            f"see: net node inspect {node.name}",
        )
    kept = {key: value for key, value in node.labels.items() if key not in gone}
    return replace(node, availability=chosen, labels={**kept, **labels})


def _removable(store: Store, membership: Membership, reference: str, *, force: bool) -> Node:
    node, _ = find(store, membership, reference)
    if node.id == membership.node:
        raise InvalidRequest(
            f"{node.name} is this host itself", "it leaves with: net cluster leave"
        )
    if not force and store.get(keys.alive(node.id)) is not None:
        raise NodeAlive(
            f"{node.name} is up",
            "have it leave there with: net cluster leave; or remove it anyway with -f",
        )
    return node


# -- what other verbs use -----------------------------------------------------------------------


def check_availability(text: str) -> Availability:
    """An availability, or InvalidOption."""
    for known in get_args(Availability):
        if text == known:
            chosen: Availability = known
            return chosen
    raise InvalidOption(
        f"there is no availability {text!r}", f"use one of: {', '.join(get_args(Availability))}"
    )


def etcdctl(membership: Membership, *words: str) -> str:
    """A command line that does to the cluster's store what we do, for plans."""
    verb, key, *value = words
    urls = ",".join(membership.endpoints)
    return shlex.join(["etcdctl", "--endpoints", urls, verb, membership.prefix + key, *value])


def all_nodes(store: Store) -> list[Node]:
    """Every member, oldest first."""
    found = [load_as(Node, record.value) for record in store.range(*under(keys.NODES))]
    return sorted(found, key=lambda node: (node.joined, node.name))


def find(store: Store, membership: Membership, reference: str) -> tuple[Node, int]:
    """A member that a reference names, and the revision of its record. Raises NoSuchNode."""
    named = store.get(keys.node_name(reference)) if reference else None
    wanted = named.value if named else membership.node if reference == SELF else reference
    if wanted and all(c in "0123456789abcdef" for c in wanted):
        found = store.range(*under(keys.node(wanted)), limit=2)
        if len(found) > 1:
            raise NoSuchNode(
                f"several nodes' ids start with {reference!r}", "give more digits of the id"
            )
        if found:
            return load_as(Node, found[0].value), found[0].revision
    if reference == SELF:
        raise NoSuchNode(
            "this host was removed from the cluster by another member",
            "run here: net cluster leave -f; then it may join again",
        )
    close = difflib.get_close_matches(reference, [node.name for node in all_nodes(store)], n=3)
    near = f"did you mean {' or '.join(close)}? " if close else ""
    raise NoSuchNode(f"there is no node {reference!r}", f"{near}see: net node ls")


def statuses(membership: Membership, store: Store, nodes: Sequence[Node]) -> tuple[NodeStatus, ...]:
    """How these members are."""
    living = {record.key for record in store.range(*under(keys.ALIVE))}
    cluster, _ = cluster_of(store)

    def reach(node: Node) -> Reach:
        if node.role == "worker":
            return ""
        if cluster.external:  # what it does for others is done by its daemon
            return "reachable" if keys.alive(node.id) in living else "unreachable"
        return reach_of(membership, client_url(node.address))

    # Each that is down is waited for: for all at once.
    with ThreadPoolExecutor(max(1, min(len(nodes), _AT_ONCE))) as pool:
        reaches = list(pool.map(reach, nodes))
    return tuple(
        NodeStatus(
            node=node,
            alive=keys.alive(node.id) in living,
            reach=found,
            is_self=node.id == membership.node,
        )
        for node, found in zip(nodes, reaches, strict=True)
    )


def reach_of(membership: Membership, url: str) -> Reach:
    """How the server of the store at a URL is."""
    try:
        status = EtcdMembers(membership, seconds=_STATUS_SECONDS).status(url)
        leader = int(status.get("leader", 0))
        return "leader" if leader == int(status["header"]["member_id"]) else "reachable"
    except (NetError, KeyError, TypeError, ValueError):
        return "unreachable"


def remove_server(membership: Membership, node: Node) -> None:
    """Have the other servers of the store expect a manager's no more. Raises LastManager."""
    etcd = EtcdMembers(membership)
    known = etcd.all()
    mine = [one for one in known if one.name == node.id]
    if mine and not any(one.name != node.id and not one.learner for one in known):
        raise LastManager(
            f"{node.name} runs the only server of the cluster's store",
            "let another manager join first: net cluster join-token manager",
        )
    for one in mine:
        etcd.remove(one.id)


def forget(store: Store, node: Node) -> None:
    """Remove all that the cluster knows of a node, and let its certificate count no more.

    That it was removed is written down first, and where certificates are somebody else's, too:
    by that a host knows it from a store that was put back to before it joined.
    """
    store.commit(Commit(put={keys.revoked(node.id): node.name}))
    store.commit(Commit(put={}, delete=records_of(node)))
    for _ in range(_TRIES):
        gone = _standing(store, node)
        if not gone:
            return
        for start in range(0, len(gone), _BATCH):
            some = gone[start : start + _BATCH]
            seen = tuple(Unchanged(one.key, one.revision) for one in some)
            # One that lives gives up, too, and others may have that by now: look again.
            with suppress(StoreConflict):
                store.commit(Commit(conditions=seen, put={}, delete=tuple(one.key for one in some)))
    raise StoreConflict(gone[0].key)


def _standing(store: Store, node: Node) -> list[Record]:
    """What stands in a cluster's networks for a node."""
    found = []
    for record in (*store.range(*under("endpoint/")), *store.range(*under("host/"))):
        one = load_as(SharedEndpoint, record.value)
        if one.node == node.id:
            leases = (store.get(address_key(one.network, a.ip)) for a in one.addresses)
            found += [record, *(lease for lease in leases if lease and one.id in lease.value)]
    return found
