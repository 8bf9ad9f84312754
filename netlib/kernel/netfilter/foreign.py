"""Foreign firewalls: chains of others that would drop what we let through, and the way past.

What we allow carries a bit of the connection mark, or of the packet's where conntrack does
not follow it. One rule in a foreign chain that accepts the bit is enough for all networks.
We put it at the end of an iptables FORWARD or INPUT chain, so that nothing is overruled but
the policy, or before the rule that refuses all the rest. Tables of nft belong to their
owners: there we can only say which rule is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from netlib.errors import KernelError, NotPermitted
from netlib.firewall.base import Marks
from netlib.firewall.nftables_base import TABLE
from netlib.kernel.netfilter.libnftables import Nft
from netlib.kernel.netfilter.program import Place
from netlib.kernel.netfilter.ruleset import Rule, Ruleset, verdict
from netlib.kernel.netfilter.variants import (
    VARIANTS,
    Variant,
    is_installed,
    legacy_is_loaded,
    program,
)
from netlib.model import FAMILIES, Family
from netlib.values import dataclass

COMMENT = "netlib"
_HOOKS = {"FORWARD": "forward", "INPUT": "input"}
_REFUSALS = ("DROP", "REJECT")
_FINAL = (("immediate", "drop"), ("target", "REJECT"))
_RULE = re.compile(r"-A (\S+) ?(.*?) ?-[jg] (\S+)(.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A foreign chain that drops or rejects what we let through.

    `where` names it, `why` says what refuses. `rules` are the commands that let us pass, one
    for packets that conntrack follows and one for those that it does not (IPv6 neighbour
    discovery between bridge ports). `ours_to_set`: we may run them, else the chain's owner has to.
    """

    where: str
    hook: str
    why: str
    rules: tuple[str, ...]
    ours_to_set: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """An iptables chain that refuses at `position` (0: by its policy, after all rules)."""

    variant: Variant
    family: Family
    name: str
    why: str
    position: int


class Foreign:
    """The foreign chains of a network namespace.

    `own` is the iptables variant that our own rules are in, if any: there our jump is the
    first rule and its verdict is final.
    """

    def __init__(
        self,
        place: Place,
        marks: Marks,
        ruleset: Ruleset,
        *,
        nft: Nft | None = None,
        own: Variant | None = None,
    ) -> None:
        self._place = place
        self._ruleset = ruleset
        self._marks = marks
        self._nft = nft
        self._own = own

    def obstacles(self, dropping: Collection[str] = ()) -> list[Obstacle]:
        """The chains that refuse what we let through.

        `dropping` are programs, `ip6tables-nft`, whose FORWARD is about to drop by its policy.
        """
        found = self._iptables(dropping)
        return [*(self._as_obstacle(chain) for chain in found), *self._tables()]

    def let_us_pass(self, dropping: Collection[str] = ()) -> list[Obstacle]:
        """Put the rule where we may; the obstacles that are left."""
        for chain in self._iptables(dropping):
            rules = _rules(self._marks)
            at = str(chain.position) if chain.position else ""
            verb = f"-I {chain.name} {at}" if at else f"-A {chain.name}"
            rows = [f"{verb} {rule}" for rule in (reversed(rules) if at else rules)]
            self._restore(chain.variant, chain.family, rows)
        return self._tables()

    def withdraw(self) -> None:
        """Take our rules out of foreign chains."""
        for variant, family in self._worth_asking():
            rows = [
                f"-D {row.removeprefix('-A ')}"
                for row in self._listed(variant, family)
                if f"--comment {COMMENT} " in row
            ]
            if rows:
                self._restore(variant, family, rows)

    # -- iptables -------------------------------------------------------------------------------

    def _worth_asking(self, dropping: Collection[str] = ()) -> Iterable[tuple[Variant, Family]]:
        """The variants that have a filter table here: asking the others would make one."""
        tables = self._tables_of_nft()
        for variant in VARIANTS:
            if variant == self._own:
                continue
            for family in FAMILIES:
                if variant == "legacy":
                    there = legacy_is_loaded(self._place, family)
                else:
                    there = tables is None or _filter_table(family) in tables
                if (there or program(variant, family) in dropping) and is_installed(variant):
                    yield variant, family

    def _tables_of_nft(self) -> set[str] | None:
        """All nft tables that have chains, `ip filter`; None when nft can't be asked."""
        if self._nft is None:
            return None
        return {f"{chain.family} {chain.table}" for chain in self._ruleset.chains()}

    def _may_refuse(self, variant: Variant, family: Family) -> bool:
        """False where nothing in a filter table can refuse all; a look that starts no program."""
        if variant == "legacy" or self._nft is None:
            return True
        table = _filter_table(family)
        return any(
            chain.drops and chain.hook
            for chain in self._ruleset.chains()
            if f"{chain.family} {chain.table}" == table
        ) or any(map(_is_final, self._ruleset.rules(table)))

    def _iptables(self, dropping: Collection[str]) -> list[_Chain]:
        chains: list[_Chain] = []
        for variant, family in self._worth_asking(dropping):
            will_drop = program(variant, family) in dropping
            if will_drop or self._may_refuse(variant, family):
                rows = self._listed(variant, family)
                rows += ["-P FORWARD DROP"] if will_drop else []
                chains += _refusing(variant, family, rows)
        return chains

    def _listed(self, variant: Variant, family: Family) -> list[str]:
        """All rules of the filter table as `iptables -S` shows them."""
        name = program(variant, family)
        done = self._place.run([name, "-w", "20", "-S"])
        if done.status:
            raise NotPermitted(f"{name}: {done.err.strip()}", "run as root")
        return done.out.splitlines()

    def _restore(self, variant: Variant, family: Family, rows: Iterable[str]) -> None:
        """Change the filter table."""
        name = program(variant, family, "-restore")
        script = "\n".join(["*filter", *rows, "COMMIT", ""])
        done = self._place.run([name, "--noflush", "-w", "20"], script)
        if done.status:
            raise KernelError(f"{name}: {done.err.strip()}")

    def _as_obstacle(self, chain: _Chain) -> Obstacle:
        name = program(chain.variant, chain.family)
        verb = f"-I {chain.name} {chain.position}" if chain.position else f"-A {chain.name}"
        return Obstacle(
            where=f"{name} chain {chain.name}",
            hook=_HOOKS[chain.name],
            why=chain.why,
            rules=tuple(f"{name} {verb} {rule}" for rule in _rules(self._marks)),
            ours_to_set=True,
        )

    # -- nft ------------------------------------------------------------------------------------

    def _tables(self) -> list[Obstacle]:
        """Base chains of foreign nft tables that drop by policy or reject by their last rule."""
        if self._nft is None:
            return []
        found: list[Obstacle] = []
        for chain in self._ruleset.chains():
            table = f"{chain.family} {chain.table}"
            if not chain.hook or chain.type != "filter":
                continue
            if table in (TABLE, "ip filter", "ip6 filter"):
                continue
            where = f"{table} {chain.name}"
            rules = [o["rule"] for o in self._nft.listed(f"list chain {where}") if "rule" in o]
            why = "its policy is drop" if chain.drops else ""
            if rules and _refuses_all(rules[-1]):
                why = "its last rule refuses all"
            wanted = [kind for kind in ("ct", "meta") if not _accepts(rules, kind, self._marks)]
            if not why or not wanted:
                continue
            bit = f"{self._marks.allowed:#x}"
            found.append(
                Obstacle(
                    where=f"nft table {table} chain {chain.name}",
                    hook=chain.hook,
                    why=why,
                    rules=tuple(
                        f"nft insert rule {where} {kind} mark and {bit} == {bit} accept"
                        for kind in wanted
                    ),
                    ours_to_set=False,
                )
            )
        return found


