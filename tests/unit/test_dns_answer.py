"""What an asker may learn: the answer as a function of query, asker and zone."""

from __future__ import annotations

import sys
from dataclasses import replace
from ipaddress import ip_address

import pytest
from dnslib import QTYPE, DNSRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from support.names import BACK, MY_NET, endpoint, query, rcode, values

from netlib.dns import wire
from netlib.dns.answer import Answer, Forward, answer
from netlib.dns.facts import EndpointNames, NetworkNames, Update
from netlib.dns.loop import Loop
from netlib.dns.quick import quick_road
from netlib.dns.resolver import Resolver, grafted
from netlib.dns.stats import MOST_NAMES, Stats
from netlib.dns.zone import Zone

WEB = endpoint(
    "web", "192.0.2.2", "2001:db8::2", hostname="www1", short_id="0123456789ab", aliases=("front",)
)
DB = endpoint("db", "192.0.2.3")
ZONE = Zone.build(
    [MY_NET, BACK],
    [
        WEB,
        DB,
        endpoint("db", "198.51.100.3", network=BACK),
        endpoint("secret", "198.51.100.4", network=BACK),
        endpoint("api", "192.0.2.10", aliases=("all",)),
        endpoint("api2", "192.0.2.11", aliases=("all",)),
        endpoint("api3", "192.0.2.12", aliases=("all",)),
    ],
)


SERVICES = Zone.build(
    [MY_NET],
    [
        endpoint("web", "192.0.2.2", aliases=("all",), services=("_80._tcp 80", "_http._tcp 80")),
        endpoint("api", "192.0.2.3", aliases=("all",), services=("_8080._tcp 8080",)),
        endpoint("db", "192.0.2.4", aliases=("all",), services=("_80._tcp 80",)),
    ],
)


def changed(zone: Zone, update: Update) -> Zone:
    """Another zone that was that one, after an update."""
    other = Zone.build(zone.networks.values(), zone.endpoints.values())
    other.change(update)
    return other


def quick(message: bytes, source: str = "192.0.2.2") -> bytes | None:
    """The answer of the quick road, None where it leaves that to the other."""
    resolver = Resolver(Loop())
    resolver.swap(ZONE)
    road = quick_road(resolver, lambda zone: zone.askers_at("network", "n1"), lambda *_: None)
    return road(message, ip_address(source).packed, 0)


def ask(
    name: str,
    type_: str = "A",
    *,
    source: str = "192.0.2.2",
    network: str = "n1",
    zone: Zone = ZONE,
) -> Answer | Forward:
    """The decision about a query that comes from `source` on a network."""
    asker = zone.asker_at("network", network, ip_address(source).packed)
    return answer(wire.parse_query(query(name, type_)), asker, zone)


def told(name: str, type_: str = "A", **where: object) -> list[str]:
    """The data of the answer, which must be our own."""
    found = ask(name, type_, **where)  # type: ignore[arg-type]
    assert isinstance(found, Answer)
    assert found.rcode == wire.NOERROR
    return values(found.packed(wire.parse_query(query(name, type_))))


@pytest.mark.parametrize(
    "name",
    [
        "web",
        "web.",
        "WEB",
        "front",
        "www1",
        "0123456789ab",
        "web.my-net",
        "Front.My-Net.",
        "www1.my-net",
    ],
)
def test_a_sandbox_is_known_by_all_its_names(name: str) -> None:
    """Name, hostname, short id and aliases, alone and with the network's name, in any case."""
    assert told(name) == ["192.0.2.2"]
    assert told(name, "AAAA") == ["2001:db8::2"]


@pytest.mark.parametrize(
    ("source", "expected"), [("192.0.2.2", "web.my-net."), ("2001:db8::2", "web.my-net.")]
)
def test_an_address_leads_back_to_the_name(source: str, expected: str) -> None:
    """PTR for both families."""
    assert told(ip_address(source).reverse_pointer, "PTR") == [expected]


@pytest.mark.parametrize("type_", ["AAAA", "MX", "TXT", "SRV", "HTTPS", "65280"])
def test_a_name_without_that_type_exists_all_the_same(type_: str) -> None:
    """NODATA: else a stub that asked for AAAA first would take the name for unknown."""
    assert told("db", type_) == []


