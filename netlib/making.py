"""What is decided when a network is made on this host, whoever made it."""

from __future__ import annotations

from netlib import state as keys
from netlib.driver import Driver
from netlib.engine import Engine
from netlib.model import HostFacts, Network, Protocol, PublishedPort
from netlib.naming import DNS_PORT, has_names
from netlib.publishing import publisher_of
from netlib.wiring import Forwarding, Wiring

_PROTOCOLS: tuple[Protocol, ...] = ("udp", "tcp")


def dns_port(engine: Engine, driver: Driver, network: Network) -> int:
    """53, or the first port beyond 5300 where 53 is not free at a gateway.

    A process of the host may have it there; or a sandbox publishes it at every address, and
    what asks for names would be led to that one.
    """
    if driver.capabilities.names != "gateway" or not has_names(network, driver.capabilities):
        return DNS_PORT
    gateways = [subnet.gateway for subnet in network.subnets if subnet.gateway is not None]

    def is_free(port: int) -> bool:
        return not any(
            engine.kernel.port_user(protocol, gateway, port, 1)
            or publisher_of(
                engine,
                PublishedPort(protocol=protocol, host_address=gateway, host_port=port, port=port),
            )
            for gateway in gateways
            for protocol in _PROTOCOLS
        )

    return next((p for p in (DNS_PORT, *range(5301, 5400)) if is_free(p)), DNS_PORT)


def forwarding_note(
    engine: Engine, network: Network, wiring: Wiring, host: HostFacts
) -> dict[str, str]:
    """Who switched forwarding on, for the families that were off until now."""
    return {
        f"host/forwarding/{noun.family}": keys.dump(
            {"network": network.name, "since": engine.clock()}
        )
        for noun in wiring
        if isinstance(noun, Forwarding) and noun.family not in host.forwarding
    }
