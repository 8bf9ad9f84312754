"""The relay process, from its start to its end with the last relay."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time

from netlib.relay import privileges
from netlib.relay.control import Control
from netlib.relay.limits import Quota, raise_file_limit
from netlib.relay.loop import Loop
from netlib.relay.spec import Slot, Spec
from netlib.relay.table import Listener, Table
from netlib.relay.tcp import TcpGate, TcpListener
from netlib.relay.udp import UdpGate, UdpListener

_SOCKET = "relay.sock"
# Whoever starts the process asks it for something at once.
_PATIENCE_SECONDS = 10.0
# The next port often follows the last one: a sandbox is replaced, a test follows another.
_LINGER_SECONDS = 2.0


def main(state_dir: str, listening: int, lock: int) -> None:
    """Relay until there has been nothing to relay for a moment.

    `listening` is the unix socket `relay.sock`, and `lock` the locked file `relay.lock`: its
    lock (flock(2)) goes with this process, and only who holds it may start another.
    """
    del lock  # held open
    # What a person stops by hand at the terminal is the command that started this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # And it may have blocked signals for itself, as `net run` does.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY)
    quota = Quota(raise_file_limit())
    privileges.drop(folder)

    loop = Loop()
    tcp, udp = TcpGate(loop, quota), UdpGate(loop, quota)

    def listen(slot: Slot, spec: Spec) -> Listener:
        if spec.protocol == "tcp":
            return TcpListener(tcp, slot, spec)
        return UdpListener(udp, slot, spec)

    deadline = time.monotonic() + _PATIENCE_SECONDS

    def linger() -> None:
        nonlocal deadline
        deadline = time.monotonic() + _LINGER_SECONDS
        loop.need_ticks()

    table = Table(listen)
    control = Control(loop, socket.socket(fileno=listening), table, idle=linger)

    def end_unused(now: float) -> bool:
        unused = control.is_unused()
        loop.ended = unused and now >= deadline
        return unused

    loop.each_tick(end_unused)
    loop.need_ticks()
    gc.freeze()
    try:
        loop.run()
    finally:
        # The name first: who finds none starts another process as soon as the lock is free.
        # Who has connected and gets no answer does the same.
        os.unlink(_SOCKET, dir_fd=folder)
    sys.stderr.flush()
    os._exit(0)  # there is nothing to tidy that the kernel does not
