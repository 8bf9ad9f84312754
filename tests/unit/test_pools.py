"""Default pools: a free prefix, away from everything that is known."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlib.errors import Exhausted
from netlib.model import IPNetwork
from netlib.pools import IPV4_POOLS, Pool, default_pools, free_prefix, overlapping, unique_local
from netlib.subnets import parse_prefix

POOLS = (Pool(ip_network("192.0.2.0/28"), 30), Pool(ip_network("198.51.100.0/29"), 30))


def networks(*texts: str) -> list[IPNetwork]:
    return [ip_network(text) for text in texts]


@pytest.mark.parametrize(
    ("taken", "wanted"),
    [
        ([], "192.0.2.0/30"),
        (["192.0.2.0/30"], "192.0.2.4/30"),
        (["192.0.2.4/30"], "192.0.2.0/30"),
        (["192.0.2.0/32"], "192.0.2.4/30"),
        (["192.0.2.3/32", "192.0.2.4/32"], "192.0.2.8/30"),
        (["192.0.2.8/29", "192.0.2.0/30"], "192.0.2.4/30"),
        (["192.0.2.0/29", "192.0.2.2/32", "192.0.2.0/30"], "192.0.2.8/30"),
        (["192.0.2.0/24"], "198.51.100.0/30"),
        (["192.0.0.0/8", "198.51.100.0/30"], "198.51.100.4/30"),
        (["2001:db8::/32", "10.0.0.0/8", "203.0.113.0/24"], "192.0.2.0/30"),
    ],
)
def test_the_first_prefix_that_overlaps_nothing(taken: list[str], wanted: str) -> None:
    """Smaller, larger, nested and foreign prefixes are all kept clear of."""
    assert free_prefix(4, networks(*taken), POOLS) == ip_network(wanted)


@pytest.mark.parametrize("family", [4, 6])
@given(data=st.data())
def test_a_free_prefix_is_the_first_that_is_free(family: int, data: st.DataObject) -> None:
    """Whatever is taken: what is found overlaps nothing, and all before it overlap something."""
    base = "192.0.2.0/27" if family == 4 else "2001:db8::/59"
    step = 3 if family == 4 else 5
    make = IPv4Network if family == 4 else IPv6Network
    pool = Pool(ip_network(base), ip_network(base).prefixlen + step)
    bits = pool.base.max_prefixlen
    taken: list[IPNetwork] = data.draw(
        st.lists(
            st.builds(
                lambda address, length: make((int(pool.base[0]) + address, length), strict=False),
                st.integers(0, pool.base.num_addresses - 1),
                st.integers(pool.base.prefixlen + 1, bits),
            ),
            max_size=12,
        )
    )
    free = [p for p in pool.base.subnets(step) if overlapping(p, taken) is None]
    if free:
        assert free_prefix(family, taken, [pool]) == free[0]  # type: ignore[arg-type]
    else:
        with pytest.raises(Exhausted):
            free_prefix(family, taken, [pool])  # type: ignore[arg-type]


@pytest.mark.parametrize("family", [4, 6])
def test_thousands_of_networks_get_their_own(family: int) -> None:
    """No two overlap, and they come in a few milliseconds each at most."""
    taken: list[IPNetwork] = []
    pools = default_pools(family, "host")  # type: ignore[arg-type]
    for _ in range(500):
        taken.append(free_prefix(family, taken, pools))  # type: ignore[arg-type]

    assert all(a[-1] < b[0] for a, b in pairwise(taken))
    assert {prefix.prefixlen for prefix in taken} == {24 if family == 4 else 64}


def test_routes_like_a_default_route_are_in_nobodys_way() -> None:
    """A VPN that takes all traffic leaves room for networks: their routes are longer."""
    routes = networks("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/3", "2000::/4", "fc00::/7")

    for family in (4, 6):
        prefix = free_prefix(family, routes)  # type: ignore[arg-type]
        assert overlapping(prefix, routes) is None


def test_default_pools_hold_prefixes_that_may_be_used() -> None:
    """Private, apart from each other, and room for thousands of networks."""
    assert all(pool.base.is_private and parse_prefix(str(pool.base)) for pool in IPV4_POOLS)
    for number, pool in enumerate(IPV4_POOLS):
        assert overlapping(pool.base, [other.base for other in IPV4_POOLS[:number]]) is None
    assert sum(2 ** (pool.length - pool.base.prefixlen) for pool in IPV4_POOLS) > 4000


@pytest.mark.parametrize(
    "other",
    [
        "172.17.0.0/16",  # Docker's first
        "172.31.0.0/16",  # cloud VPCs
        "192.168.0.0/17",  # homes
        "10.0.0.0/10",  # VPNs, companies, clusters
        "10.88.0.0/16",  # Podman
        "10.96.0.0/12",  # Kubernetes services
        "10.128.0.0/9",  # cloud networks
        "100.64.0.0/10",  # carriers and mesh VPNs (RFC 6598)
    ],
)
def test_default_pools_keep_away_from_what_others_use(other: str) -> None:
    """A VPN that is dialled later should find no network of ours in its way."""
    assert overlapping(ip_network(other), [pool.base for pool in IPV4_POOLS]) is None


def test_a_unique_local_prefix_is_the_hosts_own() -> None:
    """The same for one host, another for each other; random without a host."""
    assert unique_local("a") == unique_local("a")
    assert len({unique_local("a"), unique_local("b"), unique_local(), unique_local()}) == 4
    for prefix in (unique_local("a"), unique_local()):
        assert prefix.prefixlen == 48
        assert prefix.subnet_of(IPv6Network("fd00::/8"))


@pytest.mark.parametrize(
    ("taken", "says"),
    [
        (["192.0.0.0/8", "198.0.0.0/8"], "192.0.0.0/8, 198.0.0.0/8 of networks"),
        (
            ["192.0.2.0/28", "198.51.100.0/30", "198.51.100.4/30", "203.0.113.0/24"],
            "192.0.2.0/28, 198.51.100.0/30, 198.51.100.4/30 of networks",
        ),
        (
            [f"192.0.2.{n}/32" for n in range(16)] + ["198.51.100.0/29"],
            "192.0.2.5/32 and 11 more of networks",
        ),
    ],
)
def test_exhaustion_lists_what_is_in_the_way(taken: Sequence[str], says: str) -> None:
    """Only what lies in the pools, not too much of it, and a command that helps."""
    with pytest.raises(Exhausted) as error:
        free_prefix(4, networks(*taken), POOLS)

    assert "192.0.2.0/28 (in /30s), 198.51.100.0/29 (in /30s)" in error.value.message
    assert says in error.value.message
    assert "net prune" in error.value.hint
    assert "--subnet" in error.value.hint


@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [
        ("192.0.2.0/24", "192.0.2.128/25"),
        ("192.0.2.130/32", "192.0.2.128/25"),
        ("192.0.0.0/8", "192.0.2.128/25"),
        ("192.0.2.0/25", None),
        ("2001:db8::/64", "2001:db8::/32"),
        ("::/0", "2001:db8::/32"),
        ("2001:db9::/64", None),
    ],
)
def test_the_first_overlapping_prefix(prefix: str, wanted: str | None) -> None:
    """Inside, around or equal; families never overlap."""
    others = networks("198.51.100.0/24", "192.0.2.128/25", "2001:db8::/32", "192.0.2.128/26")
    found = overlapping(ip_network(prefix), others)
    assert found == (wanted and ip_network(wanted))
