"""Netlink (netlink(7)): attributes, a socket that sends batches and reads every answer.

Our own, because it is on the road of each attach: packing costs microseconds here, and a
general library's import alone costs more than all of the kernel's work.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from netlib.errors import KernelError
from netlib.kernel.errnos import Refusal, refused

ROUTE = 0  # NETLINK_ROUTE
NETFILTER = 12  # NETLINK_NETFILTER

# Flags of requests (linux/netlink.h).
ACK = 0x004
DUMP = 0x300
REPLACE = 0x100
EXCLUSIVE = 0x200
BULK = 0x200  # of a deletion
CREATE = 0x400
APPEND = 0x800

_REQUEST = 0x001
_DUMP_INTERRUPTED = 0x010
_CAPPED, _HAS_TLVS = 0x100, 0x200  # flags of an acknowledgement
_ERROR, _DONE = 2, 3
_SOL_NETLINK = 270
_OPTIONS = (10, 11, 12)  # CAP_ACK, EXT_ACK, GET_STRICT_CHK
_EXTACK_TEXT = 1  # NLMSGERR_ATTR_MSG

# The kernel answers before send() returns; if it did not, a lost answer must not hang us.
_ANSWER_SECONDS = 20
_RECEIVE_BYTES = 1 << 16
# Each refusal takes about 800 bytes of the receive buffer, 212 kB by default.
_BATCH = 100

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_PADDING = (b"", b"\0", b"\0\0", b"\0\0\0")
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

IFREQ_INDEX = struct.Struct("16si20x")
IFREQ_FLAGS = struct.Struct("16sH22x")
_HWADDR = struct.Struct("16xH6s16x")  # sa_family, the address's first bytes
_ETHERNET = (1, 772)  # ARPHRD_ETHER, ARPHRD_LOOPBACK
_SIOCGIFNAME, _SIOCGIFFLAGS, _SIOCGIFINDEX = 0x8910, 0x8913, 0x8933
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_SIOCGIFMTU, _SIOCGIFHWADDR = 0x8921, 0x8927


class Request(NamedTuple):
    """A message without its sequence number: type, flags beyond NLM_F_REQUEST, body."""

    kind: int
    flags: int
    body: bytes


class NoAnswer(KernelError):
    """A request or its answer was lost; the socket must not be used again."""

    may_be_done = True

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"Linux does not answer over netlink: {cause.strerror or cause}")


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    length = len(payload) + 4
    return _ATTRIBUTE.pack(length, kind) + payload + _PADDING[-length & 3]


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute made of attributes."""
    payload = b"".join(attributes)
    return _ATTRIBUTE.pack(len(payload) + 4, kind | _NESTED) + payload


def u8(kind: int, value: int) -> bytes:
    """An attribute of one byte."""
    return attribute(kind, value.to_bytes(1, "little"))


def u16(kind: int, value: int) -> bytes:
    """An attribute of two bytes in the host's order."""
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    """An attribute of four bytes in the host's order."""
    return attribute(kind, struct.pack("=I", value))


def text(kind: int, value: str) -> bytes:
    """An attribute of text with its closing NUL."""
    return attribute(kind, value.encode() + b"\0")


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The payloads of the attributes in `data` by type; of several of one type the last."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & _TYPE_MASK] = data[offset + 4 : offset + length]
        offset += length + 3 & ~3
    return found


def members(data: bytes, kind: int) -> Iterator[bytes]:
    """The payloads of all attributes of one type, for lists."""
    offset, end = 0, len(data)
    while offset + 4 <= end:
        length, found = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        if found & _TYPE_MASK == kind:
            yield data[offset + 4 : offset + length]
        offset += length + 3 & ~3


def number(payload: bytes | None, default: int = 0) -> int:
    """An unsigned integer in the host's order."""
    import sys

    return default if payload is None else int.from_bytes(payload, sys.byteorder)


def string(payload: bytes | None) -> str:
    """Text without its closing NUL."""
    return "" if payload is None else payload.rstrip(b"\0").decode(errors="replace")


