"""Make a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from netlib import built_in, keys, names
from netlib.claims import check_claims, claims_of
from netlib.dns.resolv import check_servers
from netlib.driver import Driver
from netlib.engine import Engine
from netlib.errors import (
    BuiltInNetwork,
    InvalidRequest,
    NameTaken,
    PoolOverlap,
    StoreConflict,
)
from netlib.making import dns_port, forwarding_note, unanswered
from netlib.model import Device, HostFacts, IPAddress, Network, Subnet
from netlib.operation import Operation
from netlib.options import canonical
from netlib.plan import diff
from netlib.records import NetworkRecord, dump_network
from netlib.rewiring import describe_network
from netlib.store import Absent, Commit
from netlib.subnetting import choose_subnets, claim_pools, own_addresses
from netlib.values import replace
from netlib.wiring import Wiring


def create(
    engine: Engine,
    name: str,
    *,
    driver: str = "bridge",
    subnets: Iterable[str] = (),
    gateways: Iterable[str] = (),
    ip_ranges: Iterable[str] = (),
    aux_addresses: Iterable[str] = (),
    ipv4: bool = True,
    ipv6: bool = False,
    addressed: bool = True,
    internal: bool = False,
    attachable: bool = False,
    records: Iterable[str] = (),
    servers: Iterable[str] = (),
    options: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Operation[Network]:
    """Make a network.

    For each family that is asked for and `subnets` have not, one is chosen from the default
    pools, away from every other network's and from every prefix that the host can route to:
    without `subnets` for IPv4, unless `ipv4` is False; with `ipv6` for both.
    `gateways`, `ip_ranges` ("192.0.2.64/26" or "192.0.2.10-192.0.2.20") and `aux_addresses`
    ("router=192.0.2.5") each belong to the subnet that contains them. `addressed` False: somebody
    else gives addresses, a DHCP server say. `internal`: no way out or in.
    `records` are further names, in a zone file's form ("db A 192.0.2.9"). `servers` are asked
    for what no name of the network answers, instead of the host's.

    A network of scope global is the cluster's: a host makes its part of it with the first sandbox
    that it connects to it. `attachable` then says whether any may be.

    Raises NameTaken, BuiltInNetwork, SingleNetwork, PoolOverlap, Exhausted, InvalidRequest,
    InvalidOption, UnknownDriver, NoSuchDevice, KernelError.

    Example:  net create my-net --subnet 192.0.2.0/24 --ipv6
    """
    names.check_name(name, "network")
    if all(c in "0123456789abcdef" for c in name) and len(name) == 64:
        raise InvalidRequest(f"{name!r} looks like an id", "choose a name with other letters")
    if name in built_in.NAMES:
        raise BuiltInNetwork(f"network {name} is built in and always there", "choose another name")
    taken = engine.state.find_network(name)
    if taken is not None and taken.network.name == name:
        raise NameTaken(
            f"there is a network {name!r} (id {taken.network.short_id})",
            f"choose another name, or run: net rm {name}",
        )
    kind = engine.registry.get(driver)
    cluster = engine.cluster if kind.capabilities.scope == "global" else None
    realm = cluster.settings.realm if cluster else engine.state.realm() or names.new_realm()
    network = Network(
        id=names.new_id(realm),
        name=name,
        driver=driver,
        options=canonical(options or {}, kind.options, f"driver {driver}"),
        labels=dict(labels or {}),
        internal=internal,
        attachable=attachable,
        records=_checked(records),
        servers=check_servers(servers, ports=True),
        created=engine.clock(),
    )
    network, host = _looked(engine, kind, network)
    lends = lent_devices(kind, network, host)
    if lends:
        kind.settle(network, host)  # refuses what can't be used, before its addresses are
    subnets = tuple(subnets)
    chosen = choose_subnets(
        engine,
        kind,
        network,
        subnets=subnets,
        gateways=tuple(gateways),
        ip_ranges=tuple(ip_ranges),
        aux_addresses=tuple(aux_addresses),
        ipv4=ipv4,
        ipv6=ipv6,
        addressed=addressed,
        lent=lends or _way_out(engine, kind, host),
        cluster=cluster,
    )
    if not ipv4 and any(subnet.family == 4 for subnet in chosen):
        raise InvalidRequest(
            "a network without IPv4 has no IPv4 subnet", "leave out that --subnet, or --no-ipv4"
        )
    network = replace(network, subnets=chosen)
    try:
        if cluster is not None:
            from netlib.verbs.shared import offer  # few hosts are in a cluster

            return offer(engine, kind, network)
        making = _making(engine, kind, network, realm)
        alone = () if subnets else _strangers_on_the_lan(kind, making.result)
        return replace(making, warnings=(*alone, *unanswered(engine, making.plan)))
    except PoolOverlap as error:
        if subnets or any(device.addresses for device in lends):
            raise
        raise StoreConflict("pool/") from error  # taken since it was chosen: choose again


def _checked(records: Iterable[str]) -> tuple[str, ...]:
    """The records. InvalidOption for what is none."""
    found = tuple(records)
    if found:
        from netlib.dns.records import check_records  # costs dnslib, which few need

        check_records(found)
    return found


def create_built_in(engine: Engine, name: str) -> Operation[Network]:
    """Make a built-in network, with a free IPv4 prefix where it has addresses."""
    bare = replace(built_in.network(name), created=engine.clock(), state="pending")
    kind = engine.registry.get(bare.driver)
    chosen = choose_subnets(engine, kind, bare, ipv4=True)
    realm = engine.state.realm() or names.new_realm()
    return _making(engine, kind, replace(bare, subnets=chosen), realm)


def first_use(
    engine: Engine, record: NetworkRecord, sparing: Iterable[IPAddress | str] = ()
) -> Operation[Network]:
    """Make a network that is made when it is first used: a built-in one, or the cluster's.

    `sparing` are addresses that the host is not to take for itself: somebody is about to ask.
    """
    if record.network.name in built_in.NAMES:
        return create_built_in(engine, record.network.name)
    from netlib.sharing import check_attachable  # few hosts are in a cluster
    from netlib.verbs.shared import take_up

    check_attachable(record.network)
    return take_up(engine, record, sparing)


def ensure_made(engine: Engine, reference: str, *, sparing: Iterable[IPAddress | str] = ()) -> None:
    """Make the network that a reference names, if it is made when it is first used, and now is."""
    if engine.state.is_made(reference):
        return
    record = engine.state.find_network(reference)
    if record is None or record.revision:
        return
    # Alone, so that nobody meets it half made.
    with engine.making, engine.lock.alone():
        if not engine.state.network(record.network.id).revision:
            engine.run_locked(lambda: first_use(engine, record, sparing))


def ensure_built_in(engine: Engine, reference: str) -> None:
    """Likewise, only built-in ones."""
    record = engine.state.find_network(reference)
    if record is not None and record.network.name in built_in.NAMES:
        ensure_made(engine, reference)


def _making(engine: Engine, kind: Driver, asked: Network, realm: str) -> Operation[Network]:
    network, host = _settled(engine, kind, asked)
    check_claims(engine, kind, network)
    network = replace(network, dns_port=dns_port(engine, kind, network))
    wiring = describe_network(engine, network, host)
    begin = _claim(engine, kind, network, wiring, realm)
    ready = replace(network, state="ready")
    return Operation(
        subject=f"network {network.name}",
        holds={keys.network_key(network.id): True},
        plan=diff(have=Wiring(), want=wiring),
        result=ready,
        begin=begin,
        done=Commit(
            put={
                keys.network_key(network.id): dump_network(ready, wiring),
                **forwarding_note(engine, network, wiring, host),
            },
            durable=False,
        ),
        # The realm stays: others may have taken it up.
        undo=Commit(put={}, delete=tuple(key for key in begin.put if key != keys.REALM_KEY)),
    )


def _claim(engine: Engine, kind: Driver, network: Network, wiring: Wiring, realm: str) -> Commit:
    pool_conditions, pool_puts = claim_pools(engine, network)
    further_conditions, further_puts = claims_of(kind, network)
    is_first = not engine.state.realm()
    return Commit(
        conditions=(
            Absent(keys.name_key(network.name)),
            *([Absent(keys.REALM_KEY)] if is_first else ()),
            *pool_conditions,
            *further_conditions,
        ),
        put={
            **({keys.REALM_KEY: realm} if is_first else {}),
            keys.network_key(network.id): dump_network(network, wiring),
            keys.name_key(network.name): network.id,
            **pool_puts,
            **further_puts,
        },
    )


def _settled(engine: Engine, driver: Driver, network: Network) -> tuple[Network, HostFacts]:
    """The network with what the host decides filled in and found possible, and that host."""
    driver.check_options(network)
    network, host = _looked(engine, driver, network)
    decided = driver.settle(network, host)
    if decided:
        network = replace(network, options={**network.options, **decided})
        network, host = _looked(engine, driver, network)
    network = replace(network, subnets=_reserving(engine, driver, network, host))
    driver.check_options(network)
    return network, host


def lent_devices(driver: Driver, network: Network, host: HostFacts) -> tuple[Device, ...]:
    """The devices of others that options name, and the network uses."""
    named = {network.options.get(option.key) for option in driver.options if option.device}
    return tuple(d for d in host.devices.values() if d.name in named and not d.ours)


def _strangers_on_the_lan(driver: Driver, network: Network) -> tuple[str, ...]:
    """What is said of prefixes that were chosen, and so are not the LAN's."""
    parents = [o.key for o in driver.options if o.parent and o.key in network.options]
    if not parents or network.internal or not network.subnets:
        return ()
    chosen = " and ".join(str(subnet.prefix) for subnet in network.subnets)
    parent = network.options[parents[0]]
    return (
        f"nobody beyond {parent} knows {chosen}, chosen for {network.name}: to be on the LAN "
        "there, give its --subnet, and an --ip-range that nobody else uses",
    )


