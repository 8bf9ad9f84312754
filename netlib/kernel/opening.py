"""The real host with all its doors, as `Net` uses it."""

from __future__ import annotations

from netlib.kernel.linux import LinuxKernel
from netlib.kernel.netfilter import Firewall, Steps
from netlib.settings import Backend
from netlib.wiring import NameServer, Relay


def open_kernel(backend: Backend, *, relays: Steps, names: Steps) -> LinuxKernel:
    """Linux with the firewall backend that is named, and the services that are processes."""
    return LinuxKernel(_firewall(backend), {Relay: relays, NameServer: names})


def _firewall(backend: Backend) -> Firewall:
    if backend == "none":
        from netlib.kernel.nofirewall import NoFirewall

        return NoFirewall()
    if backend == "iptables":
        from netlib.kernel.netfilter.iptables import Iptables

        return Iptables()
    from netlib.kernel.netfilter.nftables import Nftables

    return Nftables()
