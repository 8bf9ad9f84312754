"""What a host makes of the other hosts of its cluster. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from netlib.cluster.model import Node, SharedEndpoint
from netlib.driver import Driver
from netlib.model import HostFacts, Network
from netlib.wiring import FirewallBase, Noun, VxlanMember, VxlanPort, Wiring


def membership(here: Node, others: Iterable[Node] = ()) -> Wiring:
    """Whose tunnelled frames this host takes, as long as it is in the cluster.

    Described before the first overlay is: from then on its port is closed to everybody else.
    """
    nouns: list[Noun] = [FirewallBase(), VxlanPort(port=here.data_port)]
    # Itself too: what its own sandboxes send there is no less forged.
    nouns += [
        VxlanMember(address=node.data_address, port=here.data_port) for node in (here, *others)
    ]
    return Wiring(nouns)


def arrival(
    node: Node,
    present: Iterable[tuple[Driver, Network, SharedEndpoint]],
    here: Node,
    host: HostFacts,
) -> Wiring:
    """What one node more means here: it is heard, and is a peer where it takes part.

    `present` are the node's own endpoints (`is_host`) in networks that are on this host.
    """
    wiring = Wiring([VxlanMember(address=node.data_address, port=here.data_port)])
    for driver, network, shared in present:
        wiring |= driver.peer_wiring(network, shared.peer(), host)
    return wiring


__all__ = ["arrival", "membership"]
