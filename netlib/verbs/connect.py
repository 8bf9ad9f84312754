"""Join a sandbox to a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from netlib import keys, names
from netlib.addressing import Addresses, Choice, choose_addresses, lease_puts
from netlib.driver import Capabilities
from netlib.engine import Engine, at_one_moment
from netlib.errors import (
    AddressTaken,
    InterfaceTaken,
    InvalidAddress,
    InvalidRequest,
    Unsupported,
)
from netlib.links import exposed
from netlib.model import Endpoint, IPAddress, Network, Sandbox
from netlib.operation import Operation
from netlib.plan import joined
from netlib.ports import PortRequest
from netlib.publishing import answered_past, claim_ports, resolve_ports, unreached
from netlib.records import EndpointRecord, dump_sandbox, unchanged
from netlib.rewiring import (
    Evicted,
    Rewiring,
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
from netlib.verbs.pairing import Pair, find_pair

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
    pair = find_pair(engine, network, sandbox, options or {}, again=again)
    known, able = pair.record.network, pair.driver.capabilities
    requests, needless = _publishable(known, able, list(publish))
    device = _ifname(engine, pair, ifname)
    joining = _joining(engine, known) if able.scope == "global" else None
    chosen = _chosen(engine, joining or engine.state, known, able, tuple(addresses))
    endpoint_id = names.new_id(engine.state.realm())
    endpoint = Endpoint(
        id=endpoint_id,
        network=known.id,
        sandbox=pair.box,
        ifname=device,
        mac=_mac(pair, mac, endpoint_id, chosen),
        addresses=tuple(choice.address for choice in chosen),
        ports=resolve_ports(engine, known, requests, pair.host),
        aliases=tuple(map(names.check_alias, aliases)),
        links=_links(engine, pair.box, links or {}),
        options=pair.options,
        gateway_priority=gateway_priority,
        created=engine.clock(),
    )
    exposed(endpoint)  # raises for what it can not read
    return _making(
        engine,
        pair,
        endpoint,
        joining,
        claims={
            **_places(endpoint),
            **lease_puts(known.id, chosen, endpoint, pair.host.boot_id, engine.clock()),
            **(_claim_mac(engine, known, endpoint) if mac and endpoint.mac else {}),
        },
        cursors=_cursors(known, chosen),
        warnings=needless,
    )


def _making(
    engine: Engine,
    pair: Pair,
    endpoint: Endpoint,
    joining: Joining | None,
    *,
    claims: Mapping[str, str],
    cursors: Mapping[str, str],
    warnings: tuple[str, ...],
) -> Operation[Endpoint]:
    """The operation that makes an endpoint.

    `claims` are the records that nobody may have before it, `cursors` those that stay after it.
    """
    known, box, host, others = pair.record.network, pair.box, pair.host, pair.others
    changes = [
        *relink(engine, known, box.name, endpoint, host),
        *rewire_sandbox(engine, {known.id: known}, others, joining=endpoint, host=host),
    ]
    port_conditions, port_puts = claim_ports(known, endpoint)
    targets, seen_by_them = _linked(engine, known, endpoint)
    sandbox_puts = _sandbox_puts(pair)
    evicted = joining.evicted(engine, endpoint, host) if joining else Evicted()
    return Operation(
        subject=f"the endpoint of {box.name} on {known.name}",
        sandboxes=(box,),
        holds={**held(box, changes), **evicted.holds},
        plan=joined([pair.making, plan_of(changes, others, evicted=evicted.wiring)]),
        result=replace(next(c.after.endpoint for c in reversed(changes) if c.after), state="ready"),
        begin=Commit(
            conditions=(
                *pair.conditions(),
                *map(Absent, claims),
                *port_conditions,
                *conditions(changes),
                *targets,
                *evicted.conditions,
                *(joining.conditions if joining else ()),
            ),
            put={
                **claims,
                **port_puts,
                **seen_by_them,
                **sandbox_puts,
                **cursors,
                **puts(changes, ready=False),
            },
            delete=tuple(evicted.restores),
        ),
        claims=(joining.claim(engine, endpoint, host),) if joining else (),
        done=Commit(put=puts(changes, ready=True), durable=False),
        undo=Commit(
            put={**reverts(changes), **evicted.restores, **evicted.words},
            delete=(
                *claims,
                *port_puts,
                keys.endpoint_key(known.id, endpoint.id),
                # Known only for this endpoint's sake.
                *(() if pair.box_record else sandbox_puts),
            ),
        ),
        warnings=(
            *warnings,
            *unreached(engine, known, endpoint.ports),
            *answered_past(engine, _of_sandbox(box, others, changes)),
        ),
    )


def _publishable(
    network: Network, able: Capabilities, requests: Sequence[str | PortRequest]
) -> tuple[Sequence[str | PortRequest], tuple[str, ...]]:
    """What is to be published, and what is said of it where that is needless."""
    if not requests or able.publishes:
        return requests, ()
    if able.own_netns:
        raise Unsupported(
            f"ports can't be published on {network.name}: {able.why_not_published}",
            "publish on another network of the sandbox",
        )
    return (), (f"nothing is published on {network.name}: needless, as {able.why_not_published}",)


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


def _cursors(network: Network, chosen: Iterable[Choice]) -> dict[str, str]:
    """After which addresses the next ones are looked for."""
    return {
        keys.cursor_key(network.id, choice.prefix): str(choice.address.ip)
        for choice in chosen
        if choice.moves_cursor
    }


def _places(endpoint: Endpoint) -> dict[str, str]:
    """The records by which an endpoint is found: its sandbox, its interface, whom it links to."""
    return {
        keys.member_key(endpoint): endpoint.ifname,
        keys.place_key(endpoint): f"{endpoint.network}/{endpoint.id}",
        **dict.fromkeys(keys.link_keys(endpoint), endpoint.sandbox.name),
    }


def _sandbox_puts(pair: Pair) -> dict[str, str]:
    """The records of a sandbox."""
    box = pair.box
    found = {keys.sandbox_key(box.name): dump_sandbox(box)}
    if pair.driver.capabilities.own_netns:  # the host's is that of many, and finds none of them
        found[keys.namespace_key(box.netns.inode)] = box.name
    return found


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


def _ifname(engine: Engine, pair: Pair, wanted: str | None) -> str:
    """The interface's name in the sandbox: as asked, else the prefix and the lowest free number."""
    network, box = pair.record.network, pair.box
    if not pair.driver.capabilities.interface:
        if wanted is not None:
            raise Unsupported(f"network {network.name} gives no interface", "leave its name out")
        return ""
    taken = {other.endpoint.ifname for other in pair.others}
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


