"""What a network's remote endpoints cost the kernel: time to programme, and memory."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path

from benchmarks.place import Place
from netlib import names
from netlib.apply import apply
from netlib.drivers.overlay import OverlayDriver
from netlib.kernel.linux import LinuxKernel
from netlib.kernel.netfilter.none import NoFirewall
from netlib.model import HostFacts, Network, Peer, Subnet, Underlay
from netlib.plan import diff
from netlib.wiring import Wiring

_SUBNETS = tuple(
    Subnet(prefix=prefix, gateway=prefix[1], own=prefix[2])
    for prefix in (ip_network("10.0.0.0/8"), ip_network("2001:db8:a::/64"))
)
_NETWORK = Network(
    id=names.new_id(),
    name="app",
    driver="overlay",
    subnets=_SUBNETS,
    vni=4001,
    underlay=Underlay(address=ip_address("192.0.2.1"), mtu=1500),
)
Show = Callable[[str, float, str], None]


def measure(show: Show) -> None:
    """All of it, one figure a line."""
    place = Place()
    place.uplink()
    place.call(_measure, show)


def _measure(show: Show) -> None:
    kernel = LinuxKernel(NoFirewall(), {})
    try:
        facts = kernel.facts()
        apply(diff(Wiring(), OverlayDriver().network_wiring(_NETWORK, facts)), kernel)
        first = _peers(0, 1, facts)
        apply(diff(Wiring(), first), kernel)  # what is imported late is imported
        start = 1
        show("a frame to a peer, with one of them", _frame_us(0), "µs")
        for number in (1000, 1000, 1000, 10_000, 40_000):
            before = _slabs()
            began = time.perf_counter()
            want = _peers(start, number, facts)
            described = time.perf_counter()
            plan = diff(Wiring(), want)
            planned = time.perf_counter()
            apply(plan, kernel)
            done = time.perf_counter()
            start += number
            show(f"{number} peers: describe them", (described - began) * 1000, "ms")
            show("…, plan", (planned - described) * 1000, "ms")
            show("…, programme", (done - planned) * 1000, "ms")
        for name, size in sorted(_grown(before, _slabs()).items(), key=lambda item: -item[1])[:8]:
            show(f"memory of one peer in {name}", size / number, "B")
        show("memory of one peer, all", sum(_grown(before, _slabs()).values()) / number, "B")
        show(f"a frame to a peer, with {start} of them", _frame_us(0, start // 2, start - 1), "µs")
        began = time.perf_counter()
        one = _peers(start, 1, facts)
        apply(diff(Wiring(), one), kernel)
        show("one more peer beside them", (time.perf_counter() - began) * 1000, "ms")
        began = time.perf_counter()
        apply(diff(_peers(1, 1000, facts), Wiring()), kernel)
        show("1000 peers: remove them one by one", (time.perf_counter() - began) * 1000, "ms")
        began = time.perf_counter()
        kernel.forget_vtep(names.vxlan(_NETWORK.id), ip_address("198.51.100.7"))
        show("the rest of a dead host's, at once", (time.perf_counter() - began) * 1000, "ms")
    finally:
        kernel.close()


def _peers(start: int, number: int, facts: HostFacts) -> Wiring:
    driver, found = OverlayDriver(), []
    for index in range(start, start + number):
        addresses = tuple(subnet.prefix[1000 + index] for subnet in _SUBNETS)
        peer = Peer(
            mac=_mac(index),
            addresses=addresses,
            host=ip_address("198.51.100.0") + index % 256,
        )
        found.extend(driver.peer_wiring(_NETWORK, peer, facts))
    return Wiring(found)


def _frame_us(*indexes: int, number: int = 20_000) -> float:
    """How long the kernel takes to look a peer up and send a frame to its host, in all."""
    source = bytes.fromhex(names.mac_at(_NETWORK.id, _SUBNETS[0].prefix[3]).replace(":", ""))
    frames = [
        bytes.fromhex(_mac(index).replace(":", "")) + source + b"\x88\xb5" + bytes(50)
        for index in indexes
    ]
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((names.vxlan(_NETWORK.id), 0))
        began = time.perf_counter()
        for turn in range(number):
            sender.send(frames[turn % len(frames)])
        return (time.perf_counter() - began) * 1e6 / number


def _mac(index: int) -> str:
    return names.mac_at(_NETWORK.id, _SUBNETS[0].prefix[1000 + index])


def _slabs() -> dict[str, int]:
    """The bytes in use of each of the kernel's caches (slabinfo(5)); root may read them."""
    found = {}
    for line in Path("/proc/slabinfo").read_text().splitlines()[2:]:
        name, active, _, size = line.split()[:4]
        found[name] = int(active) * int(size)
    return found


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {
        name: size - before.get(name, 0)
        for name, size in after.items()
        if size - before.get(name, 0) > 1 << 18
    }
