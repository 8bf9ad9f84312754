"""The host's own network stack: sandboxes that are not set apart from it."""

from __future__ import annotations

from typing import ClassVar

from netlib.driver import Capabilities
from netlib.drivers.bare import Bare


class HostDriver(Bare):
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
