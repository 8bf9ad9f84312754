"""Neighbours are told where an address is now."""

from __future__ import annotations

import struct
from ipaddress import IPv6Interface

from netlib.errors import NotThere
from netlib.kernel.errnos import of_os_error
from netlib.kernel.session import Session
from netlib.model import IPInterface
from netlib.wiring import Announce

_ARP, _IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ICMPV6 = 58
_OVERRIDE = 0x20000000


def announce(effect: Announce, session: Session) -> None:
    """Send one announcement from the address's own device."""
    what = f"{effect.address.ip} can't be announced at {effect.device} in {effect.netns}"
    try:
        packets = session.packets(effect.netns)
        packets.bind((effect.device, 0))
        mac = packets.getsockname()[4]
        if len(mac) != 6:
            raise NotThere(f"{effect.device} in {effect.netns} has no MAC address to announce")
        packets.send(frame(mac, effect.address))
    except OSError as error:
        raise of_os_error(error, what) from error


def frame(mac: bytes, address: IPInterface) -> bytes:
    """The Ethernet frame that announces an address at a MAC."""
    if isinstance(address, IPv6Interface):
        return neighbour_advertisement(mac, address.ip.packed)
    return arp_announcement(mac, address.ip.packed)


def arp_announcement(mac: bytes, address: bytes) -> bytes:
    """An ARP request for the own address (RFC 5227 section 2.3, "ARP Announcement")."""
    request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    body = request + mac + address + bytes(6) + address
    return _BROADCAST + mac + struct.pack("!H", _ARP) + body


def neighbour_advertisement(mac: bytes, address: bytes) -> bytes:
    """An unsolicited neighbour advertisement that overrides (RFC 4861 section 7.2.6)."""
    everybody = bytes.fromhex("ff02" + "00" * 13 + "01")
    option = struct.pack("!BB", 2, 1) + mac  # target link-layer address
    message = struct.pack("!BBHI", 136, 0, 0, _OVERRIDE) + address + option
    pseudo_header = address + everybody + struct.pack("!II", len(message), _ICMPV6)
    checksum = _checksum(pseudo_header + message)
    message = message[:2] + struct.pack("!H", checksum) + message[4:]
    # Hop limit 255, or receivers drop it (RFC 4861 section 7.1.2).
    header = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, 255) + address + everybody
    group = b"\x33\x33" + everybody[-4:]  # RFC 2464 section 7
    return group + mac + struct.pack("!H", _IPV6) + header + message


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


__all__ = ["announce", "arp_announcement", "frame", "neighbour_advertisement"]
