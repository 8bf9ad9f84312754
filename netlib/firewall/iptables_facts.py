"""Nouns read back from the rules in our iptables chains: pure, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_interface, ip_network
from typing import cast

from netlib.firewall import port_tree
from netlib.firewall.base import Marks
from netlib.firewall.facts import Element, Facts, alone, beside, one_of_each, segments
from netlib.firewall.iptables import chain, elements
from netlib.model import FAMILIES, Family, IPAddress, IPNetwork, Protocol
from netlib.values import dataclass, field
from netlib.wiring import (
    Allow,
    DnsRedirect,
    Forward,
    Masquerade,
    Noun,
    Open,
    Publish,
    Stray,
    Unmasked,
    Verdict,
    VxlanMember,
    VxlanPort,
)

_MARKS = Marks()
_INBOUND: dict[str, Verdict] = {
    "-j NETLIB-PUBLISHED": "published",
    "-j NETLIB-ROUTED": "routed",
    "-j DROP": "drop",
    "-j NETLIB-ALLOW": "allow",
}


def known(there: Mapping[Family, Facts], marks: Marks = _MARKS) -> list[Noun]:
    """The nouns that account for the rules of both families, as far as rules tell."""
    return one_of_each(
        _read(
            {
                family: [e for e in facts.values() if _is_readable(e, family, marks)]
                for family, facts in there.items()
            }
        )
    )


def strays(
    there: Mapping[Family, Facts], wanted: Iterable[Noun], marks: Marks = _MARKS
) -> list[Noun]:
    """The rules that no noun accounts for, neither a wanted one nor one that is read."""
    nouns = [*wanted, *known(there, marks)]
    return [
        Stray(container=e.container, element=e.key, value=e.value, family=family)
        for family, facts in there.items()
        for e in beside(facts, nouns, lambda noun, f=family: elements(noun, f, marks))  # type: ignore[misc]
    ]


def _is_readable(element: Element, family: Family, marks: Marks) -> bool:
    """Whether a rule says what it would be read as: not somebody else's, who says it his way."""
    said = alone(
        element, lambda rules: _read({family: rules}), lambda noun: elements(noun, family, marks)
    )
    # Most of what a noun is needs not be read: one rule of it tells all.
    return said is not None and (not said or any(e.says(element) for e in said))


def _read(there: Mapping[Family, Iterable[Element]]) -> list[Noun]:
    chains = {family: _by_chain(facts) for family, facts in there.items()}
    found: list[Noun] = [*_forwards(chains), *_vxlan_ports(chains)]
    for family, rows in chains.items():
        found += _segments(rows)
        found += _masquerades(family, rows)
        found += _published(family, rows)
        found += _opened(rows)
        found += _redirects(rows)
        found += _allowed(rows)
        found += _unmasked(rows)
        found += _members(rows)
    return found


@dataclass(frozen=True, slots=True)
class _Row:
    """A rule with its options: `-s`, `-d`, `-i`, `-o`, `-p`, `--dport`, and its target's."""

    value: str
    options: dict[str, str] = field(default_factory=dict)

    def network(self, option: str) -> IPNetwork:
        return ip_network(self.options[option])

    def address(self, option: str) -> IPAddress:
        return ip_interface(self.options[option]).ip

    def span(self) -> tuple[int, int]:
        first, _, last = self.options["--dport"].partition(":")
        return int(first), int(last or first) - int(first) + 1


Rows = Mapping[str, list[_Row]]


def _by_chain(elements: Iterable[Element]) -> dict[str, list[_Row]]:
    rows: dict[str, list[_Row]] = {}
    for element in elements:
        words = f"{element.key} {element.value}".split()
        options = {
            word: words[i + 1]
            for i, word in enumerate(words[:-1])
            if word.startswith("-") and (i == 0 or words[i - 1] != "!")
        }
        rows.setdefault(chain(element), []).append(_Row(element.value, options))
    return rows


def _column(chains: Mapping[Family, Rows], name: str, option: str) -> dict[str, str]:
    """The targets in a chain by device, both families."""
    return {
        row.options[option]: row.value
        for rows in chains.values()
        for row in rows.get(f"NETLIB-{name}", ())
    }


def _forwards(chains: Mapping[Family, Rows]) -> Iterator[Noun]:
    same = _column(chains, "SAME", "-i")
    to4, to6 = (_column({f: chains[f]}, "TO", "-o") if f in chains else {} for f in FAMILIES)
    source, host = _column(chains, "FROM", "-i"), _column(chains, "HOST", "-i")
    mutual, out = _column(chains, "MUTUAL", "-i"), _column(chains, "OUT", "-i")
    for bridge in dict.fromkeys([*out, *same, *to4, *to6, *source, *host, *mutual]):
        inside = same.get(bridge) == "-j NETLIB-LINKED"
        inbound, inbound6 = (_INBOUND.get(to.get(bridge, ""), "published") for to in (to4, to6))
        reach = {"": "open", "-j DROP": "closed"}.get(host.get(bridge, ""), "gateway")
        yield Forward(
            bridge=bridge,
            within="published" if inside else "allow",
            inbound=inbound,
            inbound6=None if inbound6 == inbound else inbound6,
            outbound="drop" if bridge in source else "allow",
            host="open" if reach == "open" else "closed" if reach == "closed" else "gateway",
            isolated=bridge not in mutual,
        )


