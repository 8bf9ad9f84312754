"""What is to be done: the difference between two wirings as ordered verbs, in stages.

Pure: nothing here touches the host. `diff` is the only way from nouns to verbs, so create,
remove, check, repair, update and `--dry-run` can not tell different stories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from operator import attrgetter

from netlib.model import Netns
from netlib.values import dataclass, replace
from netlib.wiring import (
    Address,
    Allow,
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

    @property
    def noun(self) -> Noun:
        """The thing as it will be."""
        return self.new


Step = Ensure | Create | Delete | Change

# The noun that a step is about, as it is or will be.
subject: Callable[[Step], Noun] = attrgetter("noun")


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


def joined(plans: Iterable[Plan]) -> Plan:
    """Plans one after the other, as one."""
    parts = tuple(plans)
    return Plan(
        stages=tuple(stage for part in parts for stage in part.stages),
        after=tuple(effect for part in parts for effect in part.after),
    )


def side_by_side(plans: Iterable[Plan]) -> Plan:
    """Plans of things that have nothing to do with each other, as one.

    Each goes from the first layer to the last, or each back, and so does what comes of them.
    """
    parts = tuple(plans)
    groups: dict[tuple[Layer, str], list[Stage]] = {}
    for stage in chain.from_iterable(part.stages for part in parts):
        groups.setdefault((stage.layer, _place(stage.layer, stage.netns)), []).append(stage)
    goes_back = any(part.stages[0].layer > part.stages[-1].layer for part in parts if part.stages)
    return Plan(
        stages=tuple(
            replace(group[0], steps=tuple(chain.from_iterable(stage.steps for stage in group)))
            for _, group in sorted(groups.items(), key=lambda item: item[0][0], reverse=goes_back)
        ),
        after=tuple(chain.from_iterable(part.after for part in parts)),
    )


def diff(have: Wiring, want: Wiring) -> Plan:
    """The plan that makes `want` of `have`.

    What moves to another device comes first, so that a default route leaves no gap; then
    deletions, from the last layer to the first; then changes and creations from the first to
    the last. Firewall deletions, changes and creations are one stage, placed first when
    nothing opens and last otherwise: traffic opens last and closes first.
    """
    gone = _gone(have, want)
    moving = _moving(have, want, gone)
    gone -= moving
    unplugged = _unplugged(have, gone)
    opening: list[Step] = []
    building: list[Step] = []
    for key, noun in want.items():
        old = unplugged.get(key) or have.get(key)
        new = opening if noun.layer >= Layer.FIREWALL else building
        if noun.shared:
            if old != noun:
                new.append(Ensure(noun))
        elif old is None or key in gone:
            new.append(Create(noun))
        elif old != noun:
            new.append(Change(old, noun))

    deletions = _deletions([noun for key, noun in have.items() if key in gone])
    closing = [s for s in deletions if subject(s).layer >= Layer.FIREWALL]
    dismantling = [s for s in deletions if subject(s).layer < Layer.FIREWALL]

    stages: list[Stage] = []
    if not opening:
        stages += _stages(closing)
        closing = []
    stages += _stages(
        [Change(noun, unplugged[key]) for key, noun in have.items() if key in unplugged]
    )
    ahead = [s for s in building if moving and subject(s).key() in moving]
    stages += _stages(ahead)
    # What is replaced goes before its successor comes. The other way round an address would
    # be secondary to the one that it replaces, and go with it.
    stages += _stages(dismantling)
    rest = building if not ahead else [s for s in building if subject(s).key() not in moving]
    stages += _stages(sorted(rest, key=lambda s: subject(s).layer))
    stages += _stages([*closing, *opening])
    return Plan(tuple(stages), tuple(_effects(have, want, gone)))


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


def _gone(have: Wiring, want: Wiring) -> set[Key]:
    """The keys of all that goes, also of what goes only to come back."""
    gone: dict[Key, Noun] = {}
    for noun in have:
        new = want.get(noun.key())
        if not noun.shared and (new is None or _is_another(noun, new)):
            gone[noun.key()] = noun
    # Linux empties a device's neighbour table when its MAC changes (neigh_changeaddr).
    changed = {device for noun in have for device in new_macs(noun, want.get(noun.key()))}
    for noun in have:
        if isinstance(noun, Neighbour) and noun.rides_on() in changed:
            gone[noun.key()] = noun
    # Each round finds what goes with what the round before found: a device's children and
    # riders; an address's routes.
    found = list(gone.values())
    while found:
        devices = {device for noun in found for device in noun.makes()}
        addresses = [noun for noun in found if isinstance(noun, Address)]
        found = [
            noun
            for noun in have
            if noun.key() not in gone
            and not noun.shared
            and (
                noun.rides_on() in devices
                or any(_goes_with(noun, address) for address in addresses)
            )
        ]
        gone |= {noun.key(): noun for noun in found}
    return set(gone)


def _moving(have: Wiring, want: Wiring, gone: set[Key]) -> set[Key]:
    """The keys of what leaves a device for another one that was there and stays."""
    staying = {device for noun in have if noun.key() not in gone for device in noun.makes()}
    moving: set[Key] = set()
    for noun in have:
        new = want.get(noun.key())
        if new is None or isinstance(noun, Link) or new.rides_on() == noun.rides_on():
            continue
        if new.rides_on() in staying:
            moving.add(noun.key())
    return moving


def _unplugged(have: Wiring, gone: set[Key]) -> dict[Key, Noun]:
    """What stays while its bridge goes: Linux would unplug it, and nothing plug it in again."""
    devices = {device for n in have if n.key() in gone for device in n.makes()}
    return {
        noun.key(): replace(noun, bridge="")
        for noun in have
        if isinstance(noun, VethPair | Vxlan)
        and noun.key() not in gone
        and (noun.netns.name, noun.bridge) in devices
    }


def _is_another(old: Noun, new: Noun) -> bool:
    """Whether a device must be made anew to be as `new` says."""
    return isinstance(old, Link) and any(getattr(old, f) != getattr(new, f) for f in old.fixed)


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
        groups.setdefault((noun.layer, _place(noun.layer, noun.netns)), []).append(step)
    return [
        Stage(layer, subject(group[0]).netns, tuple(group)) for (layer, _), group in groups.items()
    ]


def _place(layer: Layer, netns: Netns) -> str:
    """What tells stages of a layer apart: the firewall's is one, wherever its things are."""
    return "" if layer >= Layer.FIREWALL else netns.name


