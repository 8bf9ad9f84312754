"""What there is: lists and details."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from netlib.engine import Engine
from netlib.ipam import capacity, usable
from netlib.links import environment
from netlib.model import Endpoint, IPAddress, IPNetwork, Network, Sandbox
from netlib.naming import has_names
from netlib.records import Lease
from netlib.values import dataclass
from netlib.verbs.overview import scope_of
from netlib.wiring import Wiring

if TYPE_CHECKING:
    from netlib.cluster.model import SharedEndpoint


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
    """A network with its endpoints, leases, the use of its subnets, its scope and its wiring.

    `peers` are its endpoints on other hosts, and the hosts that take part (`is_host`), as far as
    this host knows them: if it has taken the network up.
    """

    network: Network
    scope: str
    endpoints: tuple[Endpoint, ...]
    use: tuple[SubnetUse, ...]
    leases: tuple[HeldAddress, ...]
    wiring: Wiring
    peers: tuple[Peering, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Peering:
    """An endpoint on another host, with that node's name."""

    endpoint: SharedEndpoint
    node: str


def networks(engine: Engine) -> tuple[Network, ...]:
    """All networks, built-in ones first, then the oldest."""
    return tuple(record.network for record in engine.state.known_networks())


def sandboxes(engine: Engine) -> tuple[Sandbox, ...]:
    """All sandboxes that the state knows, oldest first."""
    return tuple(engine.state.sandboxes())


def endpoints(engine: Engine, sandbox: str | None = None) -> tuple[Endpoint, ...]:
    """The endpoints of a sandbox, or of all, oldest first."""
    if sandbox is None:
        return tuple(record.endpoint for record in engine.state.endpoints())
    box = engine.state.find_sandbox(sandbox) or engine.sandbox(sandbox)
    return tuple(
        record.endpoint for record in engine.state.endpoints_of(engine.state.owner(box).name)
    )


def inspect(engine: Engine, network: str) -> NetworkDetails:
    """A network in full. Raises NoSuchNetwork.

    Example:  net inspect my-net
    """
    record = engine.state.network(network)
    found = record.network
    peers = _peers(engine, found)
    elsewhere = [address.ip for peer in peers for address in peer.endpoint.addresses]
    elsewhere += [subnet.own for subnet in found.subnets if subnet.own is not None]
    uses: list[SubnetUse] = []
    for subnet in found.subnets:
        total = capacity(subnet)
        held = sum(
            engine.state.leases(found.id).count(part.first, part.last)
            + sum(address in part for address in elsewhere)
            for part in usable(subnet)
        )
        uses.append(SubnetUse(prefix=subnet.prefix, usable=total, used=held, free=total - held))
    return NetworkDetails(
        network=found,
        scope=scope_of(engine, found),
        endpoints=tuple(r.endpoint for r in engine.state.endpoints(found.id)),
        use=tuple(uses),
        leases=tuple(
            HeldAddress(address=address, lease=lease)
            for address, lease in engine.state.held(found.id)
        ),
        wiring=record.wiring,
        peers=peers,
    )


def _peers(engine: Engine, network: Network) -> tuple[Peering, ...]:
    if network.underlay is None:
        return ()
    from netlib.peers import node_names, peers_of  # few hosts are in a cluster

    names = node_names(engine)
    found = sorted(
        peers_of(engine, network.id).values(), key=lambda one: (one.is_host, one.sandbox, one.id)
    )
    return tuple(Peering(endpoint=one, node=names.get(one.node, one.node)) for one in found)


def link_environment(engine: Engine, sandbox: str) -> dict[str, str]:
    """The variables that tell a sandbox of those it is linked to: ALIAS_PORT_80_TCP_ADDR, ...

    As with Docker's legacy links, only for networks whose sandboxes have no names otherwise,
    like the default one. Raises NoSuchSandbox.

    Example:  net env web
    """
    box = engine.state.find_sandbox(sandbox) or engine.sandbox(sandbox)
    found: dict[str, str] = {}
    for record in engine.state.endpoints_of(engine.state.owner(box).name):
        network = engine.state.network(record.endpoint.network).network
        if not has_names(network, engine.capabilities(network)):
            for link in engine.state.links_of(record.endpoint):
                found |= environment(link)
    return found


def draw(engine: Engine, networks: Iterable[str] = (), *, form: str = "text") -> str:
    """A picture of networks and who is on them, with addresses and published ports.

    Of the cluster's networks also with who is on them on other hosts.

    `networks`: these only; else all that were made, and sandboxes that are on none. `form`:
    text, dot, mermaid or svg. Raises NoSuchNetwork, Unsupported without svg's library.

    Example:  net graph --format mermaid my-net
    """
    from netlib import pictures  # nobody draws on the way to an attachment
    from netlib.pictures.topology import Elsewhere, topology

    asked = [engine.state.network(reference).network for reference in networks]
    shown = asked or [record.network for record in engine.state.networks()]
    alone = [] if asked else [engine.state.owner(box).name for box in engine.state.sandboxes()]
    endpoints = [record.endpoint for record in engine.state.endpoints()]
    elsewhere = [
        Elsewhere(
            network=network.id,
            sandbox=peer.endpoint.sandbox,
            node=peer.node,
            addresses=tuple(str(address.ip) for address in peer.endpoint.addresses),
        )
        for network in shown
        for peer in _peers(engine, network)
        if not peer.endpoint.is_host
    ]
    return pictures.draw(topology(shown, endpoints, alone, elsewhere), form)
