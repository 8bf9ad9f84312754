"""Sandboxes of our own: named network namespaces, and processes that `net run` started."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from netlib import keys, names
from netlib.dns.resolv import check_servers, check_words
from netlib.engine import Engine
from netlib.errors import (
    InUse,
    InvalidName,
    NameTaken,
    NoSuchNetwork,
    NotConnected,
    StoreConflict,
)
from netlib.model import HOST, Netns, Sandbox
from netlib.plan import Plan, joined
from netlib.records import dump_sandbox
from netlib.store import Absent, Commit, Condition, Unchanged
from netlib.values import replace
from netlib.verbs.departing import depart, leave


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
    made: list[Sandbox] = []

    def claim(netns: Netns) -> None:
        asked = Sandbox(
            name=name,
            netns=netns,
            hostname=hostname,
            labels=dict(labels or {}),
            environment=dict(environment or {}),
        )
        made.append(_register(engine, asked))

    with engine.lock.shared():
        try:
            netns = engine.kernel.make_namespace(name, claim)
            engine.changed(made[0])
        except BaseException:
            for box in made:
                engine.kernel.drop_namespace(box.netns)
                engine.state.store.commit(Commit(put={}, delete=engine.state.sandbox_keys(box)))
            raise
    assert netns == made[0].netns
    return made[0]


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
    host's own is nobody's. A namespace without its inode is the one that is there now.

    Raises InvalidName, NameTaken, InvalidOption, NamespaceGone.
    """
    _check_name(name)
    box = _register(
        engine,
        Sandbox(
            name=name,
            netns=_located(engine, netns, name),
            pid=pid,
            started=started,
            hostname=hostname,
            servers=check_servers(servers),
            search=check_words(search, "--dns-search"),
            resolver_options=check_words(resolver_options, "--dns-opt"),
            extra_hosts=tuple(extra_hosts),
            labels=dict(labels or {}),
            environment=dict(environment or {}),
        ),
    )
    engine.changed(box)
    return box


def _located(engine: Engine, netns: Netns, name: str) -> Netns:
    """A namespace with its inode, by which it is told from others."""
    if netns.inode:
        return netns
    there = engine.kernel.enter(netns.path, name) if netns.path else None
    return replace(netns, inode=there.inode if there else engine.facts().netns)


def _register(engine: Engine, asked: Sandbox) -> Sandbox:
    """Note a sandbox in the state; it shares the stack of the one that has its namespace."""
    engine.identify()
    while True:
        try:
            return _noted(engine, asked)
        except StoreConflict:
            # Else somebody else came first with the namespace: then it is shared.
            _check_free(engine, asked.name)


def _noted(engine: Engine, asked: Sandbox) -> Sandbox:
    """Likewise. StoreConflict where somebody else noted its name or its namespace meanwhile."""
    is_host = asked.netns.inode == engine.facts().netns
    inode = keys.namespace_key(asked.netns.inode)
    earlier = engine.state.store.get(inode)
    owner = None if is_host else engine.state.sandbox_in(asked.netns.inode)
    if owner is not None and not engine.kernel.alive(owner.netns):
        owner = None  # numbers of namespaces are given again: this is another one
    box = replace(
        asked,
        hostname=asked.hostname or asked.name,
        created=engine.clock(),
        shares=owner.name if owner else "",
    )
    claims = {keys.sandbox_key(box.name): dump_sandbox(box)}
    conditions: list[Condition] = [Absent(keys.sandbox_key(box.name))]
    if not is_host and owner is None:
        claims[inode] = box.name
        conditions.append(Unchanged(inode, earlier.revision if earlier else 0))
    engine.state.store.commit(Commit(conditions=tuple(conditions), put=claims))
    return box


def remove_sandbox(engine: Engine, name: str) -> None:
    """Take a sandbox off all its networks and end it.

    Raises NoSuchSandbox, InUse where a process of `net run` goes on in it, LeftOver.

    Example:  net sandbox rm web
    """
    engine.identify()
    box = engine.state.sandbox(name)
    _check_idle(engine, box)
    while not _end(engine, box):
        for record in engine.state.endpoints_of(name):
            try:
                depart(engine, record)
            except (NotConnected, NoSuchNetwork):
                continue  # somebody else did it
    engine.changed(box)


def _end(engine: Engine, box: Sandbox) -> bool:
    """End a sandbox that has no endpoint; False where it has one.

    Alone, so that nobody connects it meanwhile.
    """
    with engine.lock.alone():
        now = engine.state.find_sandbox(box.name)
        if now is None or now.netns != box.netns:
            return True  # somebody else was first
        if engine.state.endpoints_of(box.name):
            return False
        if not box.shares and box.netns.inode != engine.facts().netns:
            engine.kernel.drop_namespace(box.netns)
        engine.state.store.commit(Commit(put={}, delete=engine.state.sandbox_keys(box)))
        return True


def plan_removal(engine: Engine, name: str) -> Plan:
    """What `remove_sandbox` would do, but for the end of the network namespace itself."""
    _check_idle(engine, engine.state.sandbox(name))
    return plan_departure(engine, name)


def plan_departure(engine: Engine, name: str) -> Plan:
    """What taking a sandbox off all its networks would do."""
    return joined(leave(engine, record).plan for record in engine.state.endpoints_of(name))


def _check_idle(engine: Engine, box: Sandbox) -> None:
    """Raise InUse where a process of `net run` goes on: others' processes are none of ours."""
    if box.kind == "name" and box.pid and engine.kernel.alive(box.netns):
        raise InUse(f"sandbox {box.name} runs process {box.pid}", f"run: net stop {box.name}")


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
