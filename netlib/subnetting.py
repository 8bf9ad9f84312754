"""Subnets for a network: those asked for, or free ones from the default pools."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING

from netlib import keys
from netlib.driver import Capabilities, Driver
from netlib.engine import Engine
from netlib.errors import InvalidRequest, PoolOverlap, Unsupported
from netlib.model import FAMILIES, Device, Family, IPAddress, IPNetwork, Network, Subnet
from netlib.pools import Pool, default_pools, free_prefix, overlapping
from netlib.records import dump, load
from netlib.store import Absent, Condition, Store, Unchanged, under
from netlib.subnets import Ways, parse_subnet_options, plain_subnet

if TYPE_CHECKING:
    from netlib.cluster.state import ClusterState


def choose_subnets(
    engine: Engine,
    driver: Driver,
    network: Network,
    *,
    subnets: tuple[str, ...] = (),
    gateways: tuple[str, ...] = (),
    ip_ranges: tuple[str, ...] = (),
    aux_addresses: tuple[str, ...] = (),
    ipv4: bool = False,
    ipv6: bool = False,
    addressed: bool = True,
    lent: tuple[Device, ...] = (),
    cluster: ClusterState | None = None,
) -> tuple[Subnet, ...]:
    """The subnets of a new network, or those that are added to one.

    `lent` are devices of others' that the network uses. The router that the host has there is the
    gateway. Where the host is a gateway of such networks, what it has there is the network's:
    the prefix, and its own address, if there is no router. On a LAN it is one of many.
    A `cluster` is whose network it is: then they are from its pools, away from its networks' too.

    Raises PoolOverlap, Exhausted, InvalidAddress, InvalidRequest.
    """
    capabilities = driver.capabilities
    if capabilities.addressing == "none" or not addressed:
        if subnets or gateways or ip_ranges or aux_addresses:
            what = "of this driver have" if addressed else "that are not addressed have"
            raise InvalidRequest(f"networks {what} no addresses", "leave them out")
        return ()
    ours = [device for device in lent if capabilities.gateway_on_host]
    ways = Ways(
        none=_gatewayless(driver, network),
        optional=network.internal,
        near=(
            *(router for device in lent for router in device.routers),
            *(address.ip for device in ours for address in device.addresses),
        ),
        held=() if capabilities.gateway_on_host else own_addresses(engine),
        others=network.subnets,
        lan=not capabilities.gateway_on_host,
    )
    there = [str(i.network) for d in ours for i in d.addresses if (ipv6, ipv4)[i.version == 4]]
    given = parse_subnet_options(
        subnets or tuple(dict.fromkeys(there)), gateways, ip_ranges, aux_addresses, ways
    )
    if capabilities.gateway_on_host:
        _check_routes(engine, given, tuple(device.name for device in lent))
    have = {subnet.family for subnet in given}
    # IPv6 prefixes alone make a network of that family; `ipv6` one that has both.
    wanted: list[Family] = [4] if ipv4 and (not have or (ipv6 and 4 not in have)) else []
    if ipv6 and 6 not in have:
        wanted.append(6)
    if not given and not wanted:
        raise InvalidRequest(
            "a network needs IPv4 or IPv6", "leave --no-ipv4 out, or add --ipv6 or --subnet"
        )
    if 6 in (*have, *wanted) and capabilities.gateway_on_host and not engine.facts().ipv6:
        raise Unsupported(
            "IPv6 is switched off on this host (net.ipv6.conf.all.disable_ipv6)",
            "switch it on, or leave --ipv6 and IPv6 subnets out",
        )
    return (*given, *(_free(engine, family, ways, cluster) for family in wanted))


def own_addresses(engine: Engine) -> tuple[IPAddress, ...]:
    """The host's: a route to each is in the table `local`."""
    every = engine.kernel.prefixes()
    return tuple(prefix[0] for prefix in every if prefix.prefixlen == prefix.max_prefixlen)


def _gatewayless(driver: Driver, network: Network) -> frozenset[Family]:
    """The families of which options say that the network has no gateway."""
    found: set[Family] = set()
    for option in sorted(driver.options, key=lambda o: o.family is not None):
        if option.gatewayless and option.key in network.options:
            families = set(FAMILIES) if option.family is None else {option.family}
            if network.options[option.key] in option.gatewayless:
                found |= families
            else:
                found -= families
    return frozenset(found)


