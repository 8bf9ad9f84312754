"""`net.cluster`: membership of a cluster, as methods. Each verb lives in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from netlib.cluster import founding as _founding
from netlib.cluster import joining as _joining
from netlib.cluster import leaving as _leaving
from netlib.cluster import nodes as _nodes
from netlib.cluster import recovery as _recovery
from netlib.cluster import status as _status
from netlib.cluster.doors import Doors
from netlib.cluster.member import becoming
from netlib.cluster.member import settled as _settled

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def _verb(
    act: Callable[Concatenate[Doors, P], R],
) -> Callable[Concatenate[ClusterVerbs, P], R]:
    """The method that does it by the doors it was given."""

    @wraps(act)
    def method(cluster: ClusterVerbs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return act(cluster.doors, *args, **kwargs)

    return method


def _becoming(
    prepare: Callable[Concatenate[Doors, P], T], act: Callable[[Doors, T], R]
) -> Callable[Concatenate[ClusterVerbs, P], R]:
    """The method that prepares how to become a member, and does it or leaves nothing."""

    @wraps(prepare)
    def method(cluster: ClusterVerbs, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with becoming(cluster.doors):
            return act(cluster.doors, prepare(cluster.doors, *args, **kwargs))

    method.__doc__ = act.__doc__
    return method


def _planned(
    prepare: Callable[Concatenate[Doors, P], T], plan: Callable[[Doors, T], tuple[str, ...]]
) -> Callable[Concatenate[ClusterVerbs, P], tuple[str, ...]]:
    """The method that prepares it, and hands back what it would do as commands."""

    @wraps(prepare)
    def method(cluster: ClusterVerbs, /, *args: P.args, **kwargs: P.kwargs) -> tuple[str, ...]:
        return plan(cluster.doors, prepare(cluster.doors, *args, **kwargs))

    method.__doc__ = plan.__doc__
    return method


class ClusterVerbs:
    """What a host can do about being a member of a cluster."""

    def __init__(self, doors: Doors) -> None:
        self.doors = doors

    init = _becoming(_founding.prepare, _founding.make)
    join = _becoming(_joining.prepare, _joining.join)
    settled = _verb(_settled)
    leave = _verb(_leaving.leave)
    recover = _verb(_recovery.recover)
    status = _verb(_status.status)
    invite = _verb(_status.invite)

    nodes = _verb(_nodes.listing)
    node = _verb(_nodes.inspect)
    update_node = _verb(_nodes.update)
    remove_node = _verb(_nodes.remove)

    plan_update_node = _verb(_nodes.plan_update)
    plan_remove_node = _verb(_nodes.plan_remove)
    plan_init = _planned(_founding.prepare, _founding.plan)
    plan_join = _planned(_joining.prepare, _joining.plan)
    plan_recover = _verb(_recovery.plan_recover)
    plan_invite = _verb(_status.plan_invite)
    plan_leave = _verb(_leaving.plan_leave)
