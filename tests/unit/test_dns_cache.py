"""Answers of others are kept as long as they say, and not longer."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dnslib import DNSRecord
from support.names import MY_NET, endpoint, query, values

from netlib.dns import wire
from netlib.dns.cache import (
    LARGEST_BYTES,
    LONGEST_NEGATIVE_SECONDS,
    LONGEST_SECONDS,
    Cache,
    lifetime_seconds,
)
from netlib.dns.facts import Update
from netlib.dns.loop import Loop
from netlib.dns.quick import quick_road
from netlib.dns.resolver import Resolver
from netlib.dns.zone import Zone

SOA = "example.com. {ttl} IN SOA ns.example.com. me.example.com. 1 2 3 4 {minimum}"


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """What time it is."""
        return self.now


def message(answers: str = "", authority: str = "", code: int = 0, type_: str = "A") -> bytes:
    """A packed answer to www.example.com, in zone file form."""
    from dnslib import RR

    record = DNSRecord.question("www.example.com", type_).reply()
    record.header.rcode = code
    record.header.id = 7  # else random, and so the tests' names would be
    for line in filter(None, answers.split("\n")):
        record.add_answer(*RR.fromZone(line))
    for line in filter(None, authority.split("\n")):
        record.add_auth(*RR.fromZone(line))
    return bytes(record.pack())


def records(packed: bytes) -> list[wire.Record]:
    """The records of a message."""
    return wire.records(packed, wire.question_end(packed))


A60 = "www.example.com. 60 IN A 192.0.2.1"
A30 = "www.example.com. 30 IN A 192.0.2.2"
CNAME = "www.example.com. 20 IN CNAME x.example.com."


@pytest.mark.parametrize(
    ("packed", "seconds"),
    [
        (message(A60), 60),
        (message(f"{A60}\n{A30}"), 30),
        (message("www.example.com. 999999 IN A 192.0.2.1"), LONGEST_SECONDS),
        (message("www.example.com. 0 IN A 192.0.2.1"), 0),
        (message("www.example.com. 4294967295 IN A 192.0.2.1"), 0),
        (message("", SOA.format(ttl=50, minimum=40)), 40),
        (message("", SOA.format(ttl=30, minimum=40)), 30),
        (message("", SOA.format(ttl=30, minimum=40), code=wire.NXDOMAIN), 30),
        (message("", SOA.format(ttl=9999, minimum=9999), code=3), LONGEST_NEGATIVE_SECONDS),
        (message(CNAME, SOA.format(ttl=90, minimum=90), code=wire.NXDOMAIN), 20),
        (message(CNAME, SOA.format(ttl=90, minimum=90)), 20),
        (message(""), 0),
        (message("", code=wire.NXDOMAIN), 0),
        (message(A60, code=wire.SERVFAIL), 0),
        (message(A60, type_="ANY"), 60),
    ],
)
def test_an_answer_is_kept_as_long_as_it_says(packed: bytes, seconds: int) -> None:
    """The shortest TTL counts, for a negative answer its SOA's; without one it is not kept."""
    assert lifetime_seconds(packed, records(packed)) == seconds


def test_a_truncated_answer_is_not_kept() -> None:
    """Half an answer would be half an answer for everybody."""
    packed = bytearray(message(A60))
    packed[2] |= 2
    assert lifetime_seconds(bytes(packed), records(bytes(packed))) == 0


def test_a_very_long_answer_is_not_kept() -> None:
    """Whoever owns a domain could fill our memory with those, 64 kB each."""
    cache = Cache()
    for count, kept in ((200, True), (300, False)):
        packed = message("\n".join([A60] * count))
        cache.put(count, packed, records(packed))
        assert (len(packed) <= LARGEST_BYTES) is kept
        assert (count in cache) is kept


def test_ttls_count_down() -> None:
    """Who asks later is told how much is left, and after the end nothing."""
    clock, packed = Clock(), message(f"{A60}\n{A30}")
    cache = Cache(clock=clock)
    cache.put("key", packed, records(packed))

    assert cache.get("key") == packed
    clock.now += 12.5
    found = cache.get("key")
    assert found is not None
    assert [rr.ttl for rr in DNSRecord.parse(found).rr] == [48, 18]
    assert values(found) == values(packed)
    clock.now += 18
    assert cache.get("key") is None
    assert len(cache) == 0
    assert cache.hits == 2


