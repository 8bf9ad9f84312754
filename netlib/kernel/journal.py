"""What a stage has done so far, so that it can be taken back."""

from __future__ import annotations

from collections.abc import Callable

from netlib.kernel import rtnl
from netlib.kernel.netlink import CREATE, Request
from netlib.plan import Step, subject
from netlib.wiring import Noun


class Journal:
    """The steps that did something, and what else must be put back after them."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.restore: list[Callable[[], None]] = []
        self._noted: set[int] = set()
        self._created: list[tuple[Step, Request]] = []

    def note(self, step: Step) -> None:
        """A step did something, perhaps not all that it should."""
        if id(step) not in self._noted:
            self._noted.add(id(step))
            self.steps.append(step)

    def note_request(self, step: Step, request: Request) -> None:
        """Linux accepted a request of a step."""
        self.note(step)
        if request.kind == rtnl.NEWLINK and request.flags & CREATE:
            self._created.append((step, request))

    def made(self) -> dict[Noun, str]:
        """The devices that were made, and how they were called then: they may lack our mark yet."""
        return {subject(step): rtnl.read_link(request.body).name for step, request in self._created}
