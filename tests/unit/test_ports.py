"""Published ports: parsing, choosing, clashing, listing."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from itertools import islice
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlib.errors import InvalidPort
from netlib.model import Family, PublishedPort
from netlib.ports import (
    PortRequest,
    bindings,
    candidates,
    conflict,
    describe,
    parse,
    port_keys,
    resolve,
)

V4, V6, BOTH = (4,), (6,), (4, 6)


def never(request: PortRequest) -> int:
    """A chooser for requests that leave nothing to choose."""
    raise AssertionError(f"{request} leaves nothing to choose")


def published(spec: str) -> PublishedPort:
    return resolve(parse(spec), never)


# -- parse --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "meant"),
    [
        ("80", {"port": 80}),
        (":80", {"port": 80}),
        ("80/udp", {"port": 80, "protocol": "udp"}),
        ("80/SCTP", {"port": 80, "protocol": "sctp"}),
        ("8080:80", {"host_port": 8080, "port": 80}),
        ("127.0.0.1:8080:80", {"host_address": "127.0.0.1", "host_port": 8080, "port": 80}),
        ("127.0.0.1::80", {"host_address": "127.0.0.1", "port": 80}),
        ("0.0.0.0:8080:80", {"host_address": "0.0.0.0", "host_port": 8080, "port": 80}),
        ("[::1]:8080:80/tcp", {"host_address": "::1", "host_port": 8080, "port": 80}),
        ("[::]::80", {"host_address": "::", "port": 80}),
        ("7000-7010:7100-7110", {"host_port": 7000, "port": 7100, "count": 11}),
        ("3000-4000:80", {"host_port": 3000, "choices": 1001, "port": 80}),
        ("80-82", {"port": 80, "count": 3}),
        ("80-80:1-1", {"host_port": 80, "port": 1}),
        ("1:65535", {"host_port": 1, "port": 65535}),
        ("1-65535:1-65535", {"host_port": 1, "port": 1, "count": 65535}),
    ],
)
def test_a_spec_means(spec: str, meant: dict[str, Any]) -> None:
    """Every form of the SPEC; what is left out is chosen or defaulted."""
    if "host_address" in meant:
        meant = {**meant, "host_address": ip_address(meant["host_address"])}

    assert parse(spec) == PortRequest(**meant)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("", "empty"),
        (" 80", "blanks"),
        ("80 :80", "blanks"),
        ("80\n", "blanks"),
        ("0", "leave the host port out"),
        ("0:80", "leave the host port out"),
        ("65536", "from 1 to 65535"),
        ("8080:65536", "from 1 to 65535"),
        ("4294967376:80", "from 1 to 65535"),
        ("-1:80", "no port"),
        ("+80", "no port"),
        ("8_0", "no port"),
        ("\u0664\u0662", "no port"),
        ("http", "no port"),
        ("8080:", "no port"),
        ("80-", "no port"),
        ("90-80", "no range"),
        ("1-2-3", "no range"),
        ("80/", "unknown protocol"),
        ("80/icmp", "choose one of tcp, udp, sctp"),
        ("80/tcp/udp", "unknown protocol"),
        ("80-82:80-81", "same length"),
        ("3000-4000:80-81", "same length"),
        ("80:80-81", "same length"),
        ("127.0.0.1:80", "write 127.0.0.1::80"),
        ("[::1]:80", r"write \[::1\]::80"),
        ("::1:80:80", "brackets"),
        ("[::1:80:80", "can not be read"),
        ("[::1]80:80", "can not be read"),
        ("[::1]:80:80:80", "can not be read"),
        ("[127.0.0.1]:80:80", "not of IPv6"),
        ("[fe80::1%eth0]:80:80", "without a zone"),
        ("[ff02::1]:80:80", "multicast"),
        ("224.0.0.1:80:80", "multicast"),
        ("192.0.2.256:80:80", "no address"),
        ("localhost:80:80", "no address"),
        (":80:80", "no address"),
    ],
)
def test_a_spec_that_can_not_be_read_says_why(spec: str, says: str) -> None:
    """The error quotes the SPEC and says what would be right."""
    with pytest.raises(InvalidPort, match=says) as error:
        parse(spec)
    assert repr(spec) in error.value.message
    assert error.value.hint


def test_sources_are_prefixes() -> None:
    """Text and values are both taken, in their order."""
    sources = parse("80", ["192.0.2.0/24", ip_network("2001:db8::/32"), "198.51.100.7"]).sources

    assert [str(source) for source in sources] == [
        "192.0.2.0/24",
        "2001:db8::/32",
        "198.51.100.7/32",
    ]


@pytest.mark.parametrize(
    ("spec", "source"),
    [("80", "192.0.2.1/24"), ("80", "anywhere"), ("127.0.0.1::80", "2001:db8::/32")],
)
def test_sources_that_make_no_sense_are_refused(spec: str, source: str) -> None:
    """Host bits, no prefix at all, or nobody who could match."""
    with pytest.raises(InvalidPort):
        parse(spec, [source])


ADDRESSES = st.one_of(
    st.none(),
    st.sampled_from(["0.0.0.0", "::", "127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"]).map(
        ip_address
    ),
)
PROTOCOLS = st.sampled_from(["tcp", "udp", "sctp"])


@st.composite
def requests(draw: st.DrawFn) -> PortRequest:
    count = draw(st.integers(1, 20))
    choices = draw(st.integers(1, 20)) if count == 1 else 1
    host_port = draw(st.one_of(st.just(0), st.integers(1, 65536 - max(count, choices))))
    return PortRequest(
        protocol=draw(PROTOCOLS),
        host_address=draw(ADDRESSES),
        host_port=host_port,
        choices=choices if host_port else 1,
        port=draw(st.integers(1, 65536 - count)),
        count=count,
    )


@given(requests())
def test_a_request_reads_back_from_its_text(request_: PortRequest) -> None:
    """str() and parse() are each other's inverse."""
    assert parse(str(request_)) == request_


