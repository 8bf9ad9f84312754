"""SVG, in two columns: networks to the left, sandboxes to the right, what joins them between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from netlib.errors import Unsupported
from netlib.pictures.layout import FONT, LABEL_FONT, LINE, PADDING, Card, Line, laid_out
from netlib.pictures.topology import Topology

if TYPE_CHECKING:
    import drawsvg

_INK, _PAPER, _NET, _BOX = "#24292f", "#ffffff", "#dbeafe", "#fef3c7"


def render(topology: Topology) -> str:
    """The picture. Raises Unsupported without drawsvg."""
    try:
        import drawsvg
    except ImportError as error:
        raise Unsupported(
            "svg needs the library drawsvg, which is not installed",
            "run: pip install 'contnet[graph]', or use --format dot, mermaid or text",
        ) from error
    layout = laid_out(topology)
    picture = drawsvg.Drawing(layout.width, layout.height, font_family="sans-serif")
    picture.append(drawsvg.Rectangle(0, 0, layout.width, layout.height, fill=_PAPER))
    for line in layout.lines:
        _draw_line(picture, line)
    for fill, cards in ((_NET, layout.networks), (_BOX, layout.sandboxes)):
        for card in cards:
            _draw_card(picture, card, fill)
    text: str = picture.as_svg()
    return text + "\n"


def _draw_card(picture: drawsvg.Drawing, card: Card, fill: str) -> None:
    import drawsvg

    dashes: dict[str, Any] = {"stroke_dasharray": "5 3"} if card.dashed else {}
    picture.append(
        drawsvg.Rectangle(
            card.x, card.y, card.width, card.height, rx=6, fill=fill, stroke=_INK, **dashes
        )
    )
    for number, line in enumerate(card.lines):
        y = card.y + PADDING + number * LINE + FONT
        weight = "bold" if number == 0 else "normal"
        picture.append(drawsvg.Text(line, FONT, card.x + PADDING, y, fill=_INK, font_weight=weight))


def _draw_line(picture: drawsvg.Drawing, line: Line) -> None:
    """A curve that leaves and ends level, with its label on that end."""
    import drawsvg

    (x, y), (right, end) = line.start, line.end
    half = (x + line.level) / 2
    path = drawsvg.Path(fill="none", stroke=_INK, stroke_width=2.5 if line.is_way_out else 1.2)
    path.M(x, y).C(half, y, half, end, line.level, end).L(right, end)
    picture.append(path)
    picture.append(
        drawsvg.Text(line.label, LABEL_FONT, right - 8, end - 4, fill=_INK, text_anchor="end")
    )
