"""`net cluster status` and `join-token`: how this host's membership is, and who else may join."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from netlib.cluster import files as names
from netlib.cluster import keys, tokens
from netlib.cluster.admission import pin, token_key
from netlib.cluster.doors import Doors
from netlib.cluster.model import Cluster, Membership, Role
from netlib.cluster.nodes import NodeStatus, Reach, all_nodes, etcdctl, reach_of, statuses
from netlib.cluster.state import cluster_of
from netlib.errors import InvalidOption, NotPermitted, StoreConflict, StoreError
from netlib.records import dump
from netlib.store import Commit, Store, Unchanged, under
from netlib.values import dataclass, replace

_SHORTEST, _LONGEST = 60.0, 366 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """What this host knows of its cluster.

    `problem` says why the store can't be read: then `cluster` is None and `nodes` is empty.
    `servers` are the addresses of the store that this host knows. `removed`: other members have
    removed this host, as far as it knows.
    """

    membership: Membership
    cluster: Cluster | None
    nodes: tuple[NodeStatus, ...]
    servers: Mapping[str, Reach]
    removed: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A token, until when it is good (seconds since the epoch), and where it is shown."""

    token: str
    role: Role
    expires: float
    address: str

    @property
    def command(self) -> str:
        """What is run on the host that joins."""
        return f"net cluster join --token {self.token} {self.address}"


def status(doors: Doors) -> ClusterStatus:
    """This host's membership, and how the others are. Raises NotAMember.

    Example:  net cluster status
    """
    membership = doors.membership()
    cluster: Cluster | None = None
    nodes: tuple[NodeStatus, ...] = ()
    problem = ""
    endpoints = membership.endpoints
    # Each that is down is waited for: for all at once, and while the store is asked.
    with ThreadPoolExecutor(max(1, len(endpoints))) as pool:
        reaches = pool.map(partial(reach_of, membership), endpoints)
        try:
            with doors.store() as (_, store):
                cluster, _ = cluster_of(store)
                nodes = statuses(membership, store, all_nodes(store))
                known = {one.node.id for one in nodes}
        except StoreError as error:
            problem = str(error)
            # What its agent saw last, before the store was closed to it.
            copies = doors.engine.state.store.range(*under(keys.NODES))
            known = {record.key.removeprefix(keys.NODES) for record in copies}
        servers = dict(zip(endpoints, reaches, strict=True))
    return ClusterStatus(
        membership=membership,
        cluster=cluster,
        nodes=nodes,
        servers=servers,
        removed=bool(known) and membership.node not in known,
        problem=problem,
    )


def invite(
    doors: Doors,
    role: Role = "worker",
    *,
    rotate: bool = False,
    seconds: float = tokens.DEFAULT_SECONDS,
) -> Invitation:
    """A new token to join by; with `rotate` none that was made before is good any more.

    Managers only. Raises NotAMember, NotPermitted, InvalidOption.

    Example:  net cluster join-token worker --expires 2h
    """
    membership = _manager(doors)
    if not _SHORTEST <= seconds <= _LONGEST:
        raise InvalidOption(
            f"a token can't expire in {seconds:.0f} s", "give a minute at least, a year at most"
        )
    with doors.store() as (_, store):
        cluster = rotated(store) if rotate else cluster_of(store)[0]
    expires = float(int(doors.engine.clock() + seconds))
    token = tokens.Token(
        role=role, generation=cluster.generation, expires=expires, pin=pin(doors.files)
    )
    return Invitation(
        token=token.signed(token_key(doors.files)),
        role=role,
        expires=expires,
        address=membership.listen,
    )


def rotated(store: Store) -> Cluster:
    """The cluster, in which no token counts that was made before."""
    while True:
        cluster, revision = cluster_of(store)
        cluster = replace(cluster, generation=cluster.generation + 1)
        seen = (Unchanged(keys.CLUSTER, revision),)
        with suppress(StoreConflict):  # somebody else does the same: look again
            store.commit(Commit(conditions=seen, put={keys.CLUSTER: dump(cluster)}))
            return cluster


def plan_invite(doors: Doors, *, rotate: bool = False) -> tuple[str, ...]:
    """What `invite` would do, as commands: a token by itself changes nothing."""
    membership = _manager(doors)
    with doors.store() as (_, store):
        cluster, _ = cluster_of(store)
    text = dump(replace(cluster, generation=cluster.generation + 1))
    return (f"host  {etcdctl(membership, 'put', keys.CLUSTER, text)}",) if rotate else ()


def _manager(doors: Doors) -> Membership:
    membership = doors.membership()
    if not membership.listen or not doors.files.there(names.TOKEN_KEY):
        raise NotPermitted(
            "this host is a worker, and only managers let others join",
            "run it on a manager; net node ls shows which they are",
        )
    return membership
