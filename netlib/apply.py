"""Plans become facts here: building is all or nothing, tearing down does all that it can."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from netlib.errors import LeftOver, NetError, StageFailed
from netlib.plan import Create, Delete, Plan, Stage, inverse
from netlib.values import replace
from netlib.wiring import Layer

if TYPE_CHECKING:
    from netlib.kernel import Kernel


def apply(
    plan: Plan,
    kernel: Kernel,
    *,
    confirm: Callable[[], None] | None = None,
    withdraw: Callable[[], None] | None = None,
) -> None:
    """Do every stage, or undo those done, last first, and raise StageFailed.

    `confirm` is the last act, and a failure of it undoes the rest; `withdraw` takes back what
    went before the plan, when all of the plan was undone, whatever was the reason (Ctrl-C too).
    StageFailed.undone is False when something could not be taken back.
    """
    failures: list[NetError] = []
    try:
        with kernel.session(plan.after), ExitStack() as undo:
            undo.callback(_withdraw, withdraw, failures)
            ahead = _Ahead(plan, kernel)
            undo.callback(ahead.take_back, failures)
            for stage in plan.stages:
                if stage is ahead.stage:
                    _do(ahead.finish, failures)
                    continue
                _do(partial(kernel.do, stage), failures)
                undo.callback(_take_back, stage, kernel, failures)
            if plan.after:
                kernel.perform(plan.after)
            if confirm is not None:
                confirm()
            undo.pop_all()  # success: keep everything
    except StageFailed as error:
        raise StageFailed(error.cause, undone=not failures) from error
    except NetError as error:
        raise StageFailed(error, undone=not failures) from error


class _Ahead:
    """The stage of a plan that needs nothing of the others, if there is one: it is begun first.

    Another process does it, and meanwhile we do the rest.
    """

    def __init__(self, plan: Plan, kernel: Kernel) -> None:
        stages = [stage for stage in plan.stages if stage.layer is Layer.SERVICE]
        self.stage: Stage | None = None
        self._kernel = kernel
        self._is_done = False
        # Only where nothing of the kind goes or changes: that might have to be out of the way.
        if len(stages) == 1 and all(
            isinstance(step, Create) and step.noun.alone for step in stages[0].steps
        ):
            self.stage = stages[0]
            self._finish: Callable[[], None] | None = kernel.begin(self.stage)

    def finish(self) -> None:
        """Wait for it."""
        finish, self._finish = self._finish, None
        if finish is not None:
            finish()
            self._is_done = True

    def take_back(self, failures: list[NetError]) -> None:
        """As if it had never been begun."""
        if self.stage is None:
            return
        with suppress(NetError):  # then nothing of it is there
            _do(self.finish, failures)
        if self._is_done:
            _take_back(self.stage, self._kernel, failures)


def _do(work: Callable[[], None], failures: list[NetError]) -> None:
    try:
        work()
    except StageFailed as error:
        if not error.undone:  # it could not take back the stage's own beginning
            failures.append(error.cause)
        raise


def _withdraw(withdraw: Callable[[], None] | None, failures: list[NetError]) -> None:
    if withdraw is None or failures:
        return
    try:
        withdraw()
    except NetError as error:
        failures.append(error)


def _take_back(stage: Stage, kernel: Kernel, failures: list[NetError]) -> None:
    for step in inverse(stage).stages:
        try:
            kernel.do(step)
        except NetError as error:
            failures.append(error)


def tear_down(plan: Plan, kernel: Kernel, subject: str) -> None:
    """Do all of a removal that can be done, then raise LeftOver with what could not.

    What is gone already is fine: kernels remove without complaint what is not there.
    `subject` names what is removed, for the error.
    """
    failures: list[NetError] = []
    with kernel.session():
        _remove(plan, kernel, failures)
    if failures:
        raise LeftOver(subject, failures) from failures[0]


def _remove(plan: Plan, kernel: Kernel, failures: list[NetError]) -> None:
    for stage in plan.stages:
        # What stays may change on the way: a default route moves to another device.
        kept = tuple(step for step in stage.steps if not isinstance(step, Delete))
        gone = tuple(step for step in stage.steps if isinstance(step, Delete))
        for steps, act in ((kept, kernel.do), (gone, kernel.remove)):
            if steps:
                try:
                    act(replace(stage, steps=steps))
                except NetError as error:
                    failures.append(error)
    if plan.after:
        try:
            kernel.perform(plan.after)
        except NetError as error:
            failures.append(error)
