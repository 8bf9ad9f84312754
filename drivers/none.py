"""No network: a sandbox that reaches nothing but itself."""

from __future__ import annotations

from typing import ClassVar

from netlib.driver import Capabilities
from netlib.drivers.bare import Bare
from netlib.model import Endpoint, HostFacts, Network
from netlib.wiring import Loopback, Wiring


class NoneDriver(Bare):
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

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """Loopback, up."""
        return Wiring([Loopback(netns=endpoint.sandbox.netns)])
