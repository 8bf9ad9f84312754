"""Results of pure functions, remembered for the very values they were worked out of."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

V = TypeVar("V")
R = TypeVar("R")
_MOST = 64


def of_same(function: Callable[[V], R]) -> Callable[[V], R]:
    """A function of a frozen value that is not worked out again for the same object.

    Values with mappings in them have no hash, and to compare large ones takes as long as many a
    function. What was read of a record is the same object for as long as the record stays.
    """
    known: dict[int, tuple[Any, R]] = {}  # a value that is held here keeps its id

    @wraps(function)
    def ask(value: V) -> R:
        found = known.get(id(value))
        if found is not None:
            return found[1]
        result = function(value)
        if len(known) >= _MOST:
            known.clear()
        known[id(value)] = value, result
        return result

    return ask
