"""Addresses: what may be given, and what comes next."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlib.errors import Exhausted, InvalidAddress
from netlib.ipam import (
    capacity,
    check_static,
    choose,
    hosts,
    lease_address,
    lease_key,
    usable,
)
from netlib.model import AddressRange, IPAddress, Subnet
from netlib.subnets import parse_range, plain_subnet


class Held:
    """Leases in a sorted list, and how often they were asked."""

    def __init__(self, addresses: Sequence[str | IPAddress] = ()) -> None:
        self.keys = sorted(int(ip_address(address)) for address in addresses)
        self.questions = 0

    def take(self, address: IPAddress) -> None:
        """One more lease."""
        assert int(address) not in self.keys
        insort(self.keys, int(address))

    def count(self, first: IPAddress, last: IPAddress) -> int:
        """How many from first to last."""
        self.questions += 1
        return bisect_right(self.keys, int(last)) - bisect_left(self.keys, int(first))

    def page(self, first: IPAddress, last: IPAddress, limit: int) -> list[IPAddress]:
        """The lowest of them."""
        self.questions += 1
        start, end = bisect_left(self.keys, int(first)), bisect_right(self.keys, int(last))
        return [type(first)(key) for key in self.keys[start:end][:limit]]


def subnet(prefix: str, gateway: str = "", ranges: str = "", reserved: str = "") -> Subnet:
    network = ip_network(prefix)
    return Subnet(
        prefix=network,
        gateway=ip_address(gateway) if gateway else None,
        ranges=tuple(parse_range(text, network) for text in ranges.split()),
        reserved={f"name{n}": ip_address(text) for n, text in enumerate(reserved.split())},
    )


def texts(ranges: Sequence[AddressRange]) -> str:
    return " ".join(map(str, ranges))


# -- what may be given --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "rest", "wanted"),
    [
        ("192.0.2.0/24", {}, "192.0.2.1-192.0.2.254"),
        ("192.0.2.0/24", {"gateway": "192.0.2.1"}, "192.0.2.2-192.0.2.254"),
        (
            "192.0.2.0/24",
            {"gateway": "192.0.2.7"},
            "192.0.2.1-192.0.2.6 192.0.2.8-192.0.2.254",
        ),
        (
            "192.0.2.0/24",
            {"gateway": "192.0.2.1", "ranges": "192.0.2.0/30 192.0.2.250-192.0.2.255"},
            "192.0.2.2-192.0.2.3 192.0.2.250-192.0.2.254",
        ),
        (
            "192.0.2.0/24",
            {"ranges": "192.0.2.20-192.0.2.30 192.0.2.10-192.0.2.25"},
            "192.0.2.10-192.0.2.25 192.0.2.26-192.0.2.30",
        ),
        (
            "192.0.2.0/29",
            {"gateway": "192.0.2.1", "reserved": "192.0.2.2 192.0.2.6 192.0.2.4"},
            "192.0.2.3-192.0.2.3 192.0.2.5-192.0.2.5",
        ),
        ("192.0.2.0/30", {"gateway": "192.0.2.1"}, "192.0.2.2-192.0.2.2"),
        ("192.0.2.0/31", {}, "192.0.2.0-192.0.2.1"),
        ("192.0.2.0/31", {"gateway": "192.0.2.0"}, "192.0.2.1-192.0.2.1"),
        ("192.0.2.9/32", {}, "192.0.2.9-192.0.2.9"),
        ("192.0.2.9/32", {"gateway": "192.0.2.9"}, ""),
        ("2001:db8::/64", {}, "2001:db8::1-2001:db8::ffff:ffff:ffff:ffff"),
        (
            "2001:db8::/64",
            {"gateway": "2001:db8::1", "ranges": "2001:db8::/126"},
            "2001:db8::2-2001:db8::3",
        ),
        ("2001:db8::/127", {}, "2001:db8::-2001:db8::1"),
        ("2001:db8::9/128", {}, "2001:db8::9-2001:db8::9"),
    ],
)
def test_what_endpoints_may_be_given(prefix: str, rest: dict[str, str], wanted: str) -> None:
    """Neither network nor broadcast, gateway nor reserved; on a point-to-point link both."""
    assert texts(usable(subnet(prefix, **rest))) == wanted


def test_capacity_counts_what_may_be_given() -> None:
    """Also where there is more of it than could ever be listed."""
    assert capacity(subnet("192.0.2.0/24", "192.0.2.1")) == 253
    assert capacity(subnet("2001:db8::/64", "2001:db8::1")) == 2**64 - 2
    assert capacity(subnet("192.0.2.9/32", "192.0.2.9")) == 0


@st.composite
def small_subnets(draw: st.DrawFn) -> Subnet:
    prefix = ip_network(
        draw(
            st.sampled_from(
                [
                    "192.0.2.32/27",
                    "192.0.2.8/30",
                    "192.0.2.8/31",
                    "2001:db8::/122",
                    "2001:db8::/127",
                ]
            )
        )
    )
    addresses = st.integers(0, prefix.num_addresses - 1).map(lambda n: prefix[n])
    bounds = st.tuples(addresses, addresses).map(lambda pair: sorted(pair, key=int))
    ranges = draw(st.lists(bounds, max_size=3))
    reserved = draw(st.lists(addresses, max_size=4))
    return Subnet(
        prefix=prefix,
        gateway=draw(st.one_of(st.none(), addresses)),
        ranges=tuple(AddressRange(first=first, last=last) for first, last in ranges),
        reserved={str(number): address for number, address in enumerate(reserved)},
    )


def allowed(subnet: Subnet) -> list[IPAddress]:
    """The definition of `usable`, address by address."""
    return [
        address
        for address in subnet.prefix
        if address in hosts(subnet.prefix)
        and (not subnet.ranges or any(address in limit for limit in subnet.ranges))
        and address != subnet.gateway
        and address not in subnet.reserved.values()
    ]


@given(small_subnets())
def test_usable_is_what_its_definition_says(subnet: Subnet) -> None:
    """In order, without overlap, for all combinations of ranges and reservations."""
    found = [
        type(part.first)(number)
        for part in usable(subnet)
        for number in range(int(part.first), int(part.last) + 1)
    ]
    assert found == allowed(subnet)
    assert capacity(subnet) == len(found)


# -- what comes next ----------------------------------------------------------------------------


@given(small_subnets(), st.data())
def test_addresses_come_round_robin_until_none_is_left(subnet: Subnet, data: st.DataObject) -> None:
    """Each once, in order from the cursor with one wrap, then Exhausted."""
    free = allowed(subnet)
    cursor = data.draw(st.one_of(st.none(), st.sampled_from(list(subnet.prefix))))
    taken = data.draw(st.sets(st.sampled_from(list(subnet.prefix))))
    held = Held(list(taken))
    order = [a for a in free if cursor is None or int(a) > int(cursor)]
    order += [a for a in free if a not in order]

    for wanted in [address for address in order if address not in taken]:
        cursor = choose(subnet, held, cursor)
        assert cursor == wanted
        held.take(cursor)
    with pytest.raises(Exhausted):
        choose(subnet, held, cursor)


def test_a_freed_address_is_used_again_as_late_as_possible() -> None:
    """The one freed last comes after all others: neighbours may still know its old holder."""
    pool = subnet("192.0.2.0/28", "192.0.2.1")
    given_out, cursor = [], None
    for _ in range(2 * capacity(pool)):
        cursor = choose(pool, Held(), cursor)  # each is free again at once
        given_out.append(cursor)

    assert len(set(given_out[:13])) == 13
    assert given_out[13:] == given_out[:13]


@pytest.mark.parametrize("holes", [[], [16], [17], [5000], [65533], [40000, 50000]], ids=str)
def test_the_only_holes_of_a_nearly_full_pool_are_found_fast(holes: list[int]) -> None:
    """A /16 is never walked address by address: some thirty questions at most."""
    pool = subnet("10.9.0.0/16", "10.9.0.1")
    first = int(ip_address("10.9.0.2"))
    held = Held()
    held.keys = [first + n for n in range(65533) if n + 1 not in holes]

    if holes:
        assert choose(pool, held) == IPv4Address(first + min(holes) - 1)
    else:
        with pytest.raises(Exhausted):
            choose(pool, held)
    assert held.questions < 40


@pytest.mark.parametrize("prefix", ["192.0.2.0/24", "10.0.0.0/8", "2001:db8::/64", "2001:db8::/32"])
def test_a_large_pool_costs_what_a_small_one_does(prefix: str) -> None:
    """Questions grow with the run of taken addresses, not with the prefix."""
    pool = plain_subnet(ip_network(prefix))
    start = usable(pool)[0].first
    held = Held([start + number for number in range(100)])

    assert choose(pool, held) == start + 100
    assert held.questions <= 14
    held.questions = 0
    assert choose(pool, held, start + 99) == start + 100
    assert held.questions == 1


def test_exhaustion_says_what_holds_the_pool() -> None:
    """How many by endpoints, by the gateway, by reservation; and what to do."""
    pool = subnet("192.0.2.0/28", "192.0.2.1", "192.0.2.2-192.0.2.4", "192.0.2.4")
    with pytest.raises(Exhausted) as error:
        choose(pool, Held(["192.0.2.2", "192.0.2.3", "192.0.2.9"]))

    assert error.value.message == (
        "no address is free in 192.0.2.0/28 (192.0.2.2-192.0.2.4):"
        " 2 by endpoints, 1 by the gateway, 1 reserved"
    )
    assert "net gc" in error.value.hint


# -- static addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["192.0.2.2", "192.0.2.200", "192.0.2.254"])
def test_a_static_address_may_be_outside_the_ranges(address: str) -> None:
    """Ranges are for what is chosen; a person may take any host's address of the prefix."""
    pool = subnet("192.0.2.0/24", "192.0.2.1", "192.0.2.64/26", "192.0.2.5")

    assert check_static(pool, ip_address(address)) == ip_address(address)


