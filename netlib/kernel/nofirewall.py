"""No firewall: somebody else keeps the rules, or the host needs none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from netlib.plan import Step
from netlib.wiring import Noun


class NoFirewall:
    """Takes every step and does nothing, so that all of a plan's other stages are done."""

    name = "none"

    def do(self, steps: Sequence[Step]) -> None:
        """Do nothing."""

    def remove(self, steps: Sequence[Step]) -> None:
        """Do nothing."""

    def observe(self, nouns: Iterable[Noun]) -> list[Noun]:
        """All of them: what is nobody's task is not amiss."""
        return list(nouns)

    def marked(self) -> list[Noun]:
        """Nothing is ours."""
        return []
