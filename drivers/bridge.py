"""Bridge networks: a Linux bridge per network, a veth pair per endpoint, the host as gateway."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar

from netlib import names
from netlib.driver import Capabilities, Option
from netlib.drivers.endpoint import (
    ENDPOINT_OPTIONS,
    EXPOSE,
    check_routes,
    in_sandbox,
    sysctls,
)
from netlib.drivers.ports import published
from netlib.errors import InterfaceTaken, InvalidOption
from netlib.model import Endpoint, Family, HostFacts, IPAddress, Network, Peer
from netlib.options import BOOLEAN, is_on, number
from netlib.wiring import (
    Address,
    Bridge,
    FirewallBase,
    Forward,
    Forwarding,
    Masquerade,
    Noun,
    Segment,
    Sysctl,
    VethPair,
    Wiring,
)

_GATEWAY_MODES = ("nat", "routed", "isolated")
_GATEWAY_MODE_OF: dict[Family, str] = {4: "gateway_mode_ipv4", 6: "gateway_mode_ipv6"}
_FOR_ALL_OF_A_BRIDGE = (
    "masquerade",
    "isolate",
    "gateway_mode",
    *_GATEWAY_MODE_OF.values(),
    "outbound_ipv4",
    "outbound_ipv6",
)


class BridgeDriver:
    """A network on one host, reached from outside by masquerading and published ports."""

    capabilities: ClassVar[Capabilities] = Capabilities(scope="local", names="gateway")

    options: ClassVar[tuple[Option, ...]] = (
        Option(
            key="bridge.name",
            help="the bridge device; one that exists is used as it is, without a gateway address "
            "or rules of ours, and never removed",
            aliases=("com.docker.network.bridge.name", "bridge_name", "interface_name", "bridge"),
            device=True,
        ),
        Option(
            key="mtu",
            help="the MTU of the bridge and its endpoints, in bytes (default: the uplink's)",
            aliases=("com.docker.network.driver.mtu",),
            live=True,
        ),
        Option(
            key="icc",
            help="whether endpoints of this network reach each other",
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
            key="isolate",
            help="whether networks that are not isolated either are kept out",
            default="true",
            choices=("true", "false", "strict"),
            live=True,
        ),
        Option(
            key="gateway_mode",
            help="nat; routed: endpoints are reached by their own addresses, at published "
            "ports; isolated: the host has no address here",
            default="nat",
            choices=_GATEWAY_MODES,
        ),
        Option(
            key="gateway_mode_ipv4",
            help="gateway_mode of a network that has only IPv4, or the same as for IPv6",
            aliases=("com.docker.network.bridge.gateway_mode_ipv4",),
            choices=_GATEWAY_MODES,
        ),
        Option(
            key="gateway_mode_ipv6",
            help="likewise for IPv6",
            aliases=("com.docker.network.bridge.gateway_mode_ipv6",),
            choices=_GATEWAY_MODES,
        ),
        Option(
            key="names",
            help="whether sandboxes know each other by name",
            default="true",
            choices=BOOLEAN,
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
        Option(
            key="iface_prefix",
            help="what interfaces in sandboxes are called, before their number",
            aliases=("com.docker.network.container_iface_prefix", "container_iface_prefix"),
            default="eth",
        ),
        Option(
            key="hairpin",
            help="whether a bridge port may send a frame back where it came from",
            aliases=("hairpin_mode", "hairpinMode"),
            choices=BOOLEAN,
        ),
        Option(key="no_default_route", help="endpoints get no default route", choices=BOOLEAN),
        Option(key="metric", help="the metric of routes in sandboxes"),
        Option(
            key="routes",
            help="static routes in sandboxes, comma separated: PREFIX via ADDRESS [metric N]",
        ),
    )
    endpoint_options: ClassVar[tuple[Option, ...]] = (*ENDPOINT_OPTIONS, EXPOSE)

    def check_options(self, network: Network) -> None:
        """Raise InvalidOption for what can not go together."""
        options = network.options
        if "bridge.name" in options:
            names.check_device(options["bridge.name"])
        names.check_device(f"{options.get('iface_prefix', 'eth')}99")
        least = 1280 if 6 in network.families() else 68  # RFC 8200 section 5, RFC 791
        number(options, "mtu", least, 65535)
        for family in (4, 6):
            for key in (f"host_binding_ip{_v(family)}", f"outbound_ip{_v(family)}"):
                _address(options.get(key), family, key)
        if _gateway_mode(network) == "isolated" and not network.internal:
            raise InvalidOption(
                "gateway_mode isolated leaves the network without a way out",
                "add --internal, or choose nat or routed",
            )
        check_routes(network)
        if bridge_name(network) in network.borrowed:
            _check_borrowed(network)

    def settle(self, network: Network, host: HostFacts) -> dict[str, str]:
        """One gateway mode, and the MTU of the default route's device where none was asked for.

        Raises InvalidOption where the bridge's name is that of another kind of device,
        InterfaceTaken where another network has it.
        """
        name = network.options.get("bridge.name", "")
        device = host.devices.get(name)
        if device is not None and device.kind != "bridge":
            raise InvalidOption(
                f"bridge.name {name} is no bridge but a {device.kind or 'device of another kind'}",
                "name a bridge, or leave the option out to have one made",
            )
        if device is not None and device.ours:
            raise InterfaceTaken(f"another network has the bridge {name}", "choose another name")
        settled = {}
        if any(option in network.options for option in _GATEWAY_MODE_OF.values()):
            settled["gateway_mode"] = _gateway_mode(network)
        if "mtu" not in network.options:
            device = device or host.uplink
            settled["mtu"] = str(device.mtu if device else 1500)
        return settled

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """The bridge with its gateway addresses, and what may pass it.

        A bridge that somebody else made is left as it is, and so are packets over it: its
        other ports are none of our business.
        """
        bridge = bridge_name(network)
        if bridge in network.borrowed:
            return Wiring([FirewallBase()])
        return Wiring(self._nouns(network, bridge, host))

    def _nouns(self, network: Network, bridge: str, host: HostFacts) -> Iterator[Noun]:
        options = network.options
        mode = options.get("gateway_mode", "nat")
        closed = network.internal or mode == "isolated"
        yield FirewallBase()
        if not closed:
            yield from (Forwarding(family=family) for family in network.families())
        yield Bridge(
            name=bridge,
            owner=names.owner(network.id),
            mtu=int(options.get("mtu", "1500")),
            mac=names.mac_of(network.id),
        )
        yield from _bridge_sysctls(network, bridge, host)
        if mode != "isolated":
            yield from (Address(device=bridge, address=a) for a in network.gateways())
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
                key = f"outbound_ip{_v(family)}"
                source = _address(options.get(key), family, key)
                yield Masquerade(bridge=bridge, family=family, source=source)

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """A veth pair from the bridge into the sandbox, its addresses, routes and ports."""
        hairpin = is_on(network.options, "hairpin", default=host.bridge_netfilter)
        pair = VethPair(
            name=endpoint.options.get("host_interface_name", names.veth(endpoint.id)),
            owner=names.owner(network.id, endpoint.id),
            mtu=int(network.options.get("mtu", "1500")),
            peer=endpoint.ifname,
            peer_netns=endpoint.sandbox.netns,
            mac=endpoint.mac,
            bridge=bridge_name(network),
            isolated=not is_on(network.options, "icc", default=True),
            # With br_netfilter a published port is translated inside the bridge, so the
            # frame may have to leave by the port it came in (bridge(8), hairpin).
            hairpin=hairpin,
        )
        # Who made the bridge decides on all but what is asked for here.
        borrowed = pair.bridge in network.borrowed and endpoint.ports
        return Wiring(
            [
                *(Forwarding(family=family) for family in network.families() if borrowed),
                pair,
                *sysctls(endpoint, host),
                *in_sandbox(network, endpoint),
                *published(network, endpoint, host),
            ]
        )

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """Nothing: a bridge network ends at its host."""
        return Wiring()


def bridge_name(network: Network) -> str:
    """The network's bridge device."""
    return network.options.get("bridge.name") or names.bridge(network.id)


