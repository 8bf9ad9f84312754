"""Published ports in iptables: a 16-way tree of chains over the port's hexadecimal digits.

A leaf holds 16 ports, so a packet meets at most 4 x 16 comparisons, with 5000 ports as with
5, and a change of one port concerns one leaf. Chains come with their first line and go with
their last.
"""

from __future__ import annotations

from netlib.firewall.facts import Element
from netlib.values import dataclass

ROOTS = {"tcp": "NETLIB-TCP", "udp": "NETLIB-UDP", "sctp": "NETLIB-SCTP"}
_BITS = 4
_DIGITS = 3  # of the port's four: the last one is told apart within the leaf


def leaf(protocol: str, port: int) -> str:
    """The chain that holds a port.

    >>> leaf("tcp", 8080)
    'NETLIB-TCP-1f9'
    """
    return f"{ROOTS[protocol]}-{port >> _BITS:03x}"


@dataclass(frozen=True, slots=True)
class Link:
    """The line that leads to a chain of the tree from the chain above."""

    parent: str
    element: Element


def link(chain: str) -> Link | None:
    """How a chain of the tree is reached; None for any other chain.

    >>> link("NETLIB-TCP-1f9").element.key
    '-p tcp --dport 8080:8095'
    """
    root, _, digits = chain.rpartition("-")
    protocol = next((name for name, known in ROOTS.items() if known == root), "")
    if not protocol:
        return None
    width = _BITS * (1 + _DIGITS - len(digits))
    first = int(digits, 16) << width
    last = first + (1 << width) - 1
    parent = f"{root}-{digits[:-1]}" if len(digits) > 1 else root
    key = f"-p {protocol} --dport {first}:{last}"
    return Link(parent, Element(f"nat {parent}", key, f"-g {chain}"))
