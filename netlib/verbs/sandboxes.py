"""Sandboxes of our own: named network namespaces, and processes that `net run` started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from netlib import names
from netlib import state as keys
from netlib.dns.resolv import check_servers
from netlib.engine import Engine
from netlib.errors import InUse, InvalidName, NameTaken, StoreConflict
from netlib.model import HOST, Netns, Sandbox
from netlib.operation import Operation
from netlib.plan import Plan
from netlib.store import Absent, Commit
from netlib.verbs.disconnect import leave
from netlib.verbs.remove import joined


def create_sandbox(
    engine: Engine,
    name: str,
    *,
    hostname: str = "",
    labels: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Sandbox:
    """Make a sandbox: a network namespace that stays, also for `ip netns exec`.

    Raises InvalidName, NameTaken, NotPermitted.

    Example:  net sandbox create web
    """
    _check_name(name)
    _check_free(engine, name)
    netns = engine.kernel.make_namespace(name)
    try:
        return register_sandbox(
            engine, name, netns, hostname=hostname, labels=labels, environment=environment
        )
    except NameTaken:
        engine.kernel.drop_namespace(netns)
        raise


def register_sandbox(
    engine: Engine,
    name: str,
    netns: Netns,
    *,
    pid: int = 0,
    started: int = 0,
    hostname: str = "",
    servers: Iterable[str] = (),
    search: Iterable[str] = (),
    resolver_options: Iterable[str] = (),
    extra_hosts: Iterable[str] = (),
    labels: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Sandbox:
    """Give a network namespace a name that can be used wherever a sandbox is asked for.

    `pid` is the process that it is for, `started` when that began (proc_pid_stat(5), field
    22). `servers`, `search`, `resolver_options` and `extra_hosts` (NAME:IP or
    NAME:host-gateway) are for its resolv.conf and hosts; `environment` is what links tell
    others of it. Whose namespace another sandbox has already shares that one's stack; the
    host's own is nobody's.

    Raises InvalidName, NameTaken, InvalidOption.
    """
    _check_name(name)
    is_host = netns.inode == engine.facts().netns
    owner = None if is_host else engine.state.sandbox_in(netns.inode)
    box = Sandbox(
        name=name,
        netns=netns,
        pid=pid,
        started=started,
        hostname=hostname or name,
        servers=check_servers(servers),
        search=tuple(search),
        resolver_options=tuple(resolver_options),
        extra_hosts=tuple(extra_hosts),
        labels=dict(labels or {}),
        created=engine.clock(),
        shares=owner.name if owner else "",
        environment=dict(environment or {}),
    )
    claims = {keys.sandbox_key(name): keys.dump(box)}
    if not is_host and owner is None:
        claims[keys.namespace_key(netns.inode)] = name
    try:
        engine.state.store.commit(
            Commit(conditions=tuple(Absent(key) for key in claims), put=claims)
        )
    except StoreConflict:
        _check_free(engine, name)
        raise
    engine.changed(box)
    return box


def remove_sandbox(engine: Engine, name: str) -> None:
    """Take a sandbox off all its networks and end it.

    Raises NoSuchSandbox, InUse where a process of `net run` goes on in it, LeftOver.

    Example:  net sandbox rm web
    """
    box = engine.state.sandbox(name)
    if box.pid and engine.kernel.alive(box.netns):
        raise InUse(f"sandbox {name} runs process {box.pid}", f"run: net stop {name}")
    for record in engine.state.endpoints_of(name):
        known = engine.state.network(record.endpoint.network).network

        def prepare() -> Operation[None]:
            return leave(engine, engine.state.endpoint(known, name))  # noqa: B023 - run at once

        engine.run(prepare)
    gone = [keys.sandbox_key(name)]
    if not box.shares and box.netns.inode != engine.facts().netns:
        engine.kernel.drop_namespace(box.netns)
        gone.append(keys.namespace_key(box.netns.inode))
    engine.state.store.commit(Commit(put={}, delete=tuple(gone)))
    engine.changed(box)


def plan_removal(engine: Engine, name: str) -> Plan:
    """What `remove_sandbox` would do, but for the end of the network namespace itself."""
    engine.state.sandbox(name)
    return joined(leave(engine, record).plan for record in engine.state.endpoints_of(name))


def _check_name(name: str) -> None:
    names.check_name(name, "sandbox")
    if name == HOST.name:
        raise InvalidName(f"{name!r} is what the host itself is called", "choose another name")


def _check_free(engine: Engine, name: str) -> None:
    known = engine.state.find_sandbox(name)
    if known is None:
        return
    if engine.kernel.alive(known.netns):
        raise NameTaken(
            f"there is a sandbox {name!r}", f"choose another name, or run: net sandbox rm {name}"
        )
    raise NameTaken(f"there was a sandbox {name!r}, and it has ended", "run: net gc")