def _gateway_mode(network: Network) -> str:
    """The mode, by whichever name it was given. Raises InvalidOption for two different ones.

    What may come in is one fact of the bridge, so both families have the same.
    """
    families = network.families()
    for family, option in _GATEWAY_MODE_OF.items():
        if option in network.options and family not in families:
            raise InvalidOption(
                f"option {option} is for a family that the network does not have",
                f"leave it out, or give the network IPv{family}",
            )
    both = network.options.get("gateway_mode")
    modes = {network.options.get(_GATEWAY_MODE_OF[f], both or "nat") for f in families}
    if both is not None:
        modes.add(both)
    if len(modes) > 1:
        raise InvalidOption(
            f"option gateway_mode is {' and '.join(sorted(modes))} on one network",
            "choose one mode for both families, or make a network for each",
        )
    return modes.pop() if modes else "nat"


def _check_borrowed(network: Network) -> None:
    """Refuse what only rules for the whole bridge could give: its other ports are not ours."""
    kept_out = [option for option in _FOR_ALL_OF_A_BRIDGE if option in network.options]
    if network.internal:
        kept_out.append("internal")
    if kept_out:
        raise InvalidOption(
            f"{kept_out[0]} is not possible on {bridge_name(network)}, which is not ours: it "
            "would change what the bridge's other ports may do",
            "leave it out, or choose a bridge name that is free",
        )


def _bridge_sysctls(network: Network, bridge: str, host: HostFacts) -> Iterator[Noun]:
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
        # from the network's id, so nobody else has that address (ip-sysctl.rst, accept_dad).
        yield Sysctl(device=bridge, path=f"{v6}/accept_dad", value="0", default="1")


def _v(family: int) -> str:
    return f"v{family}"


def _address(text: str | None, family: Family | int, key: str) -> IPAddress | None:
    if text is None:
        return None
    try:
        return IPv4Address(text) if family == 4 else IPv6Address(text)
    except ValueError as error:
        raise InvalidOption(
            f"option {key} can not be {text!r}", f"use an IPv{family} address"
        ) from error
