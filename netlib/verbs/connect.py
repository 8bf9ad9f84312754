"""Join a sandbox to a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from netlib import names
from netlib import state as keys
from netlib.addressing import choose_addresses, lease_puts
from netlib.engine import Engine
from netlib.errors import (
    AlreadyConnected,
    InterfaceTaken,
    InUse,
    InvalidAddress,
    InvalidRequest,
    Unsupported,
)
from netlib.model import Endpoint, IPAddress, Network, Sandbox
from netlib.operation import Operation
from netlib.options import canonical
from netlib.ports import PortRequest
from netlib.publishing import claim_ports, resolve_ports
from netlib.rewiring import conditions, held, plan_of, puts, reverts, rewire_sandbox
from netlib.store import Absent, Commit, Unchanged

_MAC_DIGITS = 12


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
) -> Operation[Endpoint]:
    """Join a sandbox to a network.

    `network`: a name, an id or a unique id prefix. `sandbox`: a name, or `pid:N`,
    `netns:NAME`, `netns:/path`, `docker:NAME`, `podman:NAME`. `publish`: as in
    "127.0.0.1:8080:80/tcp". `addresses`: at most one of each family that the network has.
    `gateway_priority`: the sandbox's endpoint with the highest gives it its default route.

    Raises NoSuchNetwork, NoSuchSandbox, AlreadyConnected, AddressTaken, PortTaken,
    InterfaceTaken, Exhausted, InvalidRequest, KernelError.

    Example:  net connect my-net web -p 8080:80
    """
    record = engine.state.network(network)
    known = record.network
    driver = engine.driver(known)
    box = engine.sandbox(sandbox)
    if known.state != "ready":
        raise InvalidRequest(f"network {known.name} is being removed or made", "run: net repair")
    if engine.state.store.get(keys.member_key(known.id, box.name)):
        raise _already(engine, known, box)
    host = engine.facts()
    if box.netns.inode == host.netns and driver.capabilities.own_netns:
        raise InvalidRequest(
            f"{box.name} is the host's own network namespace", "name a sandbox with one of its own"
        )
    others = engine.state.endpoints_of(box.name)
    if any(other.endpoint.sandbox.netns.inode != box.netns.inode for other in others):
        raise InUse(f"an earlier {box.name}, which has ended, still has endpoints", "run: net gc")
    endpoint_id = names.new_id()
    checked = canonical(options or {}, driver.endpoint_options, f"an endpoint on {known.name}")
    if "host_interface_name" in checked:
        names.check_device(checked["host_interface_name"])
    requests = list(publish)
    if requests and not driver.capabilities.publishes:
        raise Unsupported(
            f"ports can't be published on {known.name}: {driver.capabilities.why_not_published}",
            "publish on another network of the sandbox",
        )
    chosen = choose_addresses(engine.state, known, driver.capabilities, addresses)
    endpoint = Endpoint(
        id=endpoint_id,
        network=known.id,
        sandbox=box,
        ifname=_ifname(engine, known, box, ifname),
        mac=_mac(mac) if mac else names.mac_of(endpoint_id),
        addresses=tuple(choice.address for choice in chosen),
        ports=resolve_ports(engine, known, requests, host),
        aliases=tuple(names.check_name(alias, "alias") for alias in aliases),
        links=dict(links or {}),
        options=checked,
        gateway_priority=gateway_priority,
        created=engine.clock(),
    )
    changes = rewire_sandbox(engine, {known.id: known}, others, joining=endpoint, host=host)
    port_conditions, port_puts = claim_ports(known, endpoint)
    leases = lease_puts(known.id, chosen, endpoint, host.boot_id, engine.clock())
    claims = {
        keys.member_key(known.id, box.name): endpoint.id,
        keys.interface_key(box.name, endpoint.ifname): f"{known.id}/{endpoint.id}",
        **leases,
        **port_puts,
    }
    box_record = engine.state.store.get(keys.sandbox_key(box.name))
    fixed = {
        keys.sandbox_key(box.name): keys.dump(box),
        keys.namespace_key(box.netns.inode): box.name,
        **{
            keys.cursor_key(known.id, choice.prefix): str(choice.address.ip)
            for choice in chosen
            if choice.moves_cursor
        },
    }
    endpoint_records = puts(changes, ready=False)
    return Operation(
        subject=f"the endpoint of {box.name} on {known.name}",
        sandbox=box,
        holds=held(box, changes),
        plan=plan_of(changes, others),
        result=next(c.after.endpoint for c in reversed(changes) if c.after),
        begin=Commit(
            conditions=(
                keys.unchanged(record),
                # Written by every change of the sandbox's endpoints, so that two at once can't
                # both take the default route.
                Unchanged(keys.sandbox_key(box.name), box_record.revision if box_record else 0),
                *(Absent(key) for key in claims if key not in port_puts),
                *port_conditions,
                *conditions(changes),
            ),
            put={**claims, **fixed, **endpoint_records},
        ),
        done=Commit(put=puts(changes, ready=True), durable=False),
        undo=Commit(
            put=reverts(changes),
            delete=(*claims, keys.endpoint_key(known.id, endpoint.id)),
        ),
    )


def _already(engine: Engine, network: Network, box: Sandbox) -> AlreadyConnected:
    state = engine.state.endpoint(network, box.name).endpoint.state
    if state == "ready":
        return AlreadyConnected(
            f"{box.name} is connected to {network.name}", f"see: net inspect {network.name}"
        )
    return AlreadyConnected(
        f"{box.name} is being connected to {network.name}, or taken off it",
        "wait for who does it; if nobody does any more, run: net repair",
    )


def _ifname(engine: Engine, network: Network, box: Sandbox, wanted: str | None) -> str:
    """The interface's name in the sandbox: as asked, else the prefix and the lowest free number."""
    taken = {r.endpoint.ifname for r in engine.state.endpoints_of(box.name)}
    if box.kind != "name":
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


def _mac(text: str) -> str:
    """A MAC address in any of the usual notations, as lower-case text with colons."""
    digits = text.lower().translate({ord(c): None for c in ":-."})
    if len(digits) != _MAC_DIGITS or any(c not in "0123456789abcdef" for c in digits):
        raise InvalidAddress(f"{text!r} is no MAC address", "write it as 02:00:5e:00:53:01")
    if int(digits[:2], 16) & 1 or not int(digits, 16):
        raise InvalidAddress(
            f"{text!r} is a group address or zero", "the first byte of a MAC address is even"
        )
    return ":".join(digits[i : i + 2] for i in range(0, _MAC_DIGITS, 2))
