"""Nouns as elements of nftables sets and maps. Rules never change, facts are elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from netlib.firewall.base import (
    Marks,
    device,
    is_mutual,
    prefix_text,
    sources_of,
)
from netlib.firewall.facts import Element, difference
from netlib.firewall.nftables_base import TABLE, base
from netlib.model import EVERYWHERE, FAMILIES, port_range
from netlib.plan import Create, Ensure, Step
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
    Stray,
    Unmasked,
    VxlanMember,
    VxlanPort,
)


def elements(noun: Noun) -> list[Element]:
    """The facts that a noun is to the base's rules."""
    return _FACTS[type(noun)](noun)


def places(noun: Noun) -> list[tuple[str, str]]:
    """Where elements of a noun could be, whatever its attributes besides its key are.

    Of a port only its own places: a publish of other width or sources is found by reading.
    """
    found = [e.place for e in elements(noun)]
    if isinstance(noun, Forward):
        name = quoted(noun.bridge)
        found += [(c, name) for c in ("bridges", "mutual", "from", "host")]
        found.append(("same", f"{name} . {name}"))
    elif isinstance(noun, Masquerade):
        found.append((f"outbound{noun.family}", quoted(noun.bridge)))
    return list(dict.fromkeys(found))


def commands(step: Step) -> list[str]:
    """A step as lines for a shell. The door runs the very same without the first word."""
    return [f"nft {line}" for line in lines(step)]


def lines(step: Step) -> list[str]:
    """A step as commands of nft, one on each line."""
    if has_base([step]):
        return ["-f -  # the base, see docs/rules.md"]
    gone, come = difference([step], elements)
    return [*delete(gone), *add(come)]


def script(steps: Iterable[Step], marks: Marks) -> str:
    """Steps as one transaction of nft, deletions first.

    So a fact can move from one noun to another within the transaction. Commands on elements
    stand in one line: nft counts columns, not lines, when it points at the one it refused.
    """
    known = list(steps)
    gone, come = difference(known, elements)
    return written(gone, come, marks if has_base(known) else None)


def written(gone: Iterable[Element], come: Iterable[Element], marks: Marks | None = None) -> str:
    """Elements that go and come as one transaction of nft; with `marks` the base, too."""
    bases = [base(marks)] if marks else []
    return "\n".join([*bases, together([*delete(gone), *add(come)])])


def has_base(steps: Iterable[Step]) -> bool:
    """Whether the base is to be made."""
    return any(
        isinstance(step, Create | Ensure) and isinstance(step.noun, FirewallBase) for step in steps
    )


def together(commands: Iterable[str]) -> str:
    """Commands in one line."""
    return "; ".join(commands)


def add(facts: Iterable[Element], table: str = TABLE) -> list[str]:
    """Commands that add elements, one for each container in a row."""
    return [
        f"add element {table} {name} {{ {', '.join(_shown(e) for e in group)} }}"
        for name, group in groupby(facts, key=lambda e: e.container)
    ]


def delete(facts: Iterable[Element], table: str = TABLE) -> list[str]:
    """Commands that delete elements by their keys."""
    return [
        f"delete element {table} {name} {{ {', '.join(e.key for e in group)} }}"
        for name, group in groupby(facts, key=lambda e: e.container)
    ]


def quoted(name: str) -> str:
    """A device's name as nft lists it."""
    return f'"{device(name)}"'


def _shown(element: Element) -> str:
    comment = f' comment "{element.comment}"' if element.comment else ""
    return element.key + comment + (f" : {element.value}" if element.value else "")


# -- one function for each noun -----------------------------------------------------------------

_INBOUND = {
    "published": "goto published",
    "routed": "goto routed",
    "drop": "drop",
    "allow": "goto allow",
}
_WITHIN = {"allow": "goto allow", "published": "goto linked"}
_HOST = {"gateway": "goto host_gateway", "closed": "drop"}


def _forward(noun: Forward) -> list[Element]:
    name = quoted(noun.bridge)
    facts = [
        Element("bridges", name),
        Element("same", f"{name} . {name}", _WITHIN[noun.within]),
        *(
            Element("inbound", f"ipv{family} . {name}", _INBOUND[noun.inbound_of(family)])
            for family in FAMILIES
        ),
    ]
    if noun.outbound == "drop":
        facts.append(Element("from", name, "drop"))
    if noun.host in _HOST:
        facts.append(Element("host", name, _HOST[noun.host]))
    if is_mutual(noun):
        facts.append(Element("mutual", name))
    return facts


