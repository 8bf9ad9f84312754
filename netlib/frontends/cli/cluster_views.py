"""The JSON of `net cluster` and `net node`, see docs/json.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netlib.frontends.cli.output import moment

if TYPE_CHECKING:
    from netlib.cluster.model import Node
    from netlib.cluster.nodes import NodeStatus
    from netlib.cluster.status import ClusterStatus, Invitation


def node_view(node: Node) -> dict[str, Any]:
    """A host of a cluster."""
    return {
        "id": node.id,
        "name": node.name,
        "role": node.role,
        "availability": node.availability,
        "address": str(node.address),
        "data_address": str(node.data_address),
        "data_port": node.data_port,
        "join_port": node.join_port if node.role == "manager" else None,
        "version": node.version,
        "labels": dict(node.labels),
        "joined": moment(node.joined),
    }


def node_status_view(status: NodeStatus) -> dict[str, Any]:
    """A host of a cluster, and how it is."""
    return {
        **node_view(status.node),
        "status": "ready" if status.alive else "down",
        "manager_status": status.reach or None,
        "self": status.is_self,
    }


def invitation_view(invitation: Invitation) -> dict[str, Any]:
    """A token to join by."""
    return {
        "token": invitation.token,
        "role": invitation.role,
        "expires": moment(invitation.expires),
        "address": invitation.address,
        "command": invitation.command,
    }


def cluster_view(status: ClusterStatus, daemon: int) -> dict[str, Any]:
    """A host's cluster; `daemon` is the daemon's process id, or 0."""
    cluster = status.cluster
    return {
        "id": status.membership.cluster,
        "node": status.membership.node,
        "removed": status.removed,
        "daemon": daemon or None,
        "servers": dict(status.servers),
        "problem": status.problem or None,
        "nodes": [node_status_view(one) for one in status.nodes],
        "created": moment(cluster.created) if cluster else None,
        "data_port": cluster.data_port if cluster else None,
        "lease_seconds": cluster.lease_seconds if cluster else None,
        "pools": [str(pool) for pool in cluster.pools] if cluster else None,
        "external": cluster.external if cluster else None,
    }
