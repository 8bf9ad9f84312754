"""Overlay networks: one bridge over many hosts, by VXLAN (RFC 7348). docs/overlay.md tells why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from netlib import names
from netlib.driver import Capabilities, Option
from netlib.drivers.endpoint import (
    ENDPOINT_OPTIONS,
    EXPOSE,
    IFACE_PREFIX,
    ROUTING,
    check_in_sandbox,
    in_sandbox,
    static_routes,
    sysctls,
)
from netlib.drivers.hosted import HOST_BINDING, ICC, MASQUERADE, check_host_addresses
from netlib.drivers.on_bridge import HAIRPIN, ISOLATE, NAMES, bridge_sysctls, passing
from netlib.drivers.ports import published
from netlib.errors import InvalidOption, InvalidRequest, Unsupported
from netlib.model import (
    Endpoint,
    HostFacts,
    IPAddress,
    Network,
    Peer,
    Subnet,
    Underlay,
    interface,
)
from netlib.options import BOOLEAN, is_on, number
from netlib.values import replace
from netlib.wiring import (
    Address,
    Bridge,
    FdbEntry,
    FirewallBase,
    Forwarding,
    Neighbour,
    Noun,
    Route,
    SourceGuard,
    Sysctl,
    VethPair,
    Vxlan,
    Wiring,
)

_MOST_VNI = 2**24 - 1  # RFC 7348 section 5
_NO = ("false", "0", "no", "off")
_EVERYBODY = "00:00:00:00:00:00"


class OverlayDriver:
    """A network of many hosts, as if on one bridge: frames cross between them in UDP (VXLAN).

    Each host is the gateway of its own sandboxes, and knows where all others are: nothing is
    asked for by flooding, and nobody but members of the cluster is heard.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        scope="global",
        names="gateway",
        reserves=frozenset({"vni", "host_address"}),
        mac_of_address=True,
    )
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            key="vni",
            help="the number that tells its frames from other networks', up to 16777215 "
            "(default: one that is free)",
            aliases=("com.docker.network.driver.overlay.vxlanid_list",),
        ),
        Option(
            key="mtu",
            help="the MTU of the network's devices, in bytes (default: the underlay's less 50, "
            "or less 70 where that is IPv6)",
            aliases=("com.docker.network.driver.mtu",),
        ),
        Option(
            key="encrypted",
            help="refused unless false: frames cross the underlay as they are. Where that can't "
            "be trusted, let the cluster's data address be that of an encrypted tunnel",
        ),
        Option(
            key="flood",
            help="on: broadcast and multicast reach every host, for programs that find each "
            "other so (mDNS); off: no frame goes to anybody whom it is not for",
            default="off",
            choices=("on", "off"),
        ),
        # They hold on every host of the network, so none of them changes on one.
        *(replace(option, live=False) for option in (ICC, MASQUERADE, ISOLATE, *HOST_BINDING)),
        Option(
            key="source_guard",
            help="whether sandboxes may send only from their own addresses, of all that are in "
            "the network",
            default="true",
            choices=BOOLEAN,
        ),
        NAMES,
        HAIRPIN,
        IFACE_PREFIX,
        *ROUTING,
    )
    endpoint_options: ClassVar[tuple[Option, ...]] = (*ENDPOINT_OPTIONS, EXPOSE)

    def check_options(self, network: Network) -> None:
        """Raise InvalidOption for what can not be, Unsupported for encryption."""
        number(network.options, "vni", 1, _MOST_VNI)
        if network.options.get("encrypted", "false").lower() not in _NO:
            raise Unsupported(
                "netlib does not encrypt what overlay networks send, and never says that it does",
                "leave it out; to have all of it encrypted give hosts a data address of a "
                "WireGuard or IPsec tunnel: net cluster init --data-path-addr ADDRESS",
            )
        check_in_sandbox(network)
        check_host_addresses(network)
        if network.underlay is not None:  # a member makes it
            _mtu(network)

    def settle(self, network: Network, host: HostFacts) -> dict[str, str]:
        """The MTU, which must be one on all hosts. InvalidRequest without a cluster."""
        return {} if "mtu" in network.options else {"mtu": str(_most_mtu(network))}

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """The bridge, its VXLAN port, and what this host is in the network."""
        return Wiring(self._nouns(network, host))

    def _nouns(self, network: Network, host: HostFacts) -> Iterator[Noun]:
        underlay, bridge = _underlay(network), names.bridge(network.id)
        own = [_own(network, subnet) for subnet in network.subnets]
        mtu = _mtu(network)
        yield FirewallBase()
        if not network.internal:
            yield from (Forwarding(family=family) for family in network.families())
        yield Bridge(
            name=bridge,
            owner=names.owner(network.id),
            mtu=mtu,
            # Another one on each host, though the gateway's address is the same on all: a reply
            # to this host must not end at another host's bridge.
            mac=names.mac_at(network.id, own[0]),
            # Snooping would keep multicast, neighbour solicitations too, from a port that
            # reported no listener, and no report crosses where nothing is flooded.
            multicast_snooping=False,
        )
        yield Vxlan(
            name=names.vxlan(network.id),
            owner=names.owner(network.id),
            mtu=mtu,
            bridge=bridge,
            vni=_vni(network),
            local=underlay.address,
            port=underlay.port,
            mac=names.mac_of(network.id),
            flood=network.options.get("flood") == "on",
            isolated=not is_on(network.options, "icc", default=True),
        )
        yield from bridge_sysctls(bridge, network, host)
        # What comes from a member and is for a member is already on the shortest way.
        redirects = f"net/ipv4/conf/{bridge}/send_redirects"
        yield Sysctl(device=bridge, path=redirects, value="0", default="1")
        for subnet, address in zip(network.subnets, own, strict=True):
            yield from _at_home(bridge, subnet, address)
        yield from passing(network, bridge, dict.fromkeys(network.families(), "nat"))

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """A veth pair from the bridge into the sandbox, and what the bridge believes of it."""
        bridge = names.bridge(network.id)
        pair = VethPair(
            name=endpoint.options.get("host_interface_name", names.veth(endpoint.id)),
            owner=names.owner(network.id, endpoint.id),
            mtu=_mtu(network),
            peer=endpoint.ifname,
            peer_netns=endpoint.sandbox.netns,
            mac=endpoint.mac,
            bridge=bridge,
            isolated=not is_on(network.options, "icc", default=True),
            hairpin=is_on(network.options, "hairpin", default=host.bridge_netfilter),
            locked=True,
        )
        addresses = tuple(address.ip for address in endpoint.addresses)
        nouns: list[Noun] = [
            pair,
            *sysctls(network, endpoint, host),
            *in_sandbox(network, endpoint),
            *_on_link(network, endpoint),
            # Else a request for a neighbour on this very host would be for nobody known.
            *_neighbours(bridge, addresses, endpoint.mac, host),
            *published(network, endpoint, host),
        ]
        if is_on(network.options, "source_guard", default=True):
            nouns.append(
                SourceGuard(
                    device=pair.name,
                    mac=endpoint.mac,
                    addresses=addresses,
                    prefixes=tuple(subnet.prefix for subnet in network.subnets),
                )
            )
        return Wiring(nouns)

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """Where frames for a peer go, and who has its addresses.

        A host that takes part is one, too; what is flooded goes to each of those.
        """
        port = names.vxlan(network.id)
        nouns: list[Noun] = [
            FdbEntry(device=port, mac=peer.mac, remote=peer.host),
            *_neighbours(names.bridge(network.id), peer.addresses, peer.mac, host),
        ]
        if peer.is_host and network.options.get("flood") == "on":
            nouns.append(FdbEntry(device=port, mac=_EVERYBODY, remote=peer.host))
        return Wiring(nouns)


