"""Join a sandbox to a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from netlib import keys, names
from netlib.addressing import Addresses, Choice, choose_addresses, lease_puts
from netlib.claims import is_exclusive
from netlib.driver import Capabilities, Driver
from netlib.engine import Engine, at_one_moment
from netlib.errors import (
    AddressTaken,
    AlreadyConnected,
    Conflict,
    InterfaceTaken,
    InUse,
    InvalidAddress,
    InvalidRequest,
    Unsupported,
)
from netlib.links import exposed
from netlib.model import Endpoint, HostFacts, IPAddress, Network, Sandbox
from netlib.operation import Operation
from netlib.options import canonical
from netlib.plan import Plan, joined
from netlib.ports import PortRequest
from netlib.publishing import answered_past, claim_ports, resolve_ports, unreached
from netlib.records import EndpointRecord, dump_sandbox, unchanged
from netlib.rewiring import (
    Evicted,
    Rewiring,
    check_ready,
    conditions,
    held,
    plan_of,
    puts,
    relink,
    reverts,
    rewire_sandbox,
)
from netlib.store import Absent, Commit, Condition, Unchanged
from netlib.values import replace
from netlib.verbs.create import first_use

if TYPE_CHECKING:
    from netlib.sharing import Joining

_MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@at_one_moment
def connect(
    engine: Engine,
    network: str,
    sandbox: str | Sandbox,
    *,
    publish: Iterable[str | PortRequest] = (),
    addresses: Iterable[IPAddress | str] = (),
    mac: str | None = None,
    aliases: Iterable[str] = (),
    links: Mapping[str, str] | None = None,
    ifname: str | None = None,
    gateway_priority: int = 0,
    options: Mapping[str, str] | None = None,
    again: bool = False,
) -> Operation[Endpoint]:
    """Join a sandbox to a network.

    `network`: a name, an id or a unique id prefix. `sandbox`: a name, or `pid:N`,
    `netns:NAME`, `netns:/path`, `docker:NAME`, `podman:NAME`; `container:NAME` is who shares
    that one's stack. `publish`: as in
    "127.0.0.1:8080:80/tcp". `addresses`: at most one of each family that the network has.
    `links`: aliases by the names of other sandboxes.
    `gateway_priority`: the sandbox's endpoint with the highest gives it its default route.
    `again`: with one more interface, where it is on the network already.

    Raises NoSuchNetwork, NoSuchSandbox, AlreadyConnected, AddressTaken, PortTaken,
    InterfaceTaken, Exhausted, Conflict, InvalidRequest, KernelError; of the cluster's networks also
    NotAttachable, NodePaused, AgentDown, StoreUnavailable.

    Example:  net connect my-net web -p 8080:80
    """
    record = engine.state.network(network)
    first = Plan()
    if not record.revision:  # it is made when it is first used, and this is only to be planned
        made = first_use(engine, record)
        record, first = replace(record, network=made.result), made.plan
    known = record.network
    driver = engine.driver(known)
    able = driver.capabilities
    box = engine.sandbox(sandbox)
    check_ready(known)
    members = keys.members(known.id, box.name)
    if not again and engine.state.store.range(*members, limit=1):
        raise _already(engine, known, box)
    alone = is_exclusive(driver, known)
    if alone:
        _check_alone(engine, known)
    checked = canonical(options or {}, driver.endpoint_options, f"an endpoint on {known.name}")
    host_name = checked.get("host_interface_name")
    host = engine.facts([names.check_device(host_name)] if host_name else [])
    if host.devices:
        raise InterfaceTaken(f"the host has an interface {host_name}", "choose another name")
    others = engine.state.endpoints_of(box.name)
    _check_place(engine, known, box, host, others)
    endpoint_id = names.new_id(engine.state.realm())
    requests = list(publish)
    warnings: tuple[str, ...] = ()
    if requests and not able.publishes:
        why = f"ports can't be published on {known.name}: {able.why_not_published}"
        if able.own_netns:
            raise Unsupported(why, "publish on another network of the sandbox")
        requests, warnings = [], (f"nothing is published on {known.name}: needless, as "
                                  f"{able.why_not_published}",)  # fmt: skip
    device = _ifname(engine, able, known, box, ifname, others=others)
    joining = _joining(engine, known) if able.scope == "global" else None
    chosen = _chosen(engine, joining or engine.state, known, able, tuple(addresses))
    endpoint = Endpoint(
        id=endpoint_id,
        network=known.id,
        sandbox=box,
        ifname=device,
        mac=_mac(driver, known, mac, endpoint_id, chosen),
        addresses=tuple(choice.address for choice in chosen),
        ports=resolve_ports(engine, known, requests, host),
        aliases=tuple(map(names.check_alias, aliases)),
        links=_links(engine, box, links or {}),
        options=checked,
        gateway_priority=gateway_priority,
        created=engine.clock(),
    )
    exposed(endpoint)  # raises for what it can not read
    macs = {keys.mac_key(known.id, endpoint.mac): box.name} if mac and endpoint.mac else {}
    _check_macs(engine, known, endpoint.mac, macs)
    changes = [
        *relink(engine, known, box.name, endpoint, host),
        *rewire_sandbox(engine, {known.id: known}, others, joining=endpoint, host=host),
    ]
    port_conditions, port_puts = claim_ports(known, endpoint)
    leases = lease_puts(known.id, chosen, endpoint, host.boot_id, engine.clock())
    claims = {
        keys.member_key(endpoint): endpoint.ifname,
        keys.place_key(endpoint): f"{known.id}/{endpoint.id}",
        **leases,
        **macs,
        **dict.fromkeys(keys.link_keys(endpoint), box.name),
        **port_puts,
    }
    targets, seen_by_them = _linked(engine, known, endpoint)
    inode = box.netns.inode
    box_record = engine.state.store.get(keys.sandbox_key(box.name))
    fixed = {
        keys.sandbox_key(box.name): dump_sandbox(box),
        # The host's namespace is that of many: no one of them is found by it.
        **({keys.namespace_key(box.netns.inode): box.name} if able.own_netns else {}),
        **{
            keys.cursor_key(known.id, choice.prefix): str(choice.address.ip)
            for choice in chosen
            if choice.moves_cursor
        },
    }
    endpoint_records = puts(changes, ready=False)
    evicted = joining.evicted(engine, endpoint, host) if joining else Evicted()
    return Operation(
        subject=f"the endpoint of {box.name} on {known.name}",
        sandboxes=(box,),
        holds={**held(box, changes), **evicted.holds},
        plan=joined([first, plan_of(changes, others, evicted=evicted.wiring)]),
        result=replace(next(c.after.endpoint for c in reversed(changes) if c.after), state="ready"),
        begin=Commit(
            conditions=(
                unchanged(record),
                # Written by every change of the sandbox's endpoints, so that two at once can't
                # both take the default route.
                Unchanged(keys.sandbox_key(box.name), box_record.revision if box_record else 0),
                *(() if again else (Absent(*members),)),
                *((keys.no_members(known.id),) if alone else ()),
                *(Absent(key) for key in claims if key not in port_puts),
                *port_conditions,
                *conditions(changes),
                *targets,
                *evicted.conditions,
                *(joining.conditions if joining else ()),
            ),
            put={**claims, **seen_by_them, **fixed, **endpoint_records},
            delete=tuple(evicted.restores),
        ),
        claims=(joining.claim(engine, endpoint, chosen, host),) if joining else (),
        done=Commit(put=puts(changes, ready=True), durable=False),
        undo=Commit(
            put={**reverts(changes), **evicted.restores, **evicted.words},
            delete=(
                *claims,
                keys.endpoint_key(known.id, endpoint.id),
                # Known only for this endpoint's sake.
                *(() if box_record else (keys.sandbox_key(box.name), keys.namespace_key(inode))),
            ),
        ),
        warnings=(
            *warnings,
            *unreached(engine, known, endpoint.ports),
            *answered_past(engine, _of_sandbox(box, others, changes)),
        ),
    )


def _chosen(
    engine: Engine,
    source: Addresses,
    network: Network,
    able: Capabilities,
    asked: tuple[IPAddress | str, ...],
) -> tuple[Choice, ...]:
    """The addresses. On a LAN, others than the host has by now: some came after the network."""
    while True:
        chosen = choose_addresses(source, network, able, asked)
        own = None if able.gateway_on_host else _own(engine, chosen)
        if own is None:
            return chosen
        subnets = tuple(
            replace(s, reserved={**s.reserved, f"host {own}": own}) if own in s.prefix else s
            for s in network.subnets
        )
        network = replace(network, subnets=subnets)


def _own(engine: Engine, chosen: Iterable[Choice]) -> IPAddress | None:
    addresses = [choice.address.ip for choice in chosen]
    # The second question costs more the more addresses there are; the first one is answered
    # yes to all of them where any may be bound (ip_nonlocal_bind).
    kernel = engine.kernel
    return next((a for a in addresses if kernel.has_address(a) and kernel.device_of(a)), None)


def _of_sandbox(
    box: Sandbox, others: Iterable[EndpointRecord], changes: Iterable[Rewiring]
) -> list[Endpoint]:
    """A sandbox's endpoints as they will be."""
    found = {record.endpoint.id: record.endpoint for record in others}
    found |= {c.after.endpoint.id: c.after.endpoint for c in changes if c.after is not None}
    return [endpoint for endpoint in found.values() if endpoint.sandbox.name == box.name]


