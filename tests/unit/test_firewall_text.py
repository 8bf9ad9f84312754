"""Firewall nouns as text: what both backends make of them, and what they read back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from netlib.errors import InvalidName
from netlib.firewall import (
    iptables,
    iptables_base,
    iptables_facts,
    iptables_state,
    nftables,
    nftables_facts,
    port_tree,
    source_guard,
)
from netlib.firewall.base import Marks
from netlib.firewall.facts import Element, Place, healing, observed
from netlib.firewall.iptables_base import fact_chains
from netlib.firewall.iptables_state import Clash, Missing, State, above, change, facts, met
from netlib.firewall.nftables_base import base
from netlib.model import Family, IPNetwork
from netlib.plan import Change, Create, Delete, Ensure
from netlib.wiring import (
    Allow,
    DnsRedirect,
    FirewallBase,
    Forward,
    Masquerade,
    Noun,
    Open,
    Publish,
    Segment,
    SourceGuard,
    Unmasked,
    VxlanMember,
    VxlanPort,
)

MARKS = Marks()
FAMILIES: tuple[Family, Family] = (4, 6)
WEB = Publish(family=4, protocol="tcp", port=8080, target=ip_address("192.0.2.2"), target_port=80)


# -- what a person reads ------------------------------------------------------------------------


def test_a_published_port_is_one_element() -> None:
    """The line of --dry-run is the command that is run."""
    assert nftables.commands(Create(WEB)) == [
        "nft add element inet netlib any4 { tcp . 8080 : 192.0.2.2 . 80 }"
    ]
    assert nftables.commands(Delete(WEB)) == ["nft delete element inet netlib any4 { tcp . 8080 }"]


def test_a_published_port_is_one_rule() -> None:
    """In the leaf of its 16 ports."""
    rule = "NETLIB-TCP-1f9 -p tcp --dport 8080 -j DNAT --to-destination 192.0.2.2:80"

    assert iptables.commands(Create(WEB)) == [f"iptables -t nat -A {rule}"]
    assert iptables.commands(Delete(WEB)) == [f"iptables -t nat -D {rule}"]


def test_a_change_tells_only_the_difference() -> None:
    """What stays is not mentioned."""
    on, off = Forward(bridge="nl-a"), Forward(bridge="nl-a", within="published")

    assert nftables.commands(Change(on, off)) == [
        'nft delete element inet netlib same { "nl-a" . "nl-a" }',
        'nft add element inet netlib same { "nl-a" . "nl-a" : goto linked }',
    ]
    assert iptables.commands(Change(on, off)) == [
        f"{program} -t filter {verb} NETLIB-SAME -i nl-a -o nl-a -j NETLIB-{target}"
        for program in ("iptables", "ip6tables")
        for verb, target in (("-D", "ALLOW"), ("-A", "LINKED"))
    ]


def test_the_base_is_one_line() -> None:
    """Its rules are a page of the documentation, not of every plan."""
    assert len(nftables.commands(Ensure(FirewallBase()))) == 1
    assert len(iptables.commands(Ensure(FirewallBase()))) == 2


@pytest.mark.parametrize("name", ["br+", "br*", 'b"r', "-br", "b r", "", "a" * 16, "br;drop"])
def test_devices_that_a_rule_would_misread_are_refused(name: str) -> None:
    """Wildcards, quotes, blanks, options and separators."""
    for commands in (nftables.commands, iptables.commands):
        with pytest.raises(InvalidName):
            commands(Create(Forward(bridge=name)))


def test_an_internal_network_lets_nobody_in_as_a_friend() -> None:
    """`isolated` False opens nothing where nothing may enter or leave."""
    closed = Forward(bridge="nl-a", inbound="drop", outbound="drop", isolated=False)

    assert not any(e.container == "mutual" for e in nftables.elements(closed))
    assert not any("MUTUAL" in e.container for e in iptables.elements(closed, 4, MARKS))


def test_the_marks_can_be_others() -> None:
    """Where somebody uses our bits: every rule names the ones that were chosen."""
    marks = Marks(allowed=0x40000, refused=0x80000)

    for text in (
        base(marks),
        str(iptables_base.rules(4, marks)),
        str(iptables_base.rules(6, marks)),
    ):
        assert "0x40000" in text
        assert "0x1000" not in text
    limited = replace(WEB, sources=(ip_network("198.51.100.0/24"),))
    assert "0x80000/0x80000" in str(iptables.elements(limited, 4, marks))


# -- what is written is what is read ------------------------------------------------------------

ports = st.integers(1, 65535)
devices = st.from_regex(r"[A-Za-z0-9_.@=][A-Za-z0-9_.@=-]{0,14}", fullmatch=True)
addresses: dict[Family, Any] = {
    4: st.integers(1, 2**32 - 2).map(IPv4Address),
    6: st.integers(2**64, 2**128 - 2).map(IPv6Address),
}


@st.composite
def networks(draw: st.DrawFn, family: Family, least: int = 1) -> IPNetwork:
    """A prefix that is not everything."""
    length = draw(st.integers(least, 32 if family == 4 else 128))
    address = int(draw(addresses[family]))
    if family == 4:
        return IPv4Network((address, length), strict=False)
    return IPv6Network((address, length), strict=False)


def sources(family: Family) -> st.SearchStrategy[tuple[IPNetwork, ...]]:
    """Sources as the parser gives them: none within another."""
    return st.lists(networks(family), max_size=3).map(
        lambda found: tuple(
            one
            for i, one in enumerate(found)
            if not any(one.overlaps(other) for other in found[:i])  # type: ignore[arg-type]
        )
    )


@st.composite
def publishes(draw: st.DrawFn) -> Publish:
    """Any published port."""
    family = draw(st.sampled_from(FAMILIES))
    port, to = draw(ports), draw(ports)
    to = draw(st.sampled_from([to, port]))
    return Publish(
        family=family,
        protocol=draw(st.sampled_from(["tcp", "udp", "sctp"])),
        host=draw(st.none() | addresses[family]),
        port=port,
        count=draw(st.integers(1, min(12, 65536 - max(port, to)))),
        target=draw(addresses[family]),
        target_port=to,
        sources=draw(sources(family)),
    )


@st.composite
def nouns(draw: st.DrawFn) -> Noun:
    """Any firewall noun."""
    family = draw(st.sampled_from(FAMILIES))
    bridge = draw(devices)
    # What goes to a group is never masqueraded, with or without a noun that says so.
    prefix = draw(networks(family, 8).filter(lambda found: not found.is_multicast))
    kind = draw(st.integers(0, 9))
    if kind == 0:
        outbound = draw(st.sampled_from(["allow", "drop"]))
        return Forward(
            bridge=bridge,
            within=draw(st.sampled_from(["allow", "published"])),
            inbound=draw(st.sampled_from(["published", "routed", "drop", "allow"])),
            inbound6=draw(st.sampled_from([None, "published", "routed", "allow"])),
            outbound=outbound,  # type: ignore[arg-type]  # sampled
            host=draw(st.sampled_from(["open", "gateway", "closed"])),
            isolated=True,
        )
    if kind == 1:
        gateway = draw(st.none() | st.just(prefix[0]))
        return Segment(bridge=bridge, prefix=prefix, gateway=gateway)
    if kind == 2:
        source = draw(st.none() | addresses[family])
        return Masquerade(bridge=bridge, family=family, source=source)
    if kind == 3:
        return draw(publishes())
    if kind == 4:
        first = draw(ports)
        return Open(
            protocol=draw(st.sampled_from(["tcp", "udp", "sctp"])),
            target=draw(addresses[family]),
            port=first,
            count=draw(st.integers(1, 65536 - first)),
            sources=draw(sources(family)),
        )
    if kind == 5:
        assume(not prefix.is_multicast)  # no network has such a subnet; the base spares them all
        return Unmasked(bridge=bridge, prefix=prefix)
    if kind == 6:
        first = draw(ports)
        return Allow(
            source=draw(addresses[family]),
            target=draw(addresses[family]),
            protocol=draw(st.sampled_from(["tcp", "udp", "sctp"])),
            port=first,
            count=draw(st.integers(1, 65536 - first)),
        )
    if kind == 7:
        return VxlanPort(port=draw(ports))
    if kind == 8:
        return VxlanMember(address=draw(addresses[family]), port=draw(ports))
    return DnsRedirect(bridge=bridge, gateway=draw(addresses[family]), port=draw(ports))


@given(nouns())
def test_nftables_reads_what_it_wrote(noun: Noun) -> None:
    """A noun is observed as itself, and what is known of it renders to the same elements."""
    there = {e.place: e for e in nftables.elements(noun)}
    (known,) = nftables_facts.known(there)

    assert known.key() == noun.key()
    assert {e.place: e for e in nftables.elements(known)} == there
    assert observed([noun], there, [known], nftables.elements) == [noun]


@given(nouns())
def test_iptables_reads_what_it_wrote(noun: Noun) -> None:
    """The same for rules."""
    there = {f: {e.place: e for e in iptables.elements(noun, f, MARKS)} for f in FAMILIES}
    (known,) = iptables_facts.known(there)

    assert known.key() == noun.key()
    for family in FAMILIES:
        rendered = {e.place: e for e in iptables.elements(known, family, MARKS)}
        assert rendered.keys() == there[family].keys()
        assert all(e.says(rendered[e.place]) for e in there[family].values())


@given(nouns())
def test_what_others_put_beside_a_noun_is_told_from_it(noun: Noun) -> None:
    """In each container or chain; the noun is read as before, and nothing else of it is a stray."""
    there = {e.place: e for e in nftables.elements(noun)}
    theirs = Element("same", '"nl-0" . "nl-1"', "accept")
    with_theirs = {**there, theirs.place: theirs}
    assert nftables_facts.strays(there, []) == []
    assert nftables_facts.known(with_theirs) == nftables_facts.known(there)
    assert [nftables.elements(s) for s in nftables_facts.strays(with_theirs, [])] == [[theirs]]

    rules = {f: {e.place: e for e in iptables.elements(noun, f, MARKS)} for f in FAMILIES}
    assert iptables_facts.strays(rules, []) == []
    for table, chain in fact_chains(4):
        foreign = Element(f"{table} {chain}", "-s 203.0.113.7/32", "-j ACCEPT")
        both = {4: {**rules[4], foreign.place: foreign}, 6: rules[6]}
        assert iptables_facts.known(both) == iptables_facts.known(rules)
        (stray,) = iptables_facts.strays(both, [])
        assert iptables.elements(stray, 4, MARKS) == [foreign]
        assert iptables.elements(stray, 6, MARKS) == []


@pytest.mark.parametrize("comment", ["theirs", "1-", "9999-9999999999"])
def test_a_port_of_others_with_a_comment_that_is_no_range_is_told(comment: str) -> None:
    """The comment of ours says which range an element is of."""
    theirs = Element("any4", "tcp . 9999", "203.0.113.9 . 9", comment)
    there = {e.place: e for e in [*nftables.elements(WEB), theirs]}
    assert nftables_facts.known(there) == [WEB]
    assert [(s.container, s.element) for s in nftables_facts.strays(there, [])] == [theirs.place]  # type: ignore[attr-defined]


# -- what was saved earlier and is loaded again ---------------------------------------------------

_FEW_SOURCES = (IPv4Network("192.0.2.0/25"), IPv4Network("198.51.100.0/24"))
_few_bridges = st.sampled_from(["nl-a", "nl-b"])


def _port(port: int, target_port: int, sources: tuple[IPv4Network, ...] = ()) -> Publish:
    return Publish(
        family=4,
        protocol="tcp",
        host=None,
        port=port,
        target=IPv4Address("203.0.113.2"),
        target_port=target_port,
        sources=sources,
    )


def _few_nouns() -> st.SearchStrategy[Noun]:
    """Firewall nouns that are often in each other's places."""
    few_ports = st.integers(8080, 8083)
    few_targets = st.sampled_from([ip_address("203.0.113.2"), ip_address("203.0.113.3")])
    few_sources = st.lists(st.sampled_from(_FEW_SOURCES), unique=True).map(tuple)
    count = st.integers(1, 3)
    return st.one_of(
        st.builds(
            Publish,
            family=st.just(4),
            protocol=st.just("tcp"),
            host=st.sampled_from([None, ip_address("192.0.2.1")]),
            port=few_ports,
            count=count,
            target=few_targets,
            target_port=st.integers(8080, 8081),
            sources=few_sources,
        ),
        st.builds(
            Open,
            protocol=st.just("tcp"),
            target=few_targets,
            port=few_ports,
            count=count,
            sources=few_sources,
        ),
        st.builds(
            Forward,
            bridge=_few_bridges,
            within=st.sampled_from(["allow", "published"]),
            inbound=st.sampled_from(["published", "routed"]),
            outbound=st.sampled_from(["allow", "drop"]),
            host=st.sampled_from(["open", "gateway"]),
            isolated=st.booleans(),
        ),
        st.builds(
            Masquerade,
            bridge=_few_bridges,
            family=st.just(4),
            source=st.none() | few_targets,
        ),
    )