def overlay_mtu(underlay: Underlay) -> int:
    """The largest MTU, in bytes, of what crosses an underlay in one piece.

    Outer headers cost 50 bytes over IPv4 and 70 over IPv6: IP 20 or 40, UDP 8, VXLAN 8, inner
    Ethernet 14 (RFC 7348 section 5).
    """
    return underlay.mtu - (50 if underlay.address.version == 4 else 70)


def _at_home(bridge: str, subnet: Subnet, own: IPAddress) -> Iterator[Noun]:
    """The gateway's address, this host's own, and the way to all of the subnet.

    Without prefixes, so that the one route there is says which of the two this host's own
    packets come from: answers to the gateway's would end at the gateway next to who answers.
    """
    for address in (subnet.gateway, own):
        if address is not None:
            yield Address(device=bridge, address=interface(address, address.max_prefixlen))
    yield Route(device=bridge, destination=subnet.prefix, src=own)


def _on_link(network: Network, endpoint: Endpoint) -> Iterator[Noun]:
    """Routes to the network's other subnets: all of it is one link.

    By way of gateways each host would see one direction of a connection only, and conntrack
    take answers without a question for invalid.
    """
    if endpoint.leaves_routes:
        return
    netns, device = endpoint.sandbox.netns, endpoint.ifname
    taken = {route.destination for route in static_routes(network, device, netns)}
    for subnet in network.subnets:
        address = endpoint.address(subnet.family)
        if address and address.ip not in subnet.prefix and subnet.prefix not in taken:
            yield Route(netns=netns, device=device, destination=subnet.prefix)


def _neighbours(
    bridge: str, addresses: tuple[IPAddress, ...], mac: str, host: HostFacts
) -> Iterator[Noun]:
    for address in addresses:
        if address.version == 4 or host.ipv6:
            yield Neighbour(device=bridge, address=address, mac=mac)


def _underlay(network: Network) -> Underlay:
    if network.underlay is None:
        raise InvalidRequest(
            f"{network.name} is to be an overlay, and this host is no member of a cluster",
            "run: net cluster init, or to join another host's: net cluster join",
        )
    return network.underlay


def _vni(network: Network) -> int:
    found = network.vni or number(network.options, "vni", 1, _MOST_VNI)
    if not found:
        raise InvalidRequest(f"overlay {network.name} was given no VNI", "give it one: -o vni=N")
    return found


def _own(network: Network, subnet: Subnet) -> IPAddress:
    if subnet.own is None:
        raise InvalidRequest(
            f"this host was given no address of its own in {subnet.prefix} of {network.name}",
            "make room there: net update --subnet CIDR",
        )
    return subnet.own


def _most_mtu(network: Network) -> int:
    return overlay_mtu(_underlay(network))


def _mtu(network: Network) -> int:
    most = _most_mtu(network)
    asked = number(network.options, "mtu", 68, 65535) or most
    if asked > most:
        underlay = _underlay(network)
        raise InvalidOption(
            f"{network.name} has MTU {asked}, and {underlay.address} of this host, with MTU "
            f"{underlay.mtu}, can carry {most} at most",
            f"raise the MTU of that device, or make the network with -o mtu={most}",
        )
    return asked
