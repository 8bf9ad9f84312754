"""No network: a sandbox that reaches nothing but itself."""

from __future__ import annotations

from typing import ClassVar

from netlib.driver import Capabilities, Option
from netlib.model import Endpoint, HostFacts, Network, Peer
from netlib.wiring import Loopback, Wiring


class NoneDriver:
    """Nothing but `lo`; the sandbox may join networks later."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        addressing="none",
        gateway_on_host=False,
        publishes=False,
        why_not_published="nothing leads to sandboxes on it",
        names="none",
        single=True,
        interface=False,
        alone=True,
    )
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
        """Loopback, up."""
        return Wiring([Loopback(netns=endpoint.sandbox.netns)])

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """Nothing."""
        return Wiring()
