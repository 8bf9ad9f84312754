"""What a picture shows, in its words: networks, sandboxes, and what joins them."""

from __future__ import annotations

from collections.abc import Iterable

from netlib.model import Endpoint, Network, PublishedPort, bracketed, port_range
from netlib.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """A sandbox's place on a network; `ports` are as a person reads them: `8080 -> 80/tcp`."""

    network: str
    sandbox: str
    interface: str
    addresses: tuple[str, ...]
    ports: tuple[str, ...]
    is_way_out: bool

    @property
    def label(self) -> str:
        """Interface and addresses."""
        return " ".join(filter(None, [self.interface, *self.addresses]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A network: its name, and what else is worth a line each."""

    name: str
    lines: tuple[str, ...]
    internal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Networks and sandboxes in the order they are drawn."""

    networks: tuple[Net, ...]
    sandboxes: tuple[str, ...]
    joins: tuple[Join, ...]

    def on(self, network: str) -> list[Join]:
        """Who is on a network."""
        return [join for join in self.joins if join.network == network]

    def of(self, sandbox: str) -> list[Join]:
        """A sandbox's networks."""
        return [join for join in self.joins if join.sandbox == sandbox]


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """A sandbox on another host, and where it is on a network, by the network's id."""

    network: str
    sandbox: str
    node: str
    addresses: tuple[str, ...]

    @property
    def name(self) -> str:
        """As a picture shows it."""
        return f"{self.sandbox} on {self.node}"


def topology(
    networks: Iterable[Network],
    endpoints: Iterable[Endpoint],
    alone: Iterable[str] = (),
    elsewhere: Iterable[Elsewhere] = (),
) -> Topology:
    """What there is to draw; `alone` are sandboxes that may be on no network."""
    networks = list(networks)
    names = {network.id: network.name for network in networks}
    mine = [endpoint for endpoint in endpoints if endpoint.network in names]
    others = [one for one in elsewhere if one.network in names]
    boxes = dict.fromkeys(
        [*(endpoint.sandbox.name for endpoint in mine), *alone, *(one.name for one in others)]
    )
    return Topology(
        networks=tuple(_net(network) for network in networks),
        sandboxes=tuple(boxes),
        joins=(
            *(
                Join(
                    network=names[endpoint.network],
                    sandbox=endpoint.sandbox.name,
                    interface=endpoint.ifname,
                    addresses=tuple(str(address.ip) for address in endpoint.addresses),
                    ports=tuple(_port(port) for port in endpoint.ports),
                    is_way_out=bool(endpoint.gateway_for),
                )
                for endpoint in mine
            ),
            *(
                Join(
                    network=names[one.network],
                    sandbox=one.name,
                    interface="",
                    addresses=one.addresses,
                    ports=(),
                    is_way_out=False,
                )
                for one in others
            ),
        ),
    )


def _net(network: Network) -> Net:
    kind = f"{network.driver}, internal" if network.internal else network.driver
    parent = network.options.get("parent")
    subnets = [str(subnet.prefix) for subnet in network.subnets]
    lines = [kind, *([f"on {parent}"] if parent else []), *subnets]
    return Net(name=network.name, lines=tuple(lines), internal=network.internal)


def _port(port: PublishedPort) -> str:
    host = "" if port.host_address is None else f"{bracketed(port.host_address)}:"
    host += port_range(port.host_port, port.count)
    return f"{host} -> {port_range(port.port, port.count)}/{port.protocol}"
