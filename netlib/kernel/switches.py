"""What the whole host does with packets of others: forwarding, and the policy of FORWARD.

Not part of any plan: these are switched by an administrator (`net host`), by hand.
"""

from __future__ import annotations

import errno
import os
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from netlib.errors import KernelError, NotPermitted
from netlib.model import FAMILIES, Family

if typing.TYPE_CHECKING:
    from netlib.kernel.netfilter import Firewall
    from netlib.kernel.netfilter.foreign import Foreign, Obstacle
    from netlib.kernel.netfilter.program import Place

Policy = Literal["accept", "drop"]
# sysctl.d(5): read at boot in the order of names, so that a later one of the admin's wins.
DROP_IN = Path("/etc/sysctl.d/60-netlib.conf")
SYSCTLS: Mapping[Family, str] = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


class Switches(typing.Protocol):
    """Reads and sets what `net host` shows. Failures are KernelErrors and NotPermitted."""

    def forwarding(self) -> tuple[Family, ...]:
        """The families that the host forwards."""

    def set_forwarding(self, family: Family, *, on: bool) -> None:
        """Forward packets of a family, or do not."""

    def kept(self) -> tuple[Family, ...]:
        """The families that are forwarded after a boot because of us."""

    def keep(self, families: Iterable[Family]) -> None:
        """Have exactly these forwarded after a boot."""

    def policies(self) -> dict[str, Policy]:
        """The policy of iptables' FORWARD chains, by program."""

    def set_policies(self, policies: Mapping[str, Policy]) -> None:
        """Set those of the programs that are named."""

    def elsewhere(self) -> Mapping[str, tuple[str, ...]]:
        """Firewalls, but the one in use, that have rules of ours, with commands to remove them."""

    def obstacles(self, dropping: Collection[str] = ()) -> list[Obstacle]:
        """Foreign chains that refuse what we let through.

        As if the FORWARD chains of the programs `dropping` had a policy of drop already.
        """

    def let_us_pass(self, dropping: Collection[str]) -> None:
        """Put our rule into those of them that we may."""


class LinuxSwitches:
    """Those of the network namespace that `run` works in."""

    def __init__(self, run: Callable[[Callable[[], Any]], Any], firewall: Firewall) -> None:
        self._run = run
        self._firewall = firewall

    def forwarding(self) -> tuple[Family, ...]:
        """The families that the host forwards."""
        from netlib.kernel import settings

        forwarded: tuple[Family, ...] = self._run(
            lambda: tuple(family for family in FAMILIES if settings.forwards(family))
        )
        return forwarded

    def set_forwarding(self, family: Family, *, on: bool) -> None:
        """Forward packets of a family, or do not."""
        from netlib.kernel import settings

        try:
            self._run(lambda: settings.set_forwarding(family, on=on))
        except OSError as error:
            raise _refused(SYSCTLS[family], error) from error

    def kept(self) -> tuple[Family, ...]:
        """The families that are forwarded after a boot because of us."""
        try:
            text = DROP_IN.read_text()
        except FileNotFoundError:
            return ()
        return tuple(family for family in FAMILIES if SYSCTLS[family] in text)

    def keep(self, families: Iterable[Family]) -> None:
        """Have exactly these forwarded after a boot."""
        lines = [f"{SYSCTLS[family]} = 1\n" for family in sorted(families)]
        try:
            if not lines:
                DROP_IN.unlink(missing_ok=True)
                return
            DROP_IN.parent.mkdir(parents=True, exist_ok=True)
            fresh = DROP_IN.with_suffix(".new")
            fresh.write_text("# Written by `net host forwarding on`.\n" + "".join(lines))
            os.replace(fresh, DROP_IN)
        except OSError as error:
            raise _refused(str(DROP_IN), error) from error

    def policies(self) -> dict[str, Policy]:
        """The policy of iptables' FORWARD chains, by program."""
        from netlib.kernel.netfilter.policy import forward_policies

        with self._place() as place:
            return forward_policies(place)

    def set_policies(self, policies: Mapping[str, Policy]) -> None:
        """Set those of the programs that are named."""
        from netlib.kernel.netfilter.policy import set_forward_policies

        with self._place() as place:
            set_forward_policies(place, policies)

    def elsewhere(self) -> Mapping[str, tuple[str, ...]]:
        """Firewalls, but the one in use, that have rules of ours, with commands to remove them."""
        from netlib.kernel.netfilter import detect

        chosen: Any = self._firewall
        found: Mapping[str, tuple[str, ...]] = self._run(lambda: detect.elsewhere(chosen))
        return found

    def obstacles(self, dropping: Collection[str] = ()) -> list[Obstacle]:
        """Foreign chains that refuse what we let through."""
        with self._foreign() as chains:
            return chains.obstacles(dropping) if chains else []

    def let_us_pass(self, dropping: Collection[str]) -> None:
        """Put our rule into those of them that we may."""
        with self._foreign() as chains:
            if chains:
                chains.let_us_pass(dropping)

    @contextmanager
    def _foreign(self) -> Iterator[Foreign | None]:
        """None where we have no firewall, so that nothing of ours could be refused."""
        from netlib.kernel.netfilter.detect import foreign
        from netlib.kernel.netfilter.iptables import Iptables
        from netlib.kernel.netfilter.nftables import Nftables

        if not isinstance(self._firewall, Nftables | Iptables):
            yield None
            return
        with foreign(self._firewall) as chains:
            yield chains

    @contextmanager
    def _place(self) -> Iterator[Place]:
        from netlib.kernel.netfilter.program import Place

        place: Place = self._run(Place)
        try:
            yield place
        finally:
            place.close()