@given(requests())
def test_a_published_port_reads_back_from_its_text(request_: PortRequest) -> None:
    """So a listing can be given to `net unpublish`."""
    port = resolve(request_, lambda _: 1234)

    assert resolve(parse(str(port)), never) == port


@given(st.text("0123456789:-/.[]tcpud ", max_size=24))
def test_any_text_is_read_or_refused(spec: str) -> None:
    """No other error than InvalidPort, and what is read is in range."""
    try:
        request = parse(spec)
    except InvalidPort:
        return
    assert 1 <= request.port <= request.port + request.count - 1 <= 65535
    assert 0 <= request.host_port <= request.host_port + request.choices - 1 <= 65535


# -- choose -------------------------------------------------------------------------------------


def test_a_fixed_request_is_resolved_as_it_is() -> None:
    """Nothing is asked of the chooser."""
    port = resolve(parse("[::1]:7000-7002:80-82/udp", ["2001:db8::/32"]), never)

    assert port == PublishedPort(
        protocol="udp",
        host_address=ip_address("::1"),
        host_port=7000,
        port=80,
        count=3,
        sources=(ip_network("2001:db8::/32"),),
    )


@given(st.integers(1, 200), st.integers(1, 220), st.integers(0, 2**64))
def test_every_ephemeral_port_is_a_candidate_once(size: int, count: int, seed: int) -> None:
    """All that fit into the range come by, none twice."""
    first = 40000
    request = PortRequest(port=80, count=count)

    found = list(candidates(request, (first, first + size - 1), seed))

    assert sorted(found) == list(range(first, first + size - count + 1))


def test_the_seed_tells_the_order_of_candidates() -> None:
    """One seed, one order; others differ, so racing processes seldom meet."""
    request = PortRequest(port=80)

    def start(seed: int) -> list[int]:
        return list(islice(candidates(request, (32768, 60999), seed), 5))

    assert start(7) == start(7)
    seeds = [number * 0x9E3779B97F4A7C15 % 2**64 for number in range(100)]
    assert len({tuple(start(seed)) for seed in seeds}) == 100


def test_a_range_of_choices_is_tried_in_order() -> None:
    """The lowest free host port of those given is taken."""
    assert list(candidates(parse("3000-3003:80"), (1, 9), 5)) == [3000, 3001, 3002, 3003]


