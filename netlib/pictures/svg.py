"""SVG, in two columns: networks to the left, sandboxes to the right, what joins them between."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from netlib.errors import Unsupported
from netlib.pictures.topology import Topology
from netlib.values import dataclass, replace

if TYPE_CHECKING:
    import drawsvg

_FONT = 13
_LINE = 18
_LETTER = 7.4  # of the font's size, at most as wide on the average
_MARGIN, _GAP, _PADDING = 20, 16, 10
_BETWEEN = 70
_INK, _PAPER, _NET, _BOX = "#24292f", "#ffffff", "#dbeafe", "#fef3c7"


@dataclass(frozen=True, slots=True)
class _Card:
    """A box with lines of text; the first is its title. `ends`: of so many joins."""

    x: int
    y: int
    width: int
    lines: tuple[str, ...]
    fill: str
    ends: int
    dashed: bool = False

    @property
    def height(self) -> int:
        return max(len(self.lines), self.ends) * _LINE + 2 * _PADDING

    def end(self, number: int) -> int:
        """How far down the `number`th of the joins ends, from 0."""
        return self.y + self.height * (number + 1) // (self.ends + 1)


def render(topology: Topology) -> str:
    """The picture. Raises Unsupported without drawsvg."""
    try:
        import drawsvg
    except ImportError as error:
        raise Unsupported(
            "svg needs the library drawsvg, which is not installed",
            "run: pip install 'contnet[graph]', or use --format dot, mermaid or text",
        ) from error
    nets, boxes = _cards(topology)
    cards = (*nets.values(), *boxes.values())
    right = max((card.x + card.width for card in cards), default=0)
    bottom = max((card.y + card.height for card in cards), default=0)
    picture = drawsvg.Drawing(right + _MARGIN, bottom + _MARGIN, font_family="sans-serif")
    picture.append(drawsvg.Rectangle(0, 0, right + _MARGIN, bottom + _MARGIN, fill=_PAPER))
    for join in topology.joins:
        net, box = nets[join.network], boxes[join.sandbox]
        start = (net.x + net.width, net.end(topology.on(join.network).index(join)))
        end = (box.x, box.end(topology.of(join.sandbox).index(join)))
        _draw_join(picture, start, end, join.label, 2.5 if join.is_way_out else 1.2)
    for card in cards:
        _draw_card(picture, card)
    text: str = picture.as_svg()
    return text + "\n"


def _cards(topology: Topology) -> tuple[dict[str, _Card], dict[str, _Card]]:
    nets = _column(
        _Card(_MARGIN, 0, 0, (n.name, *n.lines), _NET, len(topology.on(n.name)), n.internal)
        for n in topology.networks
    )
    labels = max((_wide(join.label) for join in topology.joins), default=0)
    left = max((card.x + card.width for card in nets.values()), default=0) + labels + _BETWEEN
    boxes: list[_Card] = []
    for name in topology.sandboxes:
        joins = topology.of(name)
        lines = (name, *(port for join in joins for port in join.ports))
        boxes.append(_Card(left, 0, 0, lines, _BOX, len(joins)))
    return nets, _column(boxes)


def _column(cards: Iterable[_Card]) -> dict[str, _Card]:
    """Cards of one width below each other, by their titles."""
    cards = list(cards)
    width = max((_wide(line) for card in cards for line in card.lines), default=0)
    placed: dict[str, _Card] = {}
    y = _MARGIN
    for card in cards:
        placed[card.lines[0]] = replace(card, y=y, width=width + 2 * _PADDING)
        y += card.height + _GAP
    return placed


def _wide(text: str) -> int:
    return math.ceil(len(text) * _LETTER)


def _draw_card(picture: drawsvg.Drawing, card: _Card) -> None:
    import drawsvg

    dashes: dict[str, Any] = {"stroke_dasharray": "5 3"} if card.dashed else {}
    picture.append(
        drawsvg.Rectangle(
            card.x, card.y, card.width, card.height, rx=6, fill=card.fill, stroke=_INK, **dashes
        )
    )
    for number, line in enumerate(card.lines):
        y = card.y + _PADDING + number * _LINE + _FONT
        weight = "bold" if number == 0 else "normal"
        picture.append(
            drawsvg.Text(line, _FONT, card.x + _PADDING, y, fill=_INK, font_weight=weight)
        )


def _draw_join(
    picture: drawsvg.Drawing, start: tuple[int, int], end: tuple[int, int], label: str, width: float
) -> None:
    """A line that ends level, with its label on that end."""
    import drawsvg

    level = end[0] - _wide(label) - 12
    picture.append(
        drawsvg.Lines(
            *start, level, end[1], *end, close=False, fill="none", stroke=_INK, stroke_width=width
        )
    )
    x, y = end[0] - 8, end[1] - 4
    picture.append(drawsvg.Text(label, _FONT - 1, x, y, fill=_INK, text_anchor="end"))
