"""The host's own network stack: sandboxes that are not set apart from it."""

from __future__ import annotations

from typing import ClassVar

from netlib.driver import Capabilities, Option
from netlib.model import Endpoint, HostFacts, Network, Peer
from netlib.wiring import Wiring


class HostDriver:
    """The sandbox shares the host's devices, addresses, routes and ports."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        addressing="none",
        gateway_on_host=False,
        publishes=False,
        why_not_published="what listens in a sandbox on it listens on the host already",
        names="none",
        single=True,
        interface=False,
        own_netns=False,
    )
    options: ClassVar[tuple[Option, ...]] = ()
    endpoint_options: ClassVar[tuple[Option, ...]] = ()

    def check_options(self, network: Network) -> None:
        """There are none."""

    def settle(self, network: Network, host: HostFacts) -> dict[str, str]:
        """Nothing is left open."""
        return {}

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """Nothing: it is all there."""
        return Wiring()

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """Nothing: it is all there."""
        return Wiring()

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """Nothing."""
        return Wiring()