def _ports_of(noun: Noun) -> frozenset[tuple[object, ...]]:
    """What no two of one state can both have."""
    if isinstance(noun, Publish):
        return frozenset((noun.port + i,) for i in range(noun.count))
    if isinstance(noun, Open):
        return frozenset((noun.target, noun.port + i) for i in range(noun.count))
    return frozenset([noun.key()])


_few_states = st.lists(_few_nouns(), max_size=5).map(
    lambda found: [
        one
        for i, one in enumerate(found)
        if not any(_ports_of(one) & _ports_of(other) for other in found[:i])
    ]
)


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
@settings(max_examples=300)
@example(  # another one of its sources is led elsewhere
    earlier=[_port(8081, 8081, _FEW_SOURCES[1:])],
    wanted=[_port(8081, 8080, _FEW_SOURCES)],
    over=True,
)
@example(  # everybody else is led elsewhere instead of refused
    earlier=[_port(8081, 8081)], wanted=[_port(8081, 8080, _FEW_SOURCES[:1])], over=True
)
@given(earlier=_few_states, wanted=_few_states, over=st.booleans())
def test_what_is_loaded_again_of_earlier_goes_and_what_is_wanted_stays(
    backend: str, earlier: list[Noun], wanted: list[Noun], over: bool
) -> None:
    """First what nothing is known of goes, then what is there is made what is wanted."""
    in_rules = backend == "iptables"
    render: Callable[[Noun], list[Element]] = nftables.elements
    places: Callable[[Noun], list[Place]] = nftables.places
    if in_rules:
        render = partial(iptables.elements, family=4, marks=MARKS)
        places = partial(iptables.places, family=4, marks=MARKS)

    def known() -> list[Noun]:
        found = iptables_facts.known({4: there}) if in_rules else nftables_facts.known(there)
        assert len({noun.key() for noun in found}) == len(found)
        return found

    def strays() -> list[Noun]:
        if in_rules:
            return iptables_facts.strays({4: there}, wanted)
        return nftables_facts.strays(there, wanted)

    states = [wanted, earlier] if over else [earlier, wanted]
    there = {e.place: e for state in states for noun in state for e in render(noun)}
    keys = {noun.key() for noun in wanted}
    for noun in [*(n for n in known() if n.key() not in keys), *strays()]:
        for element in render(noun):
            there.pop(element.place, None)
    seen = {noun.key(): noun for noun in observed(wanted, there, known(), render)}
    for noun in wanted:
        old = seen.get(noun.key())
        step = Change(old, noun) if old else Create(noun)
        gone, come = healing([step], there, render, places)
        for element in gone:
            del there[element.place]
        assert all(element.says(there.get(element.place, element)) for element in come)
        there |= {element.place: element for element in come}

    after = {e.place: e.value for noun in wanted for e in render(noun)}
    assert {place: element.value for place, element in there.items()} == after
    assert {noun.key() for noun in known()} <= keys
    assert strays() == []


