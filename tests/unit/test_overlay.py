"""What the overlay driver makes of a network, its options and its peers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.overlay import UNDERLAY, Placed, placed

from netlib import names
from netlib.cluster.members import membership
from netlib.cluster.model import Node
from netlib.drivers.overlay import OverlayDriver, overlay_mtu
from netlib.errors import InvalidOption, InvalidRequest, NetError, NotAMember, Unsupported
from netlib.kernel.fake import FakeKernel
from netlib.model import HostFacts, IPAddress, Network, Peer, Subnet
from netlib.net import Net
from netlib.registry import Registry
from netlib.store.memory import MemoryStore
from netlib.wiring import (
    Bridge,
    FdbEntry,
    Neighbour,
    Route,
    VethPair,
    Vxlan,
    VxlanMember,
    VxlanPort,
    Wiring,
)

DRIVER = OverlayDriver()
HOST = HostFacts()
NETWORK = Network(
    id="ab" * 32,
    name="app",
    driver="overlay",
    subnets=(
        Subnet(prefix=ip_network("198.51.100.0/24"), gateway=ip_address("198.51.100.1")),
        Subnet(prefix=ip_network("2001:db8:a::/64"), gateway=ip_address("2001:db8:a::1")),
    ),
)
HERE = placed(NETWORK)
PEER = Peer(
    mac="02:00:00:00:00:21",
    addresses=(ip_address("198.51.100.21"), ip_address("2001:db8:a::21")),
    host=ip_address("203.0.113.2"),
)


def nodes(*lasts: int) -> list[Node]:
    """Hosts of a cluster."""
    addresses = [ip_address(f"203.0.113.{last}") for last in lasts]
    return [Node(id=str(a), name=str(a), address=a, data_address=a) for a in addresses]


# -- who is who -----------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address))
def test_a_mac_is_a_hosts_own_and_nobodys_group(four: IPAddress, six: IPAddress) -> None:
    """Locally administered, unicast (IEEE 802), and always the same."""
    for address in (four, six):
        mac = names.mac_at("ab" * 32, address)
        assert len(mac) == 17
        assert int(mac[:2], 16) & 3 == 2
        assert mac == names.mac_at("ab" * 32, address)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_two_addresses_of_a_network_never_have_one_mac(one: int, other: int) -> None:
    """The IPv4 address is in it whole."""
    macs = {names.mac_at("ab" * 32, IPv4Address(number)) for number in (one, other)}
    assert len(macs) == len({one, other})


def test_networks_have_different_macs_for_one_address() -> None:
    """So that one who captures on an underlay can tell them apart."""
    assert len({names.mac_at(n * 32, IPv4Address("192.0.2.1")) for n in ("ab", "ac", "bb")}) == 3


def test_hosts_share_the_gateways_address_and_no_mac() -> None:
    """Each has an address of its own besides, from which it sends."""
    wirings = [DRIVER.network_wiring(placed(NETWORK, host=n), HOST) for n in (1, 2)]
    bridges = [next(n for n in wiring if isinstance(n, Bridge)) for wiring in wirings]
    routes = [[n.src for n in wiring if isinstance(n, Route)] for wiring in wirings]

    assert bridges[0].name == bridges[1].name
    assert bridges[0].mac != bridges[1].mac
    assert all(str(s.gateway) in str(list(w)) for w in wirings for s in NETWORK.subnets)
    assert not {*routes[0]} & {*routes[1]}
    assert None not in routes[0]


def test_a_mac_follows_from_the_address_and_no_other_can_be_had() -> None:
    """But for who asks for the very one."""
    registry = Registry({"overlay": Placed()})
    with Net(store=MemoryStore(), kernel=FakeKernel(), registry=registry) as net:
        network = net.create("app", driver="overlay")
        for name in ("web", "db"):
            net.create_sandbox(name)
        endpoint = net.connect("app", "web")
        assert endpoint.mac == names.mac_at(network.id, endpoint.addresses[0].ip)
        with pytest.raises(Unsupported, match="follows from the IP address"):
            net.connect("app", "db", mac="02:00:5e:00:53:01")
        net.disconnect("app", "web")
        address = str(endpoint.addresses[0].ip)
        again = net.connect("app", "db", addresses=[address], mac=endpoint.mac)
        assert again.mac == endpoint.mac


# -- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("address", "most"), [("203.0.113.1", 1450), ("2001:db8::1", 1430)])
def test_the_mtu_is_the_underlays_less_what_goes_around(address: str, most: int) -> None:
    """In the bridge, the port and the sandbox alike; recorded when the network is made."""
    there = replace(UNDERLAY, address=ip_address(address))
    network = placed(NETWORK, underlay=there)

    assert overlay_mtu(there) == most
    assert DRIVER.settle(network, HOST) == {"mtu": str(most)}
    wiring = DRIVER.network_wiring(network, HOST)
    assert {n.mtu for n in wiring if isinstance(n, Bridge | Vxlan)} == {most}
    smaller = replace(network, options={"mtu": "1400"})
    assert DRIVER.settle(smaller, HOST) == {}
    wiring = DRIVER.network_wiring(smaller, HOST)
    assert {n.mtu for n in wiring if isinstance(n, Bridge | Vxlan)} == {1400}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"vni": "0"}, InvalidOption),
        ({"vni": "16777216"}, InvalidOption),
        ({"vni": "4097,4098"}, InvalidOption),
        ({"mtu": "1279"}, InvalidOption),
        ({"encrypted": ""}, Unsupported),
        ({"encrypted": "true"}, Unsupported),
        ({"host_binding_ipv4": "::1"}, InvalidOption),
    ],
)
def test_what_can_not_be_is_refused(options: dict[str, str], error: type[NetError]) -> None:
    """With the way out."""
    with pytest.raises(error) as caught:
        DRIVER.check_options(replace(HERE, options=options))
    assert caught.value.hint


def test_encryption_that_is_not_asked_for_is_no_error() -> None:
    """As others' tools write it."""
    for value in ("false", "no", "0"):
        DRIVER.check_options(replace(HERE, options={"encrypted": value}))


