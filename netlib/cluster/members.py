"""What a host makes of the other hosts of its cluster. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from netlib.cluster.model import Node
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


__all__ = ["membership"]