# -- how it is listed ---------------------------------------------------------------------------


@given(nouns())
def test_every_rule_survives_a_listing(noun: Noun) -> None:
    """What is written as a rule is parsed as the same rule."""
    for family in FAMILIES:
        for element in iptables.elements(noun, family, MARKS):
            row = iptables.line("-A", element)
            assert iptables_state.rule(iptables.table(element), row).says(element)


@given(st.sampled_from([4, 6]), st.data())
def test_a_source_guard_is_read_as_it_was_written(family: Family, data: st.DataObject) -> None:
    """What nft lists of it is the same guard."""
    guard = SourceGuard(
        device=data.draw(devices),
        mac="02:00:00:00:00:01",
        addresses=tuple(data.draw(st.lists(addresses[family], unique=True, min_size=1))),
        prefixes=tuple(data.draw(st.lists(networks(family, 8), unique=True, min_size=1))),
    )
    there = {e.place: e for e in source_guard.elements(guard)}
    (known,) = source_guard.known(there)

    assert known == guard
    assert observed([guard], there, [known], source_guard.elements) == [guard]


# -- the port tree ------------------------------------------------------------------------------


@given(st.sampled_from(["tcp", "udp", "sctp"]), ports)
def test_every_port_is_found_down_the_tree(protocol: str, port: int) -> None:
    """Each link on the way up covers the port, and three of them lead to the root."""
    chain = port_tree.leaf(protocol, port)
    for width in (16, 256, 4096):
        link = port_tree.link(chain)
        assert link is not None
        first, last = map(int, link.element.key.rpartition(" ")[2].split(":"))
        assert first <= port <= last
        assert last - first + 1 == width
        chain = link.parent
    assert chain == port_tree.ROOTS[protocol]
    assert port_tree.link(chain) is None


