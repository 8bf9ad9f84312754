"""Published ports as lists show them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from netlib.model import PublishedPort, bracketed


def arrow(port: PublishedPort) -> str:
    """One port as in `0.0.0.0:8080->80/tcp`."""
    return f"{_host(port)}->{_span(port.port, port.count)}/{port.protocol}"


def lines(ports: Iterable[PublishedPort]) -> Iterator[str]:
    """One line for each port, as in `80/tcp -> 0.0.0.0:8080`."""
    for port in ports:
        yield f"{_span(port.port, port.count)}/{port.protocol} -> {_host(port)}"


def _host(port: PublishedPort) -> str:
    address = "*" if port.host_address is None else bracketed(port.host_address)
    return f"{address}:{_span(port.host_port, port.count)}"


def _span(first: int, count: int) -> str:
    return str(first) if count == 1 else f"{first}-{first + count - 1}"
