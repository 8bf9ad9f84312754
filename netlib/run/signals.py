"""Signals for a command that we wait for: passed on, but never twice."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
PASSED_ON = _ENDING | {
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGCONT,
    signal.SIGWINCH,
}
_SENT_BY_KERNEL = 0x80  # SI_KERNEL (asm-generic/siginfo.h)


@contextmanager
def held() -> Iterator[None]:
    """Until the block ends, signals wait to be passed on; also in threads that begin in it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON | {signal.SIGCHLD})
    try:
        yield
    finally:
        # What came when there was nobody to pass it to any more has had its effect: the end.
        while signal.sigtimedwait(PASSED_ON | {signal.SIGCHLD}, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def asked_to_end() -> int:
    """The signal that asks us to end and waits, 0 if none does."""
    waiting = signal.sigpending() & _ENDING
    return min(waiting, default=0)


def wait_for(process: subprocess.Popen[bytes]) -> int:
    """A child's exit status, 128 + n if signal n ended it; meanwhile pass signals on."""
    waited_for = PASSED_ON | {signal.SIGCHLD}
    while process.poll() is None:
        received = signal.sigwaitinfo(waited_for)
        if received.si_signo == signal.SIGCHLD:
            continue
        # What a terminal sends reaches the whole foreground process group, the child too.
        if received.si_code != _SENT_BY_KERNEL:
            process.send_signal(received.si_signo)
    return status_of(process)


def status_of(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a process that has ended, as shells tell it."""
    assert process.returncode is not None
    return process.returncode if process.returncode >= 0 else 128 - process.returncode
