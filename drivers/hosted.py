"""Networks whose gateway is the host: what may pass there, and by which of its addresses."""

from __future__ import annotations

from collections.abc import Iterator

from netlib.driver import Option
from netlib.drivers.endpoint import speaks_ipv6
from netlib.model import FAMILIES, Family, HostFacts, Network
from netlib.options import BOOLEAN, address, is_on
from netlib.wiring import Masquerade, Noun, Sysctl

MTU = Option(
    key="mtu",
    help="the MTU of the network's devices, in bytes (default: the uplink's)",
    aliases=("com.docker.network.driver.mtu",),
    live=True,
)
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
OUTBOUND = (
    Option(
        key="outbound_ipv4",
        help="the source address of what leaves, instead of the way out's",
        aliases=("com.docker.network.host_ipv4", "outbound_addr4"),
        live=True,
    ),
    Option(
        key="outbound_ipv6",
        help="likewise for IPv6",
        aliases=("com.docker.network.host_ipv6", "outbound_addr6"),
        live=True,
    ),
)


def check_host_addresses(network: Network) -> None:
    """Raise InvalidOption for host addresses that are none, or of the other family."""
    for family in FAMILIES:
        for key in (f"host_binding_ipv{family}", f"outbound_ipv{family}"):
            address(network.options, key, family)


def uplink_mtu(host: HostFacts) -> int:
    """The MTU of what leads out, in bytes."""
    return host.uplink.mtu if host.uplink else 1500


def gateway_sysctls(device: str, network: Network, host: HostFacts) -> Iterator[Noun]:
    """Settings of the device by which the host is a network's gateway."""
    v4, v6 = f"net/ipv4/conf/{device}", f"net/ipv6/conf/{device}"
    # Answers to ports published on 127.0.0.1 come back through it; the firewall drops what
    # others would send there (ip-sysctl.rst, route_localnet).
    yield Sysctl(device=device, path=f"{v4}/route_localnet", value="1")
    # Loose: replies of a sandbox on several networks may leave by another one (RFC 3704).
    yield Sysctl(device=device, path=f"{v4}/rp_filter", value="2")
    if speaks_ipv6(network, host):
        off = str(int(6 not in network.families()))
        yield Sysctl(device=device, path=f"{v6}/disable_ipv6", value=off)
        yield Sysctl(device=device, path=f"{v6}/accept_ra", value="0")


def masquerades(network: Network, device: str, family: Family) -> Iterator[Noun]:
    """How packets of a family that leave by way of the device are told as the host's own."""
    if is_on(network.options, "masquerade", default=True):
        source = address(network.options, f"outbound_ipv{family}", family)
        yield Masquerade(bridge=device, family=family, source=source)
