"""What endpoints of most kinds have in common: addresses, routes and sysctls in the sandbox."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from netlib import names
from netlib.driver import Option
from netlib.errors import InvalidOption
from netlib.model import (
    EVERYWHERE,
    HOST,
    Endpoint,
    Family,
    HostFacts,
    IPAddress,
    IPInterface,
    IPNetwork,
    Netns,
    Network,
)
from netlib.options import BOOLEAN, number
from netlib.wiring import Address, Loopback, Noun, Route, Sysctl, Up

DEFAULT: dict[Family, IPNetwork] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}

# The least MTU, in bytes, of a device that a family is spoken on: RFC 791, RFC 8200 section 5.
LEAST_MTU: dict[Family, int] = {4: 68, 6: 1280}

IFACE_PREFIX = Option(
    key="iface_prefix",
    help="what interfaces in sandboxes are called, before their number",
    aliases=("com.docker.network.container_iface_prefix", "container_iface_prefix"),
    default="eth",
)
ROUTING = (
    Option(key="no_default_route", help="endpoints get no default route", choices=BOOLEAN),
    Option(key="metric", help="the metric of routes in sandboxes"),
    Option(
        key="routes",
        help="static routes in sandboxes, comma separated: PREFIX via ADDRESS [metric N]",
    ),
)

SYSCTLS = Option(
    key="sysctls",
    help="sysctls of the interface, comma separated: net.ipv4.conf.IFNAME.KEY=VALUE",
    aliases=("com.docker.network.endpoint.sysctls",),
)
NO_DEFAULT_ROUTE = Option(
    key="no_default_route",
    help="leave the sandbox's default route to others, whatever its other endpoints are",
    choices=BOOLEAN,
)
ENDPOINT_OPTIONS = (
    SYSCTLS,
    NO_DEFAULT_ROUTE,
    Option(
        key="host_interface_name",
        help="the name of the host's end of the veth pair",
        aliases=("host_ifname",),
    ),
)

EXPOSE = Option(
    key="expose",
    help="ports that links tell of and open where icc is off, comma separated: 5432,53/udp "
    "(published ports are told of, too)",
)

# Of the sysctls that are set without being asked for, those that the kernel does not begin at 0.
_DEFAULTS = {"accept_dad": "1"}

_ALLOWED = (
    ("net", "ipv4", "conf"),
    ("net", "ipv4", "neigh"),
    ("net", "ipv6", "conf"),
    ("net", "ipv6", "neigh"),
    ("net", "mpls", "conf"),
)


def check_in_sandbox(network: Network) -> None:
    """Raise InvalidOption or InvalidName for what no sandbox of the network could have."""
    options = network.options
    names.check_device(f"{options.get('iface_prefix', 'eth')}99")
    number(options, "mtu", max(LEAST_MTU[family] for family in (4, *network.families())), 65535)
    _check_routes(network)


def in_sandbox(network: Network, endpoint: Endpoint) -> Iterator[Noun]:
    """Loopback, the interface's addresses and the routes that lead through it."""
    netns, device = endpoint.sandbox.netns, endpoint.ifname
    yield Loopback(netns=netns)
    yield Up(netns=netns, device=device)
    for address in endpoint.addresses:
        yield Address(netns=netns, device=device, address=address, announce=True)
    gateways = {family: _gateway(network, endpoint, family) for family in endpoint.gateway_for}
    yield from default_routes(network, device, netns, gateways, endpoint.addresses)
    if endpoint.leaves_routes:
        return
    yield from static_routes(network, device, netns)
    for destination, via in endpoint.routes.items():
        if destination not in EVERYWHERE.values():
            yield Route(
                netns=netns,
                device=device,
                destination=ip_network(destination),
                via=ip_address(via),
                metric=metric_of(network),
            )


def metric_of(network: Network) -> int:
    """The metric of routes in the network's sandboxes. Raises InvalidOption."""
    return number(network.options, "metric", 0, 2**32 - 1) or 0


def default_routes(
    network: Network,
    device: str,
    netns: Netns,
    gateways: Mapping[Family, IPAddress | None],
    addresses: Iterable[IPInterface] = (),
) -> list[Route]:
    """Default routes through `gateways`.

    With `addresses`, a gateway in no prefix of theirs is reached on the link all the same.
    """
    near = [address.network for address in addresses]
    metric = metric_of(network)
    result: list[Route] = []
    for family, gateway in gateways.items():
        if gateway is not None:
            result.append(
                Route(
                    netns=netns,
                    device=device,
                    destination=DEFAULT[family],
                    via=gateway,
                    metric=metric,
                    on_link=bool(near)
                    and not gateway.is_link_local
                    and not any(gateway in prefix for prefix in near),
                )
            )
    return result


