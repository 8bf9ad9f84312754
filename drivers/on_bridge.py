"""What networks on a Linux bridge that we make have in common, on one host or on many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from netlib.driver import Option
from netlib.drivers.endpoint import speaks_ipv6
from netlib.drivers.hosted import gateway_sysctls, masquerades
from netlib.model import Family, HostFacts, IPAddress, Network
from netlib.options import BOOLEAN, is_on
from netlib.wiring import Forward, Noun, Segment, Sysctl, Verdict

_INBOUND: dict[str, Verdict] = {
    "nat": "published",
    "nat-unprotected": "allow",
    "routed": "routed",
    "isolated": "drop",
}

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
HAIRPIN = Option(
    key="hairpin",
    help="whether a bridge port may send a frame back where it came from",
    aliases=("hairpin_mode", "hairpinMode"),
    choices=BOOLEAN,
)


def bridge_sysctls(bridge: str, network: Network, host: HostFacts) -> Iterator[Noun]:
    """How the host behaves at a network's bridge."""
    yield from gateway_sysctls(bridge, network, host)
    if not is_on(network.options, "icc", default=True):
        # Members meet in the firewall, which knows the links: the host answers ARP for each of
        # them (RFC 3069; ip-sysctl.rst, proxy_arp_pvlan), at once.
        yield Sysctl(device=bridge, path=f"net/ipv4/conf/{bridge}/proxy_arp_pvlan", value="1")
        delay = f"net/ipv4/neigh/{bridge}/proxy_delay"
        yield Sysctl(device=bridge, path=delay, value="0", default="80")
    if speaks_ipv6(network, host):
        # What is forwarded asks for its neighbour from the link-local address (RFC 4861 section
        # 4.3), which is tentative for two seconds after the first endpoint came. Its MAC is made
        # from ids, so nobody else has that address (ip-sysctl.rst, accept_dad).
        path = f"net/ipv6/conf/{bridge}/accept_dad"
        yield Sysctl(device=bridge, path=path, value="0", default="1")


def passing(network: Network, bridge: str, modes: Mapping[Family, str]) -> Iterator[Noun]:
    """What may pass a network's bridge, each family in its gateway mode.

    Where the network has no addresses, only frames from member to member.
    """
    options, closed = network.options, network.internal or not modes
    inbound = [_INBOUND["isolated" if closed else mode] for mode in modes.values() or ("isolated",)]
    first, last = inbound[0], inbound[-1]
    yield Forward(
        bridge=bridge,
        within="allow" if is_on(options, "icc", default=True) else "published",
        inbound=first,
        inbound6=None if last == first else last,
        outbound="drop" if closed else "allow",
        host=_host(modes, closed),
        isolated=options.get("isolate", "true") != "false",
    )
    yield from _segments(network, bridge, modes)
    for family, mode in modes.items():
        if mode.startswith("nat") and not closed:
            yield from masquerades(network, bridge, family)


def _segments(network: Network, bridge: str, modes: Mapping[Family, str]) -> Iterator[Noun]:
    """The prefixes with their gateways, each of which is named once."""
    told: set[IPAddress] = set()
    for subnet in sorted(
        network.subnets, key=lambda s: s.gateway is None or s.gateway not in s.prefix
    ):
        gateway = None if modes[subnet.family] == "isolated" else subnet.gateway
        new = None if gateway in told else gateway
        yield Segment(bridge=bridge, prefix=subnet.prefix, gateway=new)
        if new is not None:
            told.add(new)


def _host(modes: Mapping[Family, str], closed: bool) -> Literal["open", "gateway", "closed"]:
    """What members reach of the host."""
    if all(mode == "isolated" for mode in modes.values()):
        return "closed"
    return "gateway" if closed else "open"
