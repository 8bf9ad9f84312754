"""Which address a host is reached at: chosen only where there is no doubt."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlib.cluster.addresses import choose, place
from netlib.errors import InvalidAddress, NetError, NoSuchDevice, NotLocal
from netlib.kernel.own_addresses import OwnAddress

OWN = [
    OwnAddress(device, ip_interface(address))
    for device, address in [
        ("lo", "127.0.0.1/8"),
        ("lo", "::1/128"),
        ("eth0", "192.0.2.1/24"),
        ("eth0", "fe80::1/64"),
        ("eth0", "2001:db8::1/64"),
        ("eth1", "198.51.100.1/24"),
        ("eth1", "198.51.100.2/24"),
        ("eth2", "2001:db8:1::1/64"),
        ("nl-0123456789ab", "203.0.113.1/24"),
    ]
]


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("eth0", "192.0.2.1"),
        ("eth2", "2001:db8:1::1"),
    ],
)
def test_an_address_or_a_device_is_enough(asked: str, chosen: str) -> None:
    """A device with one address of each family gives that of IPv4."""
    assert choose(asked, OWN, "--advertise-addr") == ip_address(chosen)


def test_the_only_address_needs_no_asking() -> None:
    """Loopback, link-local and our own networks' addresses don't count."""
    own = [one for one in OWN if one.device in ("lo", "eth0", "nl-0123456789ab")]

    assert choose("", own, "--advertise-addr") == ip_address("192.0.2.1")


@pytest.mark.parametrize("asked", ["", "eth1"])
def test_of_several_one_must_be_named(asked: str) -> None:
    """The error lists them, and names the option."""
    with pytest.raises(NotLocal) as refusal:
        choose(asked, OWN, "--advertise-addr")

    assert "--advertise-addr" in refusal.value.hint
    assert "198.51.100.2 (eth1)" in refusal.value.hint


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ("192.0.2.77", NotLocal),
        ("0.0.0.0", InvalidAddress),
        ("ff02::1", InvalidAddress),
        ("eth7", NoSuchDevice),
        ("lo", NotLocal),
    ],
)
def test_what_others_can_not_reach_is_refused(asked: str, error: type[NetError]) -> None:
    """With what the host has, to choose from."""
    with pytest.raises(error) as refusal:
        choose(asked, OWN, "--advertise-addr")

    assert refusal.value.hint


def test_a_host_without_addresses_is_told_so() -> None:
    """Not as if it had several."""
    with pytest.raises(NotLocal, match="no address"):
        choose("", [OWN[0]], "--advertise-addr")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("192.0.2.1", ("192.0.2.1", 2377)),
        ("192.0.2.1:99", ("192.0.2.1", 99)),
        ("2001:db8::1", ("2001:db8::1", 2377)),
        ("[2001:db8::1]", ("2001:db8::1", 2377)),
        ("[2001:db8::1]:99", ("2001:db8::1", 99)),
        ("eth0:99", ("eth0", 99)),
        ("manager.example", ("manager.example", 2377)),
        ("", ("", 2377)),
    ],
)
def test_places_are_read(text: str, parts: tuple[str, int]) -> None:
    """With a port or without, of both families, or by name."""
    assert place(text, 2377, "--advertise-addr") == parts


@pytest.mark.parametrize("text", ["192.0.2.1:", "192.0.2.1:0", "eth0:65536", "eth0:x", "a:-1"])
def test_what_is_no_port_is_refused(text: str) -> None:
    """Rather than taken for a part of the name."""
    with pytest.raises(InvalidAddress, match="no port"):
        place(text, 2377, "--advertise-addr")


@given(st.text(max_size=40))
def test_any_text_is_a_place_or_refused(text: str) -> None:
    """No other error."""
    try:
        host, port = place(text, 2377, "--advertise-addr")
        choose(host, OWN, "--advertise-addr")
    except NetError:
        return
    assert 0 < port < 65536
