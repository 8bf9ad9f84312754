"""Mermaid flowcharts, as code forges draw them in Markdown (mermaid.js.org)."""

from __future__ import annotations

from netlib.pictures.topology import Topology


def render(topology: Topology) -> str:
    """The picture."""
    nets = {network.name: f"n{i}" for i, network in enumerate(topology.networks)}
    boxes = {sandbox: f"s{i}" for i, sandbox in enumerate(topology.sandboxes)}
    lines = ["flowchart LR"]
    for network in topology.networks:
        lines.append(f"  {nets[network.name]}([{_quoted([network.name, *network.lines])}])")
    for sandbox, box in boxes.items():
        ports = [port for join in topology.of(sandbox) for port in join.ports]
        lines.append(f"  {box}[{_quoted([sandbox, *ports])}]")
    for join in topology.joins:
        line = "===" if join.is_way_out else "---"
        label = f"|{_quoted([join.label])}|" if join.label else ""
        lines.append(f"  {nets[join.network]} {line}{label} {boxes[join.sandbox]}")
    return "\n".join([*lines, ""])


def _quoted(lines: list[str]) -> str:
    # Entities, because quotes and angle brackets end a text there.
    escaped = [
        line.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
        for line in lines
    ]
    return f'"{"<br>".join(escaped)}"'
