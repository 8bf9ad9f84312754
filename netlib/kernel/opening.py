"""The real host with all its doors, as `Net` uses it."""

from __future__ import annotations

from netlib.kernel.linux import LinuxKernel
from netlib.kernel.netfilter import Steps
from netlib.kernel.netfilter.detect import choose
from netlib.settings import Backend
from netlib.wiring import NameServer, Relay


def open_kernel(backend: Backend, *, relays: Steps, names: Steps) -> LinuxKernel:
    """Linux with the firewall backend that is named, and the services that are processes."""
    return LinuxKernel(choose(backend), {Relay: relays, NameServer: names})
