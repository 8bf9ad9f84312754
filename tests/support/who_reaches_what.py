"""The table "who reaches what" of docs/rules.md as questions with their answers."""

from __future__ import annotations

from collections.abc import Iterator

from netlib.model import Family
from support.firewall_host import (
    ALL,
    FAMILIES,
    FAVOURED,
    FIRST,
    LOOPBACK,
    OUTSIDE,
    RESOLVER,
    SECOND,
    FirewallHost,
    address,
)
from support.reach import Probe, Transport

TRANSPORTS: tuple[Transport, Transport] = ("tcp", "udp")


class _Rows:
    """Rows of the table in one family and transport."""

    def __init__(self, made: FirewallHost, family: Family, transport: Transport) -> None:
        self.made = made
        self.family = family
        self.transport = transport
        self.probes: list[Probe] = []

    def at(self, place: str) -> str:
        """The address of a sandbox or gateway."""
        return address(place, self.family)

    def yes(  # the table's columns, in hundreds of rows
        self, row: str, source: str, to: str, port: int, who: str, seen: str
    ) -> None:
        """`who` (`a1`, `a1:81`) answers and sees the client as `seen`."""
        server = who if ":" in who else f"{who}:80"
        place = self.made.place(source)
        self.probes.append(Probe(row, place, self.transport, to, port, f"{server} {seen}"))

    def no(self, row: str, source: str, to: str, port: int, bind: str = "") -> None:
        """Nobody answers."""
        place = self.made.place(source)
        self.probes.append(Probe(row, place, self.transport, to, port, "", bind))


def probes(made: FirewallHost) -> list[Probe]:
    """All rows, both families, TCP and UDP."""
    found: list[Probe] = []
    for family in FAMILIES:
        for transport in TRANSPORTS:
            rows = _Rows(made, family, transport)
            for part in (_published, _published_inside, _sources, _direct, _outside, _the_host):
                part(rows)
            found += rows.probes
    return found


def essential(made: FirewallHost) -> Iterator[Probe]:
    """One row of each kind, for the everyday suite: all rows, TCP over IPv4 and UDP over IPv6."""
    for probe in probes(made):
        if (":" in probe.address) == (probe.transport == "udp"):
            yield probe


def _published(r: _Rows) -> None:
    f = r.family
    first, second, out = FIRST[f], SECOND[f], OUTSIDE[f]
    row = "outsider to a published port"
    for host in (first, second):
        r.yes(row, "outsider", host, 8080, "a1", out)
    r.yes("a specific address", "outsider", second, 8081, "a1", out)
    r.no("a specific address, at another", "outsider", first, 8081)
    for port in (9000, 9005, 9009):
        r.yes("a range that keeps its numbers", "outsider", first, port, f"a1:{port}", out)
    for port in (9100, 9103):
        r.yes("a range to others", "outsider", first, port, f"a1:{port + 100}", out)
    for port in (8999, 9010, 9104):
        r.no("beside a range", "outsider", first, port)
    for port, target in (("8084", "b1"), ("8085", "e1"), ("8086", "g1"), ("8087", "f1")):
        r.yes(row, "outsider", first, int(port), target, out)
    r.yes(row, "outsider", first, 8088, "m1", out)

    row = "the host to its own published port"
    r.yes(row, "host", first, 8080, "a1", first)
    r.yes(row, "host", second, 8080, "a1", first if f == 4 else second)
    if f == 4:
        r.yes(row, "host", "127.0.0.1", 8080, "a1", r.at("a"))
        r.yes("published at 127.0.0.1", "host", "127.0.0.1", 8082, "a1", r.at("a"))
    else:
        r.no("the kernel can't redirect [::1]", "host", "::1", 8080)
    r.no("published at 127.0.0.1", "outsider", first, 8082)


def _published_inside(r: _Rows) -> None:
    f = r.family
    first, second = FIRST[f], SECOND[f]
    row = "another network to a published port"
    for source in ("e1", "g1", "x1"):
        r.yes(row, source, first, 8080, "a1", r.at(source))
        r.yes(f"{row}, by its own gateway", source, r.at(source[0]), 8080, "a1", r.at(source))
    for source in ("b2", "m2"):  # they masquerade
        r.yes(row, source, first, 8080, "a1", r.at("a"))
        r.yes(f"{row}, by its own gateway", source, r.at(source[0]), 8080, "a1", r.at("a"))
    r.yes(f"{row}, with a fixed address", "f2", first, 8080, "a1", second)

    row = "the same bridge to a published port"
    for source, port, target in (
        ("a2", 8080, "a1"),
        ("a1", 8080, "a1"),
        ("g2", 8086, "g1"),
        ("g1", 8086, "g1"),
        ("b2", 8084, "b1"),
        ("b1", 8084, "b1"),
    ):
        # br_netfilter rewrites the packet inside the bridge, which then refuses to pass it
        # from an isolated port to another.
        impossible = target == "b1" and r.made.bridge_netfilter
        for host in (first, r.at(source[0])):
            if impossible:
                r.no(f"{row}, isolated ports and br_netfilter", source, host, port)
            else:
                r.yes(row, source, host, port, target, r.at(source[0]))
    for source in ("c1", "d1"):
        for host in (first, r.at(source[0])):
            r.no("internal or isolated to a published port", source, host, 8080)


