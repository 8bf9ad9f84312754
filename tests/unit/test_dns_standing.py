"""Servers that say nothing come after the others, and are tried again now and then."""

from __future__ import annotations

import pytest

from netlib.dns import standing
from netlib.dns.standing import Standing


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> Standing[str]:
    return Standing(clock)


def test_the_order_that_was_given_counts_among_equals(known: Standing[str], clock: Clock) -> None:
    """Whoever was silent comes last, the one that was longest at the very end."""
    assert known.order("abc") == ["a", "b", "c"]
    known.unheard("a", clock.now)
    assert known.order("abc") == ["b", "c", "a"]
    known.unheard("b", clock.now)
    assert known.order("abc") == ["c", "a", "b"]
    known.unheard("a", clock.now)
    assert known.order("abc") == ["c", "b", "a"]
    assert known.silent() == [("b", 1), ("a", 2)]
    known.answered("a")
    assert known.order("abc") == ["a", "c", "b"]
    assert known.silent() == [("b", 1)]


def test_a_silent_one_is_tried_with_the_next_question_and_then_ever_less_often(
    known: Standing[str], clock: Clock
) -> None:
    """One trial at a time, half a minute apart at most, however long it lasts."""
    pauses = []
    for _ in range(2000):
        known.unheard("a", clock.now)
        began = clock.now
        while not known.is_due("a"):
            clock.now += 1
        pauses.append(clock.now - began)
        assert not known.is_due("a"), "while it is being tried"
        clock.now += 1
    assert pauses[:6] == [0, 2, 6, 14, 30, 30]
    assert set(pauses[6:]) == {standing.LONGEST_PAUSE_SECONDS}
    known.answered("a")
    assert not known.is_due("a"), "it is asked anyway"


def test_who_answers_others_meanwhile_is_not_silent(known: Standing[str], clock: Clock) -> None:
    """A question may be one that nobody can answer in time."""
    asked = clock.now
    clock.now += 0.5
    known.answered("a")
    clock.now += 0.5
    known.unheard("a", asked)
    assert known.silent() == []
    known.unheard("a", clock.now)
    assert known.silent() == [("a", 1)]


def test_what_is_known_does_not_grow_for_ever(known: Standing[str], clock: Clock) -> None:
    """The servers of sandboxes that are gone are forgotten, the latest last."""
    for number in range(5000):
        known.unheard(str(number), clock.now)
    assert len(known.silent()) == 2000
    assert known.silent()[-1] == ("4999", 1)
    known.clear()
    assert known.silent() == []