def static_routes(network: Network, device: str, netns: Netns) -> list[Route]:
    """The network's option `routes`. Raises InvalidOption."""
    metric = metric_of(network)
    result: list[Route] = []
    for text in _parts(network.options.get("routes", "")):
        destination, via, own_metric = _route(text)
        result.append(
            Route(
                netns=netns,
                device=device,
                destination=destination,
                via=via,
                metric=metric if own_metric is None else own_metric,
            )
        )
    return result


def _check_routes(network: Network) -> None:
    """Raise InvalidOption for static routes that no endpoint of the network could have."""
    seen: set[tuple[IPNetwork, int]] = set()
    for route in static_routes(network, "eth0", HOST):
        if not any(route.via in subnet.prefix for subnet in network.subnets):
            raise InvalidOption(
                f"option routes leads to {route.destination} via {route.via}, which is in no "
                "subnet of this network",
                "name a gateway that endpoints reach directly",
            )
        if (route.destination, route.metric) in seen:
            raise InvalidOption(
                f"option routes leads to {route.destination} twice", "give each its own metric"
            )
        seen.add((route.destination, route.metric))


def _gateway(network: Network, endpoint: Endpoint, family: Family) -> IPAddress | None:
    """The endpoint's own gateway, else that of the subnet that its address is from."""
    if EVERYWHERE[family] in endpoint.routes:
        return ip_address(endpoint.routes[EVERYWHERE[family]])
    address = endpoint.address(family)
    return next((s.gateway for s in network.subnets if address and address.ip in s.prefix), None)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _route(text: str) -> tuple[IPNetwork, IPAddress, int | None]:
    words = text.split()
    try:
        if len(words) not in (3, 5) or words[1] != "via":
            raise ValueError(text)
        destination, via = ip_network(words[0]), ip_address(words[2])
        if destination.version != via.version:
            raise ValueError(text)
        if len(words) == 3:
            return destination, via, None
        if words[3] != "metric":
            raise ValueError(text)
        return destination, via, int(words[4])
    except ValueError as error:
        raise InvalidOption(
            f"option routes can not be read at {text!r}",
            "write each as PREFIX via ADDRESS [metric N], with a comma between two",
        ) from error


def speaks_ipv6(network: Network, host: HostFacts) -> bool:
    """Whether devices of the network have IPv6 settings.

    A device whose MTU is below the least of IPv6 (RFC 8200 section 5) has no IPv6 at all.
    """
    return host.ipv6 and int(network.options.get("mtu", LEAST_MTU[6])) >= LEAST_MTU[6]


def sysctls(network: Network, endpoint: Endpoint, host: HostFacts) -> Iterator[Noun]:
    """Quiet defaults for the interface, then what was asked for it."""
    device = endpoint.ifname
    wanted = {f"net/ipv4/conf/{device}/rp_filter": "2"}
    if speaks_ipv6(network, host):
        if any(address.version == 6 for address in endpoint.addresses):
            wanted[f"net/ipv6/conf/{device}/disable_ipv6"] = "0"
            wanted[f"net/ipv6/conf/{device}/accept_ra"] = "0"
            # Its link-local address is of use at once, as the others are; see the bridge's.
            wanted[f"net/ipv6/conf/{device}/accept_dad"] = "0"
        else:
            wanted[f"net/ipv6/conf/{device}/disable_ipv6"] = "1"
    wanted.update(_asked_sysctls(endpoint.options.get("sysctls", ""), device))
    for path, value in wanted.items():
        yield Sysctl(
            netns=endpoint.sandbox.netns,
            device=device,
            path=path,
            value=value,
            default=_DEFAULTS.get(path.rpartition("/")[2], "0"),
        )


def _asked_sysctls(text: str, device: str) -> dict[str, str]:
    """The sysctls of an endpoint option; only keys of the interface itself are allowed."""
    result: dict[str, str] = {}
    for part in _parts(text):
        key, equals, value = part.partition("=")
        words = key.strip().split(".")
        if (
            not equals
            or len(words) != 5
            or tuple(words[:3]) not in _ALLOWED
            or words[3] != "IFNAME"
        ):
            raise InvalidOption(
                f"sysctl {part!r} is not one of an interface",
                "write net.ipv4.conf.IFNAME.KEY=VALUE (or ipv6, mpls; or neigh for conf)",
            )
        if not words[4].replace("_", "").isalnum():
            raise InvalidOption(f"sysctl key {words[4]!r} can not be", "use letters, digits and _")
        result["/".join([*words[:3], device, words[4]])] = value.strip()
    return result