class Socket:
    """A netlink socket, for one thread at a time, in the namespace of the thread that made it.

    It stays in that namespace whichever thread uses it. After NoAnswer, or an interrupt, an
    answer may still be under way: close it.
    """

    def __init__(self, protocol: int = ROUTE) -> None:
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
            )
        except OSError as error:
            raise KernelError(f"no netlink socket can be opened: {error.strerror}") from error
        for option in _OPTIONS:
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _ANSWER_SECONDS, 0)
        )
        self._sequence = itertools.count(1)

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    def port(self) -> int:
        """The number that the kernel knows it by, and names in what it tells others."""
        if not self._socket.getsockname()[0]:
            self._socket.bind((0, 0))
        found: int = self._socket.getsockname()[0]
        return found

    def transact(self, requests: Sequence[Request]) -> list[Refusal | None]:
        """Send all in as few messages as can be, and the kernel's answer to each.

        The kernel goes on after a request that it refuses.
        """
        answers: list[Refusal | None] = []
        for start in range(0, len(requests), _BATCH):
            answers += self._batch(requests[start : start + _BATCH])
        return answers

    def transaction(self, begin: Request, requests: Sequence[Request], end: Request) -> bool:
        """Whether the kernel did all of them, as one; else it did none, and the socket is spent.

        The requests themselves ask for their acknowledgement.
        """
        first, *sequences, _ = self._send([begin, *requests, end], _REQUEST)
        waiting = set(sequences)
        while waiting:
            for kind, flags, sequence, body in self._receive():
                # What refuses the whole is told of its beginning, before or instead of all else.
                if kind == _ERROR and (sequence in waiting or sequence == first):
                    if _refusal(flags, body) is not None:
                        return False
                    waiting.discard(sequence)
        return True

    def ask(self, request: Request, what: str) -> list[bytes]:
        """The bodies of the answers to a get or a dump.

        A refusal is raised as the error that it is; `what` names what could not be read.
        """
        answer = self.try_to_ask(request)
        if isinstance(answer, Refusal):
            raise refused(answer, f"{what} can't be read")
        return answer

    def try_to_ask(self, request: Request) -> list[bytes] | Refusal:
        """The bodies of the answers to a get or a dump, or the kernel's no."""
        if request.flags & DUMP != DUMP:
            return self._collect(request)[0]
        for _ in range(5):
            bodies, interrupted = self._collect(request)
            if isinstance(bodies, Refusal) or not interrupted:
                break
        # What changes faster than it can be listed is listed as it was seen last.
        return bodies

    def index(self, device: str) -> int:
        """The index of a device, 0 if there is none (netdevice(7))."""
        # On a netlink socket the ioctl speaks of the socket's own namespace: no setns needed.
        try:
            request = IFREQ_INDEX.pack(device.encode(), 0)
            answer = self._ioctl(_SIOCGIFINDEX, request)
        except OSError:
            return 0
        index: int = IFREQ_INDEX.unpack(answer)[1]
        return index

    def device(self, index: int) -> str:
        """The name of the device of an index, "" if there is none."""
        try:
            answer = self._ioctl(_SIOCGIFNAME, IFREQ_INDEX.pack(b"", index))
        except OSError:
            return ""
        return string(IFREQ_INDEX.unpack(answer)[0])

    def is_up(self, device: str) -> bool:
        """Whether a device is set up."""
        return bool(self._flags(device) & _IFF_UP)

    def is_running(self, device: str) -> bool:
        """Whether a device is up and has a carrier, and the kernel has taken note of it."""
        return bool(self._flags(device) & _IFF_RUNNING)

    def _flags(self, device: str) -> int:
        try:
            answer = self._ioctl(_SIOCGIFFLAGS, IFREQ_FLAGS.pack(device.encode(), 0))
        except OSError:
            return 0
        flags: int = IFREQ_FLAGS.unpack(answer)[1]
        return flags

    def mtu(self, device: str) -> int:
        """A device's MTU in bytes, 0 if there is none."""
        try:
            answer = self._ioctl(_SIOCGIFMTU, IFREQ_INDEX.pack(device.encode(), 0))
        except OSError:
            return 0
        found: int = IFREQ_INDEX.unpack(answer)[1]
        return found

    def mac(self, device: str) -> bytes | None:
        """A device's hardware address, None if it has none of six bytes."""
        try:
            answer = self._ioctl(_SIOCGIFHWADDR, IFREQ_INDEX.pack(device.encode(), 0))
        except OSError:
            return None
        kind, address = _HWADDR.unpack(answer)
        return address if kind in _ETHERNET else None

    def _ioctl(self, command: int, request: bytes) -> bytes:
        import fcntl

        return fcntl.ioctl(self._socket.fileno(), command, request)

    def _send(self, requests: Iterable[Request], extra: int) -> list[int]:
        sequences: list[int] = []
        parts: list[bytes] = []
        for kind, flags, body in requests:
            sequence = next(self._sequence) & 0xFFFFFFFF
            sequences.append(sequence)
            header = _HEADER.pack(16 + len(body), kind, flags | extra, sequence, 0)
            parts += [header, body, _PADDING[-len(body) & 3]]
        try:
            self._socket.send(b"".join(parts))
        except OSError as error:
            raise NoAnswer(error) from error
        return sequences

    def _batch(self, requests: Sequence[Request]) -> list[Refusal | None]:
        # A refusal is told whether it was asked for or not, and requests are done in their order:
        # so the last one's acknowledgement says that all are done (netlink(7), Introduction to
        # Netlink in the kernel's documentation).
        *others, last = requests
        sequences = self._send([*others, last._replace(flags=last.flags | ACK)], _REQUEST)
        refusals: dict[int, Refusal | None] = {}
        while sequences[-1] not in refusals:
            for kind, flags, sequence, body in self._receive():
                if kind == _ERROR:
                    refusals[sequence] = _refusal(flags, body)
        return list(map(refusals.get, sequences))

    def _collect(self, request: Request) -> tuple[list[bytes] | Refusal, bool]:
        bodies: list[bytes] = []
        interrupted = False
        (wanted,) = self._send([request], _REQUEST)
        single = request.flags & DUMP != DUMP
        while True:
            for kind, flags, sequence, body in self._receive():
                if sequence != wanted:
                    continue
                interrupted = interrupted or bool(flags & _DUMP_INTERRUPTED)
                if kind in (_ERROR, _DONE):
                    refusal = _refusal(flags, body)
                    return bodies if refusal is None else refusal, interrupted
                bodies.append(body)
                if single:
                    return bodies, False

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except OSError as error:  # EAGAIN: the time is over; ENOBUFS: answers were dropped
            raise NoAnswer(error) from error
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
            if length < 16:
                break
            yield kind, flags, sequence, data[offset + 16 : offset + length]
            offset += length + 3 & ~3


def _refusal(flags: int, body: bytes) -> Refusal | None:
    """What an acknowledgement, or the end of a dump, says: None if all went well."""
    errno = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if errno == 0:
        return None
    explanation = ""
    if flags & _HAS_TLVS:
        # The error, then the request's header, and without NLM_F_CAPPED its body too.
        skip = 20 if flags & _CAPPED else 4 + (struct.unpack_from("=I", body, 4)[0] + 3 & ~3)
        explanation = string(attributes(body, skip).get(_EXTACK_TEXT))
    return Refusal(errno, explanation)