def test_the_least_recently_used_goes_first() -> None:
    """The cache has its size whatever is asked."""
    cache, packed = Cache(size=2), message(A60)
    cache.put("a", packed, records(packed))
    cache.put("b", packed, records(packed))
    cache.get("a")
    cache.put("c", packed, records(packed))

    assert ["a" in cache, "b" in cache, "c" in cache] == [True, False, True]


def test_what_is_answered_again_ages_too() -> None:
    """The very same question is answered from memory for a second, then with a lower TTL."""
    clock, packed = Clock(), message(A60)
    resolver = Resolver(Loop())
    resolver.cache = Cache(clock=clock)
    resolver.swap(Zone.build([MY_NET], [endpoint("web", "192.0.2.2")]))
    asked = query("www.example.com")
    key = (asked[12:], 0, False, MY_NET.servers, "")
    resolver.cache.put(key, packed, records(packed))
    road = quick_road(
        resolver, lambda zone: zone.askers_at("network", "n1"), lambda *_: None, now=clock
    )

    def ttl() -> int | None:
        answer = road(asked, bytes([192, 0, 2, 2]), 0)
        return DNSRecord.parse(answer).rr[0].ttl if answer is not None else None

    ages = []
    for _ in range(8):
        ages.append(ttl())
        clock.now += 0.5
    assert ages == [60, 60, 59, 59, 58, 58, 57, 57]
    assert resolver.cache.hits == 8
    clock.now += 60
    assert ttl() is None


def test_what_others_said_outlives_a_sandbox_that_goes() -> None:
    """But what it was told by servers of its own: another may come by its name."""
    resolver = Resolver(Loop())
    boxes = [
        endpoint("web", "192.0.2.2", servers=("127.0.0.1",)),
        endpoint("db", "192.0.2.3"),
        endpoint("api", "192.0.2.4", servers=("127.0.0.1",)),
    ]
    resolver.swap(Zone.build([MY_NET], boxes))
    packed = message(A60)
    keys = [(b"www", 0, False, ("127.0.0.1",), within) for within in ("", "web", "api")]
    for key in keys:
        resolver.cache.put(key, packed, records(packed))
    resolver.change(Update(revision=2, gone=(boxes[1].id,)))
    assert [key in resolver.cache for key in keys] == [True, True, True]
    again = replace(boxes[0], id="another")
    resolver.change(Update(revision=3, gone=(boxes[0].id,), endpoints=(again,)))
    assert [key in resolver.cache for key in keys] == [True, False, True]
    resolver.change(Update(revision=4, networks=(replace(MY_NET, records=("*.x A 192.0.2.7",)),)))
    assert [key in resolver.cache for key in keys] == [False, False, False]


def test_what_others_said_to_one_is_not_told_where_a_wildcard_stands_for_the_name() -> None:
    """Two networks may have the same servers, and only one of them that wildcard."""
    resolver = Resolver(Loop())
    other = replace(MY_NET, id="n3", name="apps", records=("*.example.com A 203.0.113.9",))
    resolver.swap(
        Zone.build(
            [MY_NET, other],
            [endpoint("web", "192.0.2.2"), endpoint("db", "192.0.2.3", network=other)],
        )
    )
    asked, packed = query("www.example.com"), message(A60)
    resolver.cache.put((asked[12:], 0, False, MY_NET.servers, ""), packed, records(packed))

    def told(network: str, last: int) -> list[str]:
        asker = resolver.zone.asker_at("network", network, bytes([192, 0, 2, last]))
        road = quick_road(
            resolver,
            lambda zone: zone.askers_at("network", network),
            lambda message, *_: resolver.respond(message, asker, lambda _: None),
        )
        return values(road(asked, bytes([192, 0, 2, last]), 0))

    assert told("n1", 2) == ["192.0.2.1"]
    assert told("n3", 3) == ["203.0.113.9"]
    resolver.change(Update(revision=2, networks=(replace(other, records=()),)))
    resolver.cache.put((asked[12:], 0, False, MY_NET.servers, ""), packed, records(packed))
    assert told("n3", 3) == ["192.0.2.1"]