def _effects(have: Wiring, want: Wiring, gone: set[Key]) -> Iterable[Effect]:
    ports = {(n.peer_netns, n.peer): n.name for n in want if isinstance(n, VethPair) and n.bridge}
    for key, noun in want.items():
        if not isinstance(noun, Address | Publish):
            continue
        old = None if key in gone else have.get(key)
        if isinstance(noun, Address) and noun.announce and old is None:
            yield Announce(
                netns=noun.netns,
                device=noun.device,
                address=noun.address,
                port=ports.get((noun.netns, noun.device), ""),
            )
        # A UDP flow that is older than its port would never reach it: no connection tells
        # conntrack of the new rule.
        if isinstance(noun, Publish) and noun != old and noun.protocol == "udp":
            yield _flows(noun)
    for noun in have:
        if isinstance(noun, Publish) and want.get(noun.key()) != noun:
            yield _flows(noun)
    yield from _by_way_of_the_host(have, want)


def _by_way_of_the_host(have: Wiring, want: Wiring) -> Iterable[Effect]:
    """Who is linked is reached at the host's MAC from now on, where ports are set apart.

    Neighbours know each other's MAC still, and no frame gets there any more; the host answers
    for all of them (RFC 3069). For IPv6 it is routes that lead there.
    """
    apart = {
        (n.peer_netns, n.peer): n
        for n in want
        if isinstance(n, VethPair) and n.isolated and _was_together(have.get(n.key()))
    }
    linked = {end for n in want if isinstance(n, Allow) for end in (n.source, n.target)}
    for noun in want:
        if not isinstance(noun, Address) or noun.address.version != 4:
            continue
        port = apart.get((noun.netns, noun.device))
        if port is not None and noun.address.ip in linked:
            yield Announce(netns=port.netns, device=port.bridge, address=noun.address)


def _was_together(port: Noun | None) -> bool:
    return isinstance(port, VethPair) and bool(port.bridge) and not port.isolated


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
    "joined",
    "new_macs",
    "side_by_side",
    "subject",
]
