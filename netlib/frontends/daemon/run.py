"""`net daemon`: opens the library, mends what is broken, serves, and ends well."""

from __future__ import annotations

import gc
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from netlib.cluster.agent import Agent
from netlib.cluster.manager import Manager
from netlib.frontends.daemon.calls import VERBS
from netlib.frontends.daemon.events import Bus
from netlib.frontends.daemon.names import Names
from netlib.frontends.daemon.ports import Holder
from netlib.frontends.daemon.server import Server, listening
from netlib.frontends.daemon.systemd import Pulse, notify
from netlib.frontends.daemon.timing import trace
from netlib.frontends.daemon.watch import Watch
from netlib.kernel.linux import LinuxKernel
from netlib.net import Net
from netlib.settings import Backend, state_folder

# Who looks through much keeps the interpreter no longer from who serves somebody: each of some
# forty system calls of an ADD lets it go, and with Python's 5 ms one took up to 0.2 s beside it.
_INTERPRETER_SECONDS = 0.0005
_OBJECTS = 20_000  # new ones between two collections


def run(
    state_dir: str | Path | None = None,
    *,
    firewall: Backend | None = None,
    trace_timing: bool = False,
    ready: threading.Event | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT (or `stop`). Raises InUse where another daemon serves."""
    folder = state_folder(state_dir)
    bus = Bus()
    with ExitStack() as held:
        listener = held.enter_context(listening(folder))
        net = held.enter_context(Net(folder, firewall=firewall, warn=_log))
        server = Server(net, listener, bus, _log)
        held.enter_context(server.accepting())
        own_ports = _warm(net)
        if trace_timing:
            trace(net, _log)
        # Before the first look: it is told of what others take away while that goes on.
        watch = Watch(net, _log, bus.tell, own_ports=own_ports)
        report = net.repair()
        for finding, error in report.failed:
            _log(f"not mended: {finding.subject}: {error}")
        holder = Holder(net, _log)
        agent = Agent(net.engine, _log, bus.tell)
        manager = Manager(net.cluster.doors, _log, changed=agent.look)
        names = Names(folder, _log)
        pulse = Pulse(folder, _log)
        _on_signals(server, stop)
        holder.start()
        watch.start()
        manager.start()
        agent.start()
        names.start()
        if ready is not None:
            ready.set()
        notify("READY=1", _log)
        pulse.start()
        try:
            server.run()
        finally:
            notify("STOPPING=1", _log)
            pulse.stop()
            names.stop()
            agent.stop()
            manager.stop()
            watch.stop()
            holder.stop()


def _warm(net: Net) -> Callable[[], frozenset[int]]:
    """Load what the first request would otherwise wait for; where firewall changes come from."""
    from netlib.kernel import announce, conntrack, listeners  # noqa: F401

    kernel = net.engine.kernel
    kernel.facts()
    sys.setswitchinterval(_INTERPRETER_SECONDS)
    own_ports: Callable[[], frozenset[int]] = frozenset
    if isinstance(kernel, LinuxKernel):
        own_ports = kernel.senders
    net.engine.registry.get("bridge")
    for verb in VERBS:
        getattr(net, verb)
    # What is loaded now stays: no collection has to look at it.
    gc.collect()
    gc.freeze()
    # A request makes some thousand objects and no circles: the usual 700 would be looked through
    # several times for each.
    gc.set_threshold(_OBJECTS, 10, 20)
    return own_ports


def _on_signals(server: Server, stop: threading.Event | None) -> None:
    if threading.current_thread() is threading.main_thread() and stop is None:
        # The descriptor is written to by whichever thread a signal comes to; a handler would
        # run when the main thread wakes, and nothing wakes it.
        signal.set_wakeup_fd(server.waker)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # by nohup(1)
                signal.signal(number, lambda *_: None)
    if stop is not None:

        def wait() -> None:
            stop.wait()
            server.stop()

        threading.Thread(target=wait, daemon=True).start()


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
