"""The kernel that is really there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

from netlib.errors import KernelError, NamespaceGone, NetError, StageFailed, Unsupported
from netlib.kernel import link_steps, links, netlink, riders, rtnl, settings
from netlib.kernel.journal import Journal
from netlib.kernel.netfilter import Firewall, Steps
from netlib.kernel.netns import Namespaces, Session, open_netns
from netlib.kernel.switches import LinuxSwitches, Switches
from netlib.model import Device, Family, HostFacts, IPAddress, IPNetwork, Netns, Protocol
from netlib.plan import Delete, Ensure, Stage, Step, inverse, subject
from netlib.wiring import (
    Announce,
    Bridge,
    Effect,
    FirewallBase,
    ForgetFlows,
    Forwarding,
    Layer,
    Link,
    Loopback,
    Noun,
    Sysctl,
    VethPair,
    Vlan,
    Vxlan,
    Wiring,
)

N = TypeVar("N")

# Addresses that only a default route leads to: class E (RFC 1112 section 4), and the first
# global unicast address (RFC 4291 section 2.4).
_FAR_AWAY = (IPv4Address("240.0.0.1"), IPv6Address("2000::"))
_BROADCAST, _MULTICAST = 3, 5  # types of routes (rtnetlink(7))


class LinuxKernel:
    """Linux, by netlink. The host is the network namespace in which this was made.

    Any thread may call it, several at once too.
    """

    def __init__(
        self, firewall: Firewall, services: Mapping[type[Noun], Steps] | None = None
    ) -> None:
        self.firewall = firewall.name
        self._firewall = firewall
        self._services = dict(services or {})
        self._namespaces = Namespaces()

    def close(self) -> None:
        """Give back sockets and threads."""
        self._namespaces.close()

    # -- doing ----------------------------------------------------------------------------------

    def do(self, stage: Stage) -> None:
        """Do all steps of a stage, or none and raise."""
        own, doors = self._sorted(stage.steps)
        if own:
            self._do_own(stage, own)
        done: list[tuple[Steps, list[Step]]] = []
        for door, steps in doors:
            try:
                door.do(steps)
            except NetError as error:
                self._undo_doors(stage, done, own, error)
                raise
            done.append((door, steps))

    def remove(self, stage: Stage) -> None:
        """Do all deletions that can be done; what is gone is no failure."""
        own, doors = self._sorted(stage.steps)
        failures: list[NetError] = []
        for work in self._removals(own, doors):
            try:
                work()
            except NamespaceGone:
                pass  # and all that was in it
            except NetError as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        if failures:
            message = "; ".join(failure.message for failure in failures)
            raise KernelError(message, failures[0].hint) from failures[0]

    def perform(self, effect: Effect) -> None:
        """Do what leaves no thing."""
        if isinstance(effect, Announce):
            from netlib.kernel import announce

            announce.announce(effect, self._namespaces)
        elif isinstance(effect, ForgetFlows):
            from netlib.kernel import conntrack

            conntrack.forget(effect, self._namespaces)

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

    def _door(self, noun: Noun) -> Steps | None:
        """Who is asked for such a noun; None: netlink, or a file below /proc/sys."""
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
        with Session(self._namespaces) as session:
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
            except BaseException as error:
                self._take_back(stage, journal, error)
                raise

    def _take_back(self, stage: Stage, journal: Journal, error: BaseException) -> None:
        failures: list[NetError] = []
        for step in inverse(Stage(stage.layer, stage.netns, tuple(journal.steps))).stages:
            try:
                if all(isinstance(s, Delete) for s in step.steps):
                    self.remove(step)  # it may be there by half
                else:
                    self.do(step)
            except NetError as failure:
                failures.append(failure)
        for restore in reversed(journal.restore):
            restore()
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
        self, own: list[Step], doors: list[tuple[Steps, list[Step]]]
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
            yield lambda: self._in_session(lambda s: link_steps.remove_links(device_nouns, s))

    def _in_session(self, work: Callable[[Session], N]) -> N:
        with Session(self._namespaces) as session:
            return work(session)

    def switches(self) -> Switches:
        """What an administrator switches for the whole host."""
        return LinuxSwitches(
            lambda work: self._namespaces.run(self._namespaces.host_fd, work), self._firewall
        )

    # -- looking --------------------------------------------------------------------------------

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
        with Session(self._namespaces) as session:
            observe_rider = _rider_observers(nouns, session)
            for noun in nouns:
                with suppress(NamespaceGone):
                    seen = _observe(noun, session, observe_rider)
                    if seen is not None:
                        found[noun.key()] = seen
        return Wiring(found[noun.key()] for noun in nouns if noun.key() in found)

    def marked(self) -> Wiring:
        """What is on the host now and carries our mark."""
        nouns: list[Noun] = []
        with self._namespaces.host_socket() as socket:
            for body in socket.ask(rtnl.all_links()):
                state = rtnl.read_link(body)
                noun = links.of_state(state, socket) if links.is_ours(state) else None
                if noun is not None:
                    nouns.append(noun)
        nouns += self._firewall.marked()
        for door in self._services.values():
            nouns += door.marked()
        return Wiring(nouns)

    def facts(self, devices: Iterable[str] = ()) -> HostFacts:
        """What descriptions depend on, and the devices among `devices` that exist."""
        known: dict[str, Device] = {}
        with self._namespaces.host_socket() as socket:
            for name in devices:
                device = _device(rtnl.get_link(name), socket)
                if device is not None:
                    known[name] = device
            index = _uplink(socket)
            uplink = _device(rtnl.get_link_at(index), socket) if index else None
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot_id = file.read().strip()
        forwarding, bridge_netfilter, ipv6 = self._namespaces.run(
            self._namespaces.host_fd, _host_settings
        )
        return HostFacts(
            boot_id=boot_id,
            netns=self._namespaces.host_inode,
            uplink=uplink,
            devices=known,
            forwarding=forwarding,
            bridge_netfilter=bridge_netfilter,
            ipv6=ipv6,
        )

    def prefixes(self) -> tuple[IPNetwork, ...]:
        """Every prefix that the host has a route to, but default routes."""
        found: dict[IPNetwork, None] = {}
        with self._namespaces.host_socket() as socket:
            for version in (4, 6):
                for body in socket.ask(rtnl.routes(version)):
                    state = rtnl.read_route(body)
                    _, packed, length = state.destination
                    if length and state.kind not in (_BROADCAST, _MULTICAST):
                        number = int.from_bytes(packed, "big")
                        make = IPv4Network if version == 4 else IPv6Network
                        found[make((number, length))] = None
        return tuple(found)

    def enter(self, path: str, name: str) -> Netns:
        """The network namespace behind a path, with its inode."""
        fd = open_netns(path, name)
        try:
            return Netns(name=name, path=path, inode=os.fstat(fd).st_ino)
        finally:
            os.close(fd)

    def interfaces(self, netns: Netns) -> frozenset[str]:
        """The names of all devices in a network namespace."""
        with Session(self._namespaces) as session:
            bodies = session.rtnl(netns).ask(rtnl.all_links())
            return frozenset(rtnl.read_link(body).name for body in bodies)

    def port_user(
        self, protocol: Protocol, address: IPAddress | None, port: int, count: int
    ) -> str | None:
        """Who of the host listens on one of `count` ports from `port` on, in words."""
        from netlib.kernel import listeners

        return listeners.port_user(self._namespaces, protocol, address, port, count)

    def make_namespace(self, name: str) -> Netns:
        """A new network namespace that stays, at /run/netns/`name`."""
        from netlib.kernel import named

        return named.make(name)

    def drop_namespace(self, netns: Netns) -> None:
        """End such a network namespace. One that is gone is no failure."""
        from netlib.kernel import named

        named.drop(netns)

    def alive(self, netns: Netns) -> bool:
        """Whether the path still leads to that very namespace."""
        try:
            os.close(self._namespaces.open(netns))
        except NamespaceGone:
            return False
        return True


def _ensure(noun: Noun, session: Session) -> None:
    if isinstance(noun, Forwarding):
        settings.ensure_forwarding(noun, session)
    elif isinstance(noun, Loopback):
        settings.ensure_loopback(noun, session)
    else:
        raise Unsupported(f"no way to ensure a {type(noun).__name__} is known here")


def _observe(
    noun: Noun, session: Session, observe_rider: Callable[[Noun], Noun | None]
) -> Noun | None:
    if isinstance(noun, Link):
        return links.read(noun, session)
    if isinstance(noun, Sysctl):
        return settings.observe_sysctl(noun, session)
    if isinstance(noun, Forwarding):
        return settings.observe_forwarding(noun, session)
    if isinstance(noun, Loopback):
        return settings.observe_loopback(noun, session)
    return observe_rider(noun) if noun.layer is Layer.ADDRESS else None


def _rider_observers(nouns: Wiring, session: Session) -> Callable[[Noun], Noun | None]:
    """Each network namespace's observer, made when it is asked first."""
    kept_up: dict[str, set[str]] = {}
    for noun in nouns:
        if isinstance(noun, Bridge | VethPair | Vlan | Vxlan):
            kept_up.setdefault(noun.netns.path, set()).add(noun.name)
    observers: dict[str, riders.Observer] = {}

    def observe(noun: Noun) -> Noun | None:
        path = noun.netns.path
        if path not in observers:
            socket = session.rtnl(noun.netns)
            observers[path] = riders.Observer(socket, kept_up.get(path, ()))
        return observers[path].observe(noun)  # type: ignore[arg-type]  # the riders' layer

    return observe


def _device(request: netlink.Request, socket: netlink.Socket) -> Device | None:
    try:
        (body,) = socket.ask(request)
    except netlink.Refusal:
        return None
    state = rtnl.read_link(body)
    return Device(
        name=state.name,
        kind=state.kind,
        mtu=state.mtu,
        mac=state.mac,
        ours=links.is_ours(state),
    )


def _uplink(socket: netlink.Socket) -> int:
    """The index of the default route's device: the kernel chooses, whatever there is to choose."""
    for address in _FAR_AWAY:
        try:
            (body,) = socket.ask(rtnl.route_to(address))
        except netlink.Refusal:
            continue
        state = rtnl.read_route(body)
        if state.ifindex and state.kind == 1:
            return state.ifindex
    return 0


def _host_settings() -> tuple[tuple[Family, ...], bool, bool]:
    families: tuple[Family, ...] = (4, 6)
    return (
        tuple(family for family in families if settings.forwards(family)),
        settings.read("net/bridge/bridge-nf-call-iptables") == "1",
        settings.read("net/ipv6/conf/all/disable_ipv6") == "0",
    )
