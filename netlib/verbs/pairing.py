"""A sandbox and the network that it is to be on: found, and fit for each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from netlib import keys, names
from netlib.claims import is_exclusive
from netlib.driver import Driver
from netlib.engine import Engine
from netlib.errors import (
    AlreadyConnected,
    Conflict,
    InterfaceTaken,
    InUse,
    InvalidRequest,
    Unsupported,
)
from netlib.model import HostFacts, Network, Sandbox
from netlib.options import canonical
from netlib.plan import Plan
from netlib.records import EndpointRecord, NetworkRecord, unchanged
from netlib.rewiring import check_ready
from netlib.store import Absent, Condition, Record, Unchanged
from netlib.values import dataclass, replace
from netlib.verbs.create import first_use


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both, as they are before an endpoint joins them.

    `record` is the network's; `making` makes one that is made when it is first used; `alone`: it
    is for one sandbox. `box_record` is the sandbox's, None where it is not known yet, and
    `others` are its endpoints. `again`: it may be on the network by now. `options` are the new
    endpoint's, as its driver knows them.
    """

    record: NetworkRecord
    making: Plan
    driver: Driver
    alone: bool
    box: Sandbox
    box_record: Record | None
    others: list[EndpointRecord]
    again: bool
    options: Mapping[str, str]
    host: HostFacts

    def conditions(self) -> tuple[Condition, ...]:
        """That all is still as it was found."""
        network_id, box = self.record.network.id, self.box.name
        revision = self.box_record.revision if self.box_record else 0
        return (
            unchanged(self.record),
            # Written by every change of the sandbox's endpoints, so that two at once can't
            # both take the default route.
            Unchanged(keys.sandbox_key(box), revision),
            *(() if self.again else (Absent(*keys.members(network_id, box)),)),
            *((keys.no_members(network_id),) if self.alone else ()),
        )


def find_pair(
    engine: Engine,
    network: str,
    sandbox: str | Sandbox,
    options: Mapping[str, str],
    *,
    again: bool,
) -> Pair:
    """Both, if they may be joined; the errors are those of connect."""
    record = engine.state.network(network)
    making = Plan()
    if not record.revision:  # it is made when it is first used, and this is only to be planned
        made = first_use(engine, record)
        record, making = replace(record, network=made.result), made.plan
    known = record.network
    driver = engine.driver(known)
    box = engine.sandbox(sandbox)
    check_ready(known)
    if not again and engine.state.store.range(*keys.members(known.id, box.name), limit=1):
        raise _already(engine, known, box)
    alone = is_exclusive(driver, known)
    if alone:
        _check_alone(engine, known)
    checked = canonical(options, driver.endpoint_options, f"an endpoint on {known.name}")
    host = _host(engine, checked.get("host_interface_name"))
    pair = Pair(
        record=record,
        making=making,
        driver=driver,
        alone=alone,
        box=box,
        box_record=engine.state.store.get(keys.sandbox_key(box.name)),
        others=engine.state.endpoints_of(box.name),
        again=again,
        options=checked,
        host=host,
    )
    _check_place(engine, pair)
    return pair


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


def _host(engine: Engine, name: str | None) -> HostFacts:
    """The host, which has no interface of the name that the endpoint's other end is to have."""
    host = engine.facts([names.check_device(name)] if name else [])
    if host.devices:
        raise InterfaceTaken(f"the host has an interface {name}", "choose another name")
    return host


def _check_place(engine: Engine, pair: Pair) -> None:
    """Whether the sandbox is where, and alone as, the driver needs it."""
    network, box, able = pair.record.network, pair.box, pair.driver.capabilities
    is_host = box.netns.inode == pair.host.netns
    if is_host and able.own_netns:
        raise InvalidRequest(
            f"{box.name} is the host's own network namespace", "name a sandbox with one of its own"
        )
    if not is_host and not able.own_netns:
        raise Unsupported(
            f"{box.name} has a network namespace of its own, and can't change over to the host's",
            f"start it there: net run --network {network.name} -- COMMAND",
        )
    check_nowhere_else(engine, box, pair.others)
    if able.alone and pair.others:
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
