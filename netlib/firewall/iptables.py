"""Nouns as rules of iptables and ip6tables, each in a chain of facts.

A rule is a fact as an element of nftables is one: what it matches is its key, its target
the value. The chains hold one kind of fact each, so their rules' order does not matter,
but in a leaf of the port tree, where `first` says it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from netlib import names
from netlib.firewall import port_tree
from netlib.firewall.base import Marks, device, is_mutual, sources_of
from netlib.firewall.facts import Element, Place, difference
from netlib.model import Family, IPAddress, IPNetwork, port_range
from netlib.plan import Step, subject
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

MASQUERADE = "-j MASQUERADE --random-fully"
_PROGRAMS: dict[Family, str] = {4: "iptables", 6: "ip6tables"}


def elements(noun: Noun, family: Family, marks: Marks) -> list[Element]:
    """The rules that a noun is in a family; `container` is the table and the chain."""
    return _FACTS[type(noun)](noun, family, marks)


def places(noun: Noun, family: Family, marks: Marks) -> list[Place]:
    """Where rules of a noun could be, whatever its attributes besides its key are."""
    found = [e.place for e in elements(noun, family, marks)]
    if isinstance(noun, Forward):
        name = device(noun.bridge)
        found += [("filter NETLIB-FROM", f"-i {name}"), ("filter NETLIB-HOST", f"-i {name}")]
        found += [("filter NETLIB-MUTUAL", f"-i {name}")]
        found += [("filter NETLIB-MUTUAL-OUT", f"-o {name}")]
    return list(dict.fromkeys(found))


def commands(step: Step) -> list[str]:
    """A step as lines for a shell.

    The chains of the port tree, and those of a network, come and go with their rules.
    """
    marks = Marks()
    found: list[str] = []
    for family, program in _PROGRAMS.items():
        if isinstance(subject(step), FirewallBase):
            found.append(f"{program}-restore --noflush  # the base, see docs/rules.md")
            continue
        gone, come = difference([step], partial(elements, family=family, marks=marks))
        found += [f"{program} -t {table(e)} {line('-D', e)}" for e in gone]
        found += [f"{program} -t {table(e)} {line('-A', e)}" for e in come]
    return found


def table(element: Element) -> str:
    """The table that a rule is in."""
    return element.container.split(" ")[0]


def chain(element: Element) -> str:
    """The chain that a rule is in."""
    return element.container.split(" ")[1]


def line(verb: str, element: Element) -> str:
    """A rule as iptables-restore reads it."""
    return " ".join(filter(None, (verb, chain(element), element.key, element.value)))


def leaving(bridge: str) -> str:
    """The chain that says how packets leave a network: 24 bytes at most, 28 are allowed."""
    return names.chain("M", device(bridge))


# -- one function for each noun -----------------------------------------------------------------

_INBOUND = {
    "published": "-j NETLIB-PUBLISHED",
    "routed": "-j NETLIB-ROUTED",
    "drop": "-j DROP",
    "allow": "-j NETLIB-ALLOW",
}
_WITHIN = {"published": "-j NETLIB-LINKED", "allow": "-j NETLIB-ALLOW"}
_HOST = {"gateway": "-j NETLIB-GATED", "closed": "-j DROP"}


def _forward(noun: Forward, family: Family, marks: Marks) -> list[Element]:
    name = device(noun.bridge)
    facts = [
        Element("filter NETLIB-SAME", f"-i {name} -o {name}", _WITHIN[noun.within]),
        Element("filter NETLIB-TO", f"-o {name}", _INBOUND[noun.inbound_of(family)]),
        Element("filter NETLIB-OUT", f"-i {name}", "-j NETLIB-ALLOW"),
        Element("raw NETLIB-FENCE", f"-i {name}", "-j NETLIB-FENCED"),
    ]
    if noun.outbound == "drop":
        facts.append(Element("filter NETLIB-FROM", f"-i {name}", "-j DROP"))
    if noun.host in _HOST:
        facts.append(Element("filter NETLIB-HOST", f"-i {name}", _HOST[noun.host]))
    if is_mutual(noun):
        facts.append(Element("filter NETLIB-MUTUAL", f"-i {name}", "-g NETLIB-MUTUAL-OUT"))
        facts.append(Element("filter NETLIB-MUTUAL-OUT", f"-o {name}", "-j NETLIB-ALLOW"))
    if family == 4:
        facts.append(Element("raw NETLIB-GUARD", f"-i {name}", "-j DROP"))
        facts.append(Element("nat NETLIB-HAIRPIN", f"-s 127.0.0.0/8 -o {name}", MASQUERADE))
    return facts


def _segment(noun: Segment, family: Family, marks: Marks) -> list[Element]:
    if family != noun.prefix.version:
        return []
    name = device(noun.bridge)
    # POSTROUTING can not name the device that a packet came by: hence the prefix.
    facts = [
        Element("nat NETLIB-HAIRPIN", f"-s {noun.prefix} -o {name}", MASQUERADE),
        Element("nat NETLIB-LEAVE", f"-s {noun.prefix}", f"-j {leaving(name)}"),
    ]
    if noun.gateway is not None:
        key = f"-d {_one(noun.gateway)} -i {name}"
        facts.append(Element("filter NETLIB-GATEWAYS", key, "-j NETLIB-ALLOW"))
    return facts


def _masquerade(noun: Masquerade, family: Family, marks: Marks) -> list[Element]:
    if family != noun.family:
        return []
    container = f"nat {leaving(noun.bridge)}"
    how = f"-j SNAT --to-source {noun.source} --random-fully" if noun.source else MASQUERADE
    multicast = "224.0.0.0/4" if family == 4 else "ff00::/8"
    return [
        Element(container, f"-o {device(noun.bridge)}", "-j RETURN"),
        Element(container, f"-d {multicast}", "-j RETURN"),
        Element(container, "", how),
    ]


def _publish(noun: Publish, family: Family, marks: Marks) -> list[Element]:
    """A rule in a leaf of the port tree, or in the list of ranges.

    NAT chains refuse DROP, so what --from refuses is marked there and dropped in INPUT.
    """
    if family != noun.family:
        return []
    container = "nat NETLIB-RANGES"
    target = _target(noun)
    if noun.count == 1:
        container = f"nat {port_tree.leaf(noun.protocol, noun.port)}"
    where = [] if noun.host is None else [f"-d {_one(noun.host)}"]
    ports = f"-p {noun.protocol} --dport {port_range(noun.port, noun.count, ':')}"
    sources: Sequence[IPNetwork | None] = sources_of(family, noun.sources)
    if not noun.sources:
        sources = [None]
    first = noun.host is not None
    facts = []
    for source in sources:
        limit = [f"-s {source}"] if source is not None and source.prefixlen else []
        # A source that is added later goes before the refusal, too.
        before = first or source is not None
        key = " ".join([*limit, *where, ports])
        facts.append(Element(container, key, f"-j DNAT {target}", "", before))
    if noun.sources and not any(s and s.prefixlen == 0 for s in sources):
        refuse = f"-j MARK --set-xmark {marks.refused:#x}/{marks.refused:#x}"
        facts.append(Element(container, " ".join([*where, ports]), refuse, "", first))
    return facts


def _target(noun: Publish) -> str:
    address = str(noun.target) if noun.family == 4 else f"[{noun.target}]"
    if noun.count == 1:
        return f"--to-destination {address}:{noun.target_port}"
    if noun.port == noun.target_port:
        return f"--to-destination {noun.target}"
    ports = port_range(noun.target_port, noun.count)
    return f"--to-destination {address}:{ports}/{noun.port}"


def _open(noun: Open, family: Family, marks: Marks) -> list[Element]:
    if family != noun.target.version:
        return []
    ports = port_range(noun.port, noun.count, ":")
    key = f"-d {_one(noun.target)} -p {noun.protocol} --dport {ports}"
    limits = [f"-s {s} " if s.prefixlen else "" for s in sources_of(family, noun.sources)]
    if not noun.sources:
        limits = [""]
    return [Element("filter NETLIB-OPEN", limit + key, "-j NETLIB-ALLOW") for limit in limits]


def _allow(noun: Allow, family: Family, marks: Marks) -> list[Element]:
    if family != noun.target.version:
        return []
    ends = f"-s {_one(noun.source)} -d {_one(noun.target)}"
    ports = f"-p {noun.protocol} --dport {port_range(noun.port, noun.count, ':')}"
    return [Element("filter NETLIB-LINKS", f"{ends} {ports}", "-j NETLIB-ALLOW")]


def _unmasked(noun: Unmasked, family: Family, marks: Marks) -> list[Element]:
    if family != noun.prefix.version:
        return []
    container = f"nat {leaving(noun.bridge)}"
    return [Element(container, f"-d {noun.prefix}", "-j RETURN", "", first=True)]


def _dns(noun: DnsRedirect, family: Family, marks: Marks) -> list[Element]:
    if family != noun.gateway.version:
        return []
    name, to = device(noun.bridge), f"-d {_one(noun.gateway)}"
    address = str(noun.gateway) if family == 4 else f"[{noun.gateway}]"
    facts = []
    for protocol in ("udp", "tcp"):
        asked, heard = f"-p {protocol} --dport 53", f"-p {protocol} --dport {noun.port}"
        redirect = f"-j DNAT --to-destination {address}:{noun.port}"
        facts += [
            Element("nat NETLIB-DNS", f"{to} -i {name} {asked}", redirect),
            Element("filter NETLIB-DNSOK", f"{to} -i {name} {heard}", "-j NETLIB-ALLOW"),
            Element("filter NETLIB-DNSOK", f"{to} ! -i lo {heard}", "-j DROP"),
        ]
    return facts


def _vxlan_port(noun: VxlanPort, family: Family, marks: Marks) -> list[Element]:
    port = f"-p udp --dport {noun.port}"
    return [
        Element("raw NETLIB-TUNNELS", port, "-j NETLIB-TUNNEL"),
        Element("raw NETLIB-UNTRACKED", port, "-j CT --notrack"),
    ]


def _vxlan_member(noun: VxlanMember, family: Family, marks: Marks) -> list[Element]:
    if family != noun.address.version:
        return []
    member, port = _one(noun.address), f"-p udp --dport {noun.port}"
    return [
        Element("raw NETLIB-MEMBERS", f"-s {member} {port}", "-j NETLIB-BETWEEN"),
        Element("raw NETLIB-BETWEEN", f"-d {member} {port}", "-j NETLIB-MEMBER"),
        Element("raw NETLIB-SHUT", f"-d {member} {port}", "-j DROP"),
    ]


def _stray(noun: Stray, family: Family, marks: Marks) -> list[Element]:
    return [Element(noun.container, noun.element, noun.value)] if family == noun.family else []


def _one(address: IPAddress) -> str:
    """An address as iptables-save prints it."""
    return f"{address}/{address.max_prefixlen}"


_FACTS: dict[type[Any], Callable[[Any, Family, Marks], list[Element]]] = {
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
    Stray: _stray,
    FirewallBase: lambda noun, family, marks: [],
}

__all__ = ["chain", "commands", "elements", "leaving", "line", "places", "table"]
