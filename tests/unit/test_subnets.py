"""Subnets: what options for them mean."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from netlib.errors import InvalidAddress
from netlib.model import Subnet
from netlib.subnets import Ways, parse_prefix, parse_range, parse_subnet_options, plain_subnet


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("192.0.2.64/26", "192.0.2.64-192.0.2.127"),
        ("192.0.2.10-192.0.2.20", "192.0.2.10-192.0.2.20"),
        ("192.0.2.10 - 192.0.2.10", "192.0.2.10-192.0.2.10"),
        ("192.0.2.7", "192.0.2.7-192.0.2.7"),
        ("192.0.2.0/24", "192.0.2.0-192.0.2.255"),
    ],
)
def test_a_range_is_a_prefix_or_two_ends(text: str, wanted: str) -> None:
    """Docker's form and Podman's."""
    assert str(parse_range(text, ip_network("192.0.2.0/24"))) == wanted


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("192.0.3.0/26", "not within"),
        ("192.0.2.0/23", "not within"),
        ("192.0.2.250-192.0.3.2", "not within"),
        ("2001:db8::/64", "not within"),
        ("192.0.2.70/26", "did you mean 192.0.2.64/26"),
        ("192.0.2.20-192.0.2.10", "did you mean 192.0.2.10-192.0.2.20"),
        ("192.0.2.1-2001:db8::1", "mixes"),
        ("192.0.2.1-", "no address"),
        ("all", "no prefix"),
        ("", "no prefix"),
    ],
)
def test_a_range_that_can_not_be_says_why(text: str, says: str) -> None:
    """Outside, backwards, of two families, or unreadable."""
    with pytest.raises(InvalidAddress, match=says):
        parse_range(text, ip_network("192.0.2.0/24"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("192.0.2.1/24", "did you mean 192.0.2.0/24"),
        ("2001:db8::1/64", "did you mean 2001:db8::/64"),
        ("127.8.0.0/16", "loopback"),
        ("0.0.0.0/0", "this network"),
        ("128.0.0.0/1", "link-local"),
        ("239.0.0.0/24", "multicast"),
        ("169.254.7.0/24", "link-local"),
        ("fe80::/64", "link-local"),
        ("ff05::/64", "multicast"),
        ("::/0", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:192.0.2.0/120", "IPv4-mapped"),
        ("192.0.2.0/33", "no prefix"),
        ("my-net", "no prefix"),
        ("", "no prefix"),
    ],
)
def test_a_prefix_that_can_not_be_says_why(text: str, says: str) -> None:
    """What no endpoint can have is refused before anything is made."""
    with pytest.raises(InvalidAddress, match=says):
        parse_prefix(text)


def test_options_go_to_the_subnet_that_holds_them() -> None:
    """Whatever order they come in, as Docker does it."""
    found = parse_subnet_options(
        ["192.0.2.0/24", "2001:db8::/64", "198.51.100.0/24"],
        gateways=["2001:db8::99", "198.51.100.9"],
        ip_ranges=["198.51.100.64/26", "192.0.2.10-192.0.2.20", "198.51.100.200-198.51.100.201"],
        aux=["router=192.0.2.1", "router=2001:db8::1", "nas=192.0.2.7"],
    )

    assert found == (
        Subnet(
            prefix=ip_network("192.0.2.0/24"),
            gateway=ip_address("192.0.2.2"),
            ranges=(parse_range("192.0.2.10-192.0.2.20", ip_network("192.0.2.0/24")),),
            reserved={"router": ip_address("192.0.2.1"), "nas": ip_address("192.0.2.7")},
        ),
        Subnet(
            prefix=ip_network("2001:db8::/64"),
            gateway=ip_address("2001:db8::99"),
            reserved={"router": ip_address("2001:db8::1")},
        ),
        Subnet(
            prefix=ip_network("198.51.100.0/24"),
            gateway=ip_address("198.51.100.9"),
            ranges=tuple(
                parse_range(text, ip_network("198.51.100.0/24"))
                for text in ("198.51.100.64/26", "198.51.100.200-198.51.100.201")
            ),
        ),
    )


@pytest.mark.parametrize(
    ("prefix", "gateway"),
    [
        ("192.0.2.0/24", "192.0.2.1"),
        ("192.0.2.0/30", "192.0.2.1"),
        ("192.0.2.0/31", "192.0.2.0"),
        ("2001:db8::/64", "2001:db8::1"),
        ("2001:db8::/127", "2001:db8::"),
    ],
)
def test_the_default_gateway_is_the_first_host(prefix: str, gateway: str) -> None:
    """Given or chosen prefix, the same; none where none is wanted."""
    nowhere = Ways(none=frozenset({4, 6}))
    (found,) = parse_subnet_options([prefix])
    assert found.gateway == ip_address(gateway)
    assert plain_subnet(ip_network(prefix)) == found
    assert parse_subnet_options([prefix], ways=nowhere)[0].gateway is None
    assert plain_subnet(ip_network(prefix), nowhere).gateway is None


@pytest.mark.parametrize(
    ("subnets", "gateways", "expected"),
    [
        (["192.0.2.7/32"], ["198.51.100.1"], ["198.51.100.1"]),
        (["2001:db8::7/128"], ["fe80::1"], ["fe80::1"]),
        (["192.0.2.7/32", "198.51.100.0/24"], [], ["198.51.100.1", "198.51.100.1"]),
        (["192.0.2.7/32", "198.51.100.0/24"], ["198.51.100.9"], ["198.51.100.9", "198.51.100.9"]),
        (["192.0.2.7/32", "192.0.2.9/32"], ["198.51.100.1"], ["198.51.100.1", "198.51.100.1"]),
    ],
    ids=str,
)
def test_one_address_has_its_gateway_beyond(
    subnets: list[str], gateways: list[str], expected: list[str]
) -> None:
    """The one named, or that of another subnet on the same link."""
    found = parse_subnet_options(subnets, gateways)
    assert [str(subnet.gateway) for subnet in found] == expected
    assert [str(subnet.prefix) for subnet in found] == subnets


@pytest.mark.parametrize(
    ("gateways", "says"),
    [
        ([], "no room for a gateway.*--gateway"),
        (["192.0.2.7"], "no room for a gateway"),
        (["127.0.0.1"], "loopback"),
        (["224.0.0.1"], "multicast"),
        (["2001:db8::1"], "no subnet"),
    ],
    ids=str,
)
def test_one_address_needs_a_gateway_that_can_be(gateways: list[str], says: str) -> None:
    """Unless the network needs none."""
    with pytest.raises(InvalidAddress, match=says):
        parse_subnet_options(["192.0.2.7/32"], gateways)
    for ways in (Ways(none=frozenset({4})), Ways(optional=True)):
        (found,) = parse_subnet_options(["192.0.2.7/32"], ways=ways)
        assert found.gateway is None


def test_what_is_near_is_the_gateway_of_its_subnet() -> None:
    """A router before the host's own address, unless another is named or it is reserved."""
    near = Ways(near=(ip_address("192.0.2.254"), ip_address("192.0.2.5")))
    for options, expected in (
        ({}, "192.0.2.254"),
        ({"gateways": ["192.0.2.9"]}, "192.0.2.9"),
        ({"aux": ["router=192.0.2.254"]}, "192.0.2.1"),
    ):
        (found,) = parse_subnet_options(["192.0.2.0/24"], **options, ways=near)  # type: ignore[arg-type]
        assert str(found.gateway) == expected
    (apart,) = parse_subnet_options(["198.51.100.0/24"], ways=near)
    assert str(apart.gateway) == "198.51.100.1"