def empty(family: Family = 4) -> State:
    """The base without any fact."""
    return {chain: [] for chain in fact_chains(family)}


def rules(nouns: Iterable[Noun]) -> list[Element]:
    """The rules of nouns in IPv4."""
    return [e for noun in nouns for e in iptables.elements(noun, 4, MARKS)]


def run(state: State, script: str) -> State:
    """What iptables-restore --noflush makes of chains."""
    after: State = {k: None if v is None else list(v) for k, v in state.items()}
    table = ""
    for row in script.splitlines():
        verb, _, rest = row.partition(" ")
        if row.startswith("*"):
            table = row[1:]
        elif row.startswith(":"):
            after[table, verb[1:]] = []
        elif verb in ("-A", "-I", "-D"):
            element = iptables_state.rule(table, row)
            lines = after[table, iptables.chain(element)]
            assert lines is not None, f"no chain for {row}"
            if verb == "-D":
                lines.remove(next(e for e in lines if e.says(element)))
            else:
                lines.insert(0 if verb == "-I" else len(lines), element)
            target = element.value.split()[1] if element.value.startswith("-g") else ""
            assert not target or after.get((table, target)) is not None, f"{row} leads nowhere"
        elif verb == "-X":
            assert after[table, rest] == [], f"{rest} is not empty"
            led = f"{rest}"
            assert not any(
                e.value.split()[1] == led for lines in after.values() for e in lines or ()
            ), f"{rest} is still led to"
            after[table, rest] = None
        else:
            assert row == "COMMIT"
    return after