# -- clash --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("8080:80", "8080:81", True),
        ("8080:80", "8081:80", False),
        ("8080:80", "8080:80/udp", False),
        ("8080:80", "127.0.0.1:8080:80", True),
        ("8080:80", "[::1]:8080:80", True),
        ("0.0.0.0:8080:80", "127.0.0.1:8080:80", True),
        ("0.0.0.0:8080:80", "[::]:8080:80", False),
        ("0.0.0.0:8080:80", "[::1]:8080:80", False),
        ("[::]:8080:80", "[::1]:8080:80", True),
        ("127.0.0.1:8080:80", "192.0.2.7:8080:80", False),
        ("127.0.0.1:8080:80", "127.0.0.1:8080:81", True),
        ("7000-7010:7000-7010", "7010:80", True),
        ("7000-7010:7000-7010", "7011:80", False),
        ("7000-7010:7000-7010", "6990-7000:7000-7010", True),
    ],
)
def test_ports_clash(one: str, other: str, clash: bool) -> None:
    """The same protocol and port, on the same address or where one is the wildcard."""
    assert conflict(published(one), published(other)) is clash
    assert conflict(published(other), published(one)) is clash


def test_endpoints_of_different_families_do_not_clash() -> None:
    """All addresses are those of the families that an endpoint has."""
    port = published("8080:80")

    assert not conflict(port, port, V4, V6)
    assert conflict(port, port, V4, BOTH)


def test_a_host_address_is_bound_in_its_own_family_only() -> None:
    """Whatever the endpoint has: a proxy stands in for the other family."""
    assert bindings(published("8080:80"), BOTH) == ((4, None), (6, None))
    assert bindings(published("8080:80"), V6) == ((6, None),)
    assert bindings(published("[::1]:8080:80"), V4) == ((6, ip_address("::1")),)
    assert bindings(published("[::]:8080:80"), BOTH) == ((6, None),)


def test_keys_of_a_wildcard_and_of_an_address() -> None:
    """A wildcard wants the port's whole folder, an address its own key and no wildcard."""
    assert port_keys(published("80:80"), BOTH) == [
        ("port/4/tcp/00080/*", (("port/4/tcp/00080/", "port/4/tcp/000800"),)),
        ("port/6/tcp/00080/*", (("port/6/tcp/00080/", "port/6/tcp/000800"),)),
    ]
    assert port_keys(published("192.0.2.7:80:80/udp"), BOTH) == [
        (
            "port/4/udp/00080/c0000207",
            (("port/4/udp/00080/c0000207", ""), ("port/4/udp/00080/*", "")),
        ),
    ]


FAMILIES = st.sampled_from([V4, V6, BOTH])


@st.composite
def near_ports(draw: st.DrawFn) -> PublishedPort:
    """Ports so close that many clash."""
    return PublishedPort(
        protocol=draw(st.sampled_from(["tcp", "udp"])),
        host_address=draw(ADDRESSES),
        host_port=draw(st.integers(1, 4)),
        port=80,
        count=draw(st.integers(1, 3)),
    )


def accepted(
    held: set[str], port: PublishedPort, families: Sequence[Family]
) -> tuple[bool, set[str]]:
    """What a store does with the port's keys and conditions."""
    keys = port_keys(port, families)
    free = not any(
        any(first <= key < end for key in held) if end else first in held
        for _, absent in keys
        for first, end in absent
    )
    return free, {key for key, _ in keys}


@given(near_ports(), FAMILIES, near_ports(), FAMILIES)
def test_keys_say_the_same_as_conflict(
    one: PublishedPort,
    families: tuple[Family, ...],
    other: PublishedPort,
    other_families: tuple[Family, ...],
) -> None:
    """The store's conditions refuse exactly what clashes, in either order."""
    clash = conflict(one, other, families, other_families)
    _, held = accepted(set(), one, families)
    assert accepted(held, other, other_families)[0] is not clash
    _, held = accepted(set(), other, other_families)
    assert accepted(held, one, families)[0] is not clash


# -- listing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("specs", "families", "text"),
    [
        ([], BOTH, ""),
        (["8080:80"], BOTH, "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        (["8080:80"], V4, "0.0.0.0:8080->80/tcp"),
        (["[::1]:53:53/udp"], V4, "[::1]:53->53/udp"),
        (["0.0.0.0:80:80", "[::]:81:81"], BOTH, "0.0.0.0:80->80/tcp, [::]:81->81/tcp"),
        (["127.0.0.1:7000-7010:80-90"], BOTH, "127.0.0.1:7000-7010->80-90/tcp"),
    ],
)
def test_ports_are_listed_as_docker_does(
    specs: list[str], families: tuple[Family, ...], text: str
) -> None:
    """Eyes and scripts that know `docker ps` need not learn."""
    assert describe(map(published, specs), families) == text