@pytest.mark.parametrize(
    "name", ["localhost", "LocalHost.", "www.localhost", "_http._tcp.localhost"]
)
@pytest.mark.parametrize("source", ["192.0.2.2", "192.0.2.77"])
def test_localhost_is_ones_own_loopback(name: str, source: str) -> None:
    """And names below it; whatever else is asked of them, nobody else is asked (RFC 6761)."""
    assert told(name, source=source) == ["127.0.0.1"]
    assert told(name, "AAAA", source=source) == ["::1"]
    assert told(name, "MX", source=source) == []
    assert told("1.0.0.127.in-addr.arpa", "PTR", source=source) == ["localhost."]
    assert told(ip_address("::1").reverse_pointer, "PTR", source=source) == ["localhost."]
    asker = ZONE.asker_at("network", "n1", ip_address(source).packed)
    inside = wire.parse_query(query("x", "A").replace(b"\1x\0", b"\x0bx\x09localhost\0"))
    for other in (
        inside,
        *(wire.parse_query(query(n)) for n in ("localhost.example", "nolocalhost")),
    ):
        assert isinstance(answer(other, asker, ZONE), Forward)


def test_what_somebody_named_below_localhost_is_that() -> None:
    """Names of sandboxes and an administrator's records come first; a wildcard stands for none."""
    records = ("here.localhost A 203.0.113.9", "* A 203.0.113.8")
    zone = Zone.build([replace(MY_NET, records=records)], [WEB])
    assert told("here.localhost", zone=zone) == ["203.0.113.9"]
    assert told("localhost", zone=zone) == told("there.localhost", zone=zone) == ["127.0.0.1"]


def test_any_gives_all_there_is() -> None:
    """ANY is answered with every record of the name."""
    assert sorted(told("web", "ANY")) == ["192.0.2.2", "2001:db8::2"]


def test_a_name_of_a_network_that_is_not_shared_is_not_told() -> None:
    """It is forwarded like any name that we do not know, with nothing of ours in it."""
    for name in ("secret", "secret.back", ip_address("198.51.100.4").reverse_pointer):
        found = ask(name, source="192.0.2.2")
        assert isinstance(found, Forward), name
        assert found.chain == ()


def test_the_network_that_is_asked_on_answers_first() -> None:
    """A name on two shared networks has all its addresses, near ones first."""
    assert told("db", source="192.0.2.3") == ["192.0.2.3", "198.51.100.3"]
    assert told("db", source="198.51.100.3", network="n2") == ["198.51.100.3", "192.0.2.3"]


def test_several_answers_come_in_a_fresh_order_each_time() -> None:
    """By chance, so that it does not matter in which order A and AAAA are asked for."""
    orders = {tuple(told("all")) for _ in range(200)}

    assert len(orders) == 6
    assert {frozenset(order) for order in orders} == {
        frozenset(("192.0.2.10", "192.0.2.11", "192.0.2.12"))
    }


def test_what_is_not_known_is_asked_of_the_networks_servers() -> None:
    """Also a name in a zone that is called like a network: it may exist elsewhere."""
    for name in ("example.com", "nosuch", "nosuch.my-net"):
        assert ask(name) == Forward(
            question=wire.packed_name(name) + b"\0\1\0\1", servers=("198.51.100.53",)
        )


def test_the_sandboxs_own_servers_come_before_the_networks() -> None:
    """`--dns` of one sandbox is nothing to another."""
    zone = Zone.build([MY_NET], [replace(WEB, servers=("203.0.113.53", "127.0.0.11")), DB])

    mine, other = ask("example.com", zone=zone), ask("example.com", source="192.0.2.3", zone=zone)

    assert isinstance(mine, Forward)
    assert mine.servers == ("203.0.113.53",), "127.0.0.11 would be ourselves"
    assert isinstance(other, Forward)
    assert other.servers == ("198.51.100.53",)


@pytest.mark.parametrize("name", ["back", "_tcp.secret", "_tcp.secret.back", "deep.er", "er"])
def test_what_has_names_below_it_exists(name: str) -> None:
    """NXDOMAIN would deny those too (RFC 8020): who keeps it would find none of them."""
    secret = endpoint(
        "secret",
        "198.51.100.4",
        network=BACK,
        services=("_80._tcp 80",),
        aliases=("much.deep.er",),
    )
    zone = Zone.build([BACK], [secret])
    for type_ in ("A", "NS"):
        assert told(name, type_, source="198.51.100.4", network="n2", zone=zone) == []
    after = changed(zone, Update(revision=2, gone=("n2-secret",)))
    left = set(after.names["n2"])
    assert left == {wire.packed_name("back")}


