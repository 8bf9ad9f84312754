"""Frames become lines that say what matters."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN

from netlib.labs.packets import decode, either, kind, tcp

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
THERE = IP(src="192.0.2.1", dst="192.0.2.2")
THERE6 = IPv6(src="2001:db8::1", dst="2001:db8::2")


@pytest.mark.parametrize(
    ("frame", "line"),
    [
        (THERE / TCP(sport=1024, dport=80, flags="S"), "192.0.2.1:1024 > 192.0.2.2:80  TCP SYN"),
        (THERE / TCP(sport=80, dport=1024, flags="SA"),
         "192.0.2.1:80 > 192.0.2.2:1024  TCP SYN,ACK"),
        (THERE6 / TCP(sport=80, dport=1024, flags="PA") / b"hello",
         "[2001:db8::1]:80 > [2001:db8::2]:1024  TCP PSH,ACK 5 bytes"),
        (THERE / UDP(sport=1024, dport=9) / b"abc", "192.0.2.1:1024 > 192.0.2.2:9  UDP 3 bytes"),
        (THERE / ICMP(), "192.0.2.1 > 192.0.2.2  ICMP echo-request"),
        (THERE6 / ICMPv6EchoRequest(), "2001:db8::1 > 2001:db8::2  ICMPv6 Echo Request"),
        (THERE6 / ICMPv6ND_NS(tgt="2001:db8::2"),
         "2001:db8::1 > 2001:db8::2  ICMPv6 Neighbor Discovery - Neighbor Solicitation"),
        (ARP(op=1, psrc="192.0.2.1", pdst="192.0.2.2"),
         "192.0.2.1 > 192.0.2.2  ARP who has 192.0.2.2?"),
        (ARP(op=2, psrc="192.0.2.1", pdst="192.0.2.2", hwsrc="02:00:00:00:00:01"),
         "192.0.2.1 > 192.0.2.2  ARP 192.0.2.1 is at 02:00:00:00:00:01"),
        (THERE / UDP(sport=1024, dport=53) / DNS(qd=DNSQR(qname="db", qtype="A")),
         "192.0.2.1:1024 > 192.0.2.2:53  DNS asks for A db"),
        (THERE / UDP(sport=53, dport=1024) / DNS(qr=1, qd=DNSQR(qname="db", qtype="A"),
                                                 an=DNSRR(rrname="db", rdata="192.0.2.9")),
         "192.0.2.1:53 > 192.0.2.2:1024  DNS answers A db: 192.0.2.9"),
        (THERE / UDP(sport=53, dport=1024) / DNS(qr=1, rcode=3, qd=DNSQR(qname="db", qtype="AAAA")),
         "192.0.2.1:53 > 192.0.2.2:1024  DNS answers AAAA db: NXDOMAIN"),
        (THERE / UDP(sport=1024, dport=4789) / VXLAN(vni=4096) / ETHER / THERE6
         / ICMPv6EchoRequest(),
         "192.0.2.1:1024 > 192.0.2.2:4789  VXLAN VNI 4096 "
         "[ 2001:db8::1 > 2001:db8::2  ICMPv6 Echo Request ]"),
    ],
)  # fmt: skip
def test_a_frame_as_a_line(frame: Any, line: str) -> None:
    """From where to where, of which kind, and its point."""
    assert str(decode(bytes(ETHER / frame))) == line


def test_the_first_frame_of_a_process_is_read_like_all_others() -> None:
    """Whatever of scapy was not loaded until then."""
    frame = bytes(ETHER / THERE / UDP(dport=53) / DNS(qd=DNSQR(qname="db", qtype="A")))
    program = (
        "import sys; from netlib.labs.packets import decode; "
        "print(decode(bytes.fromhex(sys.argv[1])).what)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, frame.hex()], capture_output=True, text=True, check=True
    )

    assert done.stdout == "asks for A db\n"


def test_what_is_filled_up_on_the_wire_is_no_data() -> None:
    """Frames have at least 60 bytes."""
    frame = bytes(ETHER / THERE / TCP(flags="S"))

    assert decode(frame + bytes(60 - len(frame))).what == "SYN"


def test_macs_are_known() -> None:
    """Stories of MAC addresses need them."""
    packet = decode(bytes(ETHER / THERE / ICMP()))

    assert (packet.source_mac, packet.target_mac) == ("02:00:00:00:00:01", "02:00:00:00:00:02")


def test_packets_are_picked_by_what_they_are() -> None:
    """By kind, flags and port."""
    opening = decode(bytes(ETHER / THERE / TCP(sport=1024, dport=80, flags="S")))

    assert tcp()(opening)
    assert tcp("SYN", port=80)(opening)
    assert not tcp("SYN,ACK")(opening)
    assert not tcp(port=81)(opening)
    assert not kind("ARP")(opening)
    assert either(kind("ARP"), kind("TCP", "SYN"))(opening)
