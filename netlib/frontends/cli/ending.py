"""SIGTERM and SIGHUP end a command as Ctrl-C does: what is half done is taken back first."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """Somebody ended us: `timeout`, a service manager, a terminal that was closed."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Have them raise Ended within, and end the process of the signal after that.

    What is ignored (nohup(1)) goes on being ignored.
    """
    mine = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in mine:
            signal.signal(number, _end)
        yield
    except Ended as ended:
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _: FrameType | None) -> NoReturn:
    # Once: service managers send both (systemd.kill(5)), and what takes back is to be done. A
    # handler and not SIG_IGN, which the programs that we start would inherit.
    for other in _ENDING:
        if signal.getsignal(other) is _end:
            signal.signal(other, _heard)
    raise Ended(number)


def _heard(number: int, _: FrameType | None) -> None:
    """It is under way."""
