"""Wirings that tests build: a network, an endpoint, and arbitrary ones for properties."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

from hypothesis import strategies as st

from netlib.model import Netns
from netlib.wiring import (
    Address,
    Bridge,
    FdbEntry,
    Forwarding,
    Loopback,
    Neighbour,
    Noun,
    Route,
    Sysctl,
    Up,
    VethPair,
    Vxlan,
    Wiring,
)

BRIDGE = Bridge(name="nl-1", owner="netlib:1", mtu=1500, mac="02:00:00:00:00:01")


def network() -> Wiring:
    """A bridge with gateways of both families, and forwarding of IPv4."""
    return Wiring([
        Forwarding(family=4),
        BRIDGE,
        Address(device="nl-1", address=ip_interface("198.51.100.1/24")),
        Address(device="nl-1", address=ip_interface("2001:db8:1::1/64")),
    ])  # fmt: skip


def veth(netns: Netns, number: int, **changes: object) -> VethPair:
    """The pair that joins a sandbox to the bridge."""
    values: dict[str, object] = {
        "name": f"nv-{number}",
        "owner": f"netlib:1/{number}",
        "mtu": 1500,
        "peer": "eth0",
        "peer_netns": netns,
        "mac": f"02:00:00:00:01:{number:02x}",
        "bridge": "nl-1",
    }
    return VethPair(**{**values, **changes})  # type: ignore[arg-type]


def endpoint(netns: Netns, number: int = 2) -> Wiring:
    """All that joins a sandbox to the network, in every layer below the firewall."""
    return Wiring([
        Loopback(netns=netns),
        veth(netns, number),
        Sysctl(netns=netns, device="eth0", path="net/ipv6/conf/eth0/accept_ra", value="0",
               default="1"),
        Address(netns=netns, device="eth0", address=ip_interface(f"198.51.100.{number}/24")),
        Address(netns=netns, device="eth0", address=ip_interface(f"2001:db8:1::{number:x}/64")),
        Route(netns=netns, device="eth0", destination=ip_network("0.0.0.0/0"),
              via=ip_address("198.51.100.1")),
        Route(netns=netns, device="eth0", destination=ip_network("::/0"),
              via=ip_address("2001:db8:1::1")),
    ])  # fmt: skip


@st.composite
def wirings(draw: st.DrawFn, netns: tuple[Netns, ...]) -> Wiring:
    """Any wiring that makes sense: what stands on something comes with it."""
    nouns: list[Noun] = []
    bridges = draw(st.lists(st.integers(1, 2), unique=True))
    for number in bridges:
        nouns += draw(_bridges(number))
    for number in draw(st.lists(st.integers(1, 3), unique=True)):
        nouns += draw(_endpoints(number, bridges, draw(st.sampled_from(netns))))
    return Wiring(nouns)


@st.composite
def _bridges(draw: st.DrawFn, number: int) -> list[Noun]:
    name = f"nl-{number}"
    nouns: list[Noun] = [
        Bridge(
            name=name,
            owner=f"netlib:{draw(st.integers(1, 2))}",
            mtu=draw(st.sampled_from([1400, 1500])),
            mac=f"02:00:00:00:00:0{draw(st.integers(1, 2))}",
            ageing_seconds=draw(st.sampled_from([300, 60])),
            multicast_snooping=draw(st.booleans()),
        )
    ]
    lasts = draw(st.lists(st.integers(1, 3), unique=True))
    for last in lasts:
        address = ip_interface(f"10.{number}.0.{last}/24")
        nouns.append(Address(device=name, address=address))
    if draw(st.booleans()):
        nouns.append(Address(device=name, address=ip_interface(f"2001:db8:{number}::1/64")))
    # Linux empties the neighbour table with the last address, so there is none without.
    for last in draw(st.lists(st.integers(7, 9), unique=True)) if lasts else ():
        mac = f"02:00:00:00:02:0{draw(st.integers(1, 2))}"
        address4 = ip_address(f"10.{number}.0.{last}")
        nouns.append(Neighbour(device=name, address=address4, mac=mac))
    if draw(st.booleans()):
        nouns += draw(_tunnels(number))
    return nouns


@st.composite
def _tunnels(draw: st.DrawFn, number: int) -> list[Noun]:
    """The VXLAN port of a bridge, and its peers."""
    name = f"nx-{number}"
    port = Vxlan(
        name=name,
        owner=f"netlib:{draw(st.integers(1, 2))}",
        mtu=1400,
        bridge=f"nl-{number}",
        vni=draw(st.integers(1, 2)) * 10 + number,
        local=ip_address("192.0.2.1"),
        mac=f"02:00:00:00:03:0{number}",
        flood=draw(st.booleans()),
        isolated=draw(st.booleans()),
    )
    nouns: list[Noun] = [port]
    for last in draw(st.lists(st.integers(1, 4), unique=True)):
        remote = ip_address(f"192.0.2.{draw(st.integers(2, 3))}")
        nouns.append(FdbEntry(device=name, mac=f"02:00:00:00:04:0{last}", remote=remote))
    for last in draw(st.lists(st.integers(2, 3), unique=True)):
        remote = ip_address(f"192.0.2.{last}")
        nouns.append(FdbEntry(device=name, mac="00:00:00:00:00:00", remote=remote))
    return nouns


@st.composite
def _endpoints(draw: st.DrawFn, number: int, bridges: list[int], netns: Netns) -> list[Noun]:
    device = f"eth{draw(st.integers(1, 2))}{number}"
    bridge = draw(st.sampled_from(["", *(f"nl-{b}" for b in bridges)]))
    flags = {}
    if bridge:
        flags = {f: draw(st.booleans()) for f in ("isolated", "hairpin", "locked")}
        # Each its own: where one port is not locked, a frame from it takes along what a bridge
        # has entered for its sender at another one.
    nouns: list[Noun] = [
        veth(netns, number, peer=device, bridge=bridge, mtu=draw(st.sampled_from([1400, 1500])),
             mac=f"02:00:00:00:1{number}:{draw(st.integers(1, 2)):02x}", **flags)
    ]  # fmt: skip
    if draw(st.booleans()):
        path = f"net/ipv4/conf/{device}/arp_notify"
        nouns.append(Sysctl(netns=netns, device=device, path=path, value="1"))
    # The addresses of an endpoint tell its routes apart from other endpoints' in its sandbox.
    subnet = 10 * number + draw(st.integers(1, 2))
    lasts = draw(st.lists(st.integers(2, 4), unique=True, max_size=2))
    for last in lasts:
        address = ip_interface(f"10.{subnet}.0.{last}/24")
        nouns.append(Address(netns=netns, device=device, address=address))
    if not lasts:
        nouns.append(Up(netns=netns, device=device))
    elif draw(st.booleans()):
        nouns.append(Route(
            netns=netns,
            device=device,
            destination=ip_network("203.0.113.0/24"),
            via=ip_address(f"10.{subnet}.0.{draw(st.sampled_from([1, 254]))}"),
            metric=number,
        ))  # fmt: skip
    if draw(st.booleans()):
        six = f"2001:db8:{subnet}::2/64"
        nouns.append(Address(netns=netns, device=device, address=ip_interface(six)))
    return nouns
