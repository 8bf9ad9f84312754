"""No firewall of ours: facts are accepted and nobody enforces them.

For hosts whose administrator writes all rules himself (`--firewall none`). Bridged traffic
works; what leaves a network, what enters it and which ports are published is up to him.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from netlib.firewall.base import Marks
from netlib.kernel.netfilter import ensures_base
from netlib.kernel.netfilter.program import Place
from netlib.kernel.netfilter.variants import Variant
from netlib.plan import Step
from netlib.wiring import Count, Noun


class NoFirewall:
    """Does nothing, and finds everything as it should be: a check has nothing to say."""

    name = "none"
    variant: Variant | None = None
    place: Place | None = None
    marks = Marks()

    def __init__(self, *, after_base: Callable[[], object] | None = None) -> None:
        """`after_base` is called whenever the base would have been ensured."""
        self.after_base = after_base

    def do(self, steps: Sequence[Step]) -> None:
        """Nothing."""
        if self.after_base is not None and ensures_base(steps):
            self.after_base()

    def remove(self, steps: Sequence[Step]) -> None:
        """Nothing."""

    def observe(self, nouns: Iterable[Noun]) -> list[Noun]:
        """The nouns, as if they were there."""
        return list(nouns)

    def counted(self, nouns: Iterable[Noun]) -> dict[tuple[object, ...], Count]:
        """Nothing counts."""
        return {}

    def marked(self) -> list[Noun]:
        """Nothing is ours."""
        return []

    def strays(self, wanted: Iterable[Noun]) -> list[Noun]:
        """Nobody's."""
        return []

    def remove_all(self) -> None:
        """There is nothing to remove."""

    def senders(self) -> frozenset[int]:
        """None: it changes nothing."""
        return frozenset()

    def close(self) -> None:
        """Nothing is held."""