def _way_out(engine: Engine, driver: Driver, host: HostFacts) -> tuple[Device, ...]:
    """The default route's device, which a network on a LAN uses that names none."""
    if driver.capabilities.gateway_on_host or host.uplink is None:
        return ()
    return tuple(engine.facts([host.uplink.name]).devices.values())


def _looked(engine: Engine, driver: Driver, network: Network) -> tuple[Network, HostFacts]:
    """The network with what it borrows, and the host with the devices that options name.

    Devices may have further names, as `ip link property` gives them and udev does: the one that
    the kernel tells is recorded.
    """
    host = engine.facts(_devices(driver, network))
    further = {asked: device.name for asked, device in host.devices.items() if asked != device.name}
    if further:
        own = {
            o.key: _own_name(network.options[o.key], further)
            for o in driver.options
            if o.device and o.key in network.options
        }
        network = replace(network, options={**network.options, **own})
        host = engine.facts(_devices(driver, network))
    borrowed = tuple(device.name for device in host.devices.values() if not device.ours)
    return replace(network, borrowed=borrowed), host


def _own_name(name: str, further: Mapping[str, str]) -> str:
    """What a device is called that was asked for by any of its names, or a VLAN of such a one."""
    base, dot, vlan = name.rpartition(".")
    return further.get(name) or f"{further.get(base, base)}{dot}{vlan}"


