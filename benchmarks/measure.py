"""Samples of two things taken in turn, their medians and what the one is of the other."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, ParamSpec

P = ParamSpec("P")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One row: our samples, those of what they are compared with, and the ratio we aim at.

    In milliseconds, unless `unit` says otherwise. `aim` limits the ratio of the medians, from
    above or, where more is better, from below; `limit` is the most that ours may be by itself.
    """

    name: str
    ours: list[float]
    other: str = ""
    others: list[float] = field(default_factory=list)
    unit: str = "ms"
    aim: float | None = None
    limit: float | None = None
    better: Literal["less", "more"] = "less"

    @property
    def ratio(self) -> float | None:
        """What ours is of the other's.

        The median of the pairs that were taken in turn, which met the machine in the same
        mood; of the medians where there are no pairs.
        """
        if not self.others:
            return None
        if len(self.ours) == len(self.others):
            return statistics.median(a / b for a, b in zip(self.ours, self.others, strict=True))
        return statistics.median(self.ours) / statistics.median(self.others)

    @property
    def reached(self) -> bool | None:
        """Whether the aim was reached this time; None without one."""
        if self.limit is not None:
            return statistics.median(self.ours) <= self.limit
        if self.aim is None or self.ratio is None:
            return None
        return self.ratio <= self.aim if self.better == "less" else self.ratio >= self.aim

    def row(self) -> list[str]:
        """As a table shows it."""
        aim = ""
        if self.limit is not None:
            aim = f"≤ {self.limit:g} {self.unit}"
        elif self.aim is not None:
            aim = f"{'≤' if self.better == 'less' else '≥'} {self.aim:g}"
        return [
            self.name,
            spread(self.ours),
            self.other,
            spread(self.others),
            "" if self.ratio is None else f"{self.ratio:.2f}",
            aim,
            {None: "", True: "yes", False: "no"}[self.reached],
            self.unit,
        ]


def spread(samples: list[float]) -> str:
    """The median, and the least and the greatest of some samples."""
    if not samples:
        return ""
    digits = 0 if min(samples) >= 100 else 1 if min(samples) >= 10 else 2
    middle, low, high = (
        f"{value:.{digits}f}" for value in (statistics.median(samples), min(samples), max(samples))
    )
    return f"{middle}  ({low} to {high})" if len(samples) > 1 else middle


def timed(work: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
    """How many milliseconds a call takes."""
    begin = time.perf_counter()
    work(*args, **kwargs)
    return (time.perf_counter() - begin) * 1000


def table(comparisons: Iterable[Comparison]) -> str:
    """All rows for a person."""
    from netlib.frontends.cli.output import table as aligned

    heads = ["", "netlib", "beside", "", "ratio", "aim", "reached", "unit"]
    return aligned(heads, [[str(cell) for cell in c.row()] for c in comparisons])


def write_json(path: Path, comparisons: Iterable[Comparison]) -> None:
    """All samples for a program."""
    document = {
        "version": 1,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "comparisons": [{**asdict(c), "ratio": c.ratio, "reached": c.reached} for c in comparisons],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
