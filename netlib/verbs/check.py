"""Compare the host with what the state says, and mend it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import TypeVar

from netlib.apply import apply, tear_down
from netlib.engine import Engine
from netlib.errors import LockStuck, NetError, NotPermitted, StoreError
from netlib.model import Sandbox
from netlib.plan import Create, Plan, diff, joined
from netlib.plan import subject as subject_of
from netlib.records import EndpointRecord, NetworkRecord
from netlib.store import Commit
from netlib.values import dataclass
from netlib.verbs.departing import depart_all, leave
from netlib.verbs.half_done import leftovers, settle, stale_claims, title
from netlib.verbs.marks import ours, strange_members
from netlib.verbs.remove import Watch
from netlib.wiring import FirewallBase, Layer, Link, Noun, Vxlan, Wiring

T = TypeVar("T")

# Longer than operations take, but for a repair of very much.
_RUNNING_SECONDS = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A part of the state that the host does not show as it should be.

    `subject` is "network NAME", "SANDBOX on NAME", "firewall" (foreign chains that refuse what
    we let through) or "host"; `plan` would mend it, and is empty where nothing can (`note` says
    why).
    """

    subject: str
    plan: Plan
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """What a repair did: findings that were mended, and those that failed with their errors."""

    mended: tuple[Finding, ...]
    failed: tuple[tuple[Finding, NetError], ...]
    skipped: tuple[Finding, ...]


def check(engine: Engine, target: str | None = None) -> tuple[Finding, ...]:
    """Every difference between the host and the state; empty: there is none.

    `target` limits it to a network (name, id) or a sandbox. What running operations are at is no
    difference: where there seems to be one, they are waited for, some seconds.

    Raises NoSuchNetwork.

    Example:  net check my-net
    """
    return tuple(past_running(engine, lambda: _look(engine, target)))


def past_running(engine: Engine, look: Callable[[], Sequence[T]]) -> Sequence[T]:
    """What is amiss by `look`, which looks again after what runs where something seems to be."""
    found = look()
    if found:
        with ExitStack() as held:
            # Who can't wait, or not for so long, looks all the same.
            with suppress(BlockingIOError, LockStuck, NotPermitted, StoreError):
                held.enter_context(engine.lock.alone(_RUNNING_SECONDS))
            return look()
    return found


def _look(engine: Engine, target: str | None = None) -> tuple[Finding, ...]:
    engine.identify(note=False)
    if target is not None:
        return examine(engine, *_scope(engine, target))
    return (*_strangers(engine), *_amiss(engine))


def _amiss(engine: Engine) -> tuple[Finding, ...]:
    """What is not as the state has it; not what the state does not have."""
    found = examine(engine, engine.state.networks(), engine.state.endpoints())
    return (
        *found,
        *_elsewhere(engine),
        *_in_the_way(engine),
        *_unheld(engine),
        *_membership(engine),
    )


def _membership(engine: Engine) -> list[Finding]:
    """What the host has for being a member of a cluster."""
    if engine.meeting.membership() is None:
        return []
    from netlib.verbs.peers import (  # few hosts are in a cluster
        member_wiring,
        recorded_membership,
        why_apart,
    )

    strange = strange_members(engine, lambda: recorded_membership(engine) | member_wiring(engine))
    wanted = member_wiring(engine)
    lacking = missing(wanted, engine.kernel.observe(wanted)) if wanted else Plan()
    plan = joined([diff(have=strange, want=Wiring()), lacking])
    note = "others than its members are taken for such" if strange else ""
    subject = "membership of the cluster"
    found = [Finding(subject=subject, plan=plan, note=note)] if plan else []
    return [*found, *(Finding(subject=subject, plan=Plan(), note=n) for n in why_apart(engine))]


def examine(
    engine: Engine, networks: list[NetworkRecord], endpoints: list[EndpointRecord]
) -> tuple[Finding, ...]:
    """Likewise, of these networks and endpoints alone: it costs as much as they are many."""
    seen = _observed(engine, [*networks, *endpoints])
    found = (*_networks(engine, networks, seen), *_endpoints(engine, endpoints, seen))
    spanning = [r for r in networks if r.network.underlay is not None]
    if not spanning:
        return found
    from netlib.verbs.peers import examine_peers  # few hosts are in a cluster

    made = {
        noun.name
        for finding in found
        for step in finding.plan.steps()
        for noun in ([step.noun] if isinstance(step, Create) else [])
        if isinstance(noun, Link)
    }
    return (
        *found,
        *(
            Finding(subject=subject, plan=plan, note=note)
            for record in spanning
            for subject, plan, note in examine_peers(engine, record, made)
        ),
    )


