"""What is decided when a network is made on this host, whoever made it."""

from __future__ import annotations

from netlib import keys
from netlib.driver import Driver
from netlib.engine import Engine
from netlib.model import HostFacts, IPAddress, Network, Protocol, PublishedPort
from netlib.naming import DNS_PORT, has_names
from netlib.plan import Change, Delete, Plan
from netlib.publishing import publisher
from netlib.records import dump
from netlib.wiring import Forwarding, Masquerade, Wiring

_PROTOCOLS: tuple[Protocol, ...] = ("udp", "tcp")


def dns_port(engine: Engine, driver: Driver, network: Network, *, first: int = DNS_PORT) -> int:
    """53, or the first port beyond 5300 where 53 is less than `first` or not free at a gateway.

    A process of the host may have it, or a sandbox that publishes it.
    """
    if driver.capabilities.names != "gateway" or not has_names(network, driver.capabilities):
        return DNS_PORT
    gateways = [subnet.gateway for subnet in network.subnets if subnet.gateway is not None]

    def is_free(port: int) -> bool:
        return not any(
            engine.kernel.port_user(protocol, gateway, port, 1)
            or publisher(engine, _at(protocol, gateway, port))
            for gateway in gateways
            for protocol in _PROTOCOLS
        )

    candidates = (port for port in (DNS_PORT, *range(5301, 5400)) if port >= first)
    return next(filter(is_free, candidates), DNS_PORT)


def _at(protocol: Protocol, address: IPAddress, port: int) -> PublishedPort:
    return PublishedPort(protocol=protocol, host_address=address, host_port=port, port=port)


def unanswered(engine: Engine, plan: Plan) -> tuple[str, ...]:
    """What to say of outbound addresses that the host has not: a typing error, mostly."""
    news = [
        step.new if isinstance(step, Change) else step.noun
        for step in plan.steps()
        if not isinstance(step, Delete)
    ]
    sources = dict.fromkeys(
        noun.source for noun in news if isinstance(noun, Masquerade) and noun.source is not None
    )
    return tuple(
        f"the host has no address {source}: what leaves with it is answered only if somebody "
        "routes that here"
        for source in sources
        if not engine.kernel.has_address(source)
    )


def forwarding_note(
    engine: Engine, network: Network, wiring: Wiring, host: HostFacts
) -> dict[str, str]:
    """Who switched forwarding on, for the families that were off until now."""
    return {
        keys.forwarding_key(noun.family): dump({"network": network.name, "since": engine.clock()})
        for noun in wiring
        if isinstance(noun, Forwarding) and noun.family not in host.forwarding
    }
