"""The library on a host of its own, with an outsider, sandboxes, and servers in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from netlib import Net
from netlib.model import Endpoint, Family
from netlib.settings import Backend
from support.host import HOST4, HOST6, OUTSIDER4, OUTSIDER6, Host, Place, new_host
from support.traffic import Kind, serve

BACKENDS: tuple[Backend, ...] = ("nftables", "iptables")
FAMILIES: tuple[Family, ...] = (4, 6)
HOST: dict[Family, str] = {4: HOST4, 6: HOST6}
OUTSIDE: dict[Family, str] = {4: OUTSIDER4, 6: OUTSIDER6}
LOOPBACK: dict[Family, str] = {4: "127.0.0.1", 6: "::1"}


@dataclass
class EngineHost:
    """A host that the library looks after, and what is beside it."""

    host: Host
    net: Net
    outsider: Place
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def box(self, name: str, *ports: int | tuple[int, Kind]) -> Place:
        """A new sandbox with a server at each port, TCP unless said; each says its name."""
        place = self.host.sandbox(name)
        self.net.register_sandbox(name, place.netns)
        for port in ports:
            number, kind = port if isinstance(port, tuple) else (port, "tcp")
            self._open.enter_context(serve(place, number, kind, name=name))
        return place

    def serve(
        self, place: Place | Host, port: int, kind: Kind = "tcp", **options: str
    ) -> list[str]:
        """A server until the end of the test; the addresses of its clients so far."""
        return self._open.enter_context(serve(place, port, kind, **options))  # type: ignore[arg-type]


@contextlib.contextmanager
def engine_host(backend: Backend, *, bridge_netfilter: bool = False) -> Iterator[EngineHost]:
    """A host with an uplink to an outsider, and the library with a firewall backend."""
    with new_host() as host, contextlib.ExitStack() as stack:
        switch = int(bridge_netfilter)
        host.run(
            "sysctl",
            "-qw",
            *(f"net.bridge.bridge-nf-call-{p}tables={switch}" for p in ("ip", "ip6")),
        )
        outsider = host.outsider()
        net = stack.enter_context(Net(host.state_dir, firewall=backend))
        yield EngineHost(host, net, outsider, stack)


def address(endpoint: Endpoint, family: Family) -> str:
    """An endpoint's address."""
    found = endpoint.address(family)
    assert found is not None
    return str(found.ip)
