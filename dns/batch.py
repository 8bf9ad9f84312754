"""Many datagrams in one system call: recvmmsg(2) and sendmmsg(2), by ctypes.

Measured to pay: a fifth less CPU for each query than recvfrom and sendto. The structures are
filled once; per datagram only lengths and bytes are touched, through memoryviews.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable

# A query longer than this is none (a question of 259 bytes, some options): FORMERR.
SLOT_BYTES = 4096
NAME_BYTES = 28  # struct sockaddr_in6

# The message, the packed source address and the slot → the answer, or None: none, or later.
Respond = Callable[[bytes, bytes, int], bytes | None]


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint))


_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg, _sendmmsg = _libc.recvmmsg, _libc.sendmmsg

# Offsets in 32-bit words, and of the iovec's length in size_t words.
_STRIDE = ctypes.sizeof(_Mmsghdr) // 4
_LENGTH = _Mmsghdr.length.offset // 4
_NAME_LENGTH = _Msghdr.name_length.offset // 4
_ADDRESS = {socket.AF_INET: (4, 8), socket.AF_INET6: (8, 24)}  # within the socket address


class Batch:
    """Room for `size` datagrams, answered in place."""

    def __init__(self, size: int = 64) -> None:
        self._size = size
        self._headers = (_Mmsghdr * size)()
        self._iovecs = (_Iovec * size)()
        self._buffer = ctypes.create_string_buffer(size * SLOT_BYTES)
        self._addresses = ctypes.create_string_buffer(size * NAME_BYTES)
        data, names = ctypes.addressof(self._buffer), ctypes.addressof(self._addresses)
        for i in range(size):
            self._iovecs[i] = _Iovec(data + i * SLOT_BYTES, SLOT_BYTES)
            iovec = ctypes.addressof(self._iovecs) + i * ctypes.sizeof(_Iovec)
            self._headers[i].header = _Msghdr(names + i * NAME_BYTES, NAME_BYTES, iovec, 1)
        self._words = memoryview(self._headers).cast("B").cast("I")
        self._lengths = memoryview(self._iovecs).cast("B").cast("N")  # type: ignore[call-overload]  # typeshed lacks size_t
        self._data = memoryview(self._buffer).cast("B")
        self._names = memoryview(self._addresses).cast("B")

    def serve(self, sock: socket.socket, respond: Respond) -> int:
        """Answer what came in at a socket, up to `size` datagrams; how many that were."""
        number, data, names = sock.fileno(), self._data, self._names
        words, lengths = self._words, self._lengths
        count: int = _recvmmsg(number, self._headers, self._size, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return 0
        first, last = _ADDRESS[sock.family]
        answered = 0  # how many slots from `unsent` on wait to be sent
        unsent = 0
        for slot in range(count):
            start, name = slot * SLOT_BYTES, slot * NAME_BYTES
            message = bytes(data[start : start + words[slot * _STRIDE + _LENGTH]])
            answer = respond(message, bytes(names[name + first : name + last]), slot)
            if answer is None:
                self._send(number, unsent, answered)
                unsent, answered = slot + 1, 0
            else:
                size = len(answer)
                data[start : start + size] = answer
                lengths[slot * 2 + 1] = size
                answered += 1
        self._send(number, unsent, answered)
        for slot in range(count):
            lengths[slot * 2 + 1] = SLOT_BYTES
            words[slot * _STRIDE + _NAME_LENGTH] = NAME_BYTES
        return count

    def source(self, slot: int) -> bytes:
        """The socket address that the datagram in a slot came from, for `socket_address`."""
        return bytes(self._names[slot * NAME_BYTES : (slot + 1) * NAME_BYTES])

    def _send(self, number: int, slot: int, count: int) -> None:
        while count > 0:
            header = ctypes.byref(self._headers, slot * _STRIDE * 4)
            sent: int = _sendmmsg(number, header, count, socket.MSG_DONTWAIT)
            # One that can't be sent (its client is gone, a firewall) is left out: the client
            # asks again. The kernel stops before it, or says so when it is the first.
            done = max(sent, 0) + (sent < count)
            slot, count = slot + done, count - done


def socket_address(source: bytes, family: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """What `Batch.source` gave, as socket.sendto takes it."""
    port = int.from_bytes(source[2:4])
    if family == socket.AF_INET:
        return socket.inet_ntop(family, source[4:8]), port
    flow, scope = int.from_bytes(source[4:8]), int.from_bytes(source[24:28], "little")
    return socket.inet_ntop(family, source[8:24]), port, flow, scope