def _sources(r: _Rows) -> None:
    f = r.family
    place = r.made.outsider
    r.probes.append(
        Probe(
            "--from, its source",
            place,
            r.transport,
            FIRST[f],
            8083,
            f"a1:80 {FAVOURED[f]}",
            FAVOURED[f],
        )
    )
    r.no("--from, another source", "outsider", FIRST[f], 8083, OUTSIDE[f])
    for source in ("b2", "e1", "x1", "a2"):
        r.no("--from, another network", source, FIRST[f], 8083)
    if f == 4:
        r.no("--from, the host by 127.0.0.1", "host", LOOPBACK[f], 8083)


def _direct(r: _Rows) -> None:
    f = r.family
    for target in ("a1", "b1", "c1", "d1", "f1", "g1", "m1"):
        r.no("the outsider to an endpoint directly", "outsider", r.at(target), 80)
    for source, target in (
        ("a1", "b1"),
        ("b1", "a1"),
        ("e1", "a1"),
        ("a1", "g1"),
        ("m1", "a1"),
        ("a1", "m1"),
        ("a1", "c1"),
        ("a1", "d1"),
        ("c1", "a1"),
        ("d1", "a1"),
        ("m1", "c1"),
        ("c1", "m1"),
        ("c1", "e1"),
        ("x1", "a1"),
        ("x1", "c1"),
    ):
        r.no("a network to another's endpoint", source, r.at(target), 80)
    for source, target in (("m1", "n1"), ("n2", "m2")):  # they masquerade
        r.yes("networks not isolated", source, r.at(target), 80, target, r.at(target[0]))

    row = "to a routed endpoint's open port"
    r.yes(row, "outsider", r.at("e1"), 80, "e1", OUTSIDE[f])
    for source in ("g1", "x1"):
        r.yes(row, source, r.at("e1"), 80, "e1", r.at(source))
    r.yes(row, "a1", r.at("e1"), 80, "e1", r.at("e"))
    for source in ("outsider", "g1", "a1", "x1"):
        r.no("to a routed endpoint's other port", source, r.at("e1"), 81)
    r.probes.append(
        Probe(
            "open with --from, its source",
            r.made.outsider,
            r.transport,
            r.at("e2"),
            80,
            f"e2:80 {FAVOURED[f]}",
            FAVOURED[f],
        )
    )
    r.no("open with --from, another source", "outsider", r.at("e2"), 80, OUTSIDE[f])

    for net in "acdefgmn":
        source = f"{net}1"
        r.yes("within a network", source, r.at(f"{net}2"), 80, f"{net}2", r.at(source))
    for net in "ace":
        r.yes("within a network", f"{net}2", r.at(f"{net}1"), 80, f"{net}1", r.at(f"{net}2"))
    r.no("icc off", "b2", r.at("b1"), 80)
    r.no("icc off, by the gateway's MAC", "b1", r.at("b2"), 80)


def _outside(r: _Rows) -> None:
    f = r.family
    out = OUTSIDE[f]
    for net in "abmn":
        r.yes("out, masqueraded", f"{net}1", out, 80, "outsider", FIRST[f])
    r.yes("out, with a fixed address", "f1", out, 80, "outsider", SECOND[f])
    for source in ("e1", "g1", "x1"):
        r.yes("out, as it is", source, out, 80, "outsider", r.at(source))
    for source in ("c1", "d1"):
        r.no("internal or isolated, out", source, out, 80)
    r.yes("into a bridge that is not ours", "outsider", r.at("x1"), 80, "x1", out)
    r.yes("into a bridge that is not ours", "g1", r.at("x1"), 80, "x1", r.at("g1"))
    r.yes("within a bridge that is not ours", "x1", r.at("x2"), 80, "x2", r.at("x1"))


def _the_host(r: _Rows) -> None:
    f = r.family
    for net in ALL:
        if net != "d":
            r.yes("the host to a sandbox", "host", r.at(f"{net}1"), 80, f"{net}1", r.at(net))
    r.no("the host to an isolated sandbox", "host", r.at("d1"), 80)
    for source in ("a1", "b1", "e1", "x1"):
        for host in (FIRST[f], SECOND[f], r.at(source[0]), r.at("g")):
            r.yes("to a service of the host", source, host, 7000, "host:7000", r.at(source))
    r.yes("internal, by its gateway", "c1", r.at("c"), 7000, "host:7000", r.at("c1"))
    for host in (FIRST[f], SECOND[f], r.at("a")):
        r.no("internal, by another address of the host", "c1", host, 7000)
    for host in (FIRST[f], r.at("a"), r.at("d")):
        r.no("isolated, to the host", "d1", host, 7000)

    resolver = f"host:{RESOLVER}"
    for source in ("a1", "b1"):
        r.yes("DNS at its own gateway", source, r.at(source[0]), 53, resolver, r.at(source))
    for source, net in (("a1", "b"), ("b1", "a"), ("e1", "a"), ("x1", "a"), ("outsider", "a")):
        r.no("DNS at another's gateway", source, r.at(net), 53)
        r.no("another's resolver where it listens", source, r.at(net), RESOLVER)