def repair(engine: Engine, watch: Watch | None = None) -> Repair:
    """Make the host equal the state: finish or take back what a crash left half done, mend all.

    Sandboxes' files, too: who died between a change and writing them left them as they were.
    Endpoints of sandboxes that have ended are left to `net gc`. Waits for running operations.
    With no firewall (`none`) it takes away the rules that another one has, and warns of it.
    `watch` is told each subject with its number and how many there are.

    Example:  net repair
    """
    with engine.lock.alone():
        engine.identify()
        failed: list[tuple[Finding, NetError]] = []
        mended = _handed_over(engine)
        for leftover, error in settle(engine):
            finding = Finding(subject=leftover.subject, plan=Plan(), note=leftover.note)
            if error is None:
                mended.append(finding)
            else:
                failed.append((finding, error))
        skipped: list[Finding] = []

        def mend(finding: Finding, act: Callable[[Plan], None]) -> None:
            try:
                act(finding.plan)
            except NetError as error:
                failed.append((finding, error))
            else:
                mended.append(finding)

        # First of all, for it may be in the way: the other end of a pair that was renamed has
        # the place in the sandbox that the new one is to have; a range of ports that came back
        # with rules which somebody had saved has those that are published now.
        for finding in _strangers(engine):
            mend(finding, lambda p: tear_down(p, engine.kernel, "what the state does not know"))
        findings = _amiss(engine)
        for number, finding in enumerate(findings):
            if watch is not None:
                watch(finding.subject, number, len(findings))
            if finding.plan:
                mend(finding, lambda p: apply(p, engine.kernel))
            else:
                skipped.append(finding)
        try:
            engine.changed(*engine.state.sandboxes())
        except NetError as error:
            failed.append((Finding(subject="the files of sandboxes", plan=Plan()), error))
        return Repair(mended=tuple(mended), failed=tuple(failed), skipped=tuple(skipped))


def plan_repair(engine: Engine) -> Plan:
    """What `repair` would do."""
    half_done = [leftover.prepare().plan for leftover in leftovers(engine)]
    return joined([*half_done, *(finding.plan for finding in check(engine))])


def plan_garbage(engine: Engine) -> Plan:
    """What `collect_garbage` would do."""
    dead = [
        leave(engine, record).plan
        for record in engine.state.endpoints()
        if not engine.kernel.alive(record.endpoint.sandbox.netns)
    ]
    return joined([*dead, *(finding.plan for finding in _strangers(engine))])


def collect_garbage(engine: Engine) -> tuple[Sandbox, ...]:
    """Remove what belongs to sandboxes that have ended, and what is ours and nobody's.

    Returns the sandboxes that were given up. Waits for running operations.

    Example:  net gc
    """
    with engine.lock.alone():
        engine.identify()
        records = [
            record
            for record in engine.state.endpoints()
            if not engine.kernel.alive(record.endpoint.sandbox.netns)
        ]
        dead = {record.endpoint.sandbox.name: record.endpoint.sandbox for record in records}
        depart_all(engine, records, locked=True)
        for box in engine.state.sandboxes():
            if not engine.kernel.alive(box.netns):
                dead[box.name] = box
                _forget(engine, box)
        for finding in _strangers(engine):
            tear_down(finding.plan, engine.kernel, "what the state does not know")
        return tuple(dead.values())


def _forget(engine: Engine, box: Sandbox) -> None:
    if not box.shares:
        engine.kernel.drop_namespace(box.netns)  # what is left of one that was never finished
    engine.state.store.commit(Commit(put={}, delete=engine.state.sandbox_keys(box)))
    engine.changed(box)


def _scope(engine: Engine, target: str) -> tuple[list[NetworkRecord], list[EndpointRecord]]:
    if engine.state.find_sandbox(target) is not None:
        return [], engine.state.endpoints_of(target)
    record = engine.state.network(target)
    return [record], engine.state.endpoints(record.network.id)


def _observed(engine: Engine, records: Iterable[NetworkRecord | EndpointRecord]) -> Wiring:
    """What is there of all that the records want, looked at once."""
    return engine.kernel.observe(Wiring.first_of(record.wiring for record in records))