def _mac(pair: Pair, asked: str | None, endpoint_id: str, addresses: Sequence[Choice]) -> str:
    """The interface's MAC address, none where it can't have one of its own."""
    network, able = pair.record.network, pair.driver.capabilities
    if able.mac_of_address:
        found = names.mac_at(network.id, addresses[0].address.ip)
        if asked and _read_mac(asked) != found:
            raise Unsupported(
                f"on {network.name} a MAC address follows from the IP address, so that no other "
                "host ever has a wrong one",
                "leave it out",
            )
        return found
    if able.interface and able.own_mac and not pair.alone:
        return _read_mac(asked) if asked else names.mac_of(endpoint_id)
    if asked:
        raise Unsupported(
            f"network {network.name} gives no MAC address of one's own", "leave it out"
        )
    return ""


def _claim_mac(engine: Engine, network: Network, endpoint: Endpoint) -> dict[str, str]:
    """The record that claims the MAC address that was asked for.

    Raises AddressTaken: a bridge would send the frames of two to whoever spoke last.
    """
    key = keys.mac_key(network.id, endpoint.mac)
    holder = engine.state.store.get(key)
    if holder is not None:
        raise AddressTaken(
            f"{endpoint.mac} on {network.name} is held by {holder.value}",
            "choose another MAC address, or disconnect that sandbox",
        )
    return {key: endpoint.sandbox.name}


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
