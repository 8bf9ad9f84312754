"""Where things are in a picture: networks to the left, sandboxes to the right, joins between. Pure.

Sandboxes stand in the order of their networks, and each network as near as can be to the middle
of its sandboxes, so that few lines cross. Labels have a column of their own before the
sandboxes, which no line crosses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from netlib.pictures.topology import Join, Topology
from netlib.values import dataclass, replace

FONT, LABEL_FONT = 13, 12  # pixels
LINE = 18  # from one line of text to the next
MARGIN, PADDING = 20, 10
_GAP = 16
_LEAST_BETWEEN, _MOST_BETWEEN = 70, 280

# How wide letters are, in parts of the font's size, in DejaVu Sans: of the fonts that browsers have
# as sans-serif it is the widest, so what fits with it fits with the others.
_THIN, _NARROW, _COMMON, _WIDE, _WIDEST = 0.31, 0.45, 0.65, 0.83, 1.0
_LETTERS: Mapping[str, float] = {
    **dict.fromkeys("ijlI|'", _THIN),
    **dict.fromkeys(' .,:;/\\-()[]ftr!"`', _NARROW),
    **dict.fromkeys("wABCDEGHKNOPQRUVXYZ<>=+~#_^", _WIDE),
    **dict.fromkeys("mMW@%&", _WIDEST),
}
_BOLD = 1.12


def text_width(text: str, size: int, *, bold: bool = False) -> int:
    """How wide a line of text is at most, in pixels."""
    parts = sum(_LETTERS.get(c, _COMMON if c.isascii() else _WIDEST) for c in text)
    return math.ceil(parts * size * (_BOLD if bold else 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A box with lines of text; the first is its title. `ends`: of so many joins."""

    lines: tuple[str, ...]
    ends: int
    dashed: bool = False
    x: int = 0
    y: int = 0
    width: int = 0

    @property
    def height(self) -> int:
        """From its upper edge to its lower one."""
        return max(len(self.lines), self.ends) * LINE + 2 * PADDING

    def end(self, number: int) -> int:
        """How far down the `number`th of its joins ends, from 0."""
        return self.y + self.height * (number + 1) // (self.ends + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A join: from the network at `start` to `level`, and level from there to the sandbox."""

    start: tuple[int, int]
    level: int
    end: tuple[int, int]
    label: str
    is_way_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A picture that is only to be drawn. Sizes are in pixels."""

    width: int
    height: int
    networks: tuple[Card, ...]
    sandboxes: tuple[Card, ...]
    lines: tuple[Line, ...]


def laid_out(topology: Topology) -> Layout:
    """The picture of a topology."""
    of = {name: topology.of(name) for name in topology.sandboxes}
    on = {network.name: topology.on(network.name) for network in topology.networks}
    boxes = _below_each_other(_boxes(of, _in_order(of, list(on))))
    wanted = {name: _middle(boxes[j.sandbox] for j in joins) for name, joins in on.items()}
    nets = _near(
        {
            network.name: Card(
                lines=(network.name, *network.lines),
                ends=len(on[network.name]),
                dashed=network.internal,
            )
            for network in topology.networks
        },
        wanted,
    )
    labels = max((text_width(j.label, LABEL_FONT) for j in topology.joins), default=0)
    nets = _widened(nets, MARGIN)
    level = max((card.x + card.width for card in nets.values()), default=MARGIN)
    level += _between(topology.joins, nets, boxes)
    boxes = _widened(boxes, level + labels + 12)
    cards = (*nets.values(), *boxes.values())
    return Layout(
        width=max((card.x + card.width for card in cards), default=0) + MARGIN,
        height=max((card.y + card.height for card in cards), default=0) + MARGIN,
        networks=tuple(nets.values()),
        sandboxes=tuple(boxes.values()),
        lines=tuple(_lines(on, of, nets, boxes, level)),
    )


def _in_order(of: Mapping[str, list[Join]], networks: list[str]) -> list[str]:
    """The sandboxes by where their networks are; those on none are the last."""

    def place(name: str) -> float:
        joins = of[name]
        if not joins:
            return len(networks)
        return sum(networks.index(join.network) for join in joins) / len(joins)

    return sorted(of, key=place)


def _boxes(of: Mapping[str, list[Join]], names: Iterable[str]) -> dict[str, Card]:
    return {
        name: Card(
            lines=(name, *(port for join in of[name] for port in join.ports)), ends=len(of[name])
        )
        for name in names
    }


def _below_each_other(cards: Mapping[str, Card]) -> dict[str, Card]:
    placed: dict[str, Card] = {}
    y = MARGIN
    for name, card in cards.items():
        placed[name] = replace(card, y=y)
        y += card.height + _GAP
    return placed


def _middle(cards: Iterable[Card]) -> float | None:
    """Half way down cards; None of none."""
    centres = [card.y + card.height / 2 for card in cards]
    return sum(centres) / len(centres) if centres else None


def _near(cards: Mapping[str, Card], wanted: Mapping[str, float | None]) -> dict[str, Card]:
    """Cards below each other, in their order, each as near to its wanted middle as can be.

    Neighbours that want to be where they would overlap form a block, which is put where all
    of its cards together are nearest (pool adjacent violators).
    """
    blocks: list[_Block] = []
    for name, card in cards.items():
        middle = wanted[name]
        last = blocks[-1].bottom if blocks else MARGIN - _GAP
        top = last + _GAP if middle is None else middle - card.height / 2
        blocks.append(_Block(names=[name], tops=[top], height=card.height))
        while len(blocks) > 1 and blocks[-1].top < blocks[-2].bottom + _GAP:
            lower = blocks.pop()
            blocks[-1] = blocks[-1].with_below(lower)
    placed: dict[str, Card] = {}
    for block in blocks:
        y = round(block.top)
        for name in block.names:
            placed[name] = replace(cards[name], y=y)
            y += cards[name].height + _GAP
    return placed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """Cards that touch: `tops` are where its top would be for each to be where it wants."""

    names: list[str]
    tops: list[float]
    height: int

    @property
    def top(self) -> float:
        return max(MARGIN, sum(self.tops) / len(self.tops))

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def with_below(self, lower: _Block) -> _Block:
        shift = self.height + _GAP
        return _Block(
            names=[*self.names, *lower.names],
            tops=[*self.tops, *(top - shift for top in lower.tops)],
            height=shift + lower.height,
        )


def _widened(cards: Mapping[str, Card], x: int) -> dict[str, Card]:
    """Cards in one column, all as wide as the widest text needs."""
    width = max(
        (
            text_width(line, FONT, bold=number == 0)
            for card in cards.values()
            for number, line in enumerate(card.lines)
        ),
        default=0,
    )
    return {name: replace(card, x=x, width=width + 2 * PADDING) for name, card in cards.items()}


def _between(joins: Iterable[Join], nets: Mapping[str, Card], boxes: Mapping[str, Card]) -> int:
    """Room for lines: the more, the further they climb, as steep ones can't be told apart."""
    climbs = (abs(nets[j.network].y - boxes[j.sandbox].y) for j in joins)
    return min(max(_LEAST_BETWEEN, max(climbs, default=0) // 3), _MOST_BETWEEN)


def _lines(
    on: Mapping[str, list[Join]],
    of: Mapping[str, list[Join]],
    nets: Mapping[str, Card],
    boxes: Mapping[str, Card],
    level: int,
) -> Iterable[Line]:
    """The joins of a card leave it in the order of where they lead, so they don't cross there."""
    for name, joins in on.items():
        net = nets[name]
        downwards = sorted(joins, key=lambda join: boxes[join.sandbox].y)
        for number, join in enumerate(downwards):
            box = boxes[join.sandbox]
            others = sorted(of[join.sandbox], key=lambda other: nets[other.network].y)
            yield Line(
                start=(net.x + net.width, net.end(number)),
                level=level,
                end=(box.x, box.end(others.index(join))),
                label=join.label,
                is_way_out=join.is_way_out,
            )
