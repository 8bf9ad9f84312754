"""Hosts beside the first one: each has its own network, names, state and files."""

from __future__ import annotations

import itertools
from typing import Annotated

from netlib.labs.packets import kind
from netlib.labs.stage import End
from netlib.labs.story import Story


def tell(story: Story, *, hosts: Annotated[int, "How many hosts."] = 2) -> None:
    """Wire hosts in a row, and use the same names on all of them."""
    stage = story.stage
    row = [stage.another_host(f"host-{number}") for number in range(1, hosts + 1)]
    for number, (left, right) in enumerate(itertools.pairwise(row)):
        stage.wire(End(left, "right", [f"192.0.2.{4 * number + 1}/30"]),
                   End(right, "left", [f"192.0.2.{4 * number + 2}/30"]))  # fmt: skip
    stage.is_set()
    for host in row:
        story.run("net create my-net --subnet 198.51.100.0/24", at=host)
        story.run("net sandbox create web", at=host)
        story.run("net connect my-net web", at=host)
        story.run("hostname", at=host, says=host.name)
    with story.capture(row[0].at("right"), row[1].at("left")) as cable:
        story.run("ping -c 1 -W 2 192.0.2.2", at=row[0])
        story.show(cable, kind("ICMP"), least=4)
    webs = [story.sandbox("web", on=host) for host in row]
    there = stage.address("web", "my-net", on=row[-1])
    with story.capture(*(web.at("eth0") for web in webs)) as inside:
        story.run(f"ping -c 1 -W 2 {there}", at=row[-1])
        seen = story.show(inside, kind("ICMP"), least=2)
    story.expect({one.point for one in seen} == {webs[-1].at("eth0")}, "hosts are not apart")
    story.pause("hosts")
    for host in row:
        story.run("net sandbox rm web", at=host)
        story.run("net rm my-net", at=host)