def test_what_has_names_below_it_is_asked_of_others_too() -> None:
    """They may know what else it has; that it does not exist, they may not say."""
    found = ask("my-net", "NS")
    assert isinstance(found, Forward)
    assert found.exists
    asked = wire.parse_query(query("my-net", "NS"))
    for chain in ((), (wire.resource(wire.CNAME, 0, wire.packed_name("my-net")),)):
        told_by_others = wire.reply(asked, wire.NXDOMAIN)
        assert rcode(grafted(asked, replace(found, chain=chain), told_by_others)) == "NOERROR"
    other = ask("my-net2", "NS")
    assert isinstance(other, Forward)
    assert rcode(grafted(asked, other, told_by_others)) == "NXDOMAIN"


def test_an_internal_network_forwards_nothing() -> None:
    """Unknown names do not exist there; known ones do."""
    assert ask("example.com", source="198.51.100.4", network="n2") == Answer(
        rcode=wire.NXDOMAIN, authoritative=False
    )
    assert told("secret", source="198.51.100.4", network="n2") == ["198.51.100.4"]


def test_who_has_a_way_out_is_answered_by_others_on_each_network() -> None:
    """Its stub asks the internal network's gateway first, perhaps, and believes an NXDOMAIN."""
    found = ask("example.com", source="198.51.100.3", network="n2")
    assert isinstance(found, Forward)
    assert found.servers == ("198.51.100.53",), "those of the network that leads out"


def test_inside_a_sandbox_all_its_networks_count() -> None:
    """127.0.0.11 is one sandbox's: it forwards unless all its networks are internal."""
    assert ZONE.sandboxes["db"].networks == ("n1", "n2")
    assert ZONE.sandboxes["db"].forwards
    assert not ZONE.sandboxes["secret"].forwards


def test_a_stranger_is_refused() -> None:
    """Who has no address of the network gets neither names nor a free resolver."""
    assert ask("web", source="203.0.113.9") == Answer(rcode=wire.REFUSED, authoritative=False)
    assert ask("example.com", source="203.0.113.9") == Answer(
        rcode=wire.REFUSED, authoritative=False
    )


def test_the_host_sees_the_network_it_asks_on() -> None:
    """The gateway's own address is in the subnet, and no endpoint's."""
    assert told("web", source="192.0.2.1") == ["192.0.2.2"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (query("web", flags=wire.RD | 4 << 11), wire.NOTIMP),  # NOTIFY
        (query("web", flags=5 << 11), wire.NOTIMP),  # UPDATE
        (query("web")[:-2] + b"\0\3", wire.REFUSED),  # class CH
        (query("web")[:-2] + b"\0\xff", wire.REFUSED),  # class ANY
        (query("web", "AXFR"), wire.REFUSED),
        (query("web", "250"), wire.NOTIMP),  # TSIG is no question
        (query("web", edns=1232)[:-5] + b"\1" + b"\0" * 4, wire.BADVERS),
    ],
    ids=["notify", "update", "chaos", "any-class", "axfr", "tsig", "edns-1"],
)
def test_what_we_do_not_do_has_its_code(message: bytes, expected: int) -> None:
    """Each kind of question that is not ours has the response code that says so."""
    asker = ZONE.asker_at("network", "n1", ip_address("192.0.2.2").packed)

    assert answer(wire.parse_query(message), asker, ZONE) == Answer(
        rcode=expected, authoritative=False
    )


def test_the_question_is_echoed_as_it_was_asked() -> None:
    """Case, id and RD come back; QR, RA and AA are set."""
    asked = query("wEb.mY-nEt", ident=0xBEEF)
    parsed = wire.parse_query(asked)
    asker = ZONE.asker_at("network", "n1", ip_address("192.0.2.2").packed)
    assert asker is not None
    found = answer(parsed, asker, ZONE)
    assert isinstance(found, Answer)

    for message in (found.packed(parsed), quick(asked)):
        reply = DNSRecord.parse(message)
        assert bytes(str(reply.q.qname), "ascii") == b"wEb.mY-nEt."
        assert (reply.header.id, reply.header.qr, reply.header.rd) == (0xBEEF, 1, 1)
        assert (reply.header.ra, reply.header.aa, reply.header.tc) == (1, 1, 0)
        assert [rr.ttl for rr in reply.rr] == [0]


# -- custom records ------------------------------------------------------------------------------

