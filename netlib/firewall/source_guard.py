"""Source guards as elements of nftables' bridge family: a table of its own, whatever backend.

Bridged frames pass no iptables chain, so this is said to nf_tables by both backends. The table
comes with the first guard. docs/rules.md explains every rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from netlib.firewall import nftables, nftables_facts
from netlib.firewall.base import prefix_text
from netlib.firewall.facts import Element, Facts, Place, difference
from netlib.model import IPAddress, IPNetwork
from netlib.plan import Step
from netlib.wiring import Noun, SourceGuard

TABLE = "bridge netlib"

# The target of a neighbour advertisement (RFC 4861 section 4.4) has no name in nft before 1.0.9:
# it is the 16 bytes after the first 8 of its ICMPv6 message.
_TARGET = "@th,64,128"
_SETS = f"""
  set ports {{ type ifname; }}
  set within4 {{ type ifname . ipv4_addr; flags interval; }}
  set within6 {{ type ifname . ipv6_addr; flags interval; }}
  set own4 {{ type ifname . ether_addr . ipv4_addr; }}
  set own6 {{ type ifname . ether_addr . ipv6_addr; }}
  set targets {{ typeof iifname . ether saddr . {_TARGET}; }}
"""
_RULES = {
    "frames": """
        iifname "nx-*" accept
        iifname @ports goto checked""",
    "checked": """
        iifname . ether saddr . ip saddr @own4 accept
        ether type vmap { arp : goto from_arp, ip : goto from_ip, ip6 : goto from_ip6 }
        drop""",
    "from_arp": """
        iifname . arp saddr ether . arp saddr ip @own4 accept
        iifname . arp saddr ip @within4 drop
        accept""",
    "from_ip": """
        iifname . ip saddr @within4 drop
        accept""",
    "from_ip6": """
        icmpv6 type { nd-router-advert, nd-redirect } drop
        icmpv6 type nd-neighbor-advert goto from_nd
        iifname . ether saddr . ip6 saddr @own6 accept
        iifname . ip6 saddr @within6 drop
        accept""",
    "from_nd": f"""
        iifname . ether saddr . {_TARGET} @targets accept
        @th,64,10 0x3fa accept
        drop""",
}
_HOOKS = {"frames": "type filter hook prerouting priority filter; policy accept;"}


def base() -> str:
    """The commands that make the table, or make it again: elements stay."""
    chains = [f"chain {name} {{ {_HOOKS.get(name, '')} }}" for name in _RULES]
    lines = [f"table {TABLE} {{", *_SETS.strip().splitlines(), *chains, "}"]
    lines += [f"flush chain {TABLE} {name}" for name in _RULES]
    lines.append(f"table {TABLE} {{")
    for name, rules in reversed(_RULES.items()):
        lines += [f"chain {name} {{", *rules.strip().splitlines(), "}"]
    return "\n".join([*(line.strip() for line in lines), "}"])


def is_whole(listed: Iterable[Mapping[str, Any]]) -> bool:
    """Whether each chain of a listed table has all of its rules."""
    found = [thing["rule"]["chain"] for thing in listed if "rule" in thing]
    return all(
        found.count(name) == len(rules.strip().splitlines()) for name, rules in _RULES.items()
    )


def elements(noun: Noun) -> list[Element]:
    """The facts that a guard is to the table's rules."""
    assert isinstance(noun, SourceGuard)
    device = nftables.quoted(noun.device)
    facts = [Element("ports", device)]
    for prefix in noun.prefixes:
        facts.append(Element(f"within{prefix.version}", f"{device} . {prefix_text(prefix)}"))
    for address in noun.addresses:
        key = f"{device} . {noun.mac}"
        facts.append(Element(f"own{address.version}", f"{key} . {address}"))
        if address.version == 6:
            facts.append(Element("targets", f"{key} . {int(address):#x}"))
    return sorted(facts, key=lambda e: e.container)


def places(noun: Noun) -> list[Place]:
    """Where elements of a guard are."""
    return [element.place for element in elements(noun)]


def script(steps: Iterable[Step], *, anew: bool = True) -> str:
    """Steps as one transaction of nft, deletions first; `anew`: the table is made with them."""
    gone, come = difference(steps, elements)
    commands = nftables.together([*delete(gone), *add(come)])
    return f"{base()}\n{commands}" if come and anew else commands


def add(facts: Iterable[Element]) -> list[str]:
    """Commands that add elements."""
    return nftables.add(facts, TABLE)


def delete(facts: Iterable[Element]) -> list[str]:
    """Commands that delete elements."""
    return nftables.delete(facts, TABLE)


def commands(step: Step) -> list[str]:
    """A step as lines for a shell, without the table's making."""
    gone, come = difference([step], elements)
    return [f"nft {line}" for line in [*delete(gone), *add(come)]]


def known(there: Facts) -> Iterator[SourceGuard]:
    """The guards that account for the elements."""
    macs: dict[str, str] = {}
    addresses: dict[str, list[IPAddress]] = {}
    prefixes: dict[str, list[IPNetwork]] = {}
    devices: dict[str, None] = {}
    for element in there.values():
        device, *rest = element.key.split(" . ")
        devices[device] = None
        if element.container.startswith("within"):
            prefixes.setdefault(device, []).append(ip_network(rest[0]))
        elif element.container.startswith("own"):
            macs[device] = rest[0]
            addresses.setdefault(device, []).append(ip_address(rest[1]))
    for device in devices:
        yield SourceGuard(
            device=device.strip('"'),
            mac=macs.get(device, "00:00:00:00:00:00"),
            addresses=tuple(addresses.get(device, ())),
            prefixes=tuple(prefixes.get(device, ())),
        )


facts = nftables_facts.facts

__all__ = [
    "TABLE",
    "add",
    "base",
    "commands",
    "delete",
    "elements",
    "facts",
    "is_whole",
    "known",
    "places",
    "script",
]
