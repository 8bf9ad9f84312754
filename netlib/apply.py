"""Plans become facts here: building is all or nothing, tearing down does all that it can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from netlib.errors import LeftOver, NetError, StageFailed
from netlib.plan import Create, Delete, Plan, Stage, diff, inverse
from netlib.values import replace
from netlib.wiring import Layer, Wiring

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
    attempts: list[_Attempt] = []
    try:
        # Ctrl-C may come at any moment: who takes something back is told before it is begun.
        with ExitStack() as before:
            before.callback(_withdraw, withdraw, attempts, failures)
            with kernel.session(plan.after), ExitStack() as undo:
                attempts += (_Attempt(stage, kernel, failures) for stage in plan.stages)
                ahead = _ahead(plan)
                for attempt in attempts:
                    if attempt.stage is ahead:
                        undo.callback(attempt.take_back)
                        attempt.begin()
                for attempt in attempts:
                    if attempt.stage is not ahead:
                        undo.callback(attempt.take_back)
                    attempt.do()
                if plan.after:
                    kernel.perform(plan.after)
                if confirm is not None:
                    confirm()
                undo.pop_all()  # success: keep everything
            before.pop_all()
    except NetError as error:
        cause = error.cause if isinstance(error, StageFailed) else error
        raise StageFailed(cause, undone=_is_undone(attempts, failures)) from error


def _is_undone(attempts: Sequence[_Attempt], failures: Sequence[NetError]) -> bool:
    return not failures and all(attempt.is_nothing for attempt in attempts)


def _ahead(plan: Plan) -> Stage | None:
    """The stage that needs nothing of the others, if there is one: it is begun first.

    Another process does it, and meanwhile we do the rest.
    """
    stages = [stage for stage in plan.stages if stage.layer is Layer.SERVICE]
    # Only where nothing of the kind goes or changes: that might have to be out of the way.
    if len(stages) == 1 and all(
        isinstance(step, Create) and step.noun.alone for step in stages[0].steps
    ):
        return stages[0]
    return None


class _Attempt:
    """A stage, and what is known of it: whether nothing of it is there, or all.

    Neither while it is done, which an interrupt may leave at any moment, where its answer was
    lost, and where something of it could not be taken back.
    """

    def __init__(self, stage: Stage, kernel: Kernel, failures: list[NetError]) -> None:
        self.stage = stage
        self.is_nothing = True
        self._is_done = False
        self._kernel = kernel
        self._failures = failures
        self._finish: Callable[[], None] | None = None

    def begin(self) -> None:
        """Have another process begin with it; `do` waits for that."""
        self._try(self._begin)

    def _begin(self) -> None:
        self._finish = self._kernel.begin(self.stage)

    def do(self) -> None:
        """Do what is left to do of it, all or nothing."""
        finish, self._finish = self._finish, None
        self._try(finish or partial(self._kernel.do, self.stage))
        self._is_done = True

    def _try(self, work: Callable[[], None]) -> None:
        self.is_nothing = False
        try:
            work()
        except StageFailed as error:
            if error.undone:
                self.is_nothing = True
            else:  # it could not take back the stage's own beginning
                self._failures.append(error.cause)
            raise
        except NetError as error:
            self.is_nothing = not error.may_be_done
            raise

    def take_back(self) -> None:
        """As if it had never been begun; what fails is noted."""
        if self._finish is not None:
            with suppress(NetError):  # then nothing of it is there, or that is noted
                self.do()
        if self.is_nothing:
            return
        before = len(self._failures)
        steps = inverse(self.stage).stages if self._is_done else self._found()
        for step in steps:
            try:
                self._kernel.do(step)
            except NetError as error:
                self._failures.append(error)
        self.is_nothing = len(self._failures) == before

    def _found(self) -> tuple[Stage, ...]:
        """What takes back as much of it as there is."""
        was = self.stage.wiring_before()
        touched = {noun.key(): noun for noun in (*was, *self.stage.wiring_after())}
        try:
            there = self._kernel.observe(Wiring(touched.values()))
        except NetError as error:
            self._failures.append(error)
            return ()
        return diff(have=there, want=was).stages


def _withdraw(
    withdraw: Callable[[], None] | None,
    attempts: Sequence[_Attempt],
    failures: list[NetError],
) -> None:
    if withdraw is None or not _is_undone(attempts, failures):
        return
    try:
        withdraw()
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
