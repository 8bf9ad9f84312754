"""A tree in a terminal: each network, and who is on it."""

from __future__ import annotations

from netlib.pictures.topology import Join, Topology


def render(topology: Topology) -> str:
    """The picture."""
    lines: list[str] = []
    for network in topology.networks:
        lines.append(f"{network.name}  ({', '.join(network.lines)})")
        members = topology.on(network.name)
        width = max((len(join.sandbox) for join in members), default=0)
        for join in members:
            corner = "└─" if join is members[-1] else "├─"
            lines.append(f"{corner} {_member(join, width)}".rstrip())
    alone = [name for name in topology.sandboxes if not topology.of(name)]
    if alone:
        lines.append(f"on no network: {', '.join(alone)}")
    return "".join(f"{line}\n" for line in lines or ["no network is in use"])


def _member(join: Join, width: int) -> str:
    star = "*" if join.is_way_out else " "
    ports = f"  [{', '.join(join.ports)}]" if join.ports else ""
    return f"{join.sandbox:{width}} {star} {join.label}{ports}"