CUSTOM = Zone.build(
    [
        replace(
            MY_NET,
            records=(
                "ns1 A 203.0.113.9",
                "ns1 AAAA 2001:db8:9::9",
                "_http._tcp.web 5 SRV 0 0 80 web",
                "www CNAME web",
                "loop CNAME pool",
                "pool CNAME loop",
                "out CNAME www.example.com",
                "*.apps A 203.0.113.80",
                'web TXT "hello world"',
                "printer.example.com A 203.0.113.7",
                "this is no record",
            ),
        )
    ],
    [WEB],
)


@pytest.mark.parametrize(
    ("name", "type_", "expected"),
    [
        ("ns1", "A", ["203.0.113.9"]),
        ("ns1.my-net", "AAAA", ["2001:db8:9::9"]),
        ("_HTTP._tcp.web", "SRV", ["0 0 80 web."]),
        ("a.b.apps", "A", ["203.0.113.80"]),
        ("x.apps", "AAAA", []),
        ("web", "TXT", ['"hello world"']),
        ("web", "A", ["192.0.2.2"]),
        ("printer.example.com", "A", ["203.0.113.7"]),
        ("www", "A", ["web.", "192.0.2.2"]),
        ("www", "CNAME", ["web."]),
    ],
)
def test_custom_records_are_answered(name: str, type_: str, expected: list[str]) -> None:
    """As the network's owner wrote them; one that can't be read harms no other."""
    assert told(name, type_, zone=CUSTOM) == expected


def test_a_wildcard_stops_at_what_exists() -> None:
    """It stands for what is missing, and below a name that exists nothing is (RFC 4592)."""
    records = ("*.apps A 203.0.113.80", "one.apps A 203.0.113.1", "a.two.apps A 203.0.113.2")
    zone = Zone.build([replace(MY_NET, records=records)], [WEB])

    assert told("x.apps", zone=zone) == ["203.0.113.80"]
    for name in ("x.one.apps", "x.two.apps", "x.a.two.apps"):
        found = ask(name, zone=zone)
        assert isinstance(found, Forward), name
        assert not found.exists


def test_an_alias_for_a_name_outside_is_followed_by_others() -> None:
    """The stub gets the whole chain, so the target is asked for on its behalf."""
    found = ask("out", zone=CUSTOM)

    assert isinstance(found, Forward)
    assert found.question == wire.packed_name("www.example.com") + b"\0\1\0\1"
    assert len(found.chain) == 1


def test_a_part_behind_an_alias_is_marked_as_one() -> None:
    """Else the client would take it for the whole."""
    asked = wire.parse_query(query("out"))
    found = ask("out", zone=CUSTOM)
    assert isinstance(found, Forward)
    target = wire.parse_query(query("www.example.com"))
    part = wire.reply(target, wire.NOERROR, (wire.resource(wire.A, 60, bytes(4)),))
    for flag in (0, wire.TC >> 8):
        told_by_others = part[:2] + bytes([part[2] | flag]) + part[3:]
        message = grafted(asked, found, told_by_others)
        assert (message[2] & wire.TC >> 8, len(values(message))) == (flag, 2)


def test_aliases_in_a_circle_end() -> None:
    """A chain of CNAMEs is followed some steps, not for ever."""
    assert set(told("loop", zone=CUSTOM)) == {"pool.", "loop."}


# -- changes -------------------------------------------------------------------------------------


def test_a_change_shows_wherever_an_endpoint_is_known() -> None:
    """By its names, its addresses and as who asks; nothing of what it was is left."""
    moved = replace(WEB, addresses=("192.0.2.77",), aliases=("rear",))

    after = changed(ZONE, Update(revision=2, since=1, endpoints=(moved,)))

    assert told("web", source="192.0.2.3", zone=after) == ["192.0.2.77"]
    assert told("rear", source="192.0.2.3", zone=after) == ["192.0.2.77"]
    assert isinstance(ask("front", source="192.0.2.3", zone=after), Forward)
    reverse = ip_address("192.0.2.2").reverse_pointer
    assert isinstance(ask(reverse, "PTR", source="192.0.2.3", zone=after), Forward)
    assert after.asker_at("network", "n1", ip_address("192.0.2.2").packed) != ZONE.sandboxes["web"]


def test_a_name_with_two_holders_outlives_one() -> None:
    """No dangling address, and none lost."""
    after = changed(ZONE, Update(revision=2, gone=("n1-api2",)))

    assert sorted(told("all", zone=after)) == ["192.0.2.10", "192.0.2.12"]


