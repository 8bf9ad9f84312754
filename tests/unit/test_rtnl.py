"""Messages are packed as Linux unpacks them, and the other way round."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlib.kernel import netlink, rtnl
from netlib.kernel import rtnl_entries as entries
from netlib.kernel.announce import arp_announcement, frame, neighbour_advertisement


@given(st.dictionaries(st.integers(1, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_attributes_are_read_as_they_were_packed(values: dict[int, bytes]) -> None:
    """Each is padded to four bytes, and its length says how much of it counts."""
    packed = b"".join(netlink.attribute(kind, payload) for kind, payload in values.items())

    assert len(packed) % 4 == 0
    assert netlink.attributes(packed) == values


@given(st.binary(max_size=64))
def test_garbage_is_read_without_harm(data: bytes) -> None:
    """A length that can not be ends the reading."""
    netlink.attributes(data)


def test_nested_attributes_are_marked() -> None:
    """Linux requires NLA_F_NESTED in some places and takes it everywhere."""
    packed = netlink.nested(18, netlink.text(1, "veth"))

    assert struct.unpack_from("=HH", packed) == (len(packed), 18 | 0x8000)
    assert netlink.attributes(netlink.attributes(packed)[18]) == {1: b"veth\0"}


def test_a_link_is_read() -> None:
    """The parts that nouns are compared by."""
    body = rtnl.link_body(
        netlink.text(rtnl.NAME, "nv-2"),
        netlink.u32(rtnl.MTU, 1400),
        netlink.u32(rtnl.MASTER, 7),
        netlink.text(rtnl.ALIAS, "netlib:1/2"),
        netlink.attribute(rtnl.MAC, rtnl.packed_mac("02:00:00:00:00:0a")),
        rtnl.info("veth"),
        index=9,
        up=True,
    )

    state = rtnl.read_link(body)

    assert (state.ifindex, state.name, state.kind, state.up) == (9, "nv-2", "veth", True)
    assert (state.mtu, state.master, state.mac) == (1400, 7, "02:00:00:00:00:0a")
    assert state.alias == "netlib:1/2"
    assert not state.elsewhere


@pytest.mark.parametrize("text", ["192.0.2.2/24", "2001:db8::2/64", "192.0.2.2/32"])
def test_an_address_is_read_as_it_was_packed(text: str) -> None:
    """Both families; IPv6 without duplicate address detection."""
    request = entries.new_address(4, ip_interface(text))

    assert entries.read_address(request.body) == (4, ip_interface(text))
    assert bool(request.body[2] & 0x02) == (":" in text)


@pytest.mark.parametrize(
    ("destination", "via", "metric"),
    [
        ("0.0.0.0/0", "192.0.2.1", 0),
        ("203.0.113.0/24", None, 100),
        ("::/0", "2001:db8::1", 1024),
        ("2001:db8:9::/48", None, 0),
    ],
)
def test_a_route_is_read_as_it_was_packed(destination: str, via: str | None, metric: int) -> None:
    """IPv6's default metric counts as none."""
    network = ip_network(destination)
    gateway = ip_address(via) if via else None

    state = entries.read_route(entries.new_route(network, 5, gateway, metric, on_link=True).body)

    assert state.destination == (
        entries.family(network),
        network.network_address.packed,
        network.prefixlen,
    )
    assert (state.via, state.ifindex, state.table) == (gateway, 5, 254)
    assert state.on_link
    assert state.metric == (0 if metric == 1024 else metric)


def test_the_first_of_several_next_hops_counts() -> None:
    """An ECMP default route has an uplink too."""
    hop = struct.pack("=HBBi", 16, 0, 0, 3) + netlink.attribute(5, ip_address("192.0.2.1").packed)
    other = struct.pack("=HBBi", 16, 0, 0, 4) + netlink.attribute(5, ip_address("192.0.2.2").packed)
    header = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 4, 0, 1, 0)

    state = entries.read_route(header + netlink.attribute(9, hop + other))

    assert (state.ifindex, state.via) == (3, ip_address("192.0.2.1"))


def test_entries_are_read_as_they_were_packed() -> None:
    """Neighbours, and both halves of a forwarding entry."""
    mac = "02:00:00:00:00:0a"
    neighbour = entries.read_neighbour(entries.new_neighbour(3, ip_address("192.0.2.9"), mac).body)
    assert (neighbour.ifindex, neighbour.mac, neighbour.state) == (3, mac, entries.PERMANENT)
    assert neighbour.address == ip_address("192.0.2.9")

    tunnel = entries.read_neighbour(entries.tunnel_entry(3, mac, ip_address("2001:db8::1"), 0).body)
    assert (tunnel.flags, tunnel.address) == (entries.SELF, ip_address("2001:db8::1"))
    port = entries.read_neighbour(entries.port_entry(3, mac, sticky=True).body)
    assert port.flags == entries.AT_MASTER | entries.STICKY
    assert port.state == entries.NO_ARP


def test_an_arp_announcement_is_that_of_rfc_5227() -> None:
    """A broadcast request whose sender and target address are the same."""
    mac, address = bytes.fromhex("02000000000a"), bytes([192, 0, 2, 2])

    sent = arp_announcement(mac, address)

    assert sent == bytes.fromhex(
        "ffffffffffff" "02000000000a" "0806" "0001080006040001"
        "02000000000a" "c0000202" "000000000000" "c0000202"
    )  # fmt: skip
    assert frame(mac, ip_interface("192.0.2.2/24")) == sent


def test_a_neighbour_advertisement_is_that_of_rfc_4861() -> None:
    """To all nodes, hop limit 255, override flag, and a checksum that is right."""
    mac, address = bytes.fromhex("02000000000a"), ip_address("2001:db8::2").packed

    sent = neighbour_advertisement(mac, address)

    assert sent[:14] == bytes.fromhex("33330000000102000000000a86dd")
    header, message = sent[14:54], sent[54:]
    assert (header[6], header[7]) == (58, 255)
    assert header[8:24] == address
    assert header[24:] == ip_address("ff02::1").packed
    assert (message[0], message[4]) == (136, 0x20)
    assert message[8:24] == address
    assert message[24:] == b"\x02\x01" + mac
    words = struct.unpack(
        "!40H", header[8:] + struct.pack("!II", len(message), 58) + message + bytes(8)
    )
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
    assert frame(mac, ip_interface("2001:db8::2/64")) == sent
