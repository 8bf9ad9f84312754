"""A segment: Ethernet between sandboxes, and nothing else. An example of a driver of your own."""

from __future__ import annotations

from typing import ClassVar

from netlib import names
from netlib.driver import Capabilities, Option
from netlib.model import Endpoint, HostFacts, Network, Peer
from netlib.options import is_on, number
from netlib.wiring import Bridge, Loopback, Up, VethPair, Wiring


class Segment:
    """Sandboxes see each other's frames; there are no addresses, and the host keeps out."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        addressing="none",
        gateway_on_host=False,
        publishes=False,
        why_not_published="nothing on a segment has an address that the host knows",
        names="none",
    )
    options: ClassVar[tuple[Option, ...]] = (
        Option(key="mtu", help="the MTU, in bytes", default="1500", live=True),
        Option(
            key="snooping",
            help="whether multicast goes only where somebody listens",
            default="true",
            choices=("true", "false"),
        ),
    )
    endpoint_options: ClassVar[tuple[Option, ...]] = ()

    def check_options(self, network: Network) -> None:
        """Raise InvalidOption for an MTU that can't be."""
        number(network.options, "mtu", 68, 65535)

    def settle(self, network: Network, host: HostFacts) -> dict[str, str]:
        """The MTU, where none was asked for."""
        return {} if "mtu" in network.options else {"mtu": "1500"}

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """A bridge without an address."""
        return Wiring(
            [
                Bridge(
                    name=names.bridge(network.id),
                    owner=names.owner(network.id),
                    mtu=int(network.options["mtu"]),
                    mac=names.mac_of(network.id),
                    multicast_snooping=is_on(network.options, "snooping", default=True),
                )
            ]
        )

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """A veth pair from the bridge into the sandbox."""
        netns = endpoint.sandbox.netns
        pair = VethPair(
            name=names.veth(endpoint.id),
            owner=names.owner(network.id, endpoint.id),
            mtu=int(network.options["mtu"]),
            peer=endpoint.ifname,
            peer_netns=netns,
            mac=endpoint.mac,
            bridge=names.bridge(network.id),
        )
        return Wiring([pair, Loopback(netns=netns), Up(netns=netns, device=endpoint.ifname)])

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """Nothing: a segment ends at its host."""
        return Wiring()