def same(one: State, other: State) -> bool:
    """Whether chains hold the same rules in the same order; an absent chain is None."""
    keys = one.keys() | other.keys()

    def plain(lines: list[Element] | None) -> list[tuple[str, str]] | None:
        return None if lines is None else [(e.key, e.value) for e in lines]

    return all(plain(one.get(key)) == plain(other.get(key)) for key in keys)


tree_ports = st.lists(
    st.tuples(st.sampled_from([80, 81, 95, 96, 8080, 8081, 8095, 8096, 65535]), st.booleans()),
    unique=True,
    max_size=9,
)


@given(tree_ports, st.data())
def test_the_tree_grows_and_shrinks_with_its_ports(
    numbers: list[tuple[int, bool]], data: st.DataObject
) -> None:
    """Scripts do what they are said to do; no chain is empty, unreachable or left over."""
    wanted = [
        Publish(
            family=4,
            protocol="tcp",
            port=number,
            host=ip_address("192.0.2.1") if specific else None,
            target=ip_address("198.51.100.2"),
            target_port=80,
        )
        for number, specific in numbers
    ]
    state = empty()
    for port in wanted:
        script, after = change(state, [], rules([port]))
        assert same(run(state, script), after)
        state = after
    assert facts(state).keys() == {e.place for e in rules(wanted)}
    for (_, name), lines in state.items():
        link = port_tree.link(name)
        if link is not None and lines is not None:
            assert lines, f"{name} is empty"
            above = state["nat", link.parent] or []
            assert [e for e in above if e.says(link.element)], f"nothing leads to {name}"
    for port in data.draw(st.permutations(wanted)):
        script, after = change(state, rules([port]), [])
        assert same(run(state, script), after)
        state = after
    assert same(state, empty())


