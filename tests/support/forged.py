"""Packets that no honest stack sends, written as frames."""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import socket
import time
from collections.abc import Iterator

from netlib.model import Family
from support.firewall_host import FIRST, OUTSIDE, FirewallHost, address
from support.host import Host, Place
from support.patience import eventually

SILENCE = 0.3
_PORTS = itertools.count(5000)  # an old flow would keep its translation
_ALL = 3  # ETH_P_ALL, linux/if_ether.h


def forged_to_loopback(made: FirewallHost, *, ports_only: bool = False) -> list[str]:
    """Which forged datagrams arrived that should not.

    From the outsider and from sandboxes, to and from 127.0.0.1: at a service of the host
    (`ports_only`: not from the outsider), at a port published at 127.0.0.1, and at a
    wildcard port. An honest one proves that datagrams of this make do arrive.
    """
    from scapy.all import IP, UDP, Ether  # a second's import, for this test only

    uplink = _mac(made.host, "eth0")
    frames: list[tuple[str, Place, bytes]] = []
    for source, gateway in (("outsider", uplink), ("a1", made.mac["a"]), ("d1", made.mac["d"])):
        place = made.place(source)
        assert isinstance(place, Place)
        own = OUTSIDE[4] if source == "outsider" else address(source, 4)
        ways = [
            ("127.0.0.1", "127.0.0.1", 7001),
            (own, "127.0.0.1", 7001),
            (own, "127.0.0.1", 8082),
            ("127.0.0.1", "127.0.0.1", 8082),
            (own, "127.0.0.1", 8080),
            ("127.0.0.1", address("a1", 4), 80),
        ]
        for number, (src, dst, port) in enumerate(ways):
            if ports_only and source == "outsider" and port == 7001:
                continue
            name = f"{source}: {src} to {dst}:{port}"
            frame = Ether(dst=gateway) / IP(src=src, dst=dst)
            frame /= UDP(sport=4000 + number, dport=port) / name.encode()
            frames.append((name, place, bytes(frame)))
    honest = "outsider, honest"
    frame = Ether(dst=uplink) / IP(src=OUTSIDE[4], dst=FIRST[4])
    frame /= UDP(sport=4999, dport=8080) / honest.encode()
    for _, place, raw in [*frames, (honest, made.outsider, bytes(frame))]:
        _send(place, raw)
    eventually(lambda: honest.encode() in made.servers.datagrams)
    deadline = time.monotonic() + SILENCE
    while time.monotonic() < deadline:
        time.sleep(0.02)
    return [name for name, _, _ in frames if name.encode() in made.servers.datagrams]


def sctp_arrives(made: FirewallHost, family: Family, port: int) -> int | None:
    """The port at which an SCTP INIT of the outsider's to a host port arrives at a1, or None."""
    return sctp_lands(
        made.host, made.outsider, made.sandboxes["a1"], address("a1", family), family, port
    )


def sctp_lands(
    host: Host, outsider: Place, web: Place, target: str, family: Family, port: int
) -> int | None:
    """The port at which an SCTP INIT to a host port arrives in `web` for `target`, or None.

    Crafted: kernels without CONFIG_IP_SCTP route and translate it all the same.
    """
    from scapy.all import IP, SCTP, Ether, IPv6
    from scapy.layers.sctp import SCTPChunkInit

    layer = IP if family == 4 else IPv6
    frame = Ether(dst=_mac(host, "eth0")) / layer(src=OUTSIDE[family], dst=FIRST[family])
    frame /= SCTP(sport=next(_PORTS), dport=port) / SCTPChunkInit(init_tag=1, a_rwnd=1500)
    with _listening(web) as ear:
        _send(outsider, bytes(frame))
        deadline = time.monotonic() + SILENCE
        while select.select([ear], [], [], max(0.0, deadline - time.monotonic()))[0]:
            packet = Ether(ear.recv(2048))
            if SCTP in packet and packet[layer].dst == target:
                arrived: int = packet[SCTP].dport
                return arrived
    return None


def _mac(host: Host, device: str) -> str:
    # Not from /sys, which shows the network namespace that it was mounted in.
    (link,) = json.loads(host.run("ip", "-j", "link", "show", device).stdout)
    return str(link["address"])


def _send(place: Place, frame: bytes) -> None:
    def work() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
            sender.bind(("eth0", 0))
            sender.send(frame)

    place.call(work)


@contextlib.contextmanager
def _listening(place: Place) -> Iterator[socket.socket]:
    def work() -> socket.socket:
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        ear.bind(("eth0", 0))
        return ear

    with place.call(work) as ear:
        yield ear
