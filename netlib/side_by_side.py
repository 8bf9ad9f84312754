"""Operations that have nothing to do with each other, done as one.

They wait once for the kernel, for the disk and for the firewall.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain
from typing import TypeVar

from netlib.engine import Engine
from netlib.errors import NetError, StageFailed, StoreConflict
from netlib.operation import Operation, Prepare
from netlib.plan import side_by_side
from netlib.store import Commit, Unchanged
from netlib.values import replace

R = TypeVar("R")
T = TypeVar("T")

# Meanwhile nobody on the host can begin anything: what is not begun by then is done by itself.
_BEGIN_SECONDS = 1.0


class _ByItself:
    """What comes of an operation that can't be done beside others: nothing yet."""


def run_with_others(engine: Engine, prepare: Prepare[R], *, dismantles: bool = False) -> R:
    """Run an operation as `Engine.run` does, and with it what other threads run so meanwhile.

    Only for what is prepared without delay; `dismantles`: what the operation does.
    """

    def work(prepares: Sequence[Prepare[R]]) -> list[R | _ByItself | Exception]:
        if len(prepares) == 1:
            answer = _tried(partial(engine.run, prepares[0]))
            return [answer]
        found = _run_beside(engine, prepares)
        return [found.get(number, _ByItself()) for number in range(len(prepares))]

    gathered = engine.gathered.removed if dismantles else engine.gathered.built
    found: R | _ByItself = gathered.do(prepare, work)
    return engine.run(prepare) if isinstance(found, _ByItself) else found


def run_each(
    engine: Engine, prepares: Sequence[Prepare[R]], *, locked: bool = False
) -> list[R | Exception]:
    """Run several operations; of each what comes of it, or what it failed by.

    What can't be done beside others is run by itself, and meets its own error. `locked`: the
    caller holds the operation lock.
    """
    found = _run_beside(engine, prepares, locked=locked) if len(prepares) > 1 else {}
    run = engine.run_locked if locked else engine.run
    for number, prepare in enumerate(prepares):
        if number not in found:
            answer = _tried(partial(run, prepare))
            found[number] = answer
    return [found[number] for number in range(len(prepares))]


def _tried(work: Callable[[], T]) -> T | Exception:
    try:
        return work()
    except Exception as error:
        return error


def _run_beside(
    engine: Engine, prepares: Sequence[Prepare[R]], *, locked: bool = False
) -> dict[int, R | Exception]:
    """What comes of those that could be done so, by their numbers.

    Where all are taken back, for one of them can't be done, nothing comes of any.
    """
    if not engine.is_settled():
        return {}
    begun: dict[int, Operation[R]] = {}
    with ExitStack() as held:
        if not locked:
            held.enter_context(engine.lock.shared())
        try:
            engine.identify()
            with engine.room():
                _begin_each(engine, prepares, begun, held)
                whole = _as_one(begun.values())
                if not whole.dismantles:
                    engine.build(whole, [])
            if whole.dismantles:
                engine.dismantle(whole)
        except StageFailed as failure:  # not all could be taken back
            return dict.fromkeys(begun, failure)
        except Exception:  # of one, whatever it is: nobody else is to suffer by it
            return {}
    for operation in begun.values():
        engine.tell(operation.warnings)
    return {number: operation.result for number, operation in begun.items()}


def _begin_each(
    engine: Engine,
    prepares: Sequence[Prepare[R]],
    begun: dict[int, Operation[R]],
    held: ExitStack,
) -> None:
    """Begin all that can be done beside what was begun before it."""
    things: dict[str, bool] = {}
    revisions: list[int] = []
    store = engine.state.store
    try:
        with engine.turn(), store.together():
            deadline = time.monotonic() + _BEGIN_SECONDS
            for number, prepare in enumerate(prepares):
                if time.monotonic() > deadline:
                    break
                operation = _tried(prepare)
                if isinstance(operation, Exception):  # by itself it meets that again
                    continue
                first = next(iter(begun.values()), operation)
                if not _is_beside(operation, first, things):
                    continue
                try:
                    held.enter_context(engine.lock.of(operation.holds, patient=False))
                    revision = store.commit(operation.begin or Commit(put={}))
                except (StoreConflict, BlockingIOError):
                    continue
                revisions.append(revision)
                begun[number] = operation
                for thing, alone in operation.holds.items():
                    things[thing] = things.get(thing, False) or alone
    except BaseException:
        for operation, revision in zip(begun.values(), revisions, strict=False):
            with suppress(NetError):  # mostly there is nothing to take back
                store.commit(_undo(operation, revision))
        begun.clear()
        raise


def _undo(operation: Operation[R], revision: int) -> Commit:
    """What takes back the beginning of an operation, if it was committed at this revision.

    Where it was not, somebody else may have what it would have claimed.
    """
    undo, claims = operation.undo or Commit(put={}), operation.begin.put if operation.begin else {}
    mine = tuple(Unchanged(key, revision) for key in undo.delete if key in claims)
    return replace(undo, conditions=mine)


def _is_beside(operation: Operation[R], first: Operation[R], held: Mapping[str, bool]) -> bool:
    """Whether an operation can be done side by side with others, as if they were one.

    It must be done as the `first` of them, layer by layer, ask nothing of the cluster, and hold
    for itself nothing that is `held` by them, and they nothing that it holds.
    """
    layers = [stage.layer for stage in operation.plan.stages]
    return (
        (first.dismantles, first.insists) == (operation.dismantles, operation.insists)
        and layers == sorted(layers, reverse=operation.dismantles)
        and not (operation.claims or operation.releases)
        and not any(
            alone or held[thing] for thing, alone in operation.holds.items() if thing in held
        )
    )


def _as_one(operations: Collection[Operation[R]]) -> Operation[None]:
    """Operations that can be done side by side, and were begun, as one."""
    some = next(iter(operations), None)
    return Operation(
        subject=some.subject if some and len(operations) == 1 else f"{len(operations)} things",
        plan=side_by_side([operation.plan for operation in operations]),
        result=None,
        done=_both(operation.done for operation in operations),
        undo=_both(operation.undo for operation in operations),
        dismantles=some is not None and some.dismantles,
        insists=some is not None and some.insists,
        sandboxes=tuple(chain.from_iterable(operation.sandboxes for operation in operations)),
    )


def _both(commits: Iterable[Commit | None]) -> Commit:
    """Commits that are made when nobody else may have changed what they are about, as one."""
    made = [commit for commit in commits if commit is not None]
    return Commit(
        put={key: value for commit in made for key, value in commit.put.items()},
        delete=tuple(chain.from_iterable(commit.delete for commit in made)),
        delete_ranges=tuple(chain.from_iterable(commit.delete_ranges for commit in made)),
        durable=any(commit.durable for commit in made),
    )


__all__ = ["run_each", "run_with_others"]