def test_a_link_local_router_of_a_lan_leads_out_of_all_its_ipv6_subnets() -> None:
    """Hosts learn it from router advertisements; what is asked for comes first."""
    prefixes = ["2001:db8:1::/64", "2001:db8:2::/64", "192.0.2.0/24"]
    lan = Ways(lan=True, near=(ip_address("fe80::1"),))

    def gateways(*asked: str) -> list[str]:
        return [str(s.gateway) for s in parse_subnet_options(prefixes, asked, ways=lan)]

    assert gateways() == ["fe80::1", "fe80::1", "192.0.2.1"]
    assert gateways("2001:db8:2::9") == ["fe80::1", "2001:db8:2::9", "192.0.2.1"]
    assert gateways("fe80::2", "2001:db8:2::9") == ["fe80::2", "2001:db8:2::9", "192.0.2.1"]
    for asked in (("fe80::2", "fe80::3"), ("fe80::2", "2001:db8:1::9", "2001:db8:2::9")):
        with pytest.raises(InvalidAddress, match="gateway fe80::"):
            gateways(*asked)
    with pytest.raises(InvalidAddress, match="in no subnet"):
        parse_subnet_options(prefixes, ["fe80::2"])


def test_no_subnets_are_no_subnets() -> None:
    """The caller chooses from the pools then."""
    assert parse_subnet_options([]) == ()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"subnets": ["192.0.2.0/24", "192.0.2.0/24"]}, "overlap"),
        ({"subnets": ["192.0.2.0/24", "192.0.2.128/25"]}, "overlap"),
        ({"subnets": ["192.0.2.0/32"]}, "no room"),
        ({"subnets": [], "gateways": ["192.0.2.1"]}, "in no subnet"),
        ({"subnets": [], "ip_ranges": ["192.0.2.0/26"]}, "in no subnet"),
        ({"gateways": ["198.51.100.1"]}, r"in no subnet of this network \(192.0.2.0/24\)"),
        ({"gateways": ["192.0.2.0"]}, "network address"),
        ({"gateways": ["192.0.2.255"]}, "broadcast"),
        ({"gateways": ["192.0.2.1/24"]}, "no address"),
        ({"gateways": ["192.0.2.1", "192.0.2.2"]}, "two gateways"),
        ({"gateways": ["192.0.2.1"], "aux": ["a=192.0.2.1"]}, "gateway"),
        ({"aux": ["192.0.2.1"]}, "no NAME=IP"),
        ({"aux": ["=192.0.2.1"]}, "no NAME=IP"),
        ({"aux": ["a=b"]}, "no address"),
        ({"aux": ["a=fe80::1%eth0"]}, "no address"),
        ({"aux": ["a=198.51.100.1"]}, "in no subnet"),
        ({"aux": ["a=192.0.2.1", "a=192.0.2.2"]}, "its own name"),
        ({"ip_ranges": ["192.0.2.128-198.51.100.1"]}, "not within"),
        ({"ip_ranges": ["192.0.2.0/23"]}, "not within|no subnet|overlaps"),
        ({"ip_ranges": ["192.0.2.255"]}, "leave no address"),
    ],
    ids=str,
)
def test_options_that_can_not_be_together_say_why(options: dict[str, Any], says: str) -> None:
    """Nothing is guessed and nothing dropped."""
    with pytest.raises(InvalidAddress, match=says):
        parse_subnet_options(**{"subnets": ["192.0.2.0/24"], **options})
