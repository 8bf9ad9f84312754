"""The network that a configuration speaks of: found, or made as it is declared."""

from __future__ import annotations

import time
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from netlib import built_in
from netlib.errors import Conflict, NameTaken, NoSuchNetwork, PoolOverlap
from netlib.frontends.cni.config import Config
from netlib.frontends.cni.declaring import Declaration, Range
from netlib.frontends.cni.delegate import needs_interface
from netlib.frontends.cni.refusal import TRY_AGAIN, Refusal
from netlib.model import Network, Subnet
from netlib.net import Net
from netlib.options import canonical
from netlib.records import NetworkRecord
from netlib.verbs.create import ensure_made
from netlib.verbs.remove import dissolve

_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.005


def find(net: Net, config: Config) -> Network | None:
    """The network of this name, if there is one."""
    record = net.engine.state.find_network(config.network)
    return record.network if record else None


def plan(net: Net, config: Config) -> None:
    """Look whether the network could be made as it is declared. Raises NoSuchNetwork and more."""
    if config.declared is None:
        net.engine.state.network(config.network)
    elif not config.delegate:  # else its subnets are not known yet
        net.plan.create(config.network, **_asked(config))


def ensure(
    net: Net, config: Config, more: tuple[Range, ...] = (), routes: str = ""
) -> NetworkRecord:
    """The network, ready, with what is declared, `more` subnets and `routes`; made if need be.

    Several that ensure one network at once get the same. Raises NoSuchNetwork, Conflict,
    InvalidRequest, Refusal.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        record = net.engine.state.find_network(config.network)
        if record is None:
            if config.declared is None:
                net.engine.state.network(config.network)  # raises, and names what is near
            _make(net, config, more, routes)
        elif not record.revision:  # built in, or the cluster's
            ensure_made(net.engine, record.network.id)
        elif record.network.state != "ready":
            _wait(net, record.network, deadline)
        elif _adapt(net, config, record.network, more, routes):
            return record


def _asked(config: Config, more: tuple[Range, ...] = (), routes: str = "") -> dict[str, Any]:
    """What `Net.create` is told."""
    declared = config.declared or Declaration()
    wanted = (*declared.ranges, *more)
    return {
        "driver": declared.driver,
        "subnets": _subnets(wanted),
        "gateways": _gateways(wanted),
        "ip_ranges": _ranges(wanted),
        # The families of `more` are all: an IPAM plugin of others chose them.
        "ipv4": declared.ipv4 or bool(more),
        "ipv6": declared.ipv6 and not more,
        "addressed": declared.addressed and not needs_interface(config),
        "internal": declared.internal,
        "options": _options(declared, routes),
        "labels": declared.labels,
    }


def _options(declared: Declaration, routes: str) -> dict[str, str]:
    return {**declared.options, **({"routes": routes} if routes else {})}


def _make(net: Net, config: Config, more: tuple[Range, ...], routes: str) -> None:
    """Make it, unless somebody else is first."""
    try:
        net.create(config.network, **_asked(config, more, routes))
    except (NameTaken, PoolOverlap):
        if find(net, config) is None:
            raise


def _wait(net: Net, known: Network, deadline: float) -> None:
    """Let who makes or removes the network end; if that was somebody who died, clean up."""
    if time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        with net.engine.lock.alone():
            record = net.engine.state.find_network(known.id)
            abandoned = record is not None and record.network.state != "ready"
            if record and abandoned and not net.engine.state.has_endpoints(known.id):
                net.engine.run_locked(lambda: dissolve(net.engine, record))
        return
    raise Refusal(TRY_AGAIN, f"network {known.name} is {known.state}", "run: net repair")


def _adapt(net: Net, config: Config, known: Network, more: tuple[Range, ...], routes: str) -> bool:
    """Whether the network has all that the configuration has; else it is given what it lacks."""
    declared = config.declared
    if declared is None and not more:
        return True
    declared = declared or Declaration(driver=known.driver, internal=known.internal)
    if (declared.driver, declared.internal) != (known.driver, known.internal):
        raise Conflict(
            f"there is a network {known.name!r} of driver {known.driver}"
            f"{', internal' if known.internal else ''}, and the configuration declares another",
            "give the configuration another name"
            if known.name in built_in.NAMES
            else f"change the configuration, or run: net rm {known.name}",
        )
    options: dict[str, str] = {}
    wanted = _options(declared, routes)
    if wanted:
        kind = net.engine.registry.get(known.driver)
        asked = canonical(wanted, kind.options, f"driver {known.driver}")
        options = {k: v for k, v in asked.items() if known.options.get(k) != v}
    have = {str(subnet.prefix): subnet for subnet in known.subnets}
    new = tuple(r for r in (*declared.ranges, *more) if r.subnet not in have)
    _check_same(known, declared, have)
    labels = {k: v for k, v in declared.labels.items() if known.labels.get(k) != v}
    if not options and not new and not labels:
        return True
    try:
        net.update(
            known.id,
            options=options,
            labels=labels,
            subnets=_subnets(new),
            gateways=_gateways(new),
            ip_ranges=_ranges(new),
        )
    except (PoolOverlap, NoSuchNetwork):
        seen = find(net, config)
        if seen is None or {str(s.prefix) for s in seen.subnets} == have.keys():
            raise  # else somebody else added it meanwhile
    return False


def _check_same(known: Network, declared: Declaration, have: Mapping[str, Subnet]) -> None:
    """Raise Conflict for what the configuration has otherwise, and can't change any more."""
    differing: list[str] = []
    if declared.ipv6 and known.subnets and 6 not in known.families():
        differing.append("no IPv6 subnet")
    for one in declared.ranges:
        subnet = have.get(one.subnet)
        if subnet is None:
            continue
        if one.gateway and ip_address(one.gateway) != subnet.gateway:
            differing.append(f"the gateway {subnet.gateway or 'none'} in {one.subnet}")
        first, last = _ends(one)
        if (one.first or one.last) and not any(
            (ip_address(first), ip_address(last)) == (r.first, r.last) for r in subnet.ranges
        ):
            ranges = ", ".join(f"{r.first}-{r.last}" for r in subnet.ranges) or "all addresses"
            differing.append(f"{ranges} to allocate from in {one.subnet}")
    if differing:
        raise Conflict(
            f"network {known.name} has {'; '.join(differing)}, unlike the configuration",
            f"change that, or when no container is attached any more, run: net rm {known.name}",
        )


def _ends(one: Range) -> tuple[str, str]:
    """A range's ends; where only one is given, the other is the subnet's."""
    prefix = ip_network(one.subnet)
    return one.first or str(prefix[0]), one.last or str(prefix[-1])


def _subnets(wanted: tuple[Range, ...]) -> list[str]:
    return list(dict.fromkeys(one.subnet for one in wanted))


def _gateways(wanted: tuple[Range, ...]) -> list[str]:
    return list(dict.fromkeys(one.gateway for one in wanted if one.gateway))


def _ranges(wanted: tuple[Range, ...]) -> list[str]:
    """The parts to allocate from."""
    return ["-".join(_ends(one)) for one in wanted if one.first or one.last]
