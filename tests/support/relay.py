"""Relay processes as tests look for them, and a sandbox that relays can lead to."""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_network
from pathlib import Path

from netlib.model import Protocol
from netlib.wiring import Relay
from support.host import Host, Place
from support.netns import inode

WEB4, WEB6 = "198.51.100.2", "2001:db8:1::2"


def relay(
    host: str,
    port: int,
    target: str,
    target_port: int = 80,
    *,
    protocol: Protocol = "tcp",
    count: int = 1,
    sources: tuple[str, ...] = (),
) -> Relay:
    """A relay's noun, from text."""
    return Relay(
        protocol=protocol,
        host=ip_address(host),
        port=port,
        count=count,
        target=ip_address(target),
        target_port=target_port,
        sources=tuple(ip_network(source) for source in sources),
    )


def web(host: Host) -> Place:
    """A machine behind the host with an address of each family."""
    return host.neighbour(
        "web", "web0", ("198.51.100.1/24", "2001:db8:1::1/64"), (f"{WEB4}/24", f"{WEB6}/64")
    )


def relay_processes(host: Host) -> list[int]:
    """The relay processes that are in the host."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                comm = Path("/proc", name, "comm").read_text().strip()
                if comm == "netlib-relay" and inode(f"/proc/{name}/ns/net") == host.netns.inode:
                    found.append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found