@pytest.mark.parametrize(
    ("prefix", "address", "says"),
    [
        ("192.0.2.0/24", "192.0.3.1", "not in 192.0.2.0/24"),
        ("192.0.2.0/24", "2001:db8::1", "not in 192.0.2.0/24"),
        ("192.0.2.0/24", "192.0.2.0", "the network address"),
        ("192.0.2.0/24", "192.0.2.255", "the broadcast address"),
        ("2001:db8::/64", "2001:db8::", "anycast"),
        ("192.0.2.0/24", "192.0.2.1", "the gateway"),
        ("192.0.2.0/24", "192.0.2.5", "reserved in 192.0.2.0/24 for 'name0'"),
    ],
)
def test_a_static_address_that_can_not_be(prefix: str, address: str, says: str) -> None:
    """The error says what the address is instead."""
    gateway, reserved = ("192.0.2.1", "192.0.2.5") if "." in prefix else ("2001:db8::1", "")
    with pytest.raises(InvalidAddress, match=says):
        check_static(subnet(prefix, gateway, reserved=reserved), ip_address(address))


# -- keys ---------------------------------------------------------------------------------------

ADDRESSES = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)
)


@given(ADDRESSES, ADDRESSES)
def test_lease_keys_stand_in_the_order_of_their_addresses(one: IPAddress, other: IPAddress) -> None:
    """Within a family by number, IPv4 before IPv6: a range of addresses is a range of keys."""
    assert lease_address(lease_key(one)) == one
    by_number = (one.version, int(one)) < (other.version, int(other))
    assert (lease_key(one) < lease_key(other)) is by_number
