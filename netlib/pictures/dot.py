"""Graphviz's language (graphviz.org/doc/info/lang.html)."""

from __future__ import annotations

from netlib.pictures.topology import Topology


def render(topology: Topology) -> str:
    """The picture."""
    lines = ["graph netlib {", "  rankdir=LR;", '  node [fontname="sans-serif"];',
             '  edge [fontname="sans-serif", fontsize=12];']  # fmt: skip
    for network in topology.networks:
        label = _quoted("\n".join([network.name, *network.lines]))
        style = "dashed" if network.internal else "solid"
        lines.append(f"  {_quoted('net ' + network.name)} [shape=ellipse, style={style}, "
                     f"label={label}];")  # fmt: skip
    for sandbox in topology.sandboxes:
        ports = [port for join in topology.of(sandbox) for port in join.ports]
        label = _quoted("\n".join([sandbox, *ports]))
        lines.append(f"  {_quoted('box ' + sandbox)} [shape=box, label={label}];")
    for join in topology.joins:
        ends = f"{_quoted('net ' + join.network)} -- {_quoted('box ' + join.sandbox)}"
        bold = ", style=bold" if join.is_way_out else ""
        lines.append(f"  {ends} [label={_quoted(join.label)}{bold}];")
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
