"""Point-to-point networks: a link between the host and each sandbox, and routes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from netlib import names
from netlib.driver import Capabilities, Option
from netlib.drivers.endpoint import ENDPOINT_OPTIONS, routes, sysctls
from netlib.drivers.ports import published
from netlib.errors import InvalidOption
from netlib.model import (
    HOST,
    Endpoint,
    HostFacts,
    IPAddress,
    IPInterface,
    IPNetwork,
    Network,
    Peer,
    Subnet,
    interface,
)
from netlib.options import BOOLEAN, is_on, number
from netlib.wiring import (
    Address,
    FirewallBase,
    Forward,
    Forwarding,
    Loopback,
    Masquerade,
    Noun,
    Route,
    Segment,
    Sysctl,
    Unmasked,
    Up,
    VethPair,
    Wiring,
)


class PtpDriver:
    """A link of its own between the host and each sandbox; the host routes, nothing is bridged.

    Sandboxes see the host only: no broadcasts, no ARP of others. Those of one network reach
    each other through the host, as long as `icc` is on. An internal one leads to the host's
    gateway address, and nowhere else.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(names="sandbox")
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            key="mtu",
            help="the MTU of the links, in bytes (default: the uplink's)",
            aliases=("com.docker.network.driver.mtu",),
            live=True,
        ),
        Option(
            key="icc",
            help="whether sandboxes reach each other, and those of other networks that are "
            "not isolated either",
            aliases=("com.docker.network.bridge.enable_icc", "enable_icc"),
            default="true",
            choices=BOOLEAN,
            live=True,
        ),
        Option(
            key="masquerade",
            help="whether what leaves the network gets the host's address",
            aliases=("com.docker.network.bridge.enable_ip_masquerade", "ip_masq", "ipMasq"),
            default="true",
            choices=BOOLEAN,
            live=True,
        ),
        Option(
            key="host_binding_ipv4",
            help="the host address that ports are published on unless one is given",
            aliases=("com.docker.network.bridge.host_binding_ipv4", "host_binding"),
            live=True,
        ),
        Option(
            key="host_binding_ipv6",
            help="likewise for IPv6",
            aliases=("com.docker.network.bridge.host_binding_ipv6",),
            live=True,
        ),
        Option(
            key="iface_prefix",
            help="what interfaces in sandboxes are called, before their number",
            aliases=("com.docker.network.container_iface_prefix", "container_iface_prefix"),
            default="eth",
        ),
        Option(key="no_default_route", help="endpoints get no default route", choices=BOOLEAN),
        Option(key="metric", help="the metric of routes in sandboxes"),
        Option(
            key="routes",
            help="static routes in sandboxes, comma separated: PREFIX via ADDRESS [metric N]",
        ),
    )
    endpoint_options: ClassVar[tuple[Option, ...]] = ENDPOINT_OPTIONS

    def check_options(self, network: Network) -> None:
        """Raise InvalidOption for what can not go together."""
        options = network.options
        names.check_device(f"{options.get('iface_prefix', 'eth')}99")
        least = 1280 if 6 in network.families() else 68  # RFC 8200 section 5, RFC 791
        number(options, "mtu", least, 65535)
        for version in (4, 6):
            _binding(options.get(f"host_binding_ipv{version}"), version)
        routes(network, "eth0", HOST, {})  # raises for what it can not read

    def settle(self, network: Network, host: HostFacts) -> dict[str, str]:
        """The MTU, where none was asked for: that of the default route's device."""
        if "mtu" in network.options:
            return {}
        return {"mtu": str(host.uplink.mtu if host.uplink else 1500)}

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """Nothing of its own: the links come with their endpoints."""
        families = () if network.internal else network.families()
        return Wiring([FirewallBase(), *(Forwarding(family=family) for family in families)])

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """A veth pair, routes to and from its one address of each family, and what may pass."""
        device = endpoint.options.get("host_interface_name", names.veth(endpoint.id))
        pair = VethPair(
            name=device,
            owner=names.owner(network.id, endpoint.id),
            mtu=int(network.options["mtu"]),
            peer=endpoint.ifname,
            peer_netns=endpoint.sandbox.netns,
            mac=endpoint.mac,
        )
        return Wiring(
            [
                pair,
                *_host_sysctls(device, network, host),
                *sysctls(endpoint, host),
                *_on_host(network, endpoint, device),
                *_in_sandbox(network, endpoint),
                *_firewall(network, endpoint, device),
                *published(network, endpoint, host),
            ]
        )

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """Nothing: the links end at their host."""
        return Wiring()


