"""The iptables backend: iptables and ip6tables, one restore per family for each call.

What is in the chains concerned is read first, a millisecond for a chain, so that a change is
strict, writes no line twice, and finds its place in the port tree. A lock keeps other
processes of ours out meanwhile.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from netlib.errors import AlreadyThere, KernelError, NetError, NotPermitted, NotThere
from netlib.firewall import iptables as text
from netlib.firewall import iptables_facts as reading
from netlib.firewall import iptables_state as states
from netlib.firewall.base import Marks, words
from netlib.firewall.facts import Element, Facts, difference, healing, observed, totals
from netlib.kernel.errnos import raise_together
from netlib.kernel.netfilter import ensures_base
from netlib.kernel.netfilter.program import Place, Result
from netlib.kernel.netfilter.variants import LOCK_DIR, Variant, installed_variant, program
from netlib.lock import flock
from netlib.model import Family
from netlib.plan import Change, Step
from netlib.wiring import Count, FirewallBase, Noun

# A chain is read by itself up to so many, all of iptables-save beyond.
_SINGLY = 4
_WAIT_SECONDS = "20"
_PERMISSION = ("Permission denied", "Operation not permitted", "you must be root")


class Iptables:
    """Facts as rules in chains NETLIB-*, in one of the two variants of iptables.

    Acts in the network namespace it was made in, whatever thread calls.
    """

    name = "iptables"

    def __init__(
        self,
        marks: Marks | None = None,
        *,
        variant: Variant | None = None,
        lock_dir: Path = LOCK_DIR,
        after_base: Callable[[], object] | None = None,
    ) -> None:
        """`after_base` is called whenever the base was ensured."""
        self.marks = marks or Marks()
        self.place = Place()
        self.after_base = after_base
        self.variant: Variant = variant or installed_variant(self.place)
        self._lock_path = lock_dir / f"iptables-{self.place.inode}.lock"
        self._families = self._find_families()

    def do(self, steps: Sequence[Step]) -> None:
        """Do all steps or none and raise. Strict, as Kernel.do is.

        Each family is one restore; when IPv6's fails, IPv4's is taken back.
        """
        with self._locked():
            self._do(steps, tolerant=False)
        if self.after_base is not None and ensures_base(steps):
            self.after_base()

    def remove(self, steps: Sequence[Step]) -> None:
        """Do the steps that can be done: a Delete of what is absent is no failure."""
        with self._locked():
            try:
                self._do(steps, tolerant=True)
            except (KernelError, NotPermitted):
                failures: list[NetError] = []
                for step in steps:
                    try:
                        self._do([step], tolerant=True)
                    except (KernelError, NotPermitted) as error:
                        failures.append(error)
                raise_together(failures)

    def observe(self, nouns: Iterable[Noun]) -> list[Noun]:
        """Of these nouns, those whose thing is there, as it is now."""
        wanted = list(nouns)
        saved = {family: self._saved(family) for family in self._families}
        there = {family: states.met(state) for family, state in saved.items()}
        found = observed(
            (n for n in wanted if not isinstance(n, FirewallBase)),
            _merged(there),
            reading.known(there, self.marks),
            self._elements,
        )
        if all(states.is_whole(state, f, self.marks) for f, state in saved.items()):
            found += [n for n in wanted if isinstance(n, FirewallBase)]
        return found

    def counted(self, nouns: Iterable[Noun]) -> dict[tuple[object, ...], Count]:
        """What those of the nouns met that are there, by their keys."""
        found: dict[tuple[object, ...], Count] = {}
        wanted = list(nouns)
        for family in self._families:
            counts = states.counts(self._printed(family, "-c"))
            mine = totals(wanted, counts, partial(text.elements, family=family, marks=self.marks))
            for key, count in mine.items():
                before = found.get(key, Count(0, 0))
                found[key] = Count(before.packets + count.packets, before.bytes + count.bytes)
        return found

    def marked(self) -> list[Noun]:
        """All facts that are there, good for Delete. The base is shared, so it is not one."""
        facts = {f: states.facts(self._saved(f)) for f in self._families}
        return reading.known(facts, self.marks)

    def strays(self, wanted: Iterable[Noun]) -> list[Noun]:
        """What others put among our facts, good for Delete."""
        facts = {f: states.facts(self._saved(f)) for f in self._families}
        return reading.strays(facts, wanted, self.marks)

    def is_there(self) -> bool:
        """Whether any chain of ours is."""
        return any(name.startswith("NETLIB-") for f in self._families for _, name in self._saved(f))

    def remove_all(self) -> None:
        """Take away all that is ours. Rules that the administrator made in NETLIB-USER stay."""
        with self._locked():
            for family in self._families:
                script = states.removal_script(self._saved(family), family)
                if script:
                    self._restore(family, script)

    def senders(self) -> frozenset[int]:
        """None: its changes are made by programs."""
        return frozenset()

    def close(self) -> None:
        """Give the namespace back."""
        self.place.close()

    # -- doing ----------------------------------------------------------------------------------

    def _do(self, steps: Sequence[Step], *, tolerant: bool) -> None:
        if ensures_base(steps):
            for family in self._families:
                script = states.base_script(self._saved(family), family, self.marks)
                if script:
                    self._restore(family, script)
        done: list[tuple[Family, str]] = []
        for family in self._families:
            script, back = self._scripts(family, steps, tolerant=tolerant)
            if not script:
                continue
            try:
                self._restore(family, script)
            except NetError:
                for earlier, undo in reversed(done):
                    self._restore(earlier, undo)
                raise
            done.append((family, back))

    def _scripts(self, family: Family, steps: Sequence[Step], *, tolerant: bool) -> tuple[str, str]:
        """A change's restore script and the one that takes it back."""
        render = partial(text.elements, family=family, marks=self.marks)
        gone, come = difference(steps, render)
        if not gone and not come:
            return "", ""
        before = self._read(family, gone, come)
        changes = any(isinstance(step, Change) for step in steps)
        try:
            script, after = states.change(before, gone, come, tolerant=tolerant)
        except (states.Missing, states.Clash) as problem:
            if not changes or getattr(problem, "base", False):
                raise self._translated(problem, steps, family) from problem
            there = {e.place: e for lines in before.values() for e in lines or ()}
            places = partial(text.places, family=family, marks=self.marks)
            gone, come = healing(steps, there, render, places)
            try:
                before = self._read(family, gone, come)
                script, after = states.change(before, gone, come, tolerant=tolerant)
            except (states.Missing, states.Clash) as other:
                raise self._translated(other, steps, family) from other
        lost = [e for c, lines in before.items() for e in lines or () if e not in (after[c] or ())]
        won = [
            e for c, lines in after.items() for e in lines or () if e not in (before.get(c) or ())
        ]
        back, _ = states.change(
            after, [e for e in won if _is_fact(e)], [e for e in lost if _is_fact(e)]
        )
        return script, back

    def _translated(
        self, problem: states.Missing | states.Clash, steps: Sequence[Step], family: Family
    ) -> NetError:
        if isinstance(problem, states.Missing) and problem.base:
            return KernelError("our iptables chains or some of them are gone", "run: net repair")
        about = "a fact"
        for step in steps:
            for noun in [step.old, step.new] if isinstance(step, Change) else [step.noun]:
                if problem.element in text.elements(noun, family, self.marks):
                    about = words(noun)
        if isinstance(problem, states.Clash):
            return AlreadyThere(f"{about} is there already, and otherwise", "run: net check")
        return NotThere(f"{about} is not there", "run: net repair")

    # -- rendering ------------------------------------------------------------------------------

    def _elements(self, noun: Noun) -> list[Element]:
        return [
            _of_family(e, f) for f in self._families for e in text.elements(noun, f, self.marks)
        ]

    # -- programs -------------------------------------------------------------------------------

    def _program(self, family: Family, suffix: str = "") -> str:
        return program(self.variant, family, suffix)

    def _find_families(self) -> tuple[Family, ...]:
        """IPv6 only where the kernel has it."""
        if not Path("/proc/sys/net/ipv6").exists():
            return (4,)
        return (4, 6)

    def _read(
        self, family: Family, gone: Sequence[Element], come: Sequence[Element]
    ) -> states.State:
        """The chains, and those of the port tree above them as far as a change may reach."""
        chains = states.needed(gone, come)
        # Legacy fetches a whole table for one chain too.
        if len(chains) > _SINGLY or self.variant == "legacy":
            tables = {table for table, _ in chains}
            state = self._saved(family, tables.pop() if len(tables) == 1 else "")
            return {**dict.fromkeys(chains), **state}
        state = {place: self._chain(family, place) for place in chains}
        while (more := states.above(state, gone, come)) is not None:
            state[more] = self._chain(family, more)
        return state

    def _chain(self, family: Family, place: states.Chain) -> list[Element] | None:
        """The rules of a chain, or None."""
        argv = [self._program(family), "-w", _WAIT_SECONDS, "-t", place[0], "-S", place[1]]
        done = self.place.run(argv)
        if done.status:
            if any(word in done.err for word in _PERMISSION):
                raise self._refused(done, argv[0])
            return None
        rows = [row for row in done.out.splitlines() if row.startswith("-A ")]
        return [states.rule(place[0], row) for row in rows]

    def _saved(self, family: Family, table: str = "") -> states.State:
        """All chains of a table, or of all tables."""
        return states.parse(self._printed(family, *(["-t", table] if table else [])))

    def _printed(self, family: Family, *options: str) -> str:
        name = self._program(family, "-save")
        done = self.place.run([name, *options])
        if done.status:
            raise self._refused(done, name)
        return done.out

    def _restore(self, family: Family, script: str) -> None:
        name = self._program(family, "-restore")
        done = self.place.run([name, "--noflush", "-w", _WAIT_SECONDS], script)
        if done.status:
            raise self._refused(done, name)

    def _refused(self, done: Result, name: str) -> NetError:
        said = done.err.strip().splitlines()
        rows = [row for row in said if not row.startswith("#")]
        if any(word in done.err for word in _PERMISSION):
            return NotPermitted(f"{name} is not permitted", "run as root")
        return KernelError(f"{name}: {rows[0] if rows else f'status {done.status}'}")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock_path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except PermissionError as error:
            raise NotPermitted("changing iptables is not permitted", "run as root") from error
        except OSError as error:
            raise KernelError(f"{self._lock_path}: {error.strerror}") from error
        try:
            flock(lock, str(self._lock_path))
            yield
        finally:
            # Not by close(2) alone: a child that was forked meanwhile has the open file, too.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)


def _merged(there: dict[Family, dict[tuple[str, str], Element]]) -> Facts:
    found: dict[tuple[str, str], Element] = {}
    for family, facts in there.items():
        for element in facts.values():
            other = _of_family(element, family)
            found[other.place] = other
    return found


def _of_family(element: Element, family: Family) -> Element:
    return Element(f"{family} {element.container}", element.key, element.value)


def _is_fact(element: Element) -> bool:
    from netlib.firewall import port_tree

    return port_tree.link(element.value.removeprefix("-g ")) is None