class FakeSwitches:
    """Those of a host in memory, which knows itself what it forwards."""

    def __init__(
        self, forwards: Callable[[Family], bool], forward: Callable[[Family, bool], None]
    ) -> None:
        self._forwards = forwards
        self._forward = forward
        self.after_boot: tuple[Family, ...] = ()
        self.chains: dict[str, Policy] = {"iptables-nft": "accept", "ip6tables-nft": "drop"}
        self.other_firewalls: dict[str, tuple[str, ...]] = {}
        self.in_the_way: list[Obstacle] = []
        self.passed: set[str] = set()

    def forwarding(self) -> tuple[Family, ...]:
        """The families that the host forwards."""
        return tuple(family for family in FAMILIES if self._forwards(family))

    def set_forwarding(self, family: Family, *, on: bool) -> None:
        """Forward packets of a family, or do not."""
        self._forward(family, on)

    def kept(self) -> tuple[Family, ...]:
        """The families that are forwarded after a boot because of us."""
        return self.after_boot

    def keep(self, families: Iterable[Family]) -> None:
        """Have exactly these forwarded after a boot."""
        self.after_boot = tuple(sorted(families))

    def policies(self) -> dict[str, Policy]:
        """The policy of iptables' FORWARD chains, by program."""
        return dict(self.chains)

    def set_policies(self, policies: Mapping[str, Policy]) -> None:
        """Set those of the programs that are named."""
        self.chains.update(policies)

    def elsewhere(self) -> Mapping[str, tuple[str, ...]]:
        """Firewalls, but the one in use, that have rules of ours, with commands to remove them."""
        return dict(self.other_firewalls)

    def obstacles(self, dropping: Collection[str] = ()) -> list[Obstacle]:
        """Foreign chains that refuse what we let through."""
        return list(self.in_the_way)

    def let_us_pass(self, dropping: Collection[str]) -> None:
        """Put our rule into those of them that we may."""
        self.passed.update(dropping)


def _refused(what: str, error: OSError) -> KernelError | NotPermitted:
    message = f"{what} can't be written: {error.strerror}"
    if error.errno in (errno.EPERM, errno.EACCES):
        return NotPermitted(message, "run it as root")
    return KernelError(message)
