"""The kernel that is really there."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from netlib.errors import NamespaceGone, NetError, PortHeld, StageFailed, Unsupported
from netlib.kernel import host_facts, link_steps, links, riders, rtnl, settings
from netlib.kernel.announcing import Announcements
from netlib.kernel.deletions import Deletions
from netlib.kernel.errnos import Refusal, failed, raise_together, typed
from netlib.kernel.flows import FlowsToForget
from netlib.kernel.journal import Journal
from netlib.kernel.kinds import vxlan
from netlib.kernel.netfilter import Begun, Firewall, Steps
from netlib.kernel.netlink import NoAnswer
from netlib.kernel.netns import Namespaces, open_netns
from netlib.kernel.observing import Observer
from netlib.kernel.session import Session
from netlib.kernel.switches import LinuxSwitches, Switches
from netlib.model import Device, HostFacts, IPAddress, IPNetwork, Netns, Protocol
from netlib.plan import Delete, Ensure, Stage, Step, inverse, subject
from netlib.wiring import (
    Announce,
    Count,
    Effect,
    FirewallBase,
    ForgetFlows,
    Forwarding,
    Layer,
    Link,
    Loopback,
    Noun,
    SourceGuard,
    Sysctl,
    Vxlan,
    Wiring,
)

if TYPE_CHECKING:  # a road that few take
    from netlib.kernel.netfilter.source_guard import SourceGuards

N = TypeVar("N")


class LinuxKernel:
    """Linux, by netlink. The host is the network namespace in which this was made.

    Any thread may call it, several at once too. What it can't do it says by a NetError, and by
    nothing else.
    """

    def __init__(
        self, firewall: Firewall, services: Mapping[type[Noun], Steps] | None = None
    ) -> None:
        self.firewall = firewall.name
        self._firewall = firewall
        self._services = dict(services or {})
        # Looked at now: to see what a protocol asks for takes as long as a system call.
        self._begun = {d.name: d for d in self._services.values() if isinstance(d, Begun)}
        self._guards: SourceGuards | None = None
        self._opening = threading.Lock()
        self._namespaces = Namespaces()
        self._deletions = Deletions(self._delete_indexes)
        self._flows = FlowsToForget(self._namespaces)
        self._announcements = Announcements(self._namespaces)
        self._uplink = host_facts.Uplink()
        self._kept = threading.local()  # the session of a thread that is in `session`

    def senders(self) -> frozenset[int]:
        """The netlink ports that the firewall is changed from by us."""
        return self._firewall.senders()

    def close(self) -> None:
        """Give back sockets and threads, the firewall's too."""
        self._deletions.close()
        self._flows.close()
        self._announcements.close()
        self._firewall.close()
        if self._guards is not None:
            self._guards.close()
        self._namespaces.close()

    def _delete_indexes(self, indexes: Sequence[int]) -> Refusal | None:
        with self._namespaces.host_socket() as socket:
            return link_steps.delete_indexes(indexes, socket)

    @contextmanager
    def session(self, effects: Sequence[Effect] = ()) -> Iterator[None]:
        """What the calling thread opens is kept open until the end, see Kernel.session."""
        if self._session_kept() is not None:
            yield
            return
        announcing = {effect.netns for effect in effects if isinstance(effect, Announce)}
        with Session(self._namespaces, announcing) as session:
            self._kept.session = session
            try:
                yield
            finally:
                self._kept.session = None

    def _session_kept(self) -> Session | None:
        found: Session | None = getattr(self._kept, "session", None)
        return found

    def _session(self) -> AbstractContextManager[Session]:
        """The session that is kept, or one of one's own."""
        kept = self._session_kept()
        return Session(self._namespaces) if kept is None else _Within(kept)

    # -- doing ----------------------------------------------------------------------------------

    @typed
    def do(self, stage: Stage) -> None:
        """Do all steps of a stage, or none and raise."""
        own, doors = self._sorted(stage.steps)
        if own:
            self._do_own(stage, own)
        done: list[tuple[Steps, list[Step]]] = []
        for door, steps in doors:
            try:
                self._ask(door, steps, partial(door.do, steps))
            except NetError as error:
                self._undo_doors(stage, done, own, error)
                raise
            done.append((door, steps))

    @typed
    def begin(self, stage: Stage) -> Callable[[], None]:
        """Have another process begin what it does of a stage; what is returned does the rest."""
        own, doors = self._sorted(stage.steps)
        begun = self._begun.get(doors[0][0].name) if len(doors) == 1 and not own else None
        if begun is None:
            return partial(self.do, stage)
        steps = doors[0][1]
        return typed(partial(self._ask, begun, steps, begun.begin(steps)))

    def _ask(self, door: Steps, steps: list[Step], do: Callable[[], None]) -> None:
        """Have a door do steps; once more where it may be our own daemon that has their ports."""
        try:
            do()
        except PortHeld:
            from netlib.kernel.letting_go import once_let_go  # few ports go from hand to hand

            once_let_go(self._namespaces, steps, partial(door.do, steps))

    @typed
    def remove(self, stage: Stage) -> None:
        """Do all deletions that can be done; what is gone is no failure."""
        self._remove(stage, {})

    def _remove(self, stage: Stage, made: Mapping[Noun, str]) -> None:
        own, doors = self._sorted(stage.steps)
        failures: list[NetError] = []
        for work in self._removals(own, doors, made):
            try:
                work()
            except NamespaceGone:
                pass  # and all that was in it
            except NetError as error:
                failures.append(error)
        raise_together(failures)

    @typed
    def perform(self, effects: Sequence[Effect]) -> None:
        """Do what leaves no thing: all that can be done, then raise the first failure."""
        failures: list[NetError] = []
        news = [effect for effect in effects if isinstance(effect, Announce)]
        if news:
            self._announce(news, failures)
        flows = [effect for effect in effects if isinstance(effect, ForgetFlows)]
        # UDP has no end that would show: its flows are gone before the caller goes on.
        lasting = [effect for effect in flows if effect.protocol == "udp"]
        if lasting:
            from netlib.kernel import conntrack

            with _collected(failures):
                conntrack.forget(lasting, self._namespaces)
        self._flows.add(effect for effect in flows if effect.protocol != "udp")
        if failures:
            raise failures[0]

    def _announce(self, news: list[Announce], failures: list[NetError]) -> None:
        from netlib.kernel import announce

        with self._namespaces.host_socket() as socket:
            late = [e for e in news if e.port and not socket.is_running(e.port)]
        with self._session() as session:
            for effect in news:
                if effect not in late:
                    with _collected(failures):
                        announce.announce(effect, session)
        self._announcements.add(late)

    def _sorted(self, steps: Sequence[Step]) -> tuple[list[Step], list[tuple[Steps, list[Step]]]]:
        """Our own steps, then each door's."""
        own: list[Step] = []
        doors: dict[str, tuple[Steps, list[Step]]] = {}
        for step in steps:
            door = self._door(subject(step))
            if door is None:
                own.append(step)
            else:
                doors.setdefault(door.name, (door, []))[1].append(step)
        return own, list(doors.values())

    def _source_guards(self) -> SourceGuards:
        """Their door, which few networks need."""
        with self._opening:
            if self._guards is None:
                from netlib.kernel.netfilter.source_guard import SourceGuards

                self._guards = self._namespaces.run(self._namespaces.host_fd, SourceGuards)
            return self._guards

    def _door(self, noun: Noun) -> Steps | None:
        """Who is asked for such a noun; None: netlink, or a file below /proc/sys."""
        if isinstance(noun, SourceGuard) and self.firewall != "none":
            return self._source_guards()
        if isinstance(noun, FirewallBase) or noun.layer is Layer.FIREWALL:
            return self._firewall
        if noun.layer is not Layer.SERVICE:
            return None
        door = self._services.get(type(noun))
        if door is None:
            raise Unsupported(
                f"this host has no service for a {type(noun).__name__}",
                "give LinuxKernel one, as netlib.Net does",
            )
        return door

    def _do_own(self, stage: Stage, steps: list[Step]) -> None:
        with self._session() as session:
            journal = Journal()
            try:
                for step in steps:
                    if isinstance(step, Ensure):
                        _ensure(step.noun, session)
                rest = [step for step in steps if not isinstance(step, Ensure)]
                if not rest:
                    return
                if stage.layer is Layer.LINK:
                    link_steps.do_links(rest, session, journal)
                elif stage.layer is Layer.SETTING:
                    settings.do_sysctls(rest, session, journal)
                else:
                    riders.do_riders(rest, session.rtnl(stage.netns), journal)
            except OSError as error:
                known = failed(error)
                self._take_back(stage, journal, known)
                raise known from error
            except BaseException as error:
                self._take_back(stage, journal, error)
                raise

    def _take_back(self, stage: Stage, journal: Journal, error: BaseException) -> None:
        failures: list[NetError] = []
        for step in inverse(Stage(stage.layer, stage.netns, tuple(journal.steps))).stages:
            try:
                if all(isinstance(s, Delete) for s in step.steps):
                    self._remove(step, journal.made())  # it may be there by half
                else:
                    self.do(step)
            except NetError as failure:
                failures.append(failure)
        for restore in reversed(journal.restore):
            try:
                restore()
            except NetError as failure:
                failures.append(failure)
        if failures and isinstance(error, NetError):
            raise StageFailed(error, undone=False) from error

    def _undo_doors(
        self,
        stage: Stage,
        done: list[tuple[Steps, list[Step]]],
        own: list[Step],
        error: NetError,
    ) -> None:
        journal = Journal()
        journal.steps = [*own, *(step for _, steps in done for step in steps)]
        self._take_back(stage, journal, error)

    def _removals(
        self, own: list[Step], doors: list[tuple[Steps, list[Step]]], made: Mapping[Noun, str]
    ) -> Iterable[Callable[[], None]]:
        nouns = [step.noun for step in own if isinstance(step, Delete)]
        device_nouns = [noun for noun in nouns if isinstance(noun, Link)]
        sysctls = [noun for noun in nouns if isinstance(noun, Sysctl)]
        others: dict[str, list[Noun]] = {}
        for noun in nouns:
            if not isinstance(noun, Link | Sysctl):
                others.setdefault(noun.netns.path, []).append(noun)
        for door, steps in doors:
            yield lambda door=door, steps=steps: door.remove(steps)  # type: ignore[misc]
        for group in others.values():
            yield lambda group=group: self._in_session(  # type: ignore[misc]
                lambda s: riders.remove_riders(group, s.rtnl(group[0].netns))
            )
        if sysctls:
            yield lambda: self._in_session(lambda s: settings.remove_sysctls(sysctls, s))
        if device_nouns:
            yield lambda: self._in_session(
                lambda s: link_steps.remove_links(device_nouns, s, self._deletions, made)
            )

    def _in_session(self, work: Callable[[Session], N]) -> N:
        with self._session() as session:
            return work(session)

    @typed
    def forget_vtep(self, device: str, address: IPAddress) -> None:
        """Silence a VTEP: nothing is sent there through a VXLAN device any more."""
        with self._namespaces.host_socket() as socket:
            riders.forget_vtep(device, address, socket)

    def switches(self) -> Switches:
        """What an administrator switches for the whole host."""
        return LinuxSwitches(
            lambda work: self._namespaces.run(self._namespaces.host_fd, work), self._firewall
        )

    # -- looking --------------------------------------------------------------------------------

    @typed
    def observe(self, nouns: Wiring) -> Wiring:
        """Of these nouns, those whose thing is there, as it is now."""
        found: dict[tuple[object, ...], Noun] = {}
        asked: dict[str, tuple[Steps, list[Noun]]] = {}
        for noun in nouns:
            if noun.layer is Layer.SERVICE and type(noun) not in self._services:
                continue  # nobody could have made it
            door = self._door(noun)
            if door is not None:
                asked.setdefault(door.name, (door, []))[1].append(noun)
        for door, its in asked.values():
            for noun in door.observe(its):
                found[noun.key()] = noun
        with self._session() as session:
            observer = Observer(nouns, session)
            for noun in nouns:
                seen = observer.observe(noun)
                if seen is not None:
                    found[noun.key()] = seen
        return Wiring(found[noun.key()] for noun in nouns if noun.key() in found)

    @typed
    def entries(self, device: str) -> Wiring:
        """All that is entered for a device: of a VXLAN port its peers, else its neighbours."""
        with self._namespaces.host_socket() as socket:
            return Wiring(riders.entries_of(device, socket))

    @typed
    def counted(self, nouns: Wiring) -> dict[tuple[object, ...], Count]:
        """What the firewall's facts met, by their keys; nothing of those that don't count."""
        ours = [
            noun
            for noun in nouns
            if noun.layer is Layer.FIREWALL and not isinstance(noun, SourceGuard)
        ]
        return self._firewall.counted(ours) if ours else {}

    @typed
    def marked(self) -> Wiring:
        """What is on the host now and carries our mark."""
        nouns: list[Noun] = []
        with self._namespaces.host_socket() as socket:
            for body in socket.ask(rtnl.all_links(), "the devices of the host"):
                state = rtnl.read_link(body)
                noun = links.of_state(state, socket) if links.is_ours(state) else None
                if noun is not None:
                    nouns.append(noun)
        nouns += self._firewall.marked()
        if self.firewall != "none":
            nouns += self._source_guards().marked()
        for door in self._services.values():
            nouns += door.marked()
        return Wiring(nouns)

    @typed
    def strays(self, wanted: Wiring) -> Wiring:
        """What others put among the firewall's facts, as Strays."""
        ours = (n for n in wanted if n.layer is Layer.FIREWALL and not isinstance(n, SourceGuard))
        return Wiring(self._firewall.strays(ours))

    @typed
    def facts(self, devices: Iterable[str] = ()) -> HostFacts:
        """What descriptions depend on, and the devices among `devices` that exist."""
        with self._namespaces.host_socket() as socket:
            return host_facts.facts(devices, socket, self._namespaces, self._uplink)

    @typed
    def hardware(self, devices: Iterable[str]) -> dict[str, tuple[str, int]]:
        """MAC address and MTU of those that exist."""
        with self._namespaces.host_socket() as socket:
            return {
                name: (rtnl.mac_text(socket.mac(name) or b""), socket.mtu(name))
                for name in devices
                if socket.index(name)
            }

    @typed
    def device_of(self, address: IPAddress) -> Device | None:
        """The device that has an address of the host's."""
        with self._namespaces.host_socket() as socket:
            return host_facts.device_of(address, socket)

    @typed
    def has_address(self, address: IPAddress) -> bool:
        """Whether an address is the host's own, or may be spoken from as if it were."""
        from netlib.kernel.own_addresses import is_own

        return self._namespaces.run(self._namespaces.host_fd, lambda: is_own(address))

    @typed
    def prefixes(self, besides: Collection[str] = ()) -> tuple[IPNetwork, ...]:
        """Every prefix that the host has a route to, but default routes and by some devices."""
        with self._namespaces.host_socket() as socket:
            return host_facts.prefixes(socket, besides)

    @typed
    def enter(self, path: str, name: str) -> Netns:
        """The network namespace behind a path, with its inode."""
        fd = open_netns(path, name)
        try:
            return Netns(name=name, path=path, inode=os.fstat(fd).st_ino)
        finally:
            os.close(fd)

    @typed
    def interfaces(self, netns: Netns) -> frozenset[str]:
        """The names of all devices in a network namespace."""
        with self._session() as session:
            bodies = session.rtnl(netns).ask(rtnl.all_links(), f"the devices of {netns}")
            return frozenset(rtnl.read_link(body).name for body in bodies)

    @typed
    def port_user(
        self, protocol: Protocol, address: IPAddress | None, port: int, count: int
    ) -> str | None:
        """Who of the host listens on one of `count` ports from `port` on, in words."""
        from netlib.kernel import listeners

        return listeners.port_user(self._namespaces, protocol, address, port, count)

    @typed
    def rival(self, tunnel: Vxlan) -> str:
        """Another device beside which that can't be made, in words; "": none that is known."""
        with self._session() as session:
            return vxlan.rival(tunnel, session)

    @typed
    def make_namespace(self, name: str, claim: Callable[[Netns], None] | None = None) -> Netns:
        """A new network namespace that stays, at /run/netns/`name`."""
        from netlib.kernel import named

        return named.make(name, claim)

    @typed
    def drop_namespace(self, netns: Netns) -> None:
        """End such a network namespace. One that is gone is no failure."""
        from netlib.kernel import named

        named.drop(netns)

    @typed
    def alive(self, netns: Netns) -> bool:
        """Whether the path still leads to that very namespace."""
        try:
            os.close(self._namespaces.open(netns))
        except NamespaceGone:
            return False
        return True


class _Within:
    """A part of a session that goes on afterwards."""

    __slots__ = ("_session",)

    def __init__(self, session: Session) -> None:
        self._session = session

    def __enter__(self) -> Session:
        return self._session

    def __exit__(self, kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, NoAnswer) or not (error is None or isinstance(error, NetError)):
            self._session.__exit__(type(error), error, None)  # an answer may be under way


@contextmanager
def _collected(failures: list[NetError]) -> Iterator[None]:
    try:
        yield
    except NetError as error:
        failures.append(error)


def _ensure(noun: Noun, session: Session) -> None:
    if isinstance(noun, Forwarding):
        settings.ensure_forwarding(noun, session)
    elif isinstance(noun, Loopback):
        settings.ensure_loopback(noun, session)
    else:
        raise Unsupported(f"no way to ensure a {type(noun).__name__} is known here")
