"""Joining a sandbox to a network with one published port, in a warm process."""

from __future__ import annotations

from support.host import Host, new_host

from benchmarks import reference
from benchmarks.measure import Series, ratio, show
from netlib import Net
from netlib.settings import Backend

ROUNDS = 40
PRESENT = 1000
PER_NETWORK = 250  # a bridge takes 1023 ports (BR_PORT_BITS in net/bridge/br_private.h)
BACKENDS: tuple[Backend, ...] = ("nftables", "iptables")


def run() -> None:
    """Beside the reference plugins, then with many endpoints and ports present."""
    for firewall in BACKENDS:
        with new_host() as host:
            host.outsider()
            with Net(host.state_dir, firewall=firewall) as net:
                net.create("bench", subnets=["198.19.0.0/16"])
                _attach(host, net, 0, Series(""), Series(""))  # warm
                alone = _beside_the_reference(host, net, firewall)
                _with_many_present(host, net, firewall, alone)


def _beside_the_reference(host: Host, net: Net, firewall: Backend) -> Series:
    ours, off = Series("net.connect, one published port"), Series("net.disconnect")
    theirs, theirs_off = Series("CNI bridge + host-local, ADD"), Series("… DEL")
    plugins = reference.find(host.state_dir / "reference")
    for number in range(1, ROUNDS + 1):
        _attach(host, net, number, ours, off)
        if plugins is not None:
            name = f"reference-{number}"
            host.sandbox(name)
            theirs.time(lambda name=name: plugins.call("ADD", name))  # type: ignore[misc]
            theirs_off.time(lambda name=name: plugins.call("DEL", name))  # type: ignore[misc]
    show(f"Attach, {firewall}", [ours, off])
    if plugins is None:
        show("", ["  (containernetworking-plugins is not installed: nothing to compare with)"])
    else:
        show("", [theirs, theirs_off, ratio(ours, theirs, 0.35)])
    return ours


def _with_many_present(host: Host, net: Net, firewall: Backend, alone: Series) -> None:
    for number in range(PRESENT):
        network = f"full-{number // PER_NETWORK}"
        if number % PER_NETWORK == 0:
            net.create(network)
        host.sandbox(f"present-{number}")
        net.connect(network, f"netns:present-{number}", publish=[f"{30000 + number}:80"])
    full, off = (
        Series(f"net.connect, beside {PRESENT}"),
        Series(f"net.disconnect, beside {PRESENT}"),
    )
    for number in range(ROUNDS + 1, 2 * ROUNDS + 1):
        _attach(host, net, number, full, off)
    show(f"Attach with {PRESENT} endpoints and ports, {firewall}", [full, off])
    show("", [ratio(full, alone, 1.2)])


def _attach(host: Host, net: Net, number: int, on: Series, off: Series) -> None:
    name = f"ours-{number}"
    host.sandbox(name)
    on.time(lambda: net.connect("bench", f"netns:{name}", publish=[f"{20000 + number}:80"]))
    off.time(lambda: net.disconnect("bench", f"netns:{name}"))
