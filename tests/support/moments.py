"""Ctrl-C at a chosen moment: before any line, or any instruction, of some modules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

Trace = Callable[[FrameType, str, Any], Any]


class Over(Exception):
    """It came to its end first."""


@contextmanager
def ctrl_c_at(moment: int, *modules: ModuleType, instructions: bool = False) -> Iterator[None]:
    """KeyboardInterrupt comes through at the `moment`th line of these modules, or Over is raised.

    With `instructions` at the `moment`th instruction of Python's. It comes once: what takes back is
    not interrupted.
    """
    files = {module.__file__ for module in modules}
    left = moment
    wanted = "opcode" if instructions else "line"
    before = sys.gettrace()

    def inside(frame: FrameType, event: str, _: object) -> Trace:
        nonlocal left
        if event == wanted:
            left -= 1
            if left == 0:
                sys.settrace(before)
                raise KeyboardInterrupt
        return inside

    def entered(frame: FrameType, event: str, _: object) -> Trace | None:
        if frame.f_code.co_filename not in files:
            return None
        frame.f_trace_opcodes = instructions
        return inside

    sys.settrace(entered)
    try:
        yield
    except KeyboardInterrupt:
        if left > 0:
            raise  # another's
        return
    finally:
        sys.settrace(before)
    raise Over
