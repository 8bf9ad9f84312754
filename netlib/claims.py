"""What networks claim besides names and prefixes: a driver's only network, a parent device."""

from __future__ import annotations

from netlib import built_in, keys
from netlib.driver import Driver
from netlib.engine import Engine
from netlib.errors import Conflict, SingleNetwork
from netlib.model import Network
from netlib.records import dump, load
from netlib.store import Absent, Condition


def claims_of(driver: Driver, network: Network) -> tuple[tuple[Condition, ...], dict[str, str]]:
    """The conditions and records that give a network what is to be its own."""
    conditions: list[Condition] = []
    puts: dict[str, str] = {}
    value = dump({"network": network.id, "name": network.name})
    if driver.capabilities.single:
        key = keys.single_key(network.driver)
        conditions.append(Absent(key))
        puts[key] = value
    for device in _parents(driver, network):
        everything, mine = _ranges(driver, network, device)
        if is_exclusive(driver, network):
            conditions.append(Absent(*everything))
        else:
            conditions += [Absent(everything[0], mine[0]), Absent(mine[1], everything[1])]
        puts[keys.device_key(device, _group(driver, network), network.id)] = value
    return tuple(conditions), puts


def check_claims(engine: Engine, driver: Driver, network: Network) -> None:
    """Raise SingleNetwork or Conflict, naming the other network, where a claim can't be met."""
    if driver.capabilities.single:
        other = _single(engine, network)
        if other is not None:
            raise SingleNetwork(
                f"there can be one network of driver {network.driver}, and there is {other}",
                f"use it: net connect {other} SANDBOX",
            )
    for device in _parents(driver, network):
        everything, mine = _ranges(driver, network, device)
        for record in engine.state.store.range(*everything):
            if is_exclusive(driver, network) or not mine[0] <= record.key < mine[1]:
                holder = engine.state.find_network(load(record.value)["network"])
                if holder is not None:  # else it went just now
                    raise _taken(engine, driver, network, device, holder.network)


def _taken(
    engine: Engine, driver: Driver, network: Network, device: str, other: Network
) -> Conflict:
    """The error that a parent is another network's, which that one can't share, and why."""
    if is_exclusive(driver, network):
        why = f"{network.name} would have it for itself alone, and network {other.name} is on it"
    elif other.driver != network.driver:
        why = f"network {other.name} has it by driver {other.driver}, and they can't share one"
    elif is_exclusive(engine.registry.get(other.driver), other):
        why = f"network {other.name} has it for itself alone"
    else:
        mine, theirs = (_apart(driver, one) for one in (network, other))
        why = f"network {other.name} has it by {theirs}, and can't share it with {mine}"
    return Conflict(
        f"{device} can't be the parent of {network.name}: {why}",
        f"use another parent, or run: net rm {other.name}",
    )


def _single(engine: Engine, network: Network) -> str | None:
    record = engine.state.store.get(keys.single_key(network.driver))
    if record is not None:
        return str(load(record.value)["name"])
    unmade = map(built_in.network, built_in.NAMES)
    return next((n.name for n in unmade if n.driver == network.driver and n.id != network.id), None)


def _parents(driver: Driver, network: Network) -> list[str]:
    return [
        network.options[option.key]
        for option in driver.options
        if option.parent and option.key in network.options
    ]


def _ranges(
    driver: Driver, network: Network, device: str
) -> tuple[tuple[str, str], tuple[str, str]]:
    """Those of all networks on a device, and of those that can share it with this one."""
    return keys.devices_of(device), keys.devices_of(device, _group(driver, network))


def _apart(driver: Driver, network: Network) -> str:
    """The options that networks of one parent have in common: `mode l2, flag bridge`."""
    shared = [o for o in driver.options if o.apart]
    return ", ".join(f"{o.key} {network.options.get(o.key, o.default)}" for o in shared)


def _group(driver: Driver, network: Network) -> str:
    values = [network.options.get(o.key, o.default) for o in driver.options if o.apart]
    alone = ["alone"] if is_exclusive(driver, network) else []
    return ":".join([network.driver, *values, *alone])


def is_exclusive(driver: Driver, network: Network) -> bool:
    """Whether a network has its parent for itself, down to the parent's MAC address."""
    return any(
        network.options.get(option.key, option.default) in option.exclusive
        for option in driver.options
        if option.exclusive
    )
