"""The only door to Linux: the Kernel protocol. `linux` is the real one, `fake` a strict double."""

from __future__ import annotations

import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

from netlib.model import Device, HostFacts, IPAddress, IPNetwork, Netns, Protocol
from netlib.plan import Stage
from netlib.wiring import Count, Effect, Vxlan, Wiring

if typing.TYPE_CHECKING:
    from netlib.kernel.switches import Switches


class Kernel(typing.Protocol):
    """What the core needs of a host. Every implementation passes tests/contract/test_kernel.py.

    Failures are NetErrors that say what happened to what: AlreadyThere, NotThere,
    NamespaceGone, InterfaceTaken, NotPermitted, Unsupported or KernelError itself.
    """

    firewall: str  # the backend's name: nftables, iptables, none

    def session(self, effects: Sequence[Effect] = ()) -> AbstractContextManager[None]:
        """What the calling thread opens for one stage is kept for the next, until the end.

        What `effects` need that will be performed in it may be opened on the way.
        """

    def do(self, stage: Stage) -> None:
        """Do all steps of a stage; on failure leave the host as it was and raise.

        Strict: Create of what is there is AlreadyThere (a device that is not ours:
        InterfaceTaken), Delete or Change of what is not there is NotThere. Only settings, Up
        and Sysctl, may be made twice. Changes are made in place; a plan never asks for one
        that Linux can't (Link.fixed). Raises StageFailed with `undone` False where it could
        not take back what it had done.
        """

    def begin(self, stage: Stage) -> Callable[[], None]:
        """Begin a stage: what another process does of it is under way when this returns.

        The call of what is returned does the rest, and returns or raises as `do` does. It has to
        be called, once, whatever comes in between.
        """

    def remove(self, stage: Stage) -> None:
        """Do all of the stage's Deletes that can be done; one of what is gone is no failure.

        A network namespace that ended counts as gone with all that was in it. Raises one
        KernelError that names everything that failed.
        """

    def forget_vtep(self, device: str, address: IPAddress) -> None:
        """Silence a VTEP: take all of a VXLAN device's FdbEntries for it away, in one message.

        Half of them: the bridge's halves stay until they are deleted or made anew.
        """

    def perform(self, effects: Sequence[Effect]) -> None:
        """Do what leaves no thing: all that can be done, then raise the first failure."""

    def observe(self, nouns: Wiring) -> Wiring:
        """Of these nouns, those whose thing is there, as it is now.

        What can not be read back of a thing (an announcement) is taken from the noun.
        """

    def entries(self, device: str) -> Wiring:
        """All FdbEntries of a VXLAN device of the host, or all Neighbours of another one.

        Whoever made them: so foreign ones are found, and are good for `remove`. Learned
        neighbours don't count.
        """

    def counted(self, nouns: Wiring) -> Mapping[tuple[object, ...], Count]:
        """What the firewall's facts met, by their keys; nothing of those that don't count."""

    def marked(self) -> Wiring:
        """What is on the host now and carries our mark: links by ifalias, firewall facts.

        Nouns here are good for Delete; attributes that only creation needs may be guesses.
        """

    def strays(self, wanted: Wiring) -> Wiring:
        """What others put among the firewall's facts, as Strays, good for Delete.

        Nothing that could be a part of `wanted`, or of any other noun that it has.
        """

    def facts(self, devices: Iterable[str] = ()) -> HostFacts:
        """What descriptions depend on, and the devices among `devices` that exist."""

    def hardware(self, devices: Iterable[str]) -> Mapping[str, tuple[str, int]]:
        """MAC address ("" if it has none) and MTU of those among `devices` that exist.

        Without waiting, as `facts` may, for who changes links just then.
        """

    def device_of(self, address: IPAddress) -> Device | None:
        """The device that has an address of the host's, None where none has."""

    def has_address(self, address: IPAddress) -> bool:
        """Whether an address is the host's own, or may be spoken from as if it were."""

    def prefixes(self, besides: Collection[str] = ()) -> tuple[IPNetwork, ...]:
        """Every prefix that the host has a route to (all tables), but default routes.

        Routes by the devices `besides` don't count.
        """

    def enter(self, path: str, name: str) -> Netns:
        """The network namespace behind a path, with its inode. NamespaceGone if there is none."""

    def alive(self, netns: Netns) -> bool:
        """Whether the path still leads to that very namespace."""

    def interfaces(self, netns: Netns) -> frozenset[str]:
        """The names of all devices in a network namespace."""

    def port_user(
        self, protocol: Protocol, address: IPAddress | None, port: int, count: int
    ) -> str | None:
        """Who of the host listens on one of `count` ports from `port` on, in words; None: nobody.

        `address` None: any address of either family.
        """

    def rival(self, tunnel: Vxlan) -> str:
        """Another device beside which that can't be made, in words; "": none that is known."""

    def make_namespace(self, name: str, claim: Callable[[Netns], None] | None = None) -> Netns:
        """A new network namespace that stays, at /run/netns/`name` as for ip-netns(8).

        `claim` is told of it before anybody can find it; what it raises ends the namespace.
        """

    def drop_namespace(self, netns: Netns) -> None:
        """End such a network namespace; its devices go with it. One that is gone is no failure."""

    def switches(self) -> Switches:
        """What an administrator switches for the whole host, and no plan."""

    def close(self) -> None:
        """Give back sockets and threads."""
