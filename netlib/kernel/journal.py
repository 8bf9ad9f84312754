"""What a stage has done so far, so that it can be taken back."""

from __future__ import annotations

from collections.abc import Callable

from netlib.plan import Step


class Journal:
    """The steps that did something, and what else must be put back after them."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.restore: list[Callable[[], None]] = []

    def note(self, step: Step) -> None:
        """A step did something, perhaps not all that it should."""
        if not self.steps or self.steps[-1] is not step:
            self.steps.append(step)