def _pairs(
    network: Network, endpoint: Endpoint
) -> Iterator[tuple[IPInterface, Subnet, IPAddress | None]]:
    """Each address of an endpoint with its subnet and gateway."""
    for address in endpoint.addresses:
        for subnet in network.subnets:
            if address.ip in subnet.prefix:
                yield address, subnet, subnet.gateway


def _only(address: IPAddress) -> IPInterface:
    return interface(address, address.max_prefixlen)


def _host_sysctls(device: str, network: Network, host: HostFacts) -> Iterator[Noun]:
    v4, v6 = f"net/ipv4/conf/{device}", f"net/ipv6/conf/{device}"
    # Answers to ports published on 127.0.0.1 come back here; the firewall drops what others
    # would send there (ip-sysctl.rst, route_localnet).
    yield Sysctl(device=device, path=f"{v4}/route_localnet", value="1")
    # Loose: replies of a sandbox on several networks may leave by another one (RFC 3704).
    yield Sysctl(device=device, path=f"{v4}/rp_filter", value="2")
    if host.ipv6:
        off = str(int(6 not in network.families()))
        yield Sysctl(device=device, path=f"{v6}/disable_ipv6", value=off)
        yield Sysctl(device=device, path=f"{v6}/accept_ra", value="0")


def _on_host(network: Network, endpoint: Endpoint, device: str) -> Iterator[Noun]:
    """Every link's end has the gateway's address, which needs no prefix there."""
    for address, _, gateway in _pairs(network, endpoint):
        if gateway is not None:
            yield Address(device=device, address=_only(gateway))
        yield Route(device=device, destination=_only(address.ip).network)


def _in_sandbox(network: Network, endpoint: Endpoint) -> Iterator[Noun]:
    """One address without a LAN around it; all else is behind the gateway."""
    netns, device = endpoint.sandbox.netns, endpoint.ifname
    metric = number(network.options, "metric", 0, 2**32 - 1) or 0
    yield Loopback(netns=netns)
    yield Up(netns=netns, device=device)
    gateways = {}
    for address, subnet, gateway in _pairs(network, endpoint):
        yield Address(netns=netns, device=device, address=_only(address.ip), announce=True)
        if gateway is None:
            continue
        hop: IPNetwork = _only(gateway).network
        yield Route(netns=netns, device=device, destination=hop)
        yield Route(
            netns=netns, device=device, destination=subnet.prefix, via=gateway, metric=metric
        )
        if address.version in endpoint.gateway_for:
            gateways[address.version] = gateway
    yield from routes(network, device, netns, gateways)


def _firewall(network: Network, endpoint: Endpoint, device: str) -> Iterator[Noun]:
    """To the firewall each link is a bridge of its own, with one address behind it.

    What goes from link to link keeps its address.
    """
    closed = network.internal
    yield Forward(
        bridge=device,
        inbound="drop" if closed else "published",
        outbound="drop" if closed else "allow",
        host="gateway" if closed else "open",
        isolated=closed or not is_on(network.options, "icc", default=True),
    )
    for address, subnet, gateway in _pairs(network, endpoint):
        yield Segment(bridge=device, prefix=_only(address.ip).network, gateway=gateway)
        yield Unmasked(bridge=device, prefix=subnet.prefix)
        if not closed and is_on(network.options, "masquerade", default=True):
            yield Masquerade(bridge=device, family=address.version)


def _binding(text: str | None, version: int) -> None:
    from ipaddress import ip_address

    try:
        if text is None or ip_address(text).version == version:
            return
    except ValueError:
        pass
    raise InvalidOption(
        f"option host_binding_ipv{version} can not be {text!r}", f"use an IPv{version} address"
    )
