"""What is in our chains, read from iptables-save, and the script that changes it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from netlib import names
from netlib.firewall import port_tree
from netlib.firewall.base import Marks
from netlib.firewall.facts import Element
from netlib.firewall.iptables import chain, line, table
from netlib.firewall.iptables_base import TABLES, USER_CHAIN, fact_chains, jumps, rules
from netlib.model import Family
from netlib.values import dataclass, field
from netlib.wiring import Count

Chain = tuple[str, str]  # table and name

_TARGET = re.compile(r"(?:^| )(-[jg] .*)$")
# Matches that iptables-save adds to a protocol's own options.
_IMPLIED = re.compile(r" -m (?:tcp|udp|sctp)(?= |$)")
_NETWORK_CHAIN = names.chain("M", "")


class Missing(Exception):  # internal: translated where nouns are known
    """A rule, or a chain of the base, that should be there is not."""

    def __init__(self, element: Element, *, base: bool = False) -> None:
        super().__init__(element)
        self.element = element
        self.base = base


class Clash(Exception):  # internal: translated where nouns are known
    """A rule matches the same and leads elsewhere."""

    def __init__(self, element: Element) -> None:
        super().__init__(element)
        self.element = element


State = dict[Chain, list[Element] | None]
"""Chains with their rules in order; None: read, and not there."""


def parse(text: str) -> State:
    """The chains in the output of iptables-save, all tables."""
    state: State = {}
    current = ""
    for row in text.splitlines():
        if row.startswith("*"):
            current = row[1:].strip()
        elif row.startswith(":"):
            state[current, row[1:].split(" ", 1)[0]] = []
        elif row.startswith("-A "):
            element = rule(current, row)
            chain_of = current, chain(element)
            known = state.get(chain_of)
            if known is None:
                known = state[chain_of] = []
            known.append(element)
    return state


def counts(text: str) -> dict[tuple[str, str], Count]:
    """What the rules in the output of `iptables-save -c` met."""
    found: dict[tuple[str, str], Count] = {}
    current = ""
    for row in text.splitlines():
        if row.startswith("*"):
            current = row[1:].strip()
        elif row.startswith("["):
            numbers, _, rest = row[1:].partition("] ")
            packets, _, octets = numbers.partition(":")
            found[rule(current, rest).place] = Count(int(packets), int(octets))
    return found


def rule(table_name: str, row: str) -> Element:
    """A rule from a row of iptables-save or `iptables -S`."""
    _, name, rest = [*row.split(" ", 2), ""][:3]
    rest = _IMPLIED.sub("", rest)
    target = _TARGET.search(rest)
    value = target.group(1) if target else ""
    key = rest[: target.start()] if target else rest
    return Element(f"{table_name} {name}", key.strip(), value)


def facts(state: State) -> dict[tuple[str, str], Element]:
    """The facts in chains that hold facts, links of the port tree left out."""
    fixed = {c for c in fact_chains(4) if c[1] != USER_CHAIN}
    found: dict[tuple[str, str], Element] = {}
    for (table_name, name), lines in state.items():
        ours = (table_name, name) in fixed or name.startswith(_NETWORK_CHAIN)
        if ours or (table_name == "nat" and port_tree.link(name)):
            for element in lines or ():
                if port_tree.link(element.value.removeprefix("-g ")) is None:
                    found[element.place] = element
    return found


def met(state: State) -> dict[tuple[str, str], Element]:
    """Of the facts those that packets meet: in chains of the port tree that are led to."""
    return {
        place: element
        for place, element in facts(state).items()
        if table(element) != "nat" or _is_met(state, chain(element))
    }


def _is_met(state: State, name: str) -> bool:
    link = port_tree.link(name)
    while link is not None:
        if not any(e.says(link.element) for e in state.get(("nat", link.parent)) or ()):
            return False
        link = port_tree.link(link.parent)
    return True


# -- the base -----------------------------------------------------------------------------------


def base_script(state: State, family: Family, marks: Marks) -> str:
    """What makes the base of what is there; empty when it is whole. Facts stay."""
    wanted = rules(family, marks)
    scripts: dict[str, list[str]] = {}
    for table_name in TABLES:
        made, lines = [], []
        for place, rows in wanted.items():
            if place[0] == table_name and not _is(state.get(place), place, rows):
                made.append(f":{place[1]} - [0:0]")
                lines += [f"-A {place[1]} {row}" for row in rows]
        for place in fact_chains(family):
            if place[0] == table_name and state.get(place) is None:
                # Never a colon for the administrator's chain: it would flush it.
                made.append(
                    f"-N {USER_CHAIN}" if place[1] == USER_CHAIN else f":{place[1]} - [0:0]"
                )
        for place, row in jumps(family):
            want = rule(table_name, f"-A {place[1]} {row}")
            if place[0] == table_name and want not in (state.get(place) or ()):
                lines.append(f"-I {place[1]} 1 {row}")
        if made or lines:
            made.sort(key=lambda text: text.startswith("-N"))
            scripts[table_name] = [*made, *lines]
    return _joined(scripts)


def removal_script(state: State, family: Family) -> str:
    """What takes away all that is ours; NETLIB-USER stays where it holds rules."""
    scripts: dict[str, list[str]] = {}
    for table_name in TABLES:
        ours = [name for (t, name) in state if t == table_name and name.startswith("NETLIB-")]
        users = state.get((table_name, USER_CHAIN)) or []
        needed = {e.value.split(" ")[1] for e in users if " " in e.value} & set(ours)
        lines = [
            f"-D {place[1]} {row}"
            for place, row in jumps(family)
            if place[0] == table_name
            and rule(table_name, f"-A {place[1]} {row}") in (state.get(place) or ())
        ]
        kept = {USER_CHAIN} if users else set()
        gone = [name for name in ours if name not in kept | needed]
        lines += [f"-F {name}" for name in ours if name not in kept]
        lines += [f"-X {name}" for name in gone]
        if lines:
            scripts[table_name] = lines
    return _joined(scripts)


def is_whole(state: State, family: Family, marks: Marks) -> bool:
    """Whether the base is there with every rule."""
    return not base_script(state, family, marks)


def _is(lines: list[Element] | None, place: Chain, rows: list[str]) -> bool:
    return lines == [rule(place[0], f"-A {place[1]} {row}") for row in rows]


# -- changes ------------------------------------------------------------------------------------


def needed(gone: Iterable[Element], come: Iterable[Element]) -> list[Chain]:
    """The chains that must be read before these rules go and come."""
    found: dict[Chain, None] = {}
    for element in [*gone, *come]:
        found[table(element), chain(element)] = None
        led = element.value.removeprefix("-j ")
        if led.startswith(_NETWORK_CHAIN):
            found["nat", led] = None
        if chain(element).startswith(_NETWORK_CHAIN):
            found["nat", "NETLIB-LEAVE"] = None
    return list(found)


def above(state: State, gone: Iterable[Element], come: Iterable[Element]) -> Chain | None:
    """A chain of the port tree that must be read too: its child appears, or may vanish.

    Also where somebody flushed chains: one of ours is never empty, nor has what is to come.
    """
    losing: dict[str, int] = {}
    odd = {chain(e) for e in come if e in (state.get((table(e), chain(e))) or ())}
    for element in gone:
        losing[chain(element)] = losing.get(chain(element), 0) + 1
    # The deepest first: a chain that vanishes takes a line of the one above along.
    for table_name, name in sorted(state, key=lambda place: -len(place[1])):
        link = port_tree.link(name) if table_name == "nat" else None
        if link is None:
            continue
        lines = state["nat", name]
        if lines == [] or name in odd:
            odd |= {name, link.parent}
        vanishes = lines is not None and len(lines) <= losing.get(name, 0)
        if vanishes:
            losing[link.parent] = losing.get(link.parent, 0) + 1
        if (lines is None or vanishes or name in odd) and ("nat", link.parent) not in state:
            return "nat", link.parent
    return None


@dataclass
class Draft:
    """A change of chains in the making: rules go, rules come, chains follow."""

    state: State
    tolerant: bool = False
    _made: dict[str, list[str]] = field(default_factory=dict)
    _body: dict[str, list[str]] = field(default_factory=dict)
    _ended: dict[str, list[str]] = field(default_factory=dict)

    def delete(self, element: Element) -> None:
        """A rule goes. Missing when it is not there, unless what is absent is fine."""
        lines = self.state.get((table(element), chain(element)))
        match = next((e for e in lines or () if e.says(element)), None)
        if lines is None or match is None:
            if self.tolerant:
                return
            raise Missing(element)
        lines.remove(match)
        self._write(element, line("-D", element))

    def add(self, element: Element) -> None:
        """A rule comes, and its chain where it is the first. Clash when another is there."""
        lines = self._lines(element)
        there = next((e for e in lines if e.place == element.place), None)
        if there is not None:
            if not there.says(element):
                raise Clash(element)
            return
        led = element.value.removeprefix("-j ")
        if led.startswith(_NETWORK_CHAIN):
            self._make("nat", led)
        lines.insert(0 if element.first else len(lines), element)
        self._write(element, line("-I" if element.first else "-A", element))

    def script(self) -> str:
        """The change for iptables-restore --noflush; empty when nothing changes."""
        self._end_chains()
        parts: dict[str, list[str]] = {}
        for name in TABLES:
            rows = [*self._made.get(name, ()), *self._body.get(name, ())]
            rows += self._ended.get(name, ())
            if rows:
                parts[name] = rows
        return _joined(parts)

    def _lines(self, element: Element) -> list[Element]:
        place = table(element), chain(element)
        lines = self.state.get(place)
        link = port_tree.link(place[1])
        if lines is not None:
            if link is not None and ("nat", link.parent) in self.state:
                self.add(link.element)  # where somebody flushed the chain above
            return lines
        if link is None and not place[1].startswith(_NETWORK_CHAIN):
            raise Missing(element, base=True)
        lines = self._make(*place)
        if link is not None:
            self.add(link.element)
        return lines

    def _make(self, table_name: str, name: str) -> list[Element]:
        lines = self.state.get((table_name, name))
        if lines is None:
            lines = self.state[table_name, name] = []
            self._made.setdefault(table_name, []).append(f":{name} - [0:0]")
        return lines

    def _write(self, element: Element, text: str) -> None:
        self._body.setdefault(table(element), []).append(text)

    def _end_chains(self) -> None:
        """Chains of the tree and of networks go with their last rule, the deepest first."""
        for table_name, name in sorted(self.state, key=lambda place: -len(place[1])):
            if self.state[table_name, name] != [] or table_name != "nat":
                continue
            link = port_tree.link(name)
            if link is not None:
                above_it = self.state.get(("nat", link.parent)) or []
                match = next((e for e in above_it if e.says(link.element)), None)
                if match is not None:
                    above_it.remove(match)
                    self._ended.setdefault("nat", []).append(line("-D", link.element))
            elif not name.startswith(_NETWORK_CHAIN) or self._is_led_to(name):
                continue
            self._ended.setdefault("nat", []).append(f"-X {name}")
            self.state["nat", name] = None

    def _is_led_to(self, name: str) -> bool:
        lines = self.state.get(("nat", "NETLIB-LEAVE")) or ()
        return any(e.value == f"-j {name}" for e in lines)


def change(
    state: Mapping[Chain, list[Element] | None],
    gone: Iterable[Element],
    come: Iterable[Element],
    *,
    tolerant: bool = False,
) -> tuple[str, State]:
    """The script that lets rules go and come in chains that were read, and what is then there.

    Rules that must be first in their chain are inserted in reverse, so that they end up in
    the order given. Raises Missing and Clash.
    """
    draft = Draft({k: None if v is None else list(v) for k, v in state.items()}, tolerant)
    for element in gone:
        draft.delete(element)
    wanted = list(come)
    for element in reversed([e for e in wanted if e.first]):
        draft.add(element)
    for element in wanted:
        if not element.first:
            draft.add(element)
    return draft.script(), draft.state


def _joined(scripts: Mapping[str, list[str]]) -> str:
    return "".join(
        "\n".join([f"*{name}", *rows, "COMMIT", ""]) for name, rows in scripts.items() if rows
    )
