"""What is to be done: the difference between two wirings as ordered verbs, in stages.

Pure: nothing here touches the host. `diff` is the only way from nouns to verbs, so create,
remove, check, repair, update and `--dry-run` can not tell different stories.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from netlib.model import Netns
from netlib.wiring import (
    Address,
    Announce,
    Bridge,
    Effect,
    FdbEntry,
    ForgetFlows,
    Layer,
    Link,
    Macvlan,
    Neighbour,
    Noun,
    Publish,
    Route,
    Up,
    VethPair,
    Vxlan,
    Wiring,
)

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Ensure:
    """A shared thing is as `noun` says; never undone, harmless when done again."""

    noun: Noun


@dataclass(frozen=True, slots=True)
class Create:
    """`noun` is made."""

    noun: Noun


@dataclass(frozen=True, slots=True)
class Delete:
    """`noun` goes, and with it what rides on its devices: `along`."""

    noun: Noun
    along: tuple[Noun, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """The thing that is as `old` says becomes as `new` says."""

    old: Noun
    new: Noun


Step = Ensure | Create | Delete | Change


def subject(step: Step) -> Noun:
    """The noun that a step is about, as it is or will be."""
    return step.new if isinstance(step, Change) else step.noun


@dataclass(frozen=True, slots=True)
class Stage:
    """Steps that a kernel does all at once or not at all.

    Of one layer, and below the firewall's of one network namespace.
    """

    layer: Layer
    netns: Netns
    steps: tuple[Step, ...]

    def wiring_before(self) -> Wiring:
        """Of the things that this stage touches: those that are there before it."""
        nouns: list[Noun] = []
        for step in reversed(self.steps):  # what went last must come back first
            if isinstance(step, Delete):
                nouns += [step.noun, *step.along]
            elif isinstance(step, Change):
                nouns.append(step.old)
        return Wiring(nouns)

    def wiring_after(self) -> Wiring:
        """Of the things that this stage touches: those that are there after it, but shared ones."""
        return Wiring(subject(step) for step in self.steps if isinstance(step, Create | Change))


@dataclass(frozen=True, slots=True)
class Plan:
    """Stages in the order they are done, then the effects that leave no thing."""

    stages: tuple[Stage, ...] = ()
    after: tuple[Effect, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.stages or self.after)

    def steps(self) -> Iterable[Step]:
        """All steps in order."""
        return (step for stage in self.stages for step in stage.steps)

    def text(self, firewall: str = "nftables") -> str:
        """The plan as a shell script of `ip`, `bridge`, `sysctl` and `nft` or `iptables` lines.

        Each line starts with the network namespace it runs in. `firewall` names the backend
        whose commands are shown: nftables, iptables or none.
        """
        from netlib.text import script  # the text is wanted rarely, its tables cost an import

        return script(self, firewall)


def diff(have: Wiring, want: Wiring) -> Plan:
    """The plan that makes `want` of `have`.

    Changes and creations come first, from the first layer to the last, then deletions, from
    the last layer to the first: what takes over is there before what it replaces goes (a
    default route that moves to another device leaves no gap). Only what is in the way of its
    successor goes before. Firewall steps are one stage, placed first when nothing opens and
    last otherwise: traffic opens last and closes first.
    """
    early = _in_the_way(have, want)
    late = [n for n in have if want.get(n.key()) is None and n.key() not in early and not n.shared]
    new: list[Step] = []
    for noun in want:
        old = have.get(noun.key())
        if noun.shared:
            if old != noun:
                new.append(Ensure(noun))
        elif old is None or noun.key() in early:
            new.append(Create(noun))
        elif old != noun:
            new.append(Change(old, noun))

    deletions = _deletions(late)
    closing = [s for s in deletions if subject(s).layer >= Layer.FIREWALL]
    opening = [s for s in new if subject(s).layer >= Layer.FIREWALL]
    building = [s for s in new if subject(s).layer < Layer.FIREWALL]
    dismantling = [s for s in deletions if subject(s).layer < Layer.FIREWALL]

    stages: list[Stage] = []
    if not opening:
        stages += _stages(closing)
        closing = []
    stages += _stages(_deletions([noun for noun in have if noun.key() in early]))
    stages += _stages(sorted(building, key=lambda s: subject(s).layer))
    stages += _stages(dismantling)
    stages += _stages([*closing, *opening])
    return Plan(tuple(stages), tuple(_effects(have, want, early)))


_RIDERS: tuple[type[Noun], ...] = (Up, Address, Route, Neighbour, FdbEntry)


def in_order(steps: Iterable[Step]) -> list[Step]:
    """Steps of the layer ADDRESS as they must be done: deletions first, then the other way round.

    A route stands on addresses, and one with a gateway on the route to that.
    """

    def rank(step: Step) -> int:
        noun = subject(step)
        place = _RIDERS.index(type(noun))
        if isinstance(noun, Route) and noun.via is not None and not noun.on_link:
            place = len(_RIDERS)
        return -1 - place if isinstance(step, Delete) else place

    return sorted(steps, key=rank)


def inverse(stage: Stage) -> Plan:
    """The plan that takes a stage back. What it ensured stays."""
    return replace(diff(have=stage.wiring_after(), want=stage.wiring_before()), after=())


def _in_the_way(have: Wiring, want: Wiring) -> set[Key]:
    """The keys of what must go before anything new comes, even if only to come back.

    That is: devices that are made anew, or whose name another one takes; addresses, because
    one that is added beside an older one of its subnet is secondary to it and goes with it;
    and all that goes with these.
    """
    again = {n.key() for n in have if _is_another(n, want.get(n.key()))}
    new = [n for n in want if n.key() in again or have.get(n.key()) is None]
    taken = {device for noun in new for device in noun.makes()}
    staying = {device for noun in want for device in noun.makes()}
    found: list[Noun] = []
    for noun in have:
        if noun.key() in again:
            found.append(noun)
        elif want.get(noun.key()) is None and not noun.shared:
            is_lone = isinstance(noun, Address) and _stays(noun, have, staying)
            if is_lone or taken.intersection(noun.makes()):
                found.append(noun)
    # Linux empties a device's neighbour table when its MAC changes (neigh_changeaddr).
    changed = {device for n in have for device in new_macs(n, want.get(n.key()))}
    found += [n for n in have if isinstance(n, Neighbour) and n.rides_on() in changed]

    early = {noun.key() for noun in found}
    while found:  # each round finds what goes with what the round before found
        devices = {device for noun in found for device in noun.makes()}
        addresses = [noun for noun in found if isinstance(noun, Address)]
        found = [
            noun
            for noun in have
            if noun.key() not in early
            and (noun.rides_on() in devices or any(_goes_with(noun, a) for a in addresses))
        ]
        early |= {noun.key() for noun in found}
    return early


def _stays(noun: Noun, have: Wiring, staying: set[tuple[str, str]]) -> bool:
    """Whether the device that a thing rides on stays: it is wanted, or was never of `have`."""
    device = noun.rides_on()
    return device in staying or all(device not in other.makes() for other in have)


def _is_another(old: Noun, new: Noun | None) -> bool:
    """Whether a device must be made anew to be as `new` says."""
    if new is None or not isinstance(old, Link):
        return False
    return any(getattr(old, name) != getattr(new, name) for name in old.fixed)


def new_macs(old: Noun, new: Noun | None) -> list[tuple[str, str]]:
    """The devices of a link whose MAC is to change."""
    if isinstance(old, VethPair) and isinstance(new, VethPair):
        macs = ((old.host_mac, new.host_mac), (old.mac, new.mac))
        return [device for device, (a, b) in zip(new.makes(), macs, strict=True) if a != b]
    if isinstance(old, Bridge | Macvlan | Vxlan) and isinstance(new, Bridge | Macvlan | Vxlan):
        return list(new.makes()) if old.mac != new.mac else []
    return []


def _goes_with(noun: Noun, address: Address) -> bool:
    """Whether Linux may remove a thing together with an address.

    The routes and neighbours of a device go with its last IPv4 address (fib_disable_ip), and
    the further addresses of a subnet with the first, unless promote_secondaries is set
    (ip-sysctl.rst).
    """
    version = address.address.version
    if noun.rides_on() != address.rides_on():
        return False
    if isinstance(noun, Route):
        return noun.destination.version == version
    if isinstance(noun, Neighbour):
        return noun.address.version == version
    return isinstance(noun, Address) and noun.address.network == address.address.network


def _deletions(gone: list[Noun]) -> list[Step]:
    removed_devices = {device for noun in gone for device in noun.makes()}
    along: dict[tuple[str, str], list[Noun]] = {}
    standing: list[Noun] = []
    for noun in gone:
        device = noun.rides_on()
        if device is not None and device in removed_devices and not isinstance(noun, Link):
            along.setdefault(device, []).append(noun)
        else:
            standing.append(noun)
    steps: list[Step] = [
        Delete(noun, tuple(rider for device in noun.makes() for rider in along.get(device, ())))
        for noun in reversed(standing)
    ]
    return sorted(steps, key=lambda step: -subject(step).layer)


def _stages(steps: list[Step]) -> list[Stage]:
    """Neighbouring steps of one layer and netns (the firewall: of one layer) make a stage."""
    groups: dict[tuple[Layer, str], list[Step]] = {}
    for step in steps:
        noun = subject(step)
        netns = "" if noun.layer >= Layer.FIREWALL else noun.netns.name
        groups.setdefault((noun.layer, netns), []).append(step)
    return [
        Stage(layer, subject(group[0]).netns, tuple(group)) for (layer, _), group in groups.items()
    ]


def _effects(have: Wiring, want: Wiring, early: set[Key]) -> Iterable[Effect]:
    for noun in want:
        old = None if noun.key() in early else have.get(noun.key())
        if isinstance(noun, Address) and noun.announce and old is None:
            yield Announce(netns=noun.netns, device=noun.device, address=noun.address)
        # A UDP flow that is older than its port would never reach it: no connection tells
        # conntrack of the new rule.
        if isinstance(noun, Publish) and noun != old and noun.protocol == "udp":
            yield _flows(noun)
    for noun in have:
        if isinstance(noun, Publish) and want.get(noun.key()) != noun:
            yield _flows(noun)


def _flows(port: Publish) -> ForgetFlows:
    return ForgetFlows(
        family=port.family,
        protocol=port.protocol,
        host=port.host,
        port=port.port,
        count=port.count,
    )


__all__ = [
    "Change",
    "Create",
    "Delete",
    "Ensure",
    "Plan",
    "Stage",
    "Step",
    "diff",
    "in_order",
    "inverse",
    "new_macs",
    "subject",
]