def missing(wanted: Wiring, seen: Wiring) -> Plan:
    """The plan that makes what is wanted of what was seen of it."""
    found = (seen.get(noun.key()) for noun in wanted)
    return diff(have=Wiring(noun for noun in found if noun is not None), want=wanted)


def _networks(engine: Engine, records: Iterable[NetworkRecord], seen: Wiring) -> Iterable[Finding]:
    for record in records:
        subject = f"network {record.network.name}"
        if record.network.state != "ready":
            yield Finding(subject=subject, plan=Plan(), note=f"it is {record.network.state}")
            continue
        plan = missing(record.wiring, seen)
        if plan:
            yield Finding(subject=subject, plan=plan, note=_rivals(engine, plan))


def _rivals(engine: Engine, plan: Plan) -> str:
    """Which devices of others keep it from being done."""
    wanted = map(subject_of, plan.steps())
    found = dict.fromkeys(engine.kernel.rival(noun) for noun in wanted if isinstance(noun, Vxlan))
    return "; ".join(text for text in found if text)


def _endpoints(
    engine: Engine, records: Iterable[EndpointRecord], seen: Wiring
) -> Iterable[Finding]:
    for record in records:
        subject = title(engine, record)
        if not engine.kernel.alive(record.endpoint.sandbox.netns):
            yield Finding(
                subject=subject, plan=Plan(), note="the sandbox has ended; net gc removes it"
            )
            continue
        if record.endpoint.state != "ready":
            yield Finding(subject=subject, plan=Plan(), note=f"it is {record.endpoint.state}")
            continue
        plan = missing(record.wiring, seen)
        if plan:
            yield Finding(subject=subject, plan=plan)


def _in_the_way(engine: Engine) -> list[Finding]:
    """Foreign chains that came to refuse what we let through, and that take a rule of ours."""
    base = FirewallBase()
    if not any(noun == base for record in engine.state.networks() for noun in record.wiring):
        return []
    found = [one for one in engine.kernel.switches().obstacles() if one.ours_to_set]
    if not found:
        return []
    # To see to its ground is to pass what stands in front of it, too.
    plan = diff(have=Wiring(), want=Wiring([base]))
    note = "; ".join(f"{one.where} is in the way: {one.why}" for one in found)
    return [Finding(subject="firewall", plan=plan, note=note)]


def _elsewhere(engine: Engine) -> list[Finding]:
    """Rules of ours that nobody looks after: no firewall is to be used, and there they are."""
    if engine.kernel.firewall != "none":
        return []  # what is missed here is found there when it is made
    plan = diff(have=Wiring(), want=Wiring([FirewallBase()]))  # which takes over from others
    return [
        Finding(
            subject="firewall",
            plan=plan,
            note=f"rules of netlib's are in {name}, and no firewall is to be used",
        )
        for name in engine.kernel.switches().elsewhere()
    ]


def _handed_over(engine: Engine) -> list[Finding]:
    """Take all rules of ours away where no firewall is to be used, and say who is open now."""
    findings = _elsewhere(engine)
    for finding in findings[:1]:
        apply(finding.plan, engine.kernel)
        opened = [
            record.network.name
            for record in engine.state.networks()
            if any(noun.layer is Layer.FIREWALL for noun in record.wiring)
        ]
        engine.warn(
            "netlib filters nothing on this host any more: what may pass to and from "
            f"{', '.join(opened) or 'networks'}, and which ports are published, is up to "
            "somebody else; to take it back, run: net --firewall auto repair"
        )
    return findings


def _unheld(engine: Engine) -> list[Finding]:
    stale = stale_claims(engine)
    note = f"held for nobody: {', '.join(stale)}; net repair frees it"
    return [Finding(subject="state", plan=Plan(), note=note)] if stale else []


def _strangers(engine: Engine) -> list[Finding]:
    """What this state made on the host and has nothing for any more."""
    known: dict[tuple[object, ...], Noun] = {}
    for wiring in (
        *(r.wiring for r in engine.state.networks()),
        *(r.wiring for r in engine.state.endpoints()),
    ):
        known.update(wiring.items())
    strange = [noun for noun in ours(engine) if noun.key() not in known]
    strange += engine.kernel.strays(Wiring(known.values()))
    plan = diff(have=Wiring(strange), want=Wiring())
    return [Finding(subject="host", plan=plan, note="nothing in the state owns it")] if plan else []
