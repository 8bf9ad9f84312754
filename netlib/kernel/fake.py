"""A host in memory, as strict as Linux: for tests of drivers and of programs that use netlib.

It passes the same tests as the real one (tests/contract/test_kernel.py), needs no rights and
touches nothing.

>>> from netlib.plan import Plan, diff
>>> from netlib.wiring import Bridge, Wiring
>>> from netlib.apply import apply
>>> kernel = FakeKernel()
>>> bridge = Bridge(name="nl-1", owner="netlib:1", mtu=1500, mac="02:00:00:00:00:01")
>>> apply(diff(Wiring(), Wiring([bridge])), kernel)
>>> bridge in kernel.wiring()
True
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count

from netlib.errors import (
    AlreadyThere,
    InvalidName,
    KernelError,
    NamespaceGone,
    NetError,
    NotThere,
)
from netlib.kernel.errnos import raise_together
from netlib.kernel.fake_host import FakeHost
from netlib.kernel.netfilter import ensures_base
from netlib.kernel.switches import FakeSwitches, Switches
from netlib.model import (
    HOST,
    Device,
    Family,
    HostFacts,
    IPAddress,
    IPInterface,
    IPNetwork,
    Netns,
    Protocol,
)
from netlib.plan import Change, Create, Delete, Stage, Step
from netlib.wiring import (
    Address,
    Announce,
    Count,
    Effect,
    FdbEntry,
    Layer,
    Link,
    Neighbour,
    Noun,
    Stray,
    Vxlan,
    Wiring,
)

Failing = Callable[[Step | Effect], NetError | None]


class FakeKernel:
    """Linux as far as netlib is concerned, in memory. Safe for many threads.

    `performed` are the effects so far; `listening` says who has a port, for `port_user`;
    `holding` says which device has an address, for `device_of`; `failing` is asked before each
    step and effect, and the error it returns is raised.
    """

    firewall = "nftables"

    def __init__(self, *, uplink: str = "eth0", uplink_mtu: int = 1500, ipv6: bool = True) -> None:
        self.boot_id = "00000000-0000-0000-0000-000000000001"
        self.ipv6 = ipv6
        self.bridge_netfilter = False
        self.performed: list[Effect] = []
        self.listening: dict[tuple[Protocol, int], str] = {}
        self.routed: list[IPNetwork] = []
        self.holding: dict[IPAddress, str] = {}
        self.failing: Failing | None = None
        self.switched = FakeSwitches(self._forwards, self._forward)
        self._uplink = uplink
        self._host = FakeHost()
        self._lock = threading.RLock()
        self._inodes = count(4026532000)
        if uplink:
            self.add_device(uplink, mtu=uplink_mtu)

    # -- what a test arranges ---------------------------------------------------------------------

    def add_namespace(self, name: str, path: str = "") -> Netns:
        """A network namespace with `lo`, at /run/netns/`name` unless a path is given."""
        netns = Netns(name=name, path=path or f"/run/netns/{name}", inode=next(self._inodes))
        with self._lock:
            self._host.add_namespace(netns)
        return netns

    def remove_namespace(self, netns: Netns) -> None:
        """End a namespace, as when the last process in it ends: all that was in it goes."""
        with self._lock:
            self._host.remove_namespace(netns)

    def add_device(
        self,
        name: str,
        *,
        netns: Netns = HOST,
        kind: str = "",
        mtu: int = 1500,
        mac: str = "02:ff:00:00:00:01",
        addresses: Iterable[IPInterface] = (),
        routers: Iterable[IPAddress] = (),
    ) -> None:
        """A device that is not netlib's, up; default routes by it lead to `routers`."""
        device = Device(
            name=name,
            kind=kind,
            mtu=mtu,
            mac=mac,
            addresses=tuple(addresses),
            routers=tuple(routers),
        )
        with self._lock:
            self._host.add_foreign(netns, device)

    def fail_at(self, number: int, error: NetError | None = None) -> None:
        """The `number`-th step or effect from now on fails, once; 1 is the next."""
        left = number

        def failing(_: Step | Effect) -> NetError | None:
            nonlocal left
            left -= 1
            return (error or KernelError("a failure that was asked for")) if left == 0 else None

        self.failing = failing

    def flush_firewall(self) -> None:
        """Lose all rules, as by `nft flush ruleset`."""
        with self._lock:
            self._host.flush_firewall()

    def reboot(self) -> None:
        """Lose everything but devices that are not netlib's."""
        with self._lock:
            self._host.reboot()
            self.boot_id = f"{self.boot_id[:-12]}{int(self.boot_id[-12:]) + 1:012}"

    def wiring(self) -> Wiring:
        """All that netlib made and that is there now."""
        with self._lock:
            return Wiring(self._host.nouns())

    # -- the protocol -----------------------------------------------------------------------------

    def session(self, effects: Sequence[Effect] = ()) -> AbstractContextManager[None]:
        """Nothing is kept open here."""
        return nullcontext()

    def do(self, stage: Stage) -> None:
        """Do all steps of a stage, or none and raise."""
        with self._lock:
            before = self._host.copy()
            try:
                for step in stage.steps:
                    self._fail(step)
                    self._do(step)
            except BaseException:
                self._host = before
                raise
            if ensures_base(stage.steps):  # it takes over from others
                self.switched.other_firewalls.clear()

    def begin(self, stage: Stage) -> Callable[[], None]:
        """All of it is done by the call of what is returned."""
        return partial(self.do, stage)

    def remove(self, stage: Stage) -> None:
        """Do all deletions that can be done; what is gone is no failure."""
        failures: list[NetError] = []
        with self._lock:
            for step in stage.steps:
                if not isinstance(step, Delete):
                    continue
                try:
                    self._fail(step)
                    self._host.delete(step.noun)
                except NotThere:
                    continue
                except NetError as error:
                    failures.append(error)
        raise_together(failures)

    def perform(self, effects: Sequence[Effect]) -> None:
        """Note effects."""
        failures: list[NetError] = []
        with self._lock:
            for effect in effects:
                try:
                    self._fail(effect)
                    if isinstance(effect, Announce):
                        self._host.check_device(effect.netns, effect.device)
                    self.performed.append(effect)
                except NetError as error:
                    failures.append(error)
        if failures:
            raise failures[0]

    def observe(self, nouns: Wiring) -> Wiring:
        """Of these nouns, those whose thing is there, as it is now."""
        with self._lock:
            seen = (self._host.observe(noun) for noun in nouns)
            return Wiring(noun for noun in seen if noun is not None)

    def entries(self, device: str) -> Wiring:
        """All that is entered for a device."""
        with self._lock:
            kinds = FdbEntry | Neighbour
            found = self._host.riders(self._host.spot(HOST, device))
            return Wiring(noun for noun in found if isinstance(noun, kinds))

    def forget_vtep(self, device: str, address: IPAddress) -> None:
        """Take all of a VXLAN device's entries for a VTEP away."""
        with self._lock:
            for noun in self._host.riders(self._host.spot(HOST, device)):
                if isinstance(noun, FdbEntry) and noun.remote == address:
                    self._host.delete(noun)

    def counted(self, nouns: Wiring) -> dict[tuple[object, ...], Count]:
        """Nothing: no packet moves here."""
        return {}

    def marked(self) -> Wiring:
        """What is on the host now and carries our mark."""

        def is_marked(noun: Noun) -> bool:
            if isinstance(noun, Link):
                return noun.netns == HOST
            return noun.layer >= Layer.FIREWALL and not isinstance(noun, Stray)

        with self._lock:
            return Wiring(noun for noun in self._host.nouns() if is_marked(noun))

    def strays(self, wanted: Wiring) -> Wiring:
        """What others put among the firewall's facts."""
        with self._lock:
            return Wiring(noun for noun in self._host.nouns() if isinstance(noun, Stray))

    def hardware(self, devices: Iterable[str]) -> dict[str, tuple[str, int]]:
        """MAC address and MTU of those that exist."""
        return {name: (found.mac, found.mtu) for name, found in self.facts(devices).devices.items()}

    def facts(self, devices: Iterable[str] = ()) -> HostFacts:
        """What descriptions depend on, and the devices among `devices` that exist."""
        families: tuple[Family, ...] = (4, 6)
        with self._lock:
            asked = {name: self._host.device(HOST, name) for name in devices}
            return HostFacts(
                boot_id=self.boot_id,
                netns=self._host.inode,
                uplink=self._host.device(HOST, self._uplink),
                devices={name: device for name, device in asked.items() if device is not None},
                forwarding=tuple(f for f in families if self._host.forwards(f)),
                bridge_netfilter=self.bridge_netfilter,
                ipv6=self.ipv6,
            )

    def device_of(self, address: IPAddress) -> Device | None:
        """The device that has an address: by `holding`, or because it was made so."""
        with self._lock:
            made = (
                noun.device
                for noun in self._host.nouns()
                if isinstance(noun, Address) and noun.netns == HOST and noun.address.ip == address
            )
            name = self.holding.get(address) or next(made, "")
            return self._host.device(HOST, name) if name else None

    def has_address(self, address: IPAddress) -> bool:
        """Whether an address is the host's own."""
        return address.is_loopback or address.is_unspecified or self.device_of(address) is not None

    def prefixes(self, besides: Collection[str] = ()) -> tuple[IPNetwork, ...]:
        """Every prefix that the host has a route to: `routed`, and those of our own nouns."""
        with self._lock:
            found = [*self.routed, *self._host.prefixes(besides)]
        return tuple(dict.fromkeys(prefix for prefix in found if prefix.prefixlen))

    def enter(self, path: str, name: str) -> Netns:
        """The network namespace behind a path, with its inode."""
        with self._lock:
            inode = self._host.inode_at(path)
        if inode is None:
            raise NamespaceGone(f"{name} has no network namespace at {path}")
        return Netns(name=name, path=path, inode=inode)

    def alive(self, netns: Netns) -> bool:
        """Whether the path still leads to that very namespace."""
        with self._lock:
            return self._host.is_alive(netns)

    def interfaces(self, netns: Netns) -> frozenset[str]:
        """The names of all devices in a network namespace."""
        with self._lock:
            return self._host.device_names(netns)

    def port_user(
        self, protocol: Protocol, address: IPAddress | None, port: int, count: int
    ) -> str | None:
        """Who has one of these ports, by `listening`."""
        ports = range(port, port + count)
        return next(
            (self.listening[protocol, p] for p in ports if (protocol, p) in self.listening), None
        )

    def rival(self, _tunnel: Vxlan) -> str:
        """None: nobody else makes such devices here."""
        return ""

    def make_namespace(self, name: str, claim: Callable[[Netns], None] | None = None) -> Netns:
        """A new network namespace that stays, at /run/netns/`name`."""
        if name == HOST.name or "/" in name or not name:
            raise InvalidName(f"{name!r} is no name for a network namespace", "choose another name")
        with self._lock:
            if self._host.inode_at(f"/run/netns/{name}") is not None:
                raise AlreadyThere(f"there is a network namespace {name}", "choose another name")
            netns = self.add_namespace(name)
        try:
            if claim is not None:
                claim(netns)
        except BaseException:
            self.drop_namespace(netns)
            raise
        return netns

    def drop_namespace(self, netns: Netns) -> None:
        """End such a network namespace. One that is gone is no failure."""
        if netns.path.startswith("/run/netns/") and self.alive(netns):
            self.remove_namespace(netns)

    def switches(self) -> Switches:
        """What an administrator switches for the whole host."""
        return self.switched

    def close(self) -> None:
        """Nothing is held."""

    def _forwards(self, family: Family) -> bool:
        with self._lock:
            return self._host.forwards(family)

    def _forward(self, family: Family, on: bool) -> None:
        with self._lock:
            self._host.forward(family, on=on)

    def _fail(self, what: Step | Effect) -> None:
        error = self.failing(what) if self.failing is not None else None
        if error is not None:
            raise error

    def _do(self, step: Step) -> None:
        if isinstance(step, Create):
            self._host.create(step.noun)
        elif isinstance(step, Delete):
            self._host.delete(step.noun)
        elif isinstance(step, Change):
            self._host.change(step.old, step.new)
        else:
            self._host.ensure(step.noun)
