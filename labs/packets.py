"""A packet as a story shows it: one line of what matters, decoded by scapy.

scapy takes a third of a second to load, so it is loaded when the first frame is decoded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from netlib.values import dataclass

# In the order that RFC 9293 section 3.1 has them in the header, without CWR and ECE.
_FLAGS = {"S": "SYN", "F": "FIN", "R": "RST", "P": "PSH", "A": "ACK"}
# RFC 1035 section 4.1.1
_RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """What one frame says. Addresses are MAC addresses where there are no others.

    `kind` is TCP, UDP, ICMP, ICMPv6, ARP, DNS, or a layer's name; `what` its point: flags, a
    question, a type. A tunnel's packet has the one that it carries in `inner`.
    """

    kind: str
    source: str
    target: str
    source_port: int | None = None
    target_port: int | None = None
    what: str = ""
    source_mac: str = ""
    target_mac: str = ""
    inner: Packet | None = None

    @property
    def road(self) -> str:
        """From where to where."""
        start, end = _end(self.source, self.source_port), _end(self.target, self.target_port)
        return f"{start} > {end}"

    def __str__(self) -> str:
        carried = f" [ {self.inner} ]" if self.inner else ""
        return f"{self.road}  {self.kind} {self.what}".rstrip() + carried


Which = Callable[[Packet], bool]


def tcp(what: str = "", *, port: int | None = None) -> Which:
    """Which packets of TCP: with exactly these flags (`SYN,ACK`), to or from this port."""
    return lambda packet: (
        packet.kind == "TCP"
        and (not what or packet.what.partition(" ")[0] == what)
        and (port is None or port in {packet.source_port, packet.target_port})
    )


def kind(name: str, what: str = "") -> Which:
    """Which packets of a kind, whose point begins with `what`."""
    return lambda packet: packet.kind == name and packet.what.startswith(what)


def either(*which: Which) -> Which:
    """Which packets any of these picks."""
    return lambda packet: any(one(packet) for one in which)


def decode(frame: bytes) -> Packet:
    """The packet in an Ethernet frame."""
    logging.getLogger("scapy").setLevel(logging.ERROR)
    # All of them before the first frame: a layer knows what it carries once that is loaded.
    from scapy.layers import dns, inet, inet6, l2, vxlan  # noqa: F401

    return _of(l2.Ether(frame))


def _of(ether: Any) -> Packet:
    from scapy.layers import dns, inet, inet6, l2, vxlan

    macs: dict[str, Any] = {"source_mac": ether.src, "target_mac": ether.dst}
    if l2.ARP in ether:
        return _arp(ether[l2.ARP], macs)
    ip = ether.getlayer(inet.IP) or ether.getlayer(inet6.IPv6)
    if ip is None:
        return Packet(kind=ether.lastlayer().name, source=ether.src, target=ether.dst, **macs)
    ends: dict[str, Any] = {**macs, "source": ip.src, "target": ip.dst}
    if inet.TCP in ip:
        segment = ip[inet.TCP]
        return Packet(kind="TCP", what=_segment(segment), **ends, **_ports(segment))
    if inet.UDP in ip:
        datagram = ip[inet.UDP]
        ends |= _ports(datagram)
        if vxlan.VXLAN in datagram:
            tunnel = datagram[vxlan.VXLAN]
            return Packet(kind="VXLAN", what=f"VNI {tunnel.vni}", inner=_of(tunnel[l2.Ether]),
                          **ends)  # fmt: skip
        if dns.DNS in datagram:
            return Packet(kind="DNS", what=_message(datagram[dns.DNS]), **ends)
        return Packet(kind="UDP", what=f"{len(_payload(datagram))} bytes", **ends)
    if inet.ICMP in ip:
        icmp = ip[inet.ICMP]
        return Packet(kind="ICMP", what=icmp.sprintf("%ICMP.type%"), **ends)
    if ip.version == 6 and ip.nh == 58:
        return Packet(kind="ICMPv6", what=ip.payload.name.removeprefix("ICMPv6 "), **ends)
    return Packet(kind=ip.lastlayer().name, **ends)


def _arp(arp: Any, macs: dict[str, Any]) -> Packet:
    asks = arp.op == 1
    what = f"who has {arp.pdst}?" if asks else f"{arp.psrc} is at {arp.hwsrc}"
    return Packet(kind="ARP", source=arp.psrc, target=arp.pdst, what=what, **macs)


def _segment(segment: Any) -> str:
    flags = str(segment.flags)
    names = ",".join(name for letter, name in _FLAGS.items() if letter in flags)
    data = _payload(segment)
    return f"{names} {len(data)} bytes" if data else names


def _message(message: Any) -> str:
    question = message.qd[0] if message.qd else None
    name = question.qname.decode().rstrip(".") if question else ""
    asked = f"{question.sprintf('%DNSQR.qtype%')} {name}" if question else ""
    if not message.qr:
        return f"asks for {asked}"
    found = [str(record.rdata) for record in message.an or [] if hasattr(record, "rdata")]
    code = _RCODES.get(message.rcode, str(message.rcode))
    return f"answers {asked}: {', '.join(found) if found else code}"


def _ports(layer: Any) -> dict[str, Any]:
    return {"source_port": layer.sport, "target_port": layer.dport}


def _payload(layer: Any) -> bytes:
    from scapy.packet import Padding

    # A frame of less than 60 bytes was filled up on the wire.
    return b"" if isinstance(layer.payload, Padding) else bytes(layer.payload)


def _end(address: str, port: int | None) -> str:
    if port is None:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
