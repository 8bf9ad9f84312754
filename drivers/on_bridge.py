"""What networks on a Linux bridge with the host as gateway have in common, on one host or many."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address

from netlib import names
from netlib.driver import Option
from netlib.drivers.endpoint import check_routes
from netlib.errors import InvalidOption
from netlib.model import Family, HostFacts, IPAddress, Network
from netlib.options import BOOLEAN, is_on, number
from netlib.wiring import Forward, Masquerade, Noun, Segment, Sysctl

ICC = Option(
    key="icc",
    help="whether endpoints of this network reach each other",
    aliases=("com.docker.network.bridge.enable_icc", "enable_icc"),
    default="true",
    choices=BOOLEAN,
    live=True,
)
MASQUERADE = Option(
    key="masquerade",
    help="whether what leaves the network gets the host's address",
    aliases=("com.docker.network.bridge.enable_ip_masquerade", "ip_masq", "ipMasq"),
    default="true",
    choices=BOOLEAN,
    live=True,
)
ISOLATE = Option(
    key="isolate",
    help="whether networks that are not isolated either are kept out",
    default="true",
    choices=("true", "false", "strict"),
    live=True,
)
NAMES = Option(
    key="names",
    help="whether sandboxes know each other by name",
    default="true",
    choices=BOOLEAN,
)
HOST_BINDING = (
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
)
HAIRPIN = Option(
    key="hairpin",
    help="whether a bridge port may send a frame back where it came from",
    aliases=("hairpin_mode", "hairpinMode"),
    choices=BOOLEAN,
)
IN_SANDBOX = (
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


def check_common(network: Network) -> None:
    """Raise InvalidOption or InvalidName for what can not be."""
    options = network.options
    names.check_device(f"{options.get('iface_prefix', 'eth')}99")
    least = 1280 if 6 in network.families() else 68  # RFC 8200 section 5, RFC 791
    number(options, "mtu", least, 65535)
    for family in (4, 6):
        address_option(network, f"host_binding_ipv{family}", family)
    check_routes(network)


def address_option(network: Network, key: str, family: Family | int) -> IPAddress | None:
    """The address that an option gives, None where it is not given."""
    text = network.options.get(key)
    if text is None:
        return None
    try:
        return IPv4Address(text) if family == 4 else IPv6Address(text)
    except ValueError as error:
        raise InvalidOption(
            f"option {key} can not be {text!r}", f"use an IPv{family} address"
        ) from error


def bridge_sysctls(network: Network, bridge: str, host: HostFacts) -> Iterator[Noun]:
    """How the host behaves at the bridge."""
    v4, v6 = f"net/ipv4/conf/{bridge}", f"net/ipv6/conf/{bridge}"
    # Answers to ports published on 127.0.0.1 come back through the bridge; the firewall
    # drops what others would send there (ip-sysctl.rst, route_localnet).
    yield Sysctl(device=bridge, path=f"{v4}/route_localnet", value="1")
    # Loose: replies of a sandbox on several networks may leave by another one (RFC 3704).
    yield Sysctl(device=bridge, path=f"{v4}/rp_filter", value="2")
    if not is_on(network.options, "icc", default=True):
        # Members meet in the firewall, which knows the links: the host answers ARP for each of
        # them (RFC 3069; ip-sysctl.rst, proxy_arp_pvlan), at once.
        yield Sysctl(device=bridge, path=f"{v4}/proxy_arp_pvlan", value="1")
        delay = f"net/ipv4/neigh/{bridge}/proxy_delay"
        yield Sysctl(device=bridge, path=delay, value="0", default="80")
    if host.ipv6:
        has_v6 = 6 in network.families()
        yield Sysctl(device=bridge, path=f"{v6}/disable_ipv6", value=str(int(not has_v6)))
        yield Sysctl(device=bridge, path=f"{v6}/accept_ra", value="0")
        # What is forwarded asks for its neighbour from the link-local address (RFC 4861 section
        # 4.3), which is tentative for two seconds after the first endpoint came. Its MAC is made
        # from ids, so nobody else has that address (ip-sysctl.rst, accept_dad).
        yield Sysctl(device=bridge, path=f"{v6}/accept_dad", value="0", default="1")


def passing(network: Network, bridge: str, mode: str = "nat") -> Iterator[Noun]:
    """What may pass the bridge: in a gateway mode nat, routed or isolated."""
    options = network.options
    closed = network.internal or mode == "isolated"
    yield Forward(
        bridge=bridge,
        within="allow" if is_on(options, "icc", default=True) else "published",
        inbound="drop" if closed else "routed" if mode == "routed" else "published",
        outbound="drop" if closed else "allow",
        host="closed" if mode == "isolated" else "gateway" if closed else "open",
        isolated=options.get("isolate", "true") != "false",
    )
    for subnet in network.subnets:
        gateway = None if mode == "isolated" else subnet.gateway
        yield Segment(bridge=bridge, prefix=subnet.prefix, gateway=gateway)
    if mode == "nat" and not closed and is_on(options, "masquerade", default=True):
        for family in network.families():
            source = address_option(network, f"outbound_ipv{family}", family)
            yield Masquerade(bridge=bridge, family=family, source=source)
