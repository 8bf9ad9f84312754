"""What several threads want done at once, one of them does for all."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from support.patience import eventually

from netlib import turns
from netlib.turns import Together


class Bench:
    """Work that stops until it is told to go on, and notes what it was given."""

    def __init__(self) -> None:
        self.given: list[list[int]] = []
        self.go_on = threading.Event()

    def work(self, things: Sequence[int]) -> list[int | Exception]:
        """Ten times each; less than nothing is an error."""
        self.given.append(list(things))
        assert self.go_on.wait(20)
        return [ValueError(thing) if thing < 0 else 10 * thing for thing in things]


def asked(together: Together[int, int], bench: Bench, things: Sequence[int]) -> dict[int, object]:
    """What becomes of things that as many threads ask for, while the first is worked on."""
    found: dict[int, object] = {}

    def ask(thing: int) -> None:
        try:
            found[thing] = together.do(thing, bench.work)
        except ValueError as error:
            found[thing] = error.args[0]

    threads = [threading.Thread(target=ask, args=(thing,)) for thing in things]
    threads[0].start()
    eventually(lambda: bench.given == [[things[0]]])
    for number, thread in enumerate(threads[1:], 1):
        thread.start()
        eventually(lambda number=number: len(together._waiting) == number)  # type: ignore[misc]
    bench.go_on.set()
    for thread in threads:
        thread.join(20)
    return found


def test_who_comes_first_is_not_made_to_wait_and_the_others_are_one_piece_of_work() -> None:
    """Nobody knows whether more will come."""
    bench = Bench()
    found = asked(Together(100), bench, [1, 2, 3, 4])
    assert bench.given == [[1], [2, 3, 4]]
    assert found == {1: 10, 2: 20, 3: 30, 4: 40}


def test_each_gets_its_own_answer_or_error() -> None:
    """One that fails is nothing to the others."""
    found = asked(Together(100), Bench(), [1, -2, 3])
    assert found == {1: 10, -2: -2, 3: 30}


def test_no_more_than_so_many_are_one_piece_of_work() -> None:
    """The rest is the next one's."""
    bench = Bench()
    found = asked(Together(2), bench, [1, 2, 3, 4])
    assert bench.given == [[1], [2, 3], [4]]
    assert len(found) == 4


def test_after_all_is_done_the_next_one_begins_anew() -> None:
    """Nothing is kept of what was."""
    bench = Bench()
    together: Together[int, int] = Together(100)
    asked(together, bench, [1, 2, 3])
    assert together.do(5, bench.work) == 50
    assert bench.given[-1] == [5]


def test_where_the_work_is_interrupted_each_does_its_own() -> None:
    """Ctrl-C comes to one thread, and means only what that was asked."""
    together: Together[int, int] = Together(100)
    began, go_on = threading.Event(), threading.Event()
    given: list[list[int]] = []
    found: dict[int, object] = {}

    def work(things: Sequence[int]) -> list[int | Exception]:
        given.append(list(things))
        if things == [1]:
            began.set()
            assert go_on.wait(20)
        elif len(things) > 1:
            raise KeyboardInterrupt
        return list(things)

    def ask(thing: int) -> None:
        try:
            found[thing] = together.do(thing, work)
        except KeyboardInterrupt:
            found[thing] = "interrupted"

    threads = [threading.Thread(target=ask, args=(thing,)) for thing in (1, 2, 3)]
    threads[0].start()
    assert began.wait(20)
    for number, thread in enumerate(threads[1:], 1):
        thread.start()
        eventually(lambda number=number: len(together._waiting) == number)  # type: ignore[misc]
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert given == [[1], [2, 3], [3]]
    assert found == {1: 1, 2: "interrupted", 3: 3}
    assert together.do(4, work) == 4


@pytest.mark.parametrize("when", ["waiting", "about-to-be-told", "told"])
def test_who_leaves_while_it_waits_keeps_nobody_waiting(
    when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thing is not done, and who comes after it is served."""
    bench = Bench()
    together: Together[int, int] = Together(100)
    first = threading.Thread(target=together.do, args=(1, bench.work))
    first.start()
    eventually(lambda: bench.given == [[1]])

    class Broken(threading.Event):
        """Who waits is interrupted, before it is told to go on or right after that."""

        is_first = True

        def wait(self, timeout: float | None = None) -> bool:
            """Interrupted the first time."""
            if self.is_first:
                self.is_first = False
                if when != "waiting":
                    bench.go_on.set()
                    first.join(20)
                if when == "told":
                    super().wait(20)
                raise KeyboardInterrupt
            return super().wait(timeout)

    made = turns._Asked

    def asked_for(thing: int) -> Any:
        one = made(thing)
        one.woken = Broken()
        return one

    monkeypatch.setattr(turns, "_Asked", asked_for)
    with pytest.raises(KeyboardInterrupt):
        together.do(2, bench.work)
    monkeypatch.undo()
    bench.go_on.set()
    first.join(20)
    assert together.do(3, bench.work) == 30
    assert bench.given == [[1], [3]]


def test_who_has_waited_for_long_goes_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stands still holds up nobody for ever."""
    monkeypatch.setattr(turns, "_GATHER_SECONDS", 0.01)
    bench = Bench()
    together: Together[int, int] = Together(100)
    first = threading.Thread(target=together.do, args=(1, bench.work))
    first.start()
    eventually(lambda: bench.given == [[1]])
    assert together.do(2, lambda things: [20 for _ in things]) == 20
    assert bench.given == [[1]]
    bench.go_on.set()
    first.join(20)
    assert together.do(3, bench.work) == 30
