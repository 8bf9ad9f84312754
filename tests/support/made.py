"""Networks that somebody made, without those that are there from the start."""

from __future__ import annotations

from netlib.filters import BUILT_IN
from netlib.model import Network
from netlib.net import Net


def made(net: Net) -> list[Network]:
    """The networks of a state but the built-in ones, oldest first."""
    return [network for network in net.networks() if network.name not in BUILT_IN]
