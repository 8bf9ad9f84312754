"""Published ports as lists show them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from netlib.model import PublishedPort, bracketed, port_range


def arrow(port: PublishedPort) -> str:
    """One port as in `0.0.0.0:8080->80/tcp`."""
    return f"{_host(port)}->{port_range(port.port, port.count)}/{port.protocol}"


def lines(ports: Iterable[PublishedPort]) -> Iterator[str]:
    """One line for each port, as in `80/tcp -> 0.0.0.0:8080`."""
    for port in ports:
        yield f"{port_range(port.port, port.count)}/{port.protocol} -> {_host(port)}"


def _host(port: PublishedPort) -> str:
    address = "*" if port.host_address is None else bracketed(port.host_address)
    return f"{address}:{port_range(port.host_port, port.count)}"
