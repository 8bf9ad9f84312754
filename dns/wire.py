"""Packed DNS messages (RFC 1035 section 4): read and cut as bytes, without decoding them.

Nothing here follows a compression pointer but `expanded`, which follows each only backwards:
no message can make a loop. What can not be read raises Malformed, never anything else.
"""

from __future__ import annotations

import struct

from netlib.values import dataclass

HEADER_BYTES = 12
# The largest answer over UDP: what fits in any path's MTU unfragmented (DNS flag day 2020).
UDP_PAYLOAD_BYTES = 1232
PLAIN_UDP_BYTES = 512  # without EDNS, RFC 1035 section 4.2.1
TCP_BYTES = 65535

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
OPCODE = 0x7800

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
RCODES = {
    NOERROR: "NOERROR",
    FORMERR: "FORMERR",
    SERVFAIL: "SERVFAIL",
    NXDOMAIN: "NXDOMAIN",
    NOTIMP: "NOTIMP",
    REFUSED: "REFUSED",
    BADVERS: "BADVERS",
}

A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT, ANY = 1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 255
IN = 1

_SHORT = struct.Struct("!H")
_LONG = struct.Struct("!I")
_COUNTS = struct.Struct("!5H")
_FIXED = struct.Struct("!HHIH")  # type, class, TTL, length of the data
_OPT_FIXED = struct.Struct("!BHHBBHH")  # RFC 6891 section 6.1.2


class Malformed(Exception):
    """A message that can not be read."""


