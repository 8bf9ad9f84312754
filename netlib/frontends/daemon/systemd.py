"""What systemd is told: how far the daemon is (sd_notify(3)), and whether it answers."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from netlib.frontends.daemon.messages import is_stuck


def notify(state: str, log: Callable[[str], None]) -> None:
    """Tell systemd, where it started us."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.connect("\0" + address[1:] if address.startswith("@") else address)
            sock.send(state.encode())
        except OSError as error:
            log(f"systemd can't be told: {error}")


class Pulse:
    """Asks what a client asks who has waited for long, and tells systemd as long as it is answered.

    Else systemd has all threads tell where they are (SIGABRT), and starts another daemon.
    """

    def __init__(self, folder: Path, log: Callable[[str], None]) -> None:
        self._folder = folder
        self._log = log
        self._ending = threading.Event()

    def start(self) -> None:
        """Begin, if systemd wants to hear it (sd_watchdog_enabled(3))."""
        microseconds = os.environ.pop("WATCHDOG_USEC", "")  # for us, not for what we start
        if os.environ.pop("WATCHDOG_PID", "") != str(os.getpid()) or not microseconds.isdigit():
            return
        import faulthandler

        faulthandler.enable()
        seconds = int(microseconds) / 1e6 / 2
        threading.Thread(
            target=self._run, args=(seconds,), name="netlib-pulse", daemon=True
        ).start()

    def stop(self) -> None:
        """Tell no more."""
        self._ending.set()

    def _run(self, seconds: float) -> None:
        while not self._ending.wait(seconds):
            if not is_stuck(self._folder):
                notify("WATCHDOG=1", self._log)
