"""Which keys of the cluster's store are about its members. Those of networks: cluster.state."""

from __future__ import annotations

from netlib.ipam import lease_key
from netlib.keys import part
from netlib.model import IPAddress
from netlib.store import under

CLUSTER = "cluster"
NODES = "node/"
ALIVE = "alive/"
REVOKED = "revoked/"
# Who holds an address goes with the endpoint or host that has it, which everybody is told of; to
# be told of that, too, would cost the store as much again.
UNTOLD = ("lease/",)
# Every key there can be: printable ASCII, and none starts with the last of it.
EVERYTHING = (("!", "lease/"), under("lease/"), (under("lease/")[1], "~"))


def node(node_id: str) -> str:
    """Where a node is kept."""
    return f"{NODES}{node_id}"


def node_name(name: str) -> str:
    """Where it is kept which node has a name."""
    return f"node-name/{part(name)}"


def data_address(address: IPAddress) -> str:
    """Where it is kept which node takes tunnelled frames at an address."""
    return f"node-address/{lease_key(address)}"


def alive(node_id: str) -> str:
    """What is there while a node's agent lives."""
    return f"{ALIVE}{node_id}"


def revoked(node_id: str) -> str:
    """What is there when a node's certificate counts no more."""
    return f"{REVOKED}{node_id}"
