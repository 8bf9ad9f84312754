"""What the whole host does with packets: shown, switched, and switched back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from netlib import keys
from netlib.engine import Engine
from netlib.errors import InUse, NotOurs
from netlib.kernel.switches import DROP_IN, SYSCTLS, Policy
from netlib.model import FAMILIES, Family
from netlib.records import dump, load
from netlib.store import Commit
from netlib.values import dataclass
from netlib.wiring import FirewallBase, Forwarding, Wiring

if TYPE_CHECKING:
    from netlib.kernel.netfilter.foreign import Obstacle


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingStatus:
    """Whether a family is forwarded, and who of us switched it on.

    `since` is in seconds since the epoch, None where we did not; `network` is that for whom,
    empty for `net host`. `kept`: it is on after a boot too. `users` are the networks that
    need it.
    """

    family: Family
    on: bool
    since: float | None
    network: str
    kept: bool
    users: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostStatus:
    """The host as it forwards, and what of ours is there whatever networks there are.

    `policies` are those of iptables' FORWARD chains by program, `policies_before` what we
    changed. `base`: our table or chains are there; `elsewhere` are the other firewalls that have
    rules of ours. `obstacles` are foreign chains that refuse what we let through.
    """

    firewall: str
    base: bool
    elsewhere: tuple[str, ...]
    forwarding: tuple[ForwardingStatus, ...]
    policies: Mapping[str, Policy]
    policies_before: Mapping[str, Policy]
    obstacles: tuple[Obstacle, ...]


def host_status(engine: Engine) -> HostStatus:
    """How the host forwards packets, and what stands in the way.

    Example:  net host status
    """
    switches = engine.kernel.switches()
    on, kept = switches.forwarding(), switches.kept()
    notes = engine.state.forwarding_enabled_for()
    users = _users(engine)
    return HostStatus(
        firewall=engine.kernel.firewall,
        base=_has_base(engine),
        elsewhere=tuple(switches.elsewhere()),
        forwarding=tuple(
            ForwardingStatus(
                family=family,
                on=family in on,
                since=notes[family]["since"] if family in notes else None,
                network=notes[family]["network"] if family in notes else "",
                kept=family in kept,
                users=users[family],
            )
            for family in FAMILIES
        ),
        policies=switches.policies(),
        policies_before=_policies_before(engine),
        obstacles=tuple(switches.obstacles()),
    )


def plan_forwarding(
    engine: Engine, families: Iterable[Family], *, on: bool, force: bool = False
) -> tuple[str, ...]:
    """What `set_forwarding` would do, as commands."""
    families = tuple(families)
    switched = _to_switch(engine, families, on=on, force=force)
    commands = [f"sysctl -w {SYSCTLS[family]}={int(on)}" for family in switched]
    kept = set(engine.kernel.switches().kept())
    if on:
        fresh = sorted(set(families) - kept)
        commands += [f"echo '{SYSCTLS[family]} = 1' >>{DROP_IN}" for family in fresh]
    elif kept and kept <= set(families):
        commands.append(f"rm {DROP_IN}")
    else:
        gone = sorted(kept & set(families))
        commands += [f"sed -i '/^{SYSCTLS[family]} /d' {DROP_IN}" for family in gone]
    return tuple(f"host  {command}" for command in commands)


def set_forwarding(
    engine: Engine, families: Iterable[Family], *, on: bool, force: bool = False
) -> tuple[Family, ...]:
    """Switch forwarding on, also after a boot, or off again; the families that changed.

    Off is only for what we switched on and no network needs, unless `force` is given. What
    networks need is switched on again by the next of them, by repair, and by a daemon at once.

    Raises NotOurs, InUse naming the networks, NotPermitted.

    Example:  net host forwarding on --ipv6
    """
    families = tuple(families)
    with engine.lock.alone():  # or a network that needs it could be made meanwhile
        engine.identify()
        switched = _to_switch(engine, families, on=on, force=force)
        switches = engine.kernel.switches()
        notes = engine.state.forwarding_enabled_for()
        note = dump({"network": "", "since": engine.clock()})
        # Noted first: what was switched and not noted could never be switched back.
        if on:
            fresh = [family for family in switched if family not in notes]
            engine.state.store.commit(
                Commit(put={keys.forwarding_key(family): note for family in fresh})
            )
        for family in switched:
            switches.set_forwarding(family, on=on)
        kept = set(switches.kept())
        switches.keep(kept | set(families) if on else kept - set(families))
        if not on:
            gone = tuple(keys.forwarding_key(family) for family in families)
            engine.state.store.commit(Commit(put={}, delete=gone))
            users = _users(engine)
            engine.tell(
                f"IPv{family} forwarding is needed by {', '.join(users[family])}: where a daemon "
                "runs, it is on again at once, else with net repair"
                for family in switched
                if users[family]
            )
    return switched


def plan_forward_policy(engine: Engine, policy: Policy | Literal["leave"]) -> tuple[str, ...]:
    """What `set_forward_policy` would do, as commands."""
    wanted = _policies_to_set(engine, policy)
    dropping = _dropping(engine, wanted)
    obstacles = engine.kernel.switches().obstacles(dropping) if dropping else []
    passes = [rule for obstacle in obstacles if obstacle.ours_to_set for rule in obstacle.rules]
    sets = [f"{program} -P FORWARD {what.upper()}" for program, what in wanted.items()]
    return tuple(f"host  {command}" for command in [*passes, *sets])


def set_forward_policy(engine: Engine, policy: Policy | Literal["leave"]) -> Mapping[str, Policy]:
    """Set the policy of iptables' FORWARD chains, or give back what they were; what changed.

    What networks let through goes on to pass where the policy becomes drop.

    Raises KernelError, NotPermitted.

    Example:  net host forward-policy accept
    """
    with engine.lock.alone():  # or what another one sets now would be taken for what was before
        engine.identify()
        wanted = _policies_to_set(engine, policy)
        switches = engine.kernel.switches()
        before = _policies_before(engine)
        now = switches.policies()
        if policy != "leave" and wanted:
            # What was before the first change is what is given back at last.
            known = {**{program: now[program] for program in wanted}, **before}
            engine.state.store.commit(Commit(put={keys.FORWARD_POLICY_KEY: dump(known)}))
        # First, so that no packet that we let through meets the new policy.
        if dropping := _dropping(engine, wanted):
            switches.let_us_pass(dropping)
        switches.set_policies(wanted)
        if policy == "leave":
            engine.state.store.commit(Commit(put={}, delete=(keys.FORWARD_POLICY_KEY,)))
    return wanted


def _to_switch(
    engine: Engine, families: Iterable[Family], *, on: bool, force: bool
) -> tuple[Family, ...]:
    now = engine.kernel.switches().forwarding()
    switched = tuple(family for family in families if (family in now) != on)
    if on or force:
        return switched
    notes, users = engine.state.forwarding_enabled_for(), _users(engine)
    for family in switched:
        if family not in notes:
            raise NotOurs(
                f"IPv{family} forwarding was switched on by somebody else",
                "switch it off all the same with --force",
            )
        if users[family]:
            raise InUse(
                f"IPv{family} forwarding is needed by {', '.join(users[family])}",
                "remove those networks first, or switch it off all the same with --force",
            )
    return switched


def _users(engine: Engine) -> dict[Family, tuple[str, ...]]:
    users: dict[Family, list[str]] = {family: [] for family in FAMILIES}
    for record in engine.state.networks():
        for noun in record.wiring:
            if isinstance(noun, Forwarding):
                users[noun.family].append(record.network.name)
    return {family: tuple(names) for family, names in users.items()}


def _policies_to_set(engine: Engine, policy: Policy | Literal["leave"]) -> dict[str, Policy]:
    now = engine.kernel.switches().policies()
    if policy == "leave":
        before = _policies_before(engine)
        return {name: was for name, was in before.items() if now.get(name, was) != was}
    return {name: policy for name, is_now in now.items() if is_now != policy}


def _dropping(engine: Engine, wanted: Mapping[str, Policy]) -> tuple[str, ...]:
    """The programs whose chains are to drop from now on, if anything of ours is to pass them."""
    dropping = tuple(program for program, policy in wanted.items() if policy == "drop")
    return dropping if dropping and _has_base(engine) else ()


def _has_base(engine: Engine) -> bool:
    return bool(len(engine.kernel.observe(Wiring([FirewallBase()]))))


def _policies_before(engine: Engine) -> dict[str, Policy]:
    """What we changed, as it was."""
    record = engine.state.store.get(keys.FORWARD_POLICY_KEY)
    known: dict[str, Any] = load(record.value) if record else {}
    return known
