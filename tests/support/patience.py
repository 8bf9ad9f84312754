"""Waiting for what takes its time: by asking again, never by sleeping for long enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    wanted: Callable[[], T], timeout: float = 5.0, *, pause: float = 0.01, what: str = ""
) -> T:
    """The first true value of `wanted()`; an AssertionError in it counts as not yet.

    Raises AssertionError with the last one seen when the time is over.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            value = wanted()
            if value:
                return value
            last: object = value
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            name = what or getattr(wanted, "__name__", "it")
            raise AssertionError(f"not within {timeout} s: {name}; last seen: {last!r}")
        time.sleep(pause)