def test_a_network_that_goes_takes_its_names_along() -> None:
    """Its endpoints may go later or come first: the order does not matter."""
    after = changed(ZONE, Update(revision=2, gone=("n2",)))

    assert told("db", source="192.0.2.3", zone=after) == ["192.0.2.3"]
    assert after.sandboxes["db"].networks == ("n1",)
    after.change(Update(revision=3, networks=(BACK,)))
    assert told("secret", source="198.51.100.4", network="n2", zone=after) == ["198.51.100.4"]


def test_a_networks_own_facts_may_change_alone() -> None:
    """Whom it asks, and whether it lets out: all its names stay."""
    before = Zone.build([MY_NET], [WEB, DB])
    names = before.names["n1"][wire.packed_name("web")]
    servers = ("203.0.113.53",)
    before.change(Update(revision=2, networks=(replace(MY_NET, servers=servers),)))
    assert before.names["n1"][wire.packed_name("web")] is names
    found = ask("www.example.com", zone=before)
    assert isinstance(found, Forward)
    assert found.servers == servers
    before.change(Update(revision=3, networks=(replace(MY_NET, internal=True),)))
    found = ask("www.example.com", zone=before)
    assert isinstance(found, Answer)
    assert found.rcode == wire.NXDOMAIN


def test_a_change_costs_the_same_however_many_names_there_are() -> None:
    """No table is copied, and as many lines run: also below a parent that all have."""

    def crowd(count: int) -> Zone:
        return Zone.build(
            [MY_NET],
            [
                endpoint(f"box{n}", f"10.0.{n // 250}.{n % 250}", hostname=f"box{n}.example.com")
                for n in range(count)
            ],
        )

    one = endpoint("one", "192.0.2.9", "2001:db8::9", hostname="one.example.com")
    costs = []
    for zone in (crowd(3), crowd(1000)):
        tables = [zone.names["n1"], zone.askers["n1"], zone.endpoints, zone.sandboxes]
        sizes = [len(table) for table in tables]
        lines = 0

        def count(_frame: object, event: str, _argument: object) -> object:
            nonlocal lines
            lines += event == "line"
            return count

        trace = sys.gettrace()
        sys.settrace(count)  # type: ignore[arg-type]
        try:
            zone.change(Update(revision=2, endpoints=(one,)))
            zone.change(Update(revision=3, gone=(one.id,)))
        finally:
            sys.settrace(trace)
        costs.append(lines)
        after = [zone.names["n1"], zone.askers["n1"], zone.endpoints, zone.sandboxes]
        assert [id(table) for table in after] == [id(table) for table in tables]
        assert [len(table) for table in after] == sizes
    assert costs[0] == costs[1]


names = st.sampled_from(["web", "db", "api", "x", "WEB"])
networks = st.builds(
    NetworkNames,
    id=st.sampled_from(["n1", "n2"]),
    name=st.sampled_from(["my-net", "back"]),
    internal=st.booleans(),
    subnets=st.just(("192.0.2.0/24",)),
    records=st.sampled_from([(), ("web A 203.0.113.1",), ("x CNAME web",)]),
)
endpoints = st.builds(
    lambda number, network, families, **names: EndpointNames(
        id=f"e{number}",
        network=network,
        # No two endpoints have one address: the store sees to that.
        addresses=tuple(f"{family}{number}" for family in families),
        **names,
    ),
    number=st.integers(1, 5),
    network=st.sampled_from(["n1", "n2"]),
    families=st.lists(st.sampled_from(["192.0.2.", "2001:db8::"]), max_size=2, unique=True),
    sandbox=names,
    hostname=st.sampled_from(["", "web", "a.web", "b.a.web", "api.example"]),
    aliases=st.lists(names, max_size=2).map(tuple),
)
updates = st.builds(
    lambda n, e, gone: Update(revision=1, networks=tuple(n), endpoints=tuple(e), gone=tuple(gone)),
    st.lists(networks, max_size=2),
    st.lists(endpoints, max_size=3),
    st.lists(st.sampled_from(["n1", "n2", "e1", "e2", "e3", "e9"]), max_size=2),
)


def _as_sets(zone: Zone) -> object:
    """The zone without the order in which equal things came."""
    return (
        {
            n: {name: {t: frozenset(r) for t, r in sets.items()} for name, sets in table.items()}
            for n, table in zone.names.items()
        },
        {n: set(table) for n, table in zone.askers.items()},
        zone.wildcards,
        {s: (frozenset(a.networks), a.forwards) for s, a in zone.sandboxes.items()},
    )


