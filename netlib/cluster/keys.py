"""What the keys of the cluster's store are, and what each of them says.

cluster                          what all members have in common
node/<id>                        a node
node-name/<name>, node-address/<address>   the one node that has a name, or takes frames there
revoked/<node>                   that a node's certificate counts no more
alive/<node>                     that a node's agent lives                                 (leased)
network/<id>, name/<name>        a network as all hosts see it, and whose that name is
pool/cluster/<4|6>/<first, hex>  a network's prefix
vni/<number>                     the network that has this VNI;  cursor/vni: the one given last
host/<network>/<node>            a host that takes part, with its own addresses there      (leased)
endpoint/<network>/<id>          an endpoint, as other hosts see it                        (leased)
lease/<network>/<address, hex>   who holds an address                                      (leased)

What is leased goes with its node's lease. Keys that a host's own store has as well are made by
netlib.keys.
"""

from __future__ import annotations

from netlib.ipam import lease_key
from netlib.keys import part
from netlib.model import IPAddress
from netlib.store import under

CLUSTER = "cluster"
NODES = "node/"
ALIVE = "alive/"
REVOKED = "revoked/"
POOLS = "cluster"
VNIS = "vni/"
VNI_CURSOR = "cursor/vni"
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


def vni(number: int) -> str:
    """Where it is kept which network has a VNI."""
    return f"{VNIS}{number:08d}"


def host(network_id: str, node_id: str) -> str:
    """Where it is kept that a host takes part in a network."""
    return f"host/{network_id}/{node_id}"