def _joining(engine: Engine, network: Network) -> Joining:
    from netlib.sharing import Joining  # few hosts are in a cluster

    return Joining(engine, network)


def _check_alone(engine: Engine, network: Network) -> None:
    """Raise Conflict where a network that is for one sandbox has one."""
    holder = next(
        (record.endpoint.sandbox.name for record in engine.state.endpoints(network.id)), ""
    )
    if holder:
        raise Conflict(
            f"network {network.name} is for one sandbox alone, and {holder} is on it",
            f"take that one off first: net disconnect {network.name} {holder}",
        )


def _links(engine: Engine, box: Sandbox, asked: Mapping[str, str]) -> dict[str, str]:
    """Aliases by the names of other sandboxes. Raises NoSuchSandbox, InvalidName, InvalidRequest.

    Each sandbox has one, and each alias one sandbox: else variables would tell of two at once.
    """
    found: dict[str, str] = {}
    for name, alias in asked.items():
        target = engine.state.owner(engine.state.sandbox(name)).name
        if target == engine.state.owner(box).name:
            raise InvalidRequest(f"{box.name} can't be linked to itself", "name another sandbox")
        if target in found or alias in found.values():
            raise InvalidRequest(
                f"the link {name}:{alias} has the sandbox or the alias of another one",
                "give each sandbox one alias of its own",
            )
        found[target] = names.check_name(alias, "alias")
    return found