@dataclass(frozen=True, slots=True)
class Edns:
    """What a client's OPT record says (RFC 6891)."""

    size: int
    version: int
    wants_dnssec: bool


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `question` is as it was asked, `name` the same name in lower case."""

    id: bytes
    flags: int
    question: bytes
    name: bytes
    edns: Edns | None = None

    @property
    def wanted(self) -> bytes:
        """Type and class, packed."""
        return self.question[-4:]

    @property
    def type(self) -> int:
        """The type that is asked for."""
        return int.from_bytes(self.question[-4:-2])

    @property
    def class_(self) -> int:
        """The class that is asked in, nearly always IN."""
        return int.from_bytes(self.question[-2:])

    @property
    def opcode(self) -> int:
        """0 for a standard query."""
        return (self.flags & OPCODE) >> 11

    def udp_limit(self) -> int:
        """The largest answer, in bytes, that the client takes over UDP."""
        if self.edns is None:
            return PLAIN_UDP_BYTES
        return min(max(self.edns.size, PLAIN_UDP_BYTES), UDP_PAYLOAD_BYTES)


@dataclass(frozen=True, slots=True)
class Record:
    """Where a resource record lies in a message; `section` 1 answer, 2 authority, 3 additional."""

    section: int
    start: int
    type: int
    class_: int
    ttl: int
    data: int
    end: int

    @property
    def ttl_at(self) -> int:
        """The offset of the TTL."""
        return self.data - 6


def rcode_text(rcode: int) -> str:
    """A response code's name, or RCODE17 (RFC 3597's way for types)."""
    return RCODES.get(rcode, f"RCODE{rcode}")


def packed_name(text: str) -> bytes:
    r"""A name in wire form and lower case; with or without trailing dot.

    Raises ValueError where a label has not 1 to 63 bytes or the name more than 255
    (RFC 1035 section 2.3.4).

    >>> packed_name("Web.my-net.")
    b'\x03web\x06my-net\x00'
    """
    if not text.isascii():
        text = text.encode("idna").decode()
    labels = text.lower().removesuffix(".").encode().split(b".")
    if not all(0 < len(label) < 64 for label in labels):
        raise ValueError(f"{text!r} has a label that is empty or longer than 63 bytes")
    name = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    if len(name) > 255:
        raise ValueError(f"{text!r} is longer than 255 bytes")
    return name


def name_text(name: bytes) -> str:
    r"""A name in wire form as text, with a trailing dot (RFC 4343 section 2.1 for odd bytes).

    >>> name_text(b"\x03web\x06my-net\x00")
    'web.my-net.'
    """
    labels, at = [], 0
    while length := name[at]:
        labels.append("".join(map(_character, name[at + 1 : at + 1 + length])))
        at += length + 1
    return ".".join(labels) + "."


def _character(byte: int) -> str:
    if byte in b'.\\";()@$':
        return "\\" + chr(byte)
    return chr(byte) if 0x20 < byte < 0x7F else f"\\{byte:03}"


def end_of_name(message: bytes, at: int, *, compressed: bool = True) -> int:
    """The offset after the name that starts at `at`; `compressed`: it may end in a pointer."""
    first = at
    try:
        while length := message[at]:
            if compressed and length >= 0xC0:
                message[at + 1]  # the pointer's second byte must be there
                return at + 2
            at += length + 1
            if length > 63 or at - first > 254:
                raise Malformed("a label has an unknown type, or the name is too long")
    except IndexError:
        raise Malformed("a name runs past the end") from None
    return at + 1


def expanded(message: bytes, at: int) -> bytes:
    """The name at `at` without compression."""
    labels: list[bytes] = []
    size, segment = 1, at
    try:
        while length := message[at]:
            if length >= 0xC0:
                at = (length & 0x3F) << 8 | message[at + 1]
                if at >= segment:
                    raise Malformed("a compression pointer does not lead backwards")
                segment = at
                continue
            size += length + 1
            if length > 63 or size > 255:
                raise Malformed("a label has an unknown type, or the name is too long")
            labels.append(message[at : at + length + 1])
            at += length + 1
    except IndexError:
        raise Malformed("a name runs past the end") from None
    return b"".join(labels) + b"\0"


def parse_query(message: bytes) -> Query:
    """The query in a packed message of at least a header."""
    if len(message) < HEADER_BYTES:
        raise Malformed("shorter than a header")
    flags, questions, *_ = _COUNTS.unpack_from(message, 2)
    if questions != 1:  # more than one: RFC 9619
        raise Malformed("not exactly one question")
    end = end_of_name(message, HEADER_BYTES, compressed=False)
    name = message[HEADER_BYTES:end]
    if len(message) < end + 4:
        raise Malformed("the question is cut short")
    edns = None
    for record in records(message, end + 4):
        if record.type == OPT:
            if edns is not None or record.section != 3 or message[record.start]:
                raise Malformed("an OPT record too many, or out of place")
            edns = Edns(record.class_, record.ttl >> 16 & 0xFF, bool(record.ttl & 0x8000))
    return Query(message[:2], flags, message[HEADER_BYTES : end + 4], name.lower(), edns)


def question_end(message: bytes) -> int:
    """The offset after the question section."""
    at = HEADER_BYTES
    for _ in range(_SHORT.unpack_from(message, 4)[0]):
        at = end_of_name(message, at) + 4
    if at > len(message):
        raise Malformed("the question is cut short")
    return at


def records(message: bytes, at: int) -> list[Record]:
    """All resource records from `at`, the end of the questions, to the end of the message."""
    found: list[Record] = []
    for section, count in enumerate(struct.unpack_from("!3H", message, 6), start=1):
        for _ in range(count):
            start = at
            at = end_of_name(message, at)
            try:
                type_, class_, ttl, length = _FIXED.unpack_from(message, at)
            except struct.error:
                raise Malformed("a record is cut short") from None
            data = at + 10
            at = data + length
            if at > len(message):
                raise Malformed("a record's data runs past the end")
            found.append(Record(section, start, type_, class_, ttl, data, at))
    if at != len(message):
        raise Malformed("bytes after the last record")
    return found


# Types whose data may hold compressed names (RFC 3597 section 4): how many bytes come before
# them, and how many names.
_NAMES_IN_DATA = {
    NS: (0, 1),
    CNAME: (0, 1),
    SOA: (0, 2),
    **dict.fromkeys((3, 4, 7, 8, 9), (0, 1)),  # MD, MF, MB, MG, MR
    PTR: (0, 1),
    14: (0, 2),  # MINFO
    MX: (2, 1),
    17: (0, 2),  # RP
    18: (2, 1),  # AFSDB
    21: (2, 1),  # RT
    SRV: (6, 1),
}


def uncompressed(message: bytes, record: Record) -> bytes:
    """A record with all its names written out, so that it is right in any message."""
    skipped, names = _NAMES_IN_DATA.get(record.type, (0, 0))
    at = record.data + skipped
    parts = [message[record.data : at]]
    for _ in range(names):
        parts.append(expanded(message, at))
        at = end_of_name(message, at)
    if at > record.end:
        raise Malformed("a name runs past its record's end")
    data = b"".join((*parts, message[at : record.end]))
    owner = expanded(message, record.start)
    return owner + _FIXED.pack(record.type, record.class_, record.ttl, len(data)) + data


def opt_record(size: int, rcode: int = 0, *, dnssec: bool = False) -> bytes:
    """A packed OPT record without options; `rcode` gives it the upper eight bits."""
    return _OPT_FIXED.pack(0, OPT, size, rcode >> 4, 0, 0x8000 if dnssec else 0, 0)


def resource(type_: int, ttl: int, data: bytes) -> bytes:
    """A packed record of class IN whose owner is the question's name (a pointer to it)."""
    return b"\xc0\x0c" + _FIXED.pack(type_, IN, ttl, len(data)) + data


