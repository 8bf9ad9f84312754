"""Facts as a backend keeps them: a place, and what stands there. Nouns compared with them.

nftables: a set or map, an element's key, its value. iptables: a chain, a rule's match, its
target. What follows from that is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_network

from netlib.errors import NotThere
from netlib.firewall.base import words
from netlib.model import IPAddress, IPNetwork
from netlib.plan import Change, Delete, Step
from netlib.values import dataclass, replace
from netlib.wiring import Count, Noun, Open, Publish, Segment

Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Element:
    """One fact: in `container`, at most one is at `key`. `comment` tells nothing more.

    `first`: where order counts, it goes before those that are not (iptables).
    """

    container: str
    key: str
    value: str = ""
    comment: str = ""
    first: bool = False

    @property
    def place(self) -> Place:
        """Where only one can be."""
        return self.container, self.key

    def says(self, other: Element | None) -> bool:
        """Whether the other stands for the same."""
        return other is not None and (self.place, self.value) == (other.place, other.value)


Facts = Mapping[Place, Element]
Render = Callable[[Noun], list[Element]]
Places = Callable[[Noun], list[Place]]
Moves = tuple[list[Element], list[Element]]


# No sender has these addresses.
_NOBODY = (ip_network("255.255.255.255"), ip_network(2**128 - 1))


def observed(
    nouns: Iterable[Noun], there: Facts, known: Iterable[Noun], render: Render
) -> list[Noun]:
    """Of these nouns those that are there, as they are.

    `known` are the nouns that `there` was read as. One of which parts are missing, and
    nothing is otherwise, counts as absent: making it adds what is missing.
    """
    read = {noun.key(): noun for noun in known}
    found: list[Noun] = []
    for noun in nouns:
        want = {e.place: e for e in render(noun)}
        other = read.get(noun.key())
        actual = {} if other is None else {e.place: e for e in render(other)}
        if all(e.says(there.get(place)) for place, e in want.items()):
            # What can not be read back is taken from the noun; what is there besides it not.
            found.append(noun if other is None or actual.keys() <= want.keys() else other)
        elif other is not None and not _agree(want, actual):
            found.append(other)
        elif other is not None and isinstance(noun, Publish | Open) and noun.sources:
            # Read as it is to be, and some of it is missing, or leads elsewhere: so it changes.
            found.append(replace(noun, sources=(*noun.sources, *_NOBODY)))
    return found


def one_of_each(nouns: Iterable[Noun]) -> list[Noun]:
    """Of nouns with one key the first, so that what is left of the others is nobody's.

    Rules that were saved earlier and loaded again lie beside those of today: a port limited to
    some sources, say, beside the same port for all.
    """
    found: dict[tuple[object, ...], Noun] = {}
    for noun in nouns:
        found.setdefault(noun.key(), noun)
    return list(found.values())


def alone(
    element: Element, read: Callable[[list[Element]], list[Noun]], render: Render
) -> list[Element] | None:
    """All that is written of what an element by itself is read as; None: it is none of ours."""
    try:
        return [other for noun in read([element]) for other in render(noun)]
    except (LookupError, ValueError):
        return None


def beside(there: Facts, nouns: Iterable[Noun], render: Render) -> list[Element]:
    """What there is where none of these nouns has anything."""
    places = {e.place for noun in nouns for e in render(noun)}
    return [e for place, e in there.items() if place not in places]


def _agree(want: Facts, actual: Facts) -> bool:
    return want.keys() == actual.keys() and all(e.says(actual[p]) for p, e in want.items())


def segments(
    prefixes: Iterable[tuple[str, IPNetwork]], gateways: Iterable[tuple[str, IPAddress]]
) -> Iterator[Segment]:
    """Segments of the prefixes and the gateways that were read, each with its bridge.

    A gateway belongs to the prefix that it is in; at a link's end, where one address is
    behind the device, to that one.
    """
    known = list(prefixes)
    left = list(gateways)
    for alone in (False, True):
        for bridge, prefix in known:
            if (prefix.num_addresses == 1) == alone:
                mine = [g for g in left if g[0] == bridge and (alone or g[1] in prefix)]
                mine = [g for g in mine[:1] if g[1].version == prefix.version]
                left = [g for g in left if g not in mine]
                yield Segment(bridge=bridge, prefix=prefix, gateway=mine[0][1] if mine else None)
    for bridge, gateway in left:  # its prefix is lost
        yield Segment(bridge=bridge, prefix=ip_network(gateway), gateway=gateway)


def difference(steps: Iterable[Step], render: Render) -> Moves:
    """The elements that steps delete, and those that they add."""
    gone: list[Element] = []
    come: list[Element] = []
    for step in steps:
        if isinstance(step, Change):
            old, new = render(step.old), render(step.new)
            gone += [e for e in old if e not in new]
            come += [e for e in new if e not in old]
        elif isinstance(step, Delete):
            gone += render(step.noun)
        else:
            come += render(step.noun)
    return gone, come


def healing(steps: Iterable[Step], there: Facts, render: Render, places: Places) -> Moves:
    """The same, where a Change finds what it changes there in part only.

    Raises NotThere where nothing of it is.
    """
    gone: list[Element] = []
    come: list[Element] = []
    for step in steps:
        if isinstance(step, Change):
            if render(step.old) and not any(place in there for place in places(step.old)):
                raise NotThere(f"{words(step.old)} is not there to be changed", "run: net repair")
            less, more = _healed(step, there, render, places)
        else:
            less, more = difference([step], render)
        gone, come = gone + less, come + more
    return gone, come


def _healed(step: Change, there: Facts, render: Render, places: Places) -> Moves:
    want = {e.place: e for e in render(step.new)}
    mine = dict.fromkeys([*places(step.old), *places(step.new)])
    gone = [there[p] for p in mine if p in there and not there[p].says(want.get(p))]
    come = [e for p, e in want.items() if not e.says(there.get(p))]
    return gone, come


def totals(
    nouns: Iterable[Noun], counts: Mapping[Place, Count], render: Render
) -> dict[tuple[object, ...], Count]:
    """What each noun's elements met together; nothing of nouns that have none that count."""
    found: dict[tuple[object, ...], Count] = {}
    for noun in nouns:
        mine = [counts[e.place] for e in render(noun) if e.place in counts]
        if mine:
            found[noun.key()] = Count(sum(c.packets for c in mine), sum(c.bytes for c in mine))
    return found
