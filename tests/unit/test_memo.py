"""What is remembered for a value is remembered for that very one."""

from __future__ import annotations

from netlib.memo import of_same


def test_the_same_object_is_worked_out_once() -> None:
    """An equal one is another: to find out that it is equal may take longer than the work."""
    asked: list[list[int]] = []

    @of_same
    def total(numbers: list[int]) -> int:
        asked.append(numbers)
        return sum(numbers)

    first, second = [1, 2], [1, 2]
    assert [total(first), total(first), total(second), total(first)] == [3, 3, 3, 3]
    assert len(asked) == 2
    assert asked[0] is first
    assert asked[1] is second


def test_however_many_there_are_each_has_its_own() -> None:
    """An object that is gone leaves its place in memory, and its id, to another one."""

    @of_same
    def content(thing: list[int]) -> int:
        return thing[0]

    assert [content([number]) for number in range(1000)] == list(range(1000))
