"""An overlay driver whose networks have what a cluster would give them, without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

from netlib.driver import Driver
from netlib.drivers.overlay import OverlayDriver
from netlib.model import Endpoint, HostFacts, Network, Peer, Underlay
from netlib.wiring import Wiring

UNDERLAY = Underlay(address=ip_address("203.0.113.1"), mtu=1500)


def placed(network: Network, *, host: int = 1, underlay: Underlay = UNDERLAY) -> Network:
    """The network as the host of this number has it: its own addresses are the subnets' last."""
    subnets = tuple(
        replace(subnet, own=subnet.prefix[-1 - host] if subnet.own is None else subnet.own)
        for subnet in network.subnets
    )
    return replace(network, subnets=subnets, vni=network.vni or 4001, underlay=underlay)


class Placed:
    """The overlay driver, on a host that is in a cluster."""

    capabilities = OverlayDriver.capabilities
    options = OverlayDriver.options
    endpoint_options = OverlayDriver.endpoint_options

    def __init__(self) -> None:
        self._driver: Driver = OverlayDriver()

    def check_options(self, network: Network) -> None:
        """As the driver does."""
        self._driver.check_options(network)

    def settle(self, network: Network, host: HostFacts) -> Mapping[str, str]:
        """As the driver does."""
        return self._driver.settle(placed(network), host)

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """As the driver does."""
        return self._driver.network_wiring(placed(network), host)

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """As the driver does."""
        return self._driver.endpoint_wiring(placed(network), endpoint, host)

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """As the driver does."""
        return self._driver.peer_wiring(placed(network), peer, host)
