"""What there is: lists and details."""

from __future__ import annotations

from dataclasses import dataclass

from netlib.engine import Engine
from netlib.ipam import capacity, usable
from netlib.model import Endpoint, IPAddress, IPNetwork, Network, Sandbox
from netlib.state import Lease
from netlib.wiring import Wiring


@dataclass(frozen=True, slots=True, kw_only=True)
class SubnetUse:
    """How much of a subnet can be given to endpoints, is held, and is left."""

    prefix: IPNetwork
    usable: int
    used: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldAddress:
    """An address and its lease: whose it is, given in which boot and when.

    A lease of another boot than the host's is stale until `net repair` has seen to it.
    """

    address: IPAddress
    lease: Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDetails:
    """A network with its endpoints, leases, the use of its subnets, its scope and its wiring."""

    network: Network
    scope: str
    endpoints: tuple[Endpoint, ...]
    use: tuple[SubnetUse, ...]
    leases: tuple[HeldAddress, ...]
    wiring: Wiring


def networks(engine: Engine) -> tuple[Network, ...]:
    """All networks, oldest first."""
    return tuple(record.network for record in engine.state.networks())


def sandboxes(engine: Engine) -> tuple[Sandbox, ...]:
    """All sandboxes that the state knows, oldest first."""
    return tuple(engine.state.sandboxes())


def endpoints(engine: Engine, sandbox: str | None = None) -> tuple[Endpoint, ...]:
    """The endpoints of a sandbox, or of all, oldest first."""
    if sandbox is None:
        return tuple(record.endpoint for record in engine.state.endpoints())
    box = engine.state.find_sandbox(sandbox) or engine.sandbox(sandbox)
    return tuple(record.endpoint for record in engine.state.endpoints_of(box.name))


def inspect(engine: Engine, network: str) -> NetworkDetails:
    """A network in full. Raises NoSuchNetwork.

    Example:  net inspect my-net
    """
    record = engine.state.network(network)
    found = record.network
    uses: list[SubnetUse] = []
    for subnet in found.subnets:
        total = capacity(subnet)
        held = sum(
            engine.state.leases(found.id).count(part.first, part.last) for part in usable(subnet)
        )
        uses.append(SubnetUse(prefix=subnet.prefix, usable=total, used=held, free=total - held))
    return NetworkDetails(
        network=found,
        scope=engine.driver(found).capabilities.scope,
        endpoints=tuple(r.endpoint for r in engine.state.endpoints(found.id)),
        use=tuple(uses),
        leases=tuple(
            HeldAddress(address=address, lease=lease)
            for address, lease in engine.state.held(found.id)
        ),
        wiring=record.wiring,
    )
