"""Ipvlan networks: sandboxes that share the parent's MAC address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, cast

from netlib import names
from netlib.driver import Capabilities, Option
from netlib.drivers.endpoint import (
    DEFAULT,
    IFACE_PREFIX,
    ROUTING,
    in_sandbox,
    metric_of,
    sysctls,
)
from netlib.drivers.parent import (
    MTU,
    PARENT,
    OnParent,
    check_parent,
    parent_of,
    parent_wiring,
)
from netlib.model import Endpoint, HostFacts, Network
from netlib.values import replace
from netlib.wiring import Address, Ipvlan, IpvlanFlag, IpvlanMode, Noun, Route, Wiring


class IpvlanDriver(OnParent):
    """Sandboxes behind a device of the host that all have its MAC address.

    In mode l2 they are on its LAN, whose router is their gateway. In l3 and l3s they speak
    no ARP and hear no broadcasts: whoever is to answer them needs a route to the subnet by
    the host's address, which netlib can't make for others.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        gateway_on_host=False,
        publishes=False,
        why_not_published="its sandboxes are reached by their own addresses, past the host",
        names="sandbox",
        own_mac=False,
    )
    options: ClassVar[tuple[Option, ...]] = (
        PARENT,
        Option(
            key="mode",
            help="l2: on the parent's LAN; l3: routed by the parent; l3s: likewise, seen by "
            "the host's firewall. Networks of one parent have one mode",
            aliases=("ipvlan_mode",),
            default="l2",
            choices=("l2", "l3", "l3s"),
            apart=True,
        ),
        Option(
            key="flag",
            help="bridge: sandboxes of one parent reach each other; private: they don't; vepa: "
            "by way of a switch that sends back. Networks of one parent have one flag",
            aliases=("ipvlan_flag",),
            default="bridge",
            choices=("bridge", "private", "vepa"),
            apart=True,
        ),
        MTU,
        IFACE_PREFIX,
        *ROUTING,
    )

    def check_options(self, network: Network) -> None:
        """Raise InvalidOption for what can not go together."""
        check_parent(network)

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """The parent, if it is made for the network."""
        return Wiring(parent_wiring(network))

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """An ipvlan in the sandbox, its addresses and routes."""
        device = Ipvlan(
            netns=endpoint.sandbox.netns,
            name=endpoint.ifname,
            owner=names.owner(network.id, endpoint.id),
            mtu=int(network.options["mtu"]),
            parent=parent_of(network),
            mode=_mode(network),
            flag=cast("IpvlanFlag", network.options.get("flag", "bridge")),
        )
        nouns = in_sandbox(network, endpoint)
        if _mode(network) != "l2":
            nouns = _routed(network, endpoint, nouns)
        return Wiring([device, *sysctls(network, endpoint, host), *nouns])


def _mode(network: Network) -> IpvlanMode:
    return cast("IpvlanMode", network.options.get("mode", "l2"))


def _routed(network: Network, endpoint: Endpoint, nouns: Iterator[Noun]) -> Iterator[Noun]:
    """The same without neighbours: nothing is announced, the default route needs no gateway."""
    metric = metric_of(network)
    defaults = {DEFAULT[family] for family in endpoint.gateway_for}
    for noun in nouns:
        if isinstance(noun, Address):
            yield replace(noun, announce=False)
        elif not (isinstance(noun, Route) and noun.destination in defaults):
            yield noun
    for destination in defaults:
        yield Route(
            netns=endpoint.sandbox.netns,
            device=endpoint.ifname,
            destination=destination,
            metric=metric,
        )