@settings(max_examples=300)
@given(st.lists(updates, max_size=6))
def test_changes_lead_where_building_anew_leads(changes: list[Update]) -> None:
    """A zone that was changed step by step is the zone of what there is in the end."""
    zone = Zone()
    for change in changes:
        zone.change(change)

    built = Zone.build(zone.networks.values(), zone.endpoints.values())

    assert _as_sets(zone) == _as_sets(built)


@given(
    st.sampled_from(["web", "WeB", "db", "all", "front.my-net", "x", "a.very.long.name", "api"]),
    st.sampled_from(["A", "AAAA", "PTR", "MX", "65280"]),
    st.sampled_from(["192.0.2.2", "192.0.2.3", "192.0.2.1"]),
    st.sampled_from([0, 512, 1232, 4096]),
    st.sampled_from([0, wire.RD, wire.RD | wire.AD, wire.RD | wire.CD]),
)
def test_the_quick_answer_is_the_answer(
    name: str, type_: str, source: str, edns: int, flags: int
) -> None:
    """Wherever the packed look-up has an answer, it is that of the whole function."""
    asked = query(name, type_, edns=edns, flags=flags)
    asker = ZONE.asker_at("network", "n1", ip_address(source).packed)
    assert asker is not None
    fast = quick(asked, source)
    if fast is None:
        return
    parsed = wire.parse_query(asked)
    slow = answer(parsed, asker, ZONE)
    assert isinstance(slow, Answer)
    opt = wire.opt_record(wire.UDP_PAYLOAD_BYTES) if edns else b""
    expected = wire.fitted(slow.packed(parsed), parsed.udp_limit(), opt)
    assert sorted(values(fast)) == sorted(values(expected))
    assert fast[:12] == expected[:12]
    assert len(fast) == len(expected)
    assert rcode(fast) == "NOERROR"


def test_the_common_queries_are_quick() -> None:
    """A, AAAA, NODATA for AAAA, PTR, any case and EDNS need no parsing."""
    reverse = ip_address("192.0.2.2").reverse_pointer
    for name, type_ in [("web", "A"), ("wEb.My-Net", "AAAA"), ("db", "AAAA"), (reverse, "PTR")]:
        for edns in (0, 1232):
            assert quick(query(name, type_, edns=edns)) is not None, (name, type_)


def test_types_that_lower_case_would_confuse_are_told_apart() -> None:
    """Type 65 (HTTPS) has the code of `A`: only the name's case is folded."""
    assert ord("A") == QTYPE.HTTPS
    assert quick(query("web", "HTTPS")) is None


@given(st.lists(st.text(max_size=80), min_size=4, max_size=4), st.text(max_size=300))
def test_any_names_make_a_zone(odd: list[str], network: str) -> None:
    """What DNS can not hold is left out; the rest is there."""
    sandbox, hostname, short_id, alias = odd
    zone = Zone.build(
        [replace(MY_NET, name=network)],
        [
            EndpointNames(
                id="odd",
                network="n1",
                sandbox=sandbox,
                hostname=hostname,
                short_id=short_id,
                aliases=(alias,),
                addresses=("192.0.2.9",),
            ),
            WEB,
        ],
    )
    found = answer(wire.parse_query(query("front")), zone.sandboxes["web"], zone)
    assert isinstance(found, Answer)
    assert bytes([192, 0, 2, 2]) in found.packed(wire.parse_query(query("front")))


def test_counts_stay_bounded() -> None:
    """Clients that ask for ever new names don't fill the memory."""
    stats = Stats()
    for n in range(MOST_NAMES + 100):
        stats.name(str(n).encode())
    stats.name(b"1")
    assert len(stats.names) == MOST_NAMES
    assert stats.names[b"1"] == 2


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("_80._tcp.web", {"0 0 80 web.my-net."}),
        ("_HTTP._tcp.web.my-net", {"0 0 80 web.my-net."}),
        ("_80._tcp.all", {"0 0 80 web.my-net.", "0 0 80 db.my-net."}),
        ("_8080._tcp.all", {"0 0 8080 api.my-net."}),
    ],
)
def test_a_published_port_is_a_service(name: str, where: set[str]) -> None:
    """RFC 2782: by number and by name, of every name of the sandbox."""
    assert set(told(name, "SRV", zone=SERVICES)) == where
    assert told(name, "A", zone=SERVICES) == []


def test_a_service_that_nobody_publishes_is_asked_for_elsewhere() -> None:
    """It may be one of the host's world."""
    assert isinstance(ask("_81._tcp.web", "SRV", zone=SERVICES), Forward)
