"""What a member keeps of the cluster in its own store: which keys these are.

node/<id>                        a node
offer/<network>                  a network that this host may take up, or has
peer/<network>/<endpoint>        an endpoint elsewhere of a network that this host has taken up
place/<network>/<address, hex>   which of those has an address
clash/<network>/<endpoint>       an endpoint here whose address another host's has got
behind/<network>/why             why a network here is not as the cluster has it
look/<network>                   that the cluster or this host may have of it what it should not
cluster/lease                    the lease that claims of this host go with
cluster/seen                     the revision up to which these copies are made
cluster/away                     since when, and why, the cluster is not told that this host lives
cluster/wiring                   what this host has for being a member, whatever its networks
"""

from __future__ import annotations

LEASE_KEY = "cluster/lease"
SEEN_KEY = "cluster/seen"
AWAY_KEY = "cluster/away"
WIRING_KEY = "cluster/wiring"
LOOKS = "look/"
COPIES = ("node/", "offer/", "peer/", "place/", "clash/", "behind/", LOOKS)


def node_key(node_id: str) -> str:
    """Where the host's copy of a node is."""
    return f"node/{node_id}"


def offer_key(network_id: str) -> str:
    """Where the host's copy of a network of the cluster's is."""
    return f"offer/{network_id}"


def peer_key(network_id: str, endpoint_id: str) -> str:
    """Where the host's copy of an endpoint elsewhere is."""
    return f"peer/{network_id}/{endpoint_id}"


def peers_thing(network_id: str) -> str:
    """What an operation holds that changes what the host knows of a network's peers."""
    return f"peer/{network_id}"


def clash_key(network_id: str, endpoint_id: str) -> str:
    """Where it is kept that an endpoint here has lost its address to another host's."""
    return f"clash/{network_id}/{endpoint_id}"


def behind_key(network_id: str) -> str:
    """Where it is kept why a network here is not as the cluster has it."""
    return f"behind/{network_id}/why"


def look_key(network_id: str) -> str:
    """Where it is kept that this host's agent has to look at a network, though nobody told it."""
    return f"{LOOKS}{network_id}"