@given(st.lists(nouns(), max_size=6, unique_by=lambda noun: noun.key()))
def test_many_facts_in_one_script(wanted: list[Noun]) -> None:
    """All at once and all away again; chains of networks come and go with what needs them."""
    come = {e.place: e for e in rules(wanted)}
    if len(come) != len(rules(wanted)):
        return  # two nouns that contradict each other
    state = empty()

    script, after = change(state, [], come.values())
    assert same(run(state, script), after)
    assert facts(after).keys() == come.keys()

    script, back = change(after, come.values(), [])
    assert same(run(after, script), back)
    assert same(back, state)


def test_specific_addresses_come_first() -> None:
    """A leaf is read from the top: the port of one address wins over that of all."""
    everywhere = Publish(
        family=4, protocol="tcp", port=8080, target=ip_address("192.0.2.2"), target_port=80
    )
    at_one = Publish(
        family=4,
        protocol="tcp",
        port=8080,
        host=ip_address("192.0.2.1"),
        target=ip_address("192.0.2.3"),
        target_port=80,
        sources=(ip_network("203.0.113.0/24"), ip_network("198.51.100.0/24")),
    )
    _, state = change(empty(), [], rules([everywhere, at_one]))

    leaf = state["nat", "NETLIB-TCP-1f9"]
    assert leaf is not None
    assert ["-s" in e.key or "DNAT" in e.value for e in leaf] == [True, True, False, True]
    assert leaf[-1].key == "-p tcp --dport 8080"


def test_a_change_is_strict_unless_told_otherwise() -> None:
    """Missing and contradicting rules are refused, the same rule twice is one."""
    port = rules([WEB])
    other = [Element(e.container, e.key, e.value + "80") for e in port]
    _, state = change(empty(), [], port)

    assert change(state, [], port)[0] == ""
    assert change(empty(), port, [], tolerant=True)[0] == ""
    with pytest.raises(Clash):
        change(state, [], other)
    with pytest.raises(Missing):
        change(empty(), port, [])
    with pytest.raises(Missing) as caught:
        change({}, [], rules([Forward(bridge="nl-a")]))
    assert caught.value.base


def test_only_chains_that_may_change_are_read() -> None:
    """The levels above a leaf matter only where it appears or vanishes."""
    leaf, parent = ("nat", "NETLIB-TCP-1f9"), ("nat", "NETLIB-TCP-1f")
    grand = ("nat", "NETLIB-TCP-1")
    (port,) = rules([WEB])
    link = port_tree.link(leaf[1])
    assert link is not None
    neighbour = Element(port.container, "-p tcp --dport 8081", port.value)

    assert above({leaf: None}, [], []) == parent
    assert above({leaf: [neighbour]}, [], []) is None
    assert above({leaf: [port, neighbour]}, [port], []) is None
    assert above({leaf: [port]}, [port], []) == parent
    assert above({leaf: [port], parent: [link.element]}, [port], []) == grand
    assert above({leaf: [port], parent: [link.element, neighbour]}, [port], []) is None
    # Somebody flushed chains: those above may be empty, too.
    assert above({leaf: []}, [], [port]) == parent
    assert above({leaf: [port]}, [], [port]) == parent
    assert above({leaf: [port], parent: [link.element]}, [], [port]) == grand


def test_ports_that_no_packet_gets_to_are_led_to_again() -> None:
    """Whichever chain of the tree was flushed."""
    port = rules([WEB])
    _, whole = change(empty(), [], port)
    assert all(e.place in met(whole) for e in port)
    for name in ("NETLIB-TCP", "NETLIB-TCP-1", "NETLIB-TCP-1f", "NETLIB-TCP-1f9"):
        damaged = {**whole, ("nat", name): []}
        assert not any(e.place in met(damaged) for e in port)
        assert change(damaged, [], port)[1] == whole
