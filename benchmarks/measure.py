"""Samples that alternate, medians, and a table of ratios."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Series:
    """Samples of one thing, in milliseconds or per second."""

    name: str
    unit: str = "ms"
    samples: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle sample."""
        return median(self.samples)

    def time(self, action: Callable[[], object]) -> None:
        """Take a sample of how long an action takes."""
        start = time.perf_counter()
        action()
        self.samples.append((time.perf_counter() - start) * 1000)

    def __str__(self) -> str:
        ordered = sorted(self.samples)
        low, high = ordered[len(ordered) // 10], ordered[-1 - len(ordered) // 10]
        spread = f"{low:.4g} … {high:.4g}"
        return (
            f"  {self.name:<52} {self.median:>9.4g} {self.unit:<4} {spread:>20}  n={len(ordered)}"
        )


def ratio(ours: Series, other: Series, limit: float, *, at_least: bool = False) -> str:
    """How ours compares with another series, and with what we want."""
    value = ours.median / other.median
    met = value >= limit if at_least else value <= limit
    sign, verdict = ("≥" if at_least else "≤"), ("met" if met else "MISSED")
    return f"  → {ours.name} / {other.name} = {value:.2f} (wanted {sign} {limit}: {verdict})"


def show(title: str, lines: Iterable[object]) -> None:
    """Print a chapter, or go on with one: series with median and the range of the middle 80 %."""
    if title:
        print(f"\n{title}")
    for line in lines:
        print(line, flush=True)
