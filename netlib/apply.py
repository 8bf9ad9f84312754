"""Plans become facts here: building is all or nothing, tearing down does all that it can."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from netlib.errors import LeftOver, NetError, StageFailed
from netlib.plan import Delete, Plan, Stage, inverse

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
        with kernel.session(), ExitStack() as undo:
            undo.callback(_withdraw, withdraw, failures)
            for stage in plan.stages:
                _do(stage, kernel, failures)
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


def _do(stage: Stage, kernel: Kernel, failures: list[NetError]) -> None:
    try:
        kernel.do(stage)
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