def _filter_table(family: Family) -> str:
    return "ip filter" if family == 4 else "ip6 filter"


def _is_final(rule: Rule) -> bool:
    """Whether an iptables-nft rule refuses whatever comes to it.

    Its expressions are what it matches by, a counter, and then a verdict or a target.
    """
    found = [expression for expression in rule.expressions if expression[0] != "counter"]
    if len(found) != 1:
        return False
    name, details = found[0]
    return name == "reject" or (name, verdict(name, details)) in _FINAL


def _rules(marks: Marks) -> list[str]:
    """The rules that let us pass, for packets that conntrack follows and those it does not."""
    bit = f"{marks.allowed:#x}/{marks.allowed:#x}"
    return [
        f"-m {match} --mark {bit} -m comment --comment {COMMENT} -j ACCEPT"
        for match in ("connmark", "mark")
    ]


def _refusing(variant: Variant, family: Family, rows: list[str]) -> Iterable[_Chain]:
    """Of FORWARD and INPUT those that refuse, and have no rule of ours yet."""
    chains: dict[str, list[tuple[str, str, str]]] = {}
    policies: dict[str, str] = {}
    for row in rows:
        rule = _RULE.match(row)
        if row.startswith("-P "):
            _, name, policy = row.split()[:3]
            policies[name] = policy
        elif rule:
            name, matches, target, rest = rule.groups()
            chains.setdefault(name, []).append((matches, target, rest))
    for name in _HOOKS:
        rules = chains.get(name, [])
        if any(f"--comment {COMMENT}" in f"{matches} " for matches, _, _ in rules):
            continue
        ends = next((i for i, rule in enumerate(rules, 1) if _ends_all(rule, chains, 0)), 0)
        if ends:
            yield _Chain(
                variant=variant,
                family=family,
                name=name,
                why=f"its rule {ends} refuses all",
                position=ends,
            )
        elif policies.get(name) == "DROP":
            yield _Chain(
                variant=variant, family=family, name=name, why="its policy is DROP", position=0
            )


def _ends_all(
    rule: tuple[str, str, str], chains: Mapping[str, list[tuple[str, str, str]]], depth: int
) -> bool:
    """Whether a rule, or the chain it leads to, refuses whatever comes to it."""
    matches, target, _ = rule
    if matches or depth > len(chains):
        return False
    return target in _REFUSALS or any(
        _ends_all(inner, chains, depth + 1) for inner in chains.get(target, ())
    )


def _refuses_all(rule: Mapping[str, Any]) -> bool:
    verdicts = [key for part in rule.get("expr", ()) for key in part if key != "counter"]
    return bool(verdicts) and set(verdicts) <= {"drop", "reject", "log"} and verdicts[-1] != "log"


def _accepts(rules: Iterable[Mapping[str, Any]], kind: str, marks: Marks) -> bool:
    """Whether a rule accepts what has our bit in its `ct` or `meta` mark, whatever else it is."""
    bit = marks.allowed
    wanted = {"op": "==", "left": {"&": [{kind: {"key": "mark"}}, bit]}, "right": bit}
    for rule in rules:
        parts = [part for part in rule.get("expr", ()) if "counter" not in part]
        if parts == [{"match": wanted}, {"accept": None}]:
            return True
    return False


__all__ = ["COMMENT", "Foreign", "Obstacle"]
