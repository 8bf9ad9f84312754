"""The nftables backend: a table of our own, one transaction for each call."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from netlib.errors import AlreadyThere, KernelError, NetError, NotPermitted, NotThere
from netlib.firewall import nftables as text
from netlib.firewall.base import Marks, words
from netlib.firewall.facts import Facts, difference, healing, observed, totals
from netlib.firewall.nftables_base import FINGERPRINT, TABLE, USER_CHAIN, fingerprint, rule_counts
from netlib.kernel.errnos import raise_together
from netlib.kernel.netfilter import ensures_base
from netlib.kernel.netfilter.libnftables import Nft, NftFailed, open_nft
from netlib.kernel.netfilter.program import Place
from netlib.kernel.netfilter.ruleset import Ruleset
from netlib.kernel.netfilter.variants import Variant
from netlib.plan import Change, Delete, Ensure, Step, subject
from netlib.wiring import Count, FirewallBase, Noun

_CLASH = (errno.EEXIST, errno.EBUSY, errno.ENOTEMPTY)
_FORBIDDEN = (errno.EPERM, errno.EACCES)


class Nftables:
    """Facts as elements of sets and maps of the table `inet netlib`.

    Acts in the network namespace it was made in, whatever thread calls. Safe for many
    threads; the kernel keeps processes apart.
    """

    name = "nftables"
    variant: Variant | None = None  # of iptables, which this is none of

    def __init__(
        self,
        marks: Marks | None = None,
        *,
        place: Place | None = None,
        nft: Nft | None = None,
        after_base: Callable[[], object] | None = None,
        packs: bool = True,
    ) -> None:
        """`after_base` is called whenever the base was ensured, or somebody changed rules.

        `packs`: elements go to the kernel as we pack them; else nft is told all.
        """
        self.marks = marks or Marks()
        self.place = place or Place()
        self.nft = nft or open_nft(self.place)
        self.after_base = after_base
        self.ruleset = Ruleset(self.place)
        self._packs = packs
        # The rules' generation when the base was found whole and nothing stood in its way,
        # and what the base was then.
        self._whole_at: int | None = None
        self._whole: int | None = None
        self._counting = threading.Lock()

    def do(self, steps: Sequence[Step]) -> None:
        """Do all steps in one transaction, or none and raise. Strict, as Kernel.do is."""
        if all(isinstance(step, Ensure) for step in steps) and self._is_known_whole():
            return
        if self._packs and self._done_quickly(steps):
            return
        commands = text.script(steps, self.marks)
        if not commands.strip():
            return
        try:
            self.nft.run(commands)
        except NftFailed as error:
            if any(isinstance(step, Change) for step in steps) and error.by_kernel:
                self._heal(steps)
                return
            raise _translated(error, steps) from error
        if ensures_base(steps):
            if self.after_base is not None:
                self.after_base()
            with self._counting:
                self._note(whole=True)
        else:
            with self._counting:
                self._note(whole=False)

    def remove(self, steps: Sequence[Step]) -> None:
        """Do the steps that can be done: a Delete of what is absent is no failure."""
        try:
            self.do(steps)
        except (NotPermitted, KernelError):
            self._remove_present(steps)

    def observe(self, nouns: Iterable[Noun]) -> list[Noun]:
        """Of these nouns, those whose thing is there, as it is now."""
        from netlib.firewall import nftables_facts as reading

        wanted = list(nouns)
        listed = self._listed()
        facts = reading.facts(listed)
        ports = (n for n in wanted if not isinstance(n, FirewallBase))
        found = observed(ports, facts, reading.known(facts), text.elements)
        if self._is_whole(listed, facts):
            found += [n for n in wanted if isinstance(n, FirewallBase)]
        return found

    def counted(self, nouns: Iterable[Noun]) -> dict[tuple[object, ...], Count]:
        """What those of the nouns met that are there and count, by their keys."""
        from netlib.firewall import nftables_facts as reading

        return totals(nouns, reading.counts(self._listed()), text.elements)

    def marked(self) -> list[Noun]:
        """All facts that are there, good for Delete. The base is shared, so it is not one."""
        from netlib.firewall import nftables_facts as reading

        return reading.known(reading.facts(self._listed()))

    def strays(self, wanted: Iterable[Noun]) -> list[Noun]:
        """What others put among our facts, good for Delete."""
        from netlib.firewall import nftables_facts as reading

        return reading.strays(reading.facts(self._listed()), wanted)

    def is_there(self) -> bool:
        """Whether our table is."""
        return bool(self._listed())

    def remove_all(self) -> None:
        """Take away all that is ours. Rules that the administrator made in NETLIB-USER stay."""
        listed = self._listed()
        if not listed:
            return
        if not any(o.get("rule", {}).get("chain") == USER_CHAIN for o in listed):
            self._run(f"delete table {TABLE}")
            return
        chains = [o["chain"]["name"] for o in listed if "chain" in o]
        chains.remove(USER_CHAIN)
        flushed = [f"flush chain {TABLE} {name}" for name in chains]
        containers = [
            f"delete {kind} {TABLE} {o[kind]['name']}"
            for o in listed
            for kind in ("set", "map")
            if kind in o
        ]
        self._run("\n".join([*flushed, *containers]))
        # A rule in NETLIB-USER may lead to `allow`: what it needs stays, and does nothing.
        for name in chains:
            try:
                self._run(f"delete chain {TABLE} {name}")
            except KernelError:
                continue

    def senders(self) -> frozenset[int]:
        """The port that elements are changed from."""
        return self.ruleset.senders()

    def close(self) -> None:
        """Give back the socket and the namespace."""
        self.nft.close()
        self.ruleset.close()
        self.place.close()

    def _done_quickly(self, steps: Sequence[Step]) -> bool:
        """Whether the kernel did all of it as we packed it; what it refuses, nft explains."""
        if text.has_base(steps):
            return False
        gone, come = difference(steps, text.elements)
        if not gone and not come:
            return True
        with self._counting:
            if not self.ruleset.change(gone, come):
                return False
            self._note(whole=False)
        return True

    def _is_known_whole(self) -> bool:
        """Whether the base is as it was when it was ensured, and nothing new is in its way.

        Legacy iptables has no generation: what comes there is met when the base is ensured
        by another process, or again after somebody changed nftables.
        """
        with self._counting:
            now = self.ruleset.generation() if self._whole_at is not None else None
            if now is None or now == self._whole_at:
                return now is not None
            if self._whole is None or self.ruleset.own_base() != self._whole:
                return False
        if self.after_base is not None:  # it was others' rules that changed
            self.after_base()
        with self._counting:
            if now == self.ruleset.generation():  # else what came is looked at the next time
                self._whole_at = now
        return True

    def _note(self, *, whole: bool) -> None:
        """Follow the generation over a transaction of ours; lose it when others had one too."""
        try:
            now = self.ruleset.generation()
            mine = self.ruleset.own_base() if whole else self._whole
        except NetError:
            self._whole_at = None  # what was asked for is done: the next one looks again
            return
        if whole:
            self._whole_at, self._whole = now, mine
        elif self._whole_at is not None and now == self._whole_at + 1:
            self._whole_at = now

    def _run(self, commands: str) -> None:
        try:
            self.nft.run(commands)
        except NftFailed as error:
            raise _translated(error, ()) from error

    def _listed(self) -> list[dict[str, Any]]:
        """All of our table; nothing when it is not there."""
        try:
            return self.nft.listed(f"list table {TABLE}")
        except NftFailed as error:
            if error.number == errno.ENOENT:
                return []
            raise _translated(error, ()) from error

    def _is_whole(self, listed: list[dict[str, Any]], facts: Facts) -> bool:
        """Whether every rule of the base that this release loads is there."""
        mark = str(int(fingerprint(self.marks), 16))
        chains = [o["rule"]["chain"] for o in listed if "rule" in o]
        return (FINGERPRINT, mark) in facts and all(
            chains.count(chain) == count for chain, count in rule_counts().items()
        )

    def _heal(self, steps: Sequence[Step]) -> None:
        """Change what is there in part only: read, then write the difference."""
        from netlib.firewall import nftables_facts as reading

        facts = reading.facts(self._listed())
        gone, come = healing(steps, facts, text.elements, text.places)
        marks = self.marks if text.has_base(steps) else None
        try:
            self.nft.run(text.written(gone, come, marks))
        except NftFailed as error:
            raise _translated(error, steps) from error

    def _remove_present(self, steps: Sequence[Step]) -> None:
        """Delete what is there of the steps, one transaction; if that fails, step by step."""
        from netlib.firewall import nftables_facts as reading

        facts = reading.facts(self._listed())
        if not facts:
            return
        gone = [
            element
            for step in steps
            if isinstance(step, Delete)
            for element in text.elements(step.noun)
            if element.place in facts
        ]
        rest = [step for step in steps if not isinstance(step, Delete)]
        failures: list[NetError] = []
        for commands in ([text.together(text.delete(gone))], text.delete(gone)):
            failures = []
            for command in filter(None, commands):
                try:
                    self._run(command)
                except (KernelError, NotPermitted) as error:
                    failures.append(error)
            if not failures:
                break
        for step in rest:
            try:
                self.do([step])
            except (KernelError, NotPermitted) as error:
                failures.append(error)
        raise_together(failures)


def _translated(error: NftFailed, steps: Sequence[Step]) -> NetError:
    """What nft refused, as one of our errors, with the noun it is about."""
    if error.number in _FORBIDDEN:
        return NotPermitted("changing nftables is not permitted", "run as root")
    about = _about(error, steps)
    if error.number == errno.ENOENT and not error.by_kernel:
        return KernelError(f"the table {TABLE} or a part of it is gone", "run: net repair")
    if error.number == errno.ENOENT:
        return NotThere(f"{about} is not there", "run: net repair")
    if error.number in _CLASH:
        return AlreadyThere(f"{about} is there already, and otherwise", "run: net check")
    return KernelError(f"{error.message} ({about})")


def _about(error: NftFailed, steps: Sequence[Step]) -> str:
    """The noun whose element nft points at, in words."""
    for step in steps:
        nouns = [step.old, step.new] if isinstance(step, Change) else [step.noun]
        for noun in nouns:
            if any(error.place.strip().startswith(e.key) for e in text.elements(noun)):
                return words(noun)
    return words(subject(steps[0])) if len(steps) == 1 else "a fact"