def _vxlan_ports(chains: Mapping[Family, Rows]) -> Iterator[Noun]:
    """One for each port, as it is in both families."""
    names = ("NETLIB-TUNNELS", "NETLIB-UNTRACKED")
    every = [row for rows in chains.values() for name in names for row in rows.get(name, ())]
    for port in dict.fromkeys(row.span()[0] for row in every):
        yield VxlanPort(port=port)


def _segments(rows: Rows) -> Iterator[Noun]:
    gateways = [(r.options["-i"], r.address("-d")) for r in rows.get("NETLIB-GATEWAYS", ())]
    prefixes: dict[tuple[str, IPNetwork], None] = {}
    for row in rows.get("NETLIB-HAIRPIN", ()):
        if row.options["-s"] != "127.0.0.0/8":
            prefixes[row.options["-o"], row.network("-s")] = None
    for row in rows.get("NETLIB-LEAVE", ()):
        bridge = row.options["-j"].removeprefix("NETLIB-M-")
        prefixes[bridge, row.network("-s")] = None
    yield from segments(prefixes, gateways)


def _masquerades(family: Family, rows: Rows) -> Iterator[Noun]:
    for name, lines in rows.items():
        if name.startswith("NETLIB-M-") and any(_unmasked_prefix(r) is None for r in lines):
            source = next((r.options["--to-source"] for r in lines if "SNAT" in r.value), "")
            yield Masquerade(
                bridge=name.removeprefix("NETLIB-M-"),
                family=family,
                source=ip_address(source) if source else None,
            )


def _published(family: Family, rows: Rows) -> Iterator[Noun]:
    groups: dict[tuple[str, str, str], list[_Row]] = {}
    for name, lines in rows.items():
        if name == "NETLIB-RANGES" or port_tree.link(name):
            for row in lines:
                o = row.options
                groups.setdefault((o["-p"], o.get("-d", ""), o["--dport"]), []).append(row)
    for (protocol, host, _), lines in groups.items():
        first, count = lines[0].span()
        leading = [r for r in lines if "--to-destination" in r.options]
        target, port = meant = _destination(family, leading[0] if leading else None, first)
        # What leads some sources elsewhere is not this port's.
        leading = [row for row in leading if _destination(family, row, first) == meant]
        limited = all("-s" in row.options for row in leading)
        sources = tuple(sorted({r.network("-s") for r in leading}, key=str)) if limited else ()
        if not leading:  # all are refused
            sources = (ip_network("::/0") if family == 4 else ip_network("0.0.0.0/0"),)
        yield Publish(
            family=family,
            protocol=cast("Protocol", protocol),
            host=ip_interface(host).ip if host else None,
            port=first,
            count=count,
            target=target,
            target_port=port,
            sources=sources,
        )


def _destination(family: Family, row: _Row | None, port: int) -> tuple[IPAddress, int]:
    if row is None:
        return ip_address("0.0.0.0" if family == 4 else "::"), port  # noqa: S104  # not known
    text = row.options["--to-destination"]
    if family == 6 and not text.startswith("["):
        return ip_address(text), port
    address, _, ports = text.removeprefix("[").replace("]", "").rpartition(":")
    if family == 4 and ":" not in text:
        return ip_address(text), port
    return ip_address(address), int(ports.split("/")[0].split("-")[0])


def _opened(rows: Rows) -> Iterator[Noun]:
    groups: dict[tuple[str, str, str], list[_Row]] = {}
    for row in rows.get("NETLIB-OPEN", ()):
        o = row.options
        groups.setdefault((o["-p"], o["-d"], o["--dport"]), []).append(row)
    for (protocol, _, _), lines in groups.items():
        first, count = lines[0].span()
        limited = all("-s" in row.options for row in lines)
        sources = tuple(sorted({r.network("-s") for r in lines}, key=str)) if limited else ()
        yield Open(
            protocol=cast("Protocol", protocol),
            target=lines[0].address("-d"),
            port=first,
            count=count,
            sources=sources,
        )


def _allowed(rows: Rows) -> Iterator[Noun]:
    for row in rows.get("NETLIB-LINKS", ()):
        first, count = row.span()
        yield Allow(
            source=row.address("-s"),
            target=row.address("-d"),
            protocol=cast("Protocol", row.options["-p"]),
            port=first,
            count=count,
        )


def _unmasked(rows: Rows) -> Iterator[Noun]:
    for name, lines in rows.items():
        for row in lines if name.startswith("NETLIB-M-") else ():
            prefix = _unmasked_prefix(row)
            if prefix is not None:
                yield Unmasked(bridge=name.removeprefix("NETLIB-M-"), prefix=prefix)


def _unmasked_prefix(row: _Row) -> IPNetwork | None:
    """The prefix that a rule of a network's own chain spares; none of a multicast's rule."""
    if row.value != "-j RETURN" or "-d" not in row.options:
        return None
    prefix = row.network("-d")
    return None if prefix.is_multicast else prefix


def _redirects(rows: Rows) -> Iterator[Noun]:
    found: dict[tuple[str, IPAddress], int] = {}
    for row in rows.get("NETLIB-DNS", ()):
        port = int(row.options["--to-destination"].rpartition(":")[2])
        found[row.options["-i"], row.address("-d")] = port
    for (bridge, gateway), port in found.items():
        yield DnsRedirect(bridge=bridge, gateway=gateway, port=port)


def _members(rows: Rows) -> Iterator[Noun]:
    for row in rows.get("NETLIB-MEMBERS", ()):
        yield VxlanMember(address=row.address("-s"), port=row.span()[0])
