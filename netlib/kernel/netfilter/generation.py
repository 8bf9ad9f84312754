"""The generation of nf_tables' rules, a number that every transaction raises by one."""

from __future__ import annotations

import socket
import struct

from netlib.kernel.netfilter.program import Place

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NETLINK_NETFILTER = 12
_NLM_F_REQUEST = 1
_NFT_MSG_NEWGEN, _NFT_MSG_GETGEN = 10 << 8 | 15, 10 << 8 | 16
_NFTA_GEN_ID = 1
_HEADERS = 16 + 4  # nlmsghdr, nfgenmsg


class Generation:
    """Reads the number, some 10 us each time. Not for two threads at once."""

    def __init__(self, place: Place) -> None:
        self._socket = place.call(_open)

    def read(self) -> int | None:
        """The number; None where the kernel does not say."""
        self._socket.send(
            struct.pack("=IHHIIBBH", _HEADERS, _NFT_MSG_GETGEN, _NLM_F_REQUEST, 0, 0, 0, 0, 0)
        )
        answer = self._socket.recv(512)
        length, kind = struct.unpack_from("=IH", answer)
        if kind != _NFT_MSG_NEWGEN:
            return None
        at = _HEADERS
        while at + 4 <= length:
            size, attribute = struct.unpack_from("=HH", answer, at)
            if attribute == _NFTA_GEN_ID:
                (number,) = struct.unpack_from("!I", answer, at + 4)
                return int(number)
            at += max(4, size + 3 & ~3)
        return None

    def close(self) -> None:
        """Close the socket; once more is no failure."""
        self._socket.close()


def _open() -> socket.socket:
    found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    found.settimeout(1.0)
    return found