def reply_flags(query_flags: int, rcode: int, *, authoritative: bool) -> int:
    """QR and RA set; opcode, RD and CD (RFC 4035 section 3.2.2) as they were asked."""
    kept = query_flags & (OPCODE | RD | CD)
    return QR | RA | kept | (AA if authoritative else 0) | rcode & 0xF


def reply(query: Query, rcode: int, answers: tuple[bytes, ...] = (), *, aa: bool = False) -> bytes:
    """A packed message of the question and these answers, without an OPT record."""
    flags = reply_flags(query.flags, rcode, authoritative=aa)
    head = query.id + _COUNTS.pack(flags, 1, len(answers), 0, 0)
    return b"".join((head, query.question, *answers))


def error_reply(message: bytes, rcode: int) -> bytes | None:
    """An answer to what can not be read: only a header. None where even an answer is wrong."""
    if len(message) < HEADER_BYTES or message[2] & 0x80:
        return None
    flags = reply_flags(_SHORT.unpack_from(message, 2)[0], rcode, authoritative=False)
    return message[:2] + _COUNTS.pack(flags, 0, 0, 0, 0)


def extended_rcode(found: list[Record]) -> int:
    """The response code's bits in the OPT record, if there is one (RFC 6891 section 6.1.3)."""
    return next((r.ttl >> 20 & 0xFF0 for r in found if r.type == OPT and r.section == 3), 0)


def without_opt(message: bytes, found: list[Record]) -> bytes:
    """The message without its OPT record, and without what comes after it."""
    for record in found:
        if record.type == OPT and record.section == 3:
            kept = sum(r.section == 3 and r.start < record.start for r in found)
            return message[:10] + _SHORT.pack(kept) + message[12 : record.start]
    return message


def fitted(message: bytes, limit: int, opt: bytes = b"") -> bytes:
    """The message with `opt` behind it in at most `limit` bytes: whole RRsets are left out.

    TC is set where an answer or authority is missing, not for additional data (RFC 2181
    section 9). Compression points only backwards, so what is cut is cut from the end.
    """
    room = limit - len(opt)
    if len(message) > room:
        message = _cut(message, room)
    if not opt:
        return message
    extra = _SHORT.unpack_from(message, 10)[0] + 1
    return b"".join((message[:10], _SHORT.pack(extra), message[12:], opt))


def _cut(message: bytes, room: int) -> bytes:
    end = question_end(message)
    counts = [0, 0, 0]
    sets: list[tuple[int, int, int]] = []  # section, number of records, end
    last: tuple[int, int, bytes] | None = None
    for record in records(message, end):
        owner = (record.section, record.type, expanded(message, record.start).lower())
        size = sets.pop()[1] + 1 if owner == last else 1
        sets.append((record.section, size, record.end))
        last = owner
    truncated = 0
    for section, size, set_end in sets:
        if set_end > room:
            truncated = TC if section < 3 else 0
            break
        counts[section - 1] += size
        end = set_end
    flags, questions = struct.unpack_from("!2H", message, 2)
    head = message[:2] + _COUNTS.pack(flags | truncated, questions, *counts)
    return head + message[12:end]


def aged(message: bytes, ttls: tuple[tuple[int, int], ...], seconds: int) -> bytes:
    """The message with each TTL (offset, value) less `seconds`, at least 0."""
    older = bytearray(message)
    for at, ttl in ttls:
        _LONG.pack_into(older, at, max(ttl - seconds, 0))
    return bytes(older)
