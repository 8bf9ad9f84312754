"""Kinds of network that there is one of, without options and without anything of its own."""

from __future__ import annotations

from typing import ClassVar

from netlib.driver import Option
from netlib.model import Endpoint, HostFacts, Network, Peer
from netlib.wiring import Wiring


class Bare:
    """What `host` and `none` have in common: nothing is asked, nothing is made."""

    options: ClassVar[tuple[Option, ...]] = ()
    endpoint_options: ClassVar[tuple[Option, ...]] = ()

    def check_options(self, network: Network) -> None:
        """There are none."""

    def settle(self, network: Network, host: HostFacts) -> dict[str, str]:
        """Nothing is left open."""
        return {}

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """Nothing."""
        return Wiring()

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """Nothing."""
        return Wiring()

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """Nothing."""
        return Wiring()