def _linked(
    engine: Engine, network: Network, endpoint: Endpoint
) -> tuple[list[Condition], dict[str, str]]:
    """That those which it is linked to are as they were described, and what tells them of it.

    Each of two that come at once must see the other one, or be prepared again.
    """
    found: list[Condition] = []
    puts: dict[str, str] = {}
    for name in endpoint.links:
        key = keys.sandbox_key(name)
        record = engine.state.store.get(key)
        found.append(Unchanged(key, record.revision if record else 0))
        found += map(unchanged, engine.state.endpoints_between(network.id, name)[:1])
        if record is not None:
            puts[key] = record.value
    return found, puts


def _check_place(
    engine: Engine,
    network: Network,
    box: Sandbox,
    host: HostFacts,
    others: Sequence[EndpointRecord],
) -> None:
    """Whether the sandbox is where, and alone as, the driver needs it."""
    able = engine.driver(network).capabilities
    is_host = box.netns.inode == host.netns
    if is_host and able.own_netns:
        raise InvalidRequest(
            f"{box.name} is the host's own network namespace", "name a sandbox with one of its own"
        )
    if not is_host and not able.own_netns:
        raise Unsupported(
            f"{box.name} has a network namespace of its own, and can't change over to the host's",
            f"start it there: net run --network {network.name} -- COMMAND",
        )
    check_nowhere_else(engine, box, others)
    if able.alone and others:
        raise Conflict(
            f"{box.name} is on other networks, and {network.name} is to be on none",
            f"run for each of them: net disconnect NETWORK {box.name}",
        )


