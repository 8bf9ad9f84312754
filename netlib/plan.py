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
    Effect,
    ForgetFlows,
    Layer,
    Noun,
    Publish,
    Wiring,
)


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
        for step in self.steps:
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

        text: str = script(self, firewall)
        return text


def diff(have: Wiring, want: Wiring) -> Plan:
    """The plan that makes `want` of `have`.

    Changes and creations come first, from the first layer to the last, then deletions, from
    the last layer to the first: what takes over is there before what it replaces goes (a
    default route that moves to another device leaves no gap). Firewall steps are one stage,
    placed first when nothing opens and last otherwise: traffic opens last and closes first.
    """
    gone = [noun for noun in have if want.get(noun.key()) is None and not noun.shared]
    removed_devices = {device for noun in gone for device in noun.makes()}
    new: list[Step] = []
    for noun in want:
        old = have.get(noun.key())
        if noun.shared:
            if old != noun:
                new.append(Ensure(noun))
        elif old is None:
            new.append(Create(noun))
        elif old != noun:
            new.append(Change(old, noun))

    deletions = _deletions(gone, removed_devices)
    closing = [s for s in deletions if subject(s).layer >= Layer.FIREWALL]
    opening = [s for s in new if subject(s).layer >= Layer.FIREWALL]
    building = [s for s in new if subject(s).layer < Layer.FIREWALL]
    dismantling = [s for s in deletions if subject(s).layer < Layer.FIREWALL]

    stages: list[Stage] = []
    if not opening:
        stages += _stages(closing)
        closing = []
    stages += _stages(sorted(building, key=lambda s: subject(s).layer))
    stages += _stages(dismantling)
    stages += _stages([*closing, *opening])
    return Plan(tuple(stages), tuple(_effects(have, want)))


def inverse(stage: Stage) -> Plan:
    """The plan that takes a stage back. What it ensured stays."""
    return replace(diff(have=stage.wiring_after(), want=stage.wiring_before()), after=())


def _deletions(gone: list[Noun], removed_devices: set[tuple[str, str]]) -> list[Step]:
    along: dict[tuple[str, str], list[Noun]] = {}
    standing: list[Noun] = []
    for noun in gone:
        device = noun.rides_on()
        if device is not None and device in removed_devices:
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


def _effects(have: Wiring, want: Wiring) -> Iterable[Effect]:
    for noun in want:
        old = have.get(noun.key())
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
    "inverse",
    "subject",
]
