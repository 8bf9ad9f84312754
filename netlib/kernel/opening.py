"""The real host with all its doors, as `Net` uses it."""

from __future__ import annotations

from pathlib import Path

from netlib.errors import NotPermitted
from netlib.kernel.linux import LinuxKernel
from netlib.kernel.netfilter import Steps
from netlib.kernel.netfilter.detect import choose
from netlib.settings import Backend
from netlib.wiring import NameServer, Relay

_CAP_NET_ADMIN = 12  # linux/capability.h


def open_kernel(backend: Backend, *, relays: Steps, names: Steps) -> LinuxKernel:
    """Linux with the firewall backend that is named, and the services that are processes.

    Raises NotPermitted, before anything is tried, for who may change nothing.
    """
    _check_rights()
    return LinuxKernel(choose(backend), {Relay: relays, NameServer: names})


def _check_rights() -> None:
    status = Path("/proc/thread-self/status").read_text()
    (effective,) = (line for line in status.splitlines() if line.startswith("CapEff:"))
    if not int(effective.split()[1], 16) >> _CAP_NET_ADMIN & 1:
        raise NotPermitted(
            "only root, or who has CAP_NET_ADMIN, may look after the host's network",
            "run it with sudo, or try it out: python -m netlib.throwaway -- bash",
        )