def check_nowhere_else(engine: Engine, box: Sandbox, others: Iterable[EndpointRecord]) -> None:
    """Raise InUse where a sandbox of this name has endpoints in another network namespace."""
    for other in others:
        there = other.endpoint.sandbox.netns
        if there.inode == box.netns.inode:
            continue
        if engine.kernel.alive(there):
            raise InUse(
                f"a {box.name} has endpoints at {there.path}, another network namespace",
                "disconnect that one first",
            )
        raise InUse(f"an earlier {box.name}, which has ended, still has endpoints", "run: net gc")


def _already(engine: Engine, network: Network, box: Sandbox) -> AlreadyConnected:
    record = engine.state.endpoint(network, box.name)
    check_nowhere_else(engine, box, [record])
    if record.endpoint.state == "ready":
        return AlreadyConnected(
            f"{box.name} is connected to {network.name}", f"see: net inspect {network.name}"
        )
    return AlreadyConnected(
        f"{box.name} is being connected to {network.name}, or taken off it",
        "wait for who does it; if nobody does any more, run: net repair",
    )


def _ifname(
    engine: Engine,
    able: Capabilities,
    network: Network,
    box: Sandbox,
    wanted: str | None,
    *,
    others: Iterable[EndpointRecord],
) -> str:
    """The interface's name in the sandbox: as asked, else the prefix and the lowest free number."""
    if not able.interface:
        if wanted is not None:
            raise Unsupported(f"network {network.name} gives no interface", "leave its name out")
        return ""
    taken = {other.endpoint.ifname for other in others}
    if wanted is None and box.kind != "name":  # the kernel tells of one that is taken
        taken |= engine.kernel.interfaces(box.netns)
    if wanted is not None:
        names.check_device(wanted)
        if wanted in taken:
            raise InterfaceTaken(
                f"{box.name} has an interface {wanted}", "choose another one with --ifname"
            )
        return wanted
    prefix = network.options.get("iface_prefix", "eth")
    return next(name for n in range(10000) if (name := f"{prefix}{n}") not in taken)


def _mac(
    driver: Driver,
    network: Network,
    asked: str | None,
    endpoint_id: str,
    addresses: Sequence[Choice],
) -> str:
    """The interface's MAC address, none where it can't have one of its own."""
    able = driver.capabilities
    if able.mac_of_address:
        found = names.mac_at(network.id, addresses[0].address.ip)
        if asked and _read_mac(asked) != found:
            raise Unsupported(
                f"on {network.name} a MAC address follows from the IP address, so that no other "
                "host ever has a wrong one",
                "leave it out",
            )
        return found
    if able.interface and able.own_mac and not is_exclusive(driver, network):
        return _read_mac(asked) if asked else names.mac_of(endpoint_id)
    if asked:
        raise Unsupported(
            f"network {network.name} gives no MAC address of one's own", "leave it out"
        )
    return ""


def _check_macs(engine: Engine, network: Network, mac: str, macs: Mapping[str, str]) -> None:
    """Raise AddressTaken: a bridge would send the frames of two to whoever spoke last."""
    for key in macs:
        holder = engine.state.store.get(key)
        if holder is not None:
            raise AddressTaken(
                f"{mac} on {network.name} is held by {holder.value}",
                "choose another MAC address, or disconnect that sandbox",
            )


def _read_mac(text: str) -> str:
    """A MAC address in any of the usual notations, as lower-case text with colons."""
    if not _MAC.fullmatch(text):
        from netaddr import EUI, AddrFormatError, mac_unix_expanded  # 70 ms, for other notations

        try:
            text = str(EUI(text, version=48, dialect=mac_unix_expanded))
        except AddrFormatError as error:
            raise InvalidAddress(
                f"{text!r} is no MAC address", "write it as 02:00:5e:00:53:01"
            ) from error
    if int(text[:2], 16) & 1 or text == "00:00:00:00:00:00":
        raise InvalidAddress(
            f"{text!r} is a group address or zero", "the first byte of a MAC address is even"
        )
    return text