def test_a_host_of_no_cluster_is_told_how_to_get_one() -> None:
    """Before anything is made."""
    with Net(store=MemoryStore(), kernel=FakeKernel()) as net:
        with pytest.raises(NotAMember, match="not a member of a cluster") as caught:
            net.create("app", driver="overlay")
        assert "net cluster init" in caught.value.hint
        assert "app" not in {network.name for network in net.networks()}
        assert not net.engine.kernel.marked()


def test_what_the_cluster_has_not_given_is_told() -> None:
    """A VNI, or an address of the host's own."""
    with pytest.raises(InvalidRequest, match="no VNI"):
        DRIVER.network_wiring(replace(HERE, vni=0), HOST)
    with pytest.raises(InvalidRequest, match="no address of its own"):
        DRIVER.network_wiring(replace(HERE, subnets=NETWORK.subnets), HOST)


# -- others ---------------------------------------------------------------------------------------


def test_a_peer_is_an_entry_and_its_neighbours() -> None:
    """Nothing else, so that one more costs one."""
    port, bridge = names.vxlan(NETWORK.id), names.bridge(NETWORK.id)
    entry = FdbEntry(device=port, mac=PEER.mac, remote=PEER.host)
    near = [Neighbour(device=bridge, address=a, mac=PEER.mac) for a in PEER.addresses]

    assert DRIVER.peer_wiring(HERE, PEER, HOST) == Wiring([entry, *near])
    without = replace(HOST, ipv6=False)
    assert DRIVER.peer_wiring(HERE, PEER, without) == Wiring([entry, near[0]])


def test_only_hosts_are_sent_what_is_for_everybody() -> None:
    """Once each, however many endpoints they have; and only where that is asked for."""
    loud = replace(HERE, options={"flood": "on"})
    flooded = FdbEntry(
        device=names.vxlan(NETWORK.id), mac="00:00:00:00:00:00", remote=ip_address("203.0.113.2")
    )
    host = replace(PEER, is_host=True)

    assert flooded in DRIVER.peer_wiring(loud, host, HOST)
    assert flooded not in DRIVER.peer_wiring(loud, PEER, HOST)
    assert flooded not in DRIVER.peer_wiring(HERE, host, HOST)


def test_an_endpoint_that_comes_home_keeps_its_neighbours() -> None:
    """A peer and a local endpoint are the same neighbours: moving replaces the way, not the who."""
    with Net(store=MemoryStore(), kernel=FakeKernel(), registry=Registry({"o": Placed()})) as net:
        net.create("app", driver="o")
        net.create_sandbox("web")
        endpoint = net.connect("app", "web")
    network = placed(replace(NETWORK, id=endpoint.network))
    addresses = tuple(address.ip for address in endpoint.addresses)
    peer = Peer(mac=endpoint.mac, addresses=addresses, host=PEER.host)
    away = DRIVER.peer_wiring(network, peer, HOST)
    home = DRIVER.endpoint_wiring(network, endpoint, HOST)

    assert {n for n in away if isinstance(n, Neighbour)} <= set(home)
    assert all(n.locked for n in home if isinstance(n, VethPair))


def test_members_are_heard_before_the_first_network_is_there() -> None:
    """The port is closed to all others, and this host is a member itself."""
    here, *others = nodes(1, 2, 3)
    wiring = membership(here, others)

    assert VxlanPort(port=4789) in wiring
    heard = {n.address for n in wiring if isinstance(n, VxlanMember)}
    assert heard == {node.data_address for node in (here, *others)}