def _free(engine: Engine, family: Family, ways: Ways, cluster: ClusterState | None) -> Subnet:
    """A subnet from the default pools that overlaps nothing that is known."""
    taken = [*_every_pool(engine.state.store, family), *engine.kernel.prefixes()]
    known = default_pools(family, _host_id())
    if cluster is not None:
        taken += _every_pool(cluster.store, family)
        known = _pools_of(cluster, family)
    return plain_subnet(free_prefix(family, taken, known), ways)


def _pools_of(cluster: ClusterState, family: Family) -> tuple[Pool, ...]:
    """The pools of a cluster, in the usual pieces; where it has none, the same on all hosts."""
    length = 24 if family == 4 else 64
    given = [base for base in cluster.settings.pools if base.version == family]
    return tuple(Pool(base, max(length, base.prefixlen)) for base in given) or default_pools(
        family, cluster.settings.id
    )


def _host_id() -> str:
    """What tells this host from others (machine-id(5)); empty where it has none."""
    try:
        with open("/etc/machine-id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _check_routes(engine: Engine, subnets: tuple[Subnet, ...], borrowed: tuple[str, ...]) -> None:
    routed = engine.kernel.prefixes(borrowed) if subnets else ()
    for subnet in subnets:
        other = overlapping(subnet.prefix, routed)
        if other is not None and not any(
            other.overlaps(own) for own in pools(engine, "host", subnet.family)
        ):
            raise PoolOverlap(
                f"{subnet.prefix} overlaps {other}, which the host has a route to",
                "choose another --subnet; see: ip route show table all",
            )


def _every_pool(store: Store, family: Family) -> list[IPNetwork]:
    """The prefixes of all networks, whatever LAN they are on."""
    records = store.range(*under("pool/"))
    found = (ip_network(load(record.value)["prefix"]) for record in records)
    return [prefix for prefix in found if prefix.version == family]


def pools(engine: Engine, scope: str, family: int) -> list[IPNetwork]:
    """The prefixes that networks of a scope have."""
    return [
        ip_network(load(record.value)["prefix"])
        for record in engine.state.store.range(*keys.pools_of(scope, family))
    ]


def pool_scope(network: Network, capabilities: Capabilities) -> str:
    """Where a network's prefixes must be its own: on this host, or on its parent's LAN."""
    if capabilities.gateway_on_host:
        return "host"
    return network.options.get("parent") or network.id


def pool_keys(engine: Engine, network: Network) -> tuple[str, ...]:
    """The keys that `claim_pools` writes."""
    scope = pool_scope(network, engine.driver(network).capabilities)
    return tuple(keys.pool_key(scope, subnet.prefix) for subnet in network.subnets)


def claim_pools(engine: Engine, network: Network) -> tuple[tuple[Condition, ...], dict[str, str]]:
    """The conditions and records that make a network's prefixes its own on this host.

    Raises PoolOverlap naming the other network.
    """
    scope = pool_scope(network, engine.driver(network).capabilities)
    return claim_prefixes(engine.state.store, scope, network)


def claim_prefixes(
    store: Store, scope: str, network: Network
) -> tuple[tuple[Condition, ...], dict[str, str]]:
    """Likewise, of any store and scope.

    Prefixes either nest or are apart, so one that overlaps starts inside this one, or is the
    one that starts next before it. Raises PoolOverlap naming the other network.
    """
    conditions: list[Condition] = []
    puts: dict[str, str] = {}
    for subnet in network.subnets:
        prefix = subnet.prefix
        everything, _ = keys.pools_of(scope, prefix.version)
        first = keys.pool_key(scope, prefix)
        end = keys.pool_end(scope, prefix)
        before = store.range(everything, first, limit=1, reverse=True)
        inside = store.range(first, end, limit=1)
        for record in (*before, *inside):
            _check_apart(prefix, record.value)
        if before:
            conditions.append(Unchanged(before[0].key, before[0].revision))
        conditions.append(Absent(before[0].key + "\0" if before else everything, end))
        puts[first] = dump({"prefix": prefix, "network": network.id, "name": network.name})
    return tuple(conditions), puts


def _check_apart(prefix: IPNetwork, record: str) -> None:
    document = load(record)
    if ip_network(document["prefix"]).overlaps(prefix):
        raise PoolOverlap(
            f"{prefix} overlaps {document['prefix']} of network {document['name']}",
            f"choose another --subnet, or run: net rm {document['name']}",
        )