def _devices(driver: Driver, network: Network) -> list[str]:
    """The devices that options name, and those whose VLANs they may be."""
    devices: list[str] = []
    for option in driver.options:
        if option.device and option.key in network.options:
            name = names.check_device(network.options[option.key])
            devices += [name, *filter(None, [name.rpartition(".")[0]])]
    return devices


def _reserving(
    engine: Engine, driver: Driver, network: Network, host: HostFacts
) -> tuple[Subnet, ...]:
    """The subnets, with the addresses that options keep for the host, or that it has."""
    kept = [
        address
        for option in driver.options
        if option.reserves and option.key in network.options
        for address in _addresses(network.options[option.key])
    ]
    kept += [i.ip for d in lent_devices(driver, network, host) for i in d.addresses]
    if not driver.capabilities.gateway_on_host:
        kept += own_addresses(engine)
    return tuple(_with_reserved(subnet, kept) for subnet in network.subnets)


def _with_reserved(subnet: Subnet, kept: Iterable[IPAddress]) -> Subnet:
    known = {*subnet.reserved.values(), subnet.gateway}
    new = dict.fromkeys(a for a in kept if a in subnet.prefix and a not in known)
    numbered = {f"host-{number}": address for number, address in enumerate(new, 1)}
    return replace(subnet, reserved={**numbered, **subnet.reserved})


def _addresses(text: str) -> Iterable[IPAddress]:
    for part in text.split(","):
        try:
            yield ip_address(part.strip())
        except ValueError:
            continue  # some other value of the option; the driver checks it
