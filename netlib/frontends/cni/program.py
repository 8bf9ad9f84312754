"""The plugin without a daemon: one call, served in this process."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from netlib.errors import DaemonStuck, NetError
from netlib.frontends.cni.plugin import about, answer
from netlib.net import Net

DAEMON_KEY = b'"startDaemon"'


def here(
    environment: Mapping[str, str], stdin: bytes, operation: str, state: str, *, stuck: bool = False
) -> int:
    """Serve one call, print the answer and end; where there is none to serve, the exit status.

    `stuck`: a daemon has the call, or will have it, and stands still. Then nothing is done here:
    it may do the same at any moment.
    """
    if not environment.get("CNI_COMMAND") and not stdin:
        sys.stderr.write(about())
        return 0
    gc.disable()  # this ends before there is anything to collect
    opened: list[Net] = []

    def net() -> Net:
        if stuck or environment.get("CNI_COMMAND") == "STATUS":
            refuse_if_stuck(Path(state), known=stuck)
        opened.append(Net(state, warn=lambda text: print(text, file=sys.stderr)))
        return opened[0]

    try:
        said = answer(net, environment, stdin, operation=operation)
    finally:
        for one in opened:
            with suppress(NetError):
                one.close()
    sys.stdout.write(said.stdout)
    sys.stdout.flush()
    if said.log:
        sys.stderr.write(said.log)
    if DAEMON_KEY in stdin and environment["CNI_COMMAND"] == "ADD" and not stuck:
        start_daemon(stdin, state)
    sys.stderr.flush()
    # Without taking the interpreter apart, which would take as long as the call itself.
    os._exit(said.status)


def refuse_if_stuck(folder: Path, *, known: bool) -> None:
    """Raise the error of a call to a daemon that stands still. `known`: it does."""
    from netlib.frontends.cni.refusal import NOT_AVAILABLE, Refusal
    from netlib.frontends.daemon.messages import is_stuck, pid_of

    if not (known or is_stuck(folder)):
        return
    error = DaemonStuck(str(folder), pid_of(folder))
    if not known:  # STATUS asked
        raise Refusal(NOT_AVAILABLE, error.message, error.hint)
    raise error


def start_daemon(stdin: bytes, state: str) -> None:
    """Start a daemon for the calls to come, where the configuration says `startDaemon`."""
    import json

    with suppress(ValueError, AttributeError):
        if json.loads(stdin).get("startDaemon") is not True:
            return
        from netlib.frontends.daemon.starting import launch

        try:
            launch(Path(state))
        except OSError as error:
            sys.stderr.write(f"the daemon can't be started: {error}\n")