def _segment(noun: Segment) -> list[Element]:
    family, name = noun.prefix.version, quoted(noun.bridge)
    facts = [Element(f"subnets{family}", f"{name} . {prefix_text(noun.prefix)}")]
    if noun.gateway is not None:
        facts.append(Element(f"gateways{family}", f"{name} . {noun.gateway}"))
    return facts


def _masquerade(noun: Masquerade) -> list[Element]:
    name = quoted(noun.bridge)
    key = f"ipv{noun.family} . {name}"
    if noun.source is None:
        return [Element("leave", key, "goto masq")]
    return [
        Element("leave", key, "goto masq_fixed"),
        Element(f"outbound{noun.family}", name, str(noun.source)),
    ]


def _publish(noun: Publish) -> list[Element]:
    """A hash element for a port; an interval for a range that keeps its numbers, or sources.

    An interval as a map's data does not keep the offset within it, so a range that leads to
    other numbers is one element for each port; their comment says that they belong together.
    """
    family, protocol = noun.family, noun.protocol
    whole = port_range(noun.port, noun.count)
    ranged = noun.count > 1 and noun.port == noun.target_port
    note = whole if noun.count > 1 and not ranged else ""
    pairs = [(noun.port + i, noun.target_port + i) for i in range(1 if ranged else noun.count)]
    where = str(noun.host) if noun.host is not None else EVERYWHERE[family]
    if not noun.sources:
        if ranged:
            key = f"{protocol} . {where} . {whole} . {EVERYWHERE[family]}"
            return [Element(f"range{family}", key, str(noun.target))]
        name = f"any{family}" if noun.host is None else f"at{family}"
        front = protocol if noun.host is None else f"{protocol} . {noun.host}"
        return [Element(name, f"{front} . {a}", f"{noun.target} . {b}", note) for a, b in pairs]
    facts: list[Element] = []
    for source in map(prefix_text, sources_of(family, noun.sources)):
        if ranged:
            key = f"{protocol} . {where} . {whole} . {source}"
            facts.append(Element(f"range{family}", key, str(noun.target)))
        else:
            facts += [
                Element(
                    f"from{family}",
                    f"{protocol} . {where} . {a} . {source}",
                    f"{noun.target} . {b}",
                    note,
                )
                for a, b in pairs
            ]
    return [*facts, Element(f"guard{family}", f"{protocol} . {where} . {whole}")]


def _open(noun: Open) -> list[Element]:
    family = noun.target.version
    sources = [prefix_text(s) for s in sources_of(family, noun.sources)]
    if not noun.sources:
        sources = [EVERYWHERE[family]]
    key = f"{noun.protocol} . {noun.target} . {port_range(noun.port, noun.count)}"
    return [Element(f"open{family}", f"{key} . {source}") for source in sources]


def _allow(noun: Allow) -> list[Element]:
    ports = port_range(noun.port, noun.count)
    key = f"{noun.source} . {noun.target} . {noun.protocol} . {ports}"
    return [Element(f"linked{noun.target.version}", key)]


def _unmasked(noun: Unmasked) -> list[Element]:
    key = f"{quoted(noun.bridge)} . {prefix_text(noun.prefix)}"
    return [Element(f"unmasked{noun.prefix.version}", key)]


def _dns(noun: DnsRedirect) -> list[Element]:
    family = noun.gateway.version
    facts = []
    for protocol in ("udp", "tcp"):
        key = f"{quoted(noun.bridge)} . {noun.gateway} . {protocol} . 53"
        facts.append(Element(f"dns{family}", key, f"{noun.gateway} . {noun.port}"))
    for protocol in ("udp", "tcp"):
        facts.append(Element(f"resolvers{family}", f"{noun.gateway} . {protocol} . {noun.port}"))
    return facts


def _vxlan_port(noun: VxlanPort) -> list[Element]:
    return [Element("vxlan", str(noun.port))]


def _vxlan_member(noun: VxlanMember) -> list[Element]:
    return [Element(f"members{noun.address.version}", f"{noun.address} . {noun.port}")]


_FACTS: dict[type[Any], Callable[[Any], list[Element]]] = {
    Forward: _forward,
    Segment: _segment,
    Masquerade: _masquerade,
    Publish: _publish,
    Open: _open,
    Allow: _allow,
    Unmasked: _unmasked,
    DnsRedirect: _dns,
    VxlanPort: _vxlan_port,
    VxlanMember: _vxlan_member,
    Stray: lambda noun: [Element(noun.container, noun.element, noun.value)],
    FirewallBase: lambda noun: [],
}
