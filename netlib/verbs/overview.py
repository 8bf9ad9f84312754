"""What there is, as lists show it: networks with their scope, sandboxes with their endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from netlib.binding import ANY, asked_families, bound, is_routed
from netlib.engine import Engine
from netlib.errors import DriverError, UnknownDriver
from netlib.filters import LISTED, Seen, matcher
from netlib.model import Endpoint, IPAddress, Network, Protocol, PublishedPort, Sandbox
from netlib.records import EndpointRecord
from netlib.values import dataclass, replace
from netlib.wiring import Open, Publish, Relay, Wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """An endpoint with the network it is on, its ports once for each address of the host."""

    endpoint: Endpoint
    network: Network
    ports: tuple[PublishedPort, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxStatus:
    """A sandbox, whether its network namespace is there, and its endpoints, oldest first."""

    sandbox: Sandbox
    alive: bool
    joined: tuple[Joined, ...]


def listing(engine: Engine, filters: Iterable[str] = ()) -> tuple[Seen, ...]:
    """Networks with scope and use, as far as `filters` (`driver=bridge`) let them.

    Built-in ones come first, then the oldest.
    Values of one key widen, several keys narrow. Raises InvalidRequest.

    Example:  net ls --filter driver=bridge
    """
    fits = matcher(filters, LISTED, engine.clock())
    seen = (look(engine, record.network) for record in engine.state.known_networks())
    return tuple(one for one in seen if fits(one))


def look(engine: Engine, network: Network) -> Seen:
    """What filters may ask of a network."""
    return Seen(
        network=network,
        scope=scope_of(engine, network),
        in_use=engine.state.has_endpoints(network.id),
    )


def status(engine: Engine) -> tuple[SandboxStatus, ...]:
    """Every sandbox, oldest first, with its networks, addresses and published ports.

    Example:  net ps
    """
    networks = {record.network.id: record.network for record in engine.state.networks()}
    mine: dict[str, list[Joined]] = {}
    for record in engine.state.endpoints():
        endpoint = record.endpoint
        network = networks.get(endpoint.network)
        if network is not None:  # else it was removed between the two look-ups
            mine.setdefault(endpoint.sandbox.name, []).append(_joined(network, record))
    return tuple(
        SandboxStatus(
            sandbox=box,
            alive=engine.kernel.alive(box.netns),
            joined=tuple(mine.get(engine.state.owner(box).name, ())),
        )
        for box in engine.state.sandboxes()
    )


def ports(engine: Engine, sandbox: str) -> tuple[Joined, ...]:
    """A sandbox's endpoints that publish ports. Raises NoSuchSandbox.

    Example:  net port web
    """
    box = engine.state.find_sandbox(sandbox) or engine.sandbox(sandbox)
    return tuple(
        _joined(engine.state.network(record.endpoint.network).network, record)
        for record in engine.state.endpoints_of(engine.state.owner(box).name)
        if record.endpoint.ports
    )


def _joined(network: Network, record: EndpointRecord) -> Joined:
    endpoint = record.endpoint
    served = set(_served(record.wiring)) if endpoint.ports else set()
    return Joined(
        endpoint=endpoint,
        network=network,
        ports=tuple(
            at
            for port in endpoint.ports
            for at in _places(network, endpoint, port)
            if (at.protocol, at.host_address, at.host_port) in served
        ),
    )


def _places(network: Network, endpoint: Endpoint, port: PublishedPort) -> Iterator[PublishedPort]:
    """The port once for each address that may lead to it: the host's, or its own where routed."""
    yield from bound(network, port)
    for address in endpoint.addresses:
        if is_routed(network, address.version) and address.version in asked_families(port):
            yield replace(port, host_address=address.ip, host_port=port.port)


def _served(wiring: Wiring) -> Iterator[tuple[Protocol, IPAddress | None, int]]:
    """Where ports are reached: a family may have no way to the sandbox, or let nobody in."""
    for noun in wiring:
        if isinstance(noun, Publish):
            yield noun.protocol, noun.host or ANY[noun.family], noun.port
        elif isinstance(noun, Relay):
            yield noun.protocol, noun.host, noun.port
        elif isinstance(noun, Open):
            yield noun.protocol, noun.target, noun.port


def scope_of(engine: Engine, network: Network) -> str:
    """That of its driver; a network whose driver was uninstalled is still listed."""
    try:
        return engine.driver(network).capabilities.scope
    except (UnknownDriver, DriverError):
        return "unknown"
