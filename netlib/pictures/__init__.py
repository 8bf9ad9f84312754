"""Pictures of networks and who is on them: text, Graphviz's dot, Mermaid, SVG. Pure.

`FORMATS` has a function for each: a topology in, a text out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from netlib.pictures.topology import Topology

# By module and function: SVG needs a library that the others do without.
_PLACES: Mapping[str, str] = {
    "text": "tree",
    "dot": "dot",
    "mermaid": "mermaid",
    "svg": "svg",
}
FORMATS = tuple(_PLACES)


def draw(topology: Topology, form: str) -> str:
    """A picture, as text of one of FORMATS. Raises Unsupported where svg lacks its library."""
    module = import_module(f"netlib.pictures.{_PLACES[form]}")
    render: Callable[[Topology], str] = module.render
    return render(topology)


__all__ = ["FORMATS", "Topology", "draw"]
