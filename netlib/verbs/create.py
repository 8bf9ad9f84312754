"""Make a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from netlib import names
from netlib import state as keys
from netlib.driver import Driver
from netlib.engine import Engine
from netlib.errors import InvalidRequest, NameTaken
from netlib.model import HostFacts, Network, Protocol
from netlib.naming import DNS_PORT, has_names
from netlib.operation import Operation
from netlib.options import canonical
from netlib.plan import diff
from netlib.rewiring import describe_network
from netlib.store import Absent, Commit
from netlib.subnetting import choose_subnets, claim_pools, pool_keys
from netlib.wiring import Forwarding, Wiring

_PROTOCOLS: tuple[Protocol, ...] = ("udp", "tcp")


def create(
    engine: Engine,
    name: str,
    *,
    driver: str = "bridge",
    subnets: Iterable[str] = (),
    gateways: Iterable[str] = (),
    ip_ranges: Iterable[str] = (),
    aux_addresses: Mapping[str, str] | None = None,
    ipv4: bool = True,
    ipv6: bool = False,
    internal: bool = False,
    attachable: bool = False,
    records: Iterable[str] = (),
    options: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Operation[Network]:
    """Make a network.

    Without `subnets` one is chosen for each family that is asked for, from the default
    pools, away from every other network's and from every prefix that the host can route to.
    `gateways`, `ip_ranges` ("192.0.2.64/26" or "192.0.2.10-192.0.2.20") and `aux_addresses`
    (by name) each belong to the subnet that contains them. `internal`: no way out or in.

    Raises NameTaken, PoolOverlap, Exhausted, InvalidRequest, UnknownDriver, KernelError.

    Example:  net create my-net --subnet 192.0.2.0/24 --ipv6
    """
    names.check_name(name, "network")
    if all(c in "0123456789abcdef" for c in name) and len(name) == 64:
        raise InvalidRequest(f"{name!r} looks like an id", "choose a name with other letters")
    taken = engine.state.find_network(name)
    if taken is not None and taken.network.name == name:
        raise NameTaken(
            f"there is a network {name!r} (id {taken.network.short_id})",
            f"choose another name, or run: net rm {name}",
        )
    kind = engine.registry.get(driver)
    checked = canonical(options or {}, kind.options, f"driver {driver}")
    host = engine.facts(_devices(kind, checked))
    realm = engine.state.realm() or names.new_realm()
    network = Network(
        id=names.new_id(realm),
        name=name,
        driver=driver,
        options=checked,
        labels=dict(labels or {}),
        internal=internal,
        attachable=attachable,
        records=tuple(records),
        borrowed=tuple(d.name for d in host.devices.values() if not d.ours),
        created=engine.clock(),
    )
    chosen = choose_subnets(
        engine,
        kind.capabilities,
        subnets=tuple(subnets),
        gateways=tuple(gateways),
        ip_ranges=tuple(ip_ranges),
        aux_addresses=dict(aux_addresses or {}),
        ipv4=ipv4,
        ipv6=ipv6,
    )
    network = _settled(kind, replace(network, subnets=chosen), host)
    network = replace(network, dns_port=_dns_port(engine, kind, network))
    wiring = describe_network(engine, network, host)
    return Operation(
        subject=f"network {name}",
        holds={keys.network_key(network.id): True},
        plan=diff(have=Wiring(), want=wiring),
        result=replace(network, state="ready"),
        begin=_claim(engine, network, wiring, realm),
        done=Commit(
            put={
                keys.network_key(network.id): keys.dump_network(
                    replace(network, state="ready"), wiring
                ),
                **_forwarding_note(engine, network, wiring, host),
            },
            durable=False,
        ),
        undo=Commit(
            put={},
            delete=(
                keys.network_key(network.id),
                keys.name_key(name),
                *pool_keys(engine, network),
            ),
        ),
    )


def _claim(engine: Engine, network: Network, wiring: Wiring, realm: str) -> Commit:
    pool_conditions, pool_puts = claim_pools(engine, network)
    is_first = not engine.state.realm()
    return Commit(
        conditions=(
            Absent(keys.name_key(network.name)),
            *([Absent(keys.REALM_KEY)] if is_first else ()),
            *pool_conditions,
        ),
        put={
            **({keys.REALM_KEY: realm} if is_first else {}),
            keys.network_key(network.id): keys.dump_network(network, wiring),
            keys.name_key(network.name): network.id,
            **pool_puts,
        },
    )


def _dns_port(engine: Engine, driver: Driver, network: Network) -> int:
    """53, or the first port beyond 5300 where a process of the host has 53 at a gateway."""
    if driver.capabilities.names != "gateway" or not has_names(network, driver.capabilities):
        return DNS_PORT
    gateways = [subnet.gateway for subnet in network.subnets if subnet.gateway is not None]

    def is_free(port: int) -> bool:
        return not any(
            engine.kernel.port_user(protocol, gateway, port, 1)
            for gateway in gateways
            for protocol in _PROTOCOLS
        )

    return next((p for p in (DNS_PORT, *range(5301, 5400)) if is_free(p)), DNS_PORT)


def _devices(driver: Driver, options: Mapping[str, str]) -> list[str]:
    """The host's devices that options name."""
    return [
        names.check_device(options[option.key])
        for option in driver.options
        if option.device and option.key in options
    ]


def _settled(driver: Driver, network: Network, host: HostFacts) -> Network:
    """The network with what the host decides filled in, and found possible."""
    driver.check_options(network)
    settled = replace(network, options={**network.options, **driver.settle(network, host)})
    driver.check_options(settled)
    return settled


def _forwarding_note(
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
