"""`net dns query`: what a sandbox is told, asked from inside its network namespace."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import ip_address

from dnslib import QTYPE, RR, DNSBuffer

from netlib.dns import wire
from netlib.dns.sockets import inside
from netlib.dns.upstream import Server
from netlib.errors import InvalidName, InvalidOption, NoAnswer
from netlib.values import dataclass

PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerRecord:
    """A record of an answer, as a zone file has it."""

    name: str
    ttl: int
    type: str
    data: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a name server said. `code` is NOERROR, NXDOMAIN and so on."""

    name: str
    type: str
    code: str
    answers: tuple[AnswerRecord, ...]
    authoritative: bool
    server: str
    milliseconds: float


def query(
    name: str, type_: str = "", *, servers: Iterable[str], path: str = "", inode: int = 0
) -> Told:
    """What the first of `servers` that answers says, asked from the namespace at `path`.

    Without a type: for the address (A) of a name, and for the name (PTR) of an address.
    Without a path: from here. Truncated answers are asked for again over TCP, as a stub does.
    Raises InvalidName, InvalidOption, NamespaceGone, NoAnswer.
    """
    with suppress(ValueError):
        reverse = ip_address(name).reverse_pointer
        if (type_ or "PTR").upper() == "PTR":
            name, type_ = reverse, "PTR"
    try:
        packed = wire.packed_name(name) if name != "." else b"\0"
    except ValueError as error:
        raise InvalidName(
            f"{name!r} is no name that can be asked for",
            "names have labels of 1 to 63 bytes with dots between them, 253 bytes in all",
        ) from error
    question = packed + _number(type_ or "A").to_bytes(2) + wire.IN.to_bytes(2)
    asked = tuple(servers)

    def work() -> Told | None:
        return next(filter(None, (_told_by(server, name, question) for server in asked)), None)

    found = inside(path, work, inode) if path else work()
    if found is None:
        raise NoAnswer(
            f"nobody answers for {name}: {', '.join(asked) or 'there is no name server'}",
            "see: net check",
        )
    return found


def _number(type_: str) -> int:
    name = type_.upper()
    number = QTYPE.reverse.get(name)
    if number is None and name.removeprefix("TYPE").isdecimal():  # RFC 3597
        number = int(name.removeprefix("TYPE"))
    if number is None or number > 0xFFFF:
        raise InvalidOption(f"there is no record type {type_!r}", "such as A, AAAA, PTR, SRV, ANY")
    return int(number)


def _told_by(text: str, name: str, question: bytes) -> Told | None:
    server = Server.parse(text)
    if server is None:
        return None
    begin = time.monotonic()
    try:
        message = _exchange(server, question)
        found = wire.records(message, wire.question_end(message))
        answers = tuple(_record(message, each) for each in found if each.section == 1)
    except (OSError, wire.Malformed):
        return None
    return Told(
        name=name,
        type=_type_text(int.from_bytes(question[-4:-2])),
        code=wire.rcode_text(message[3] & 0xF | wire.extended_rcode(found)),
        answers=answers,
        authoritative=bool(message[2] & wire.AA >> 8),
        server=text,
        milliseconds=round((time.monotonic() - begin) * 1000, 3),
    )


def _record(message: bytes, record: wire.Record) -> AnswerRecord:
    return AnswerRecord(
        name=wire.name_text(wire.expanded(message, record.start)),
        ttl=record.ttl,
        type=_type_text(record.type),
        data=_data(message, record),
    )


def _data(message: bytes, record: wire.Record) -> str:
    """As a zone file has it; what is not of its type's form, as of an unknown type (RFC 3597)."""
    buffer = DNSBuffer(message)
    buffer.offset = record.start
    try:
        return str(RR.parse(buffer).rdata)
    except Exception:  # dnslib lets through whatever its parts raise
        data = message[record.data : record.end]
        return f"\\# {len(data)} {data.hex()}".rstrip()


def _type_text(type_: int) -> str:
    return str(QTYPE.forward.get(type_, f"TYPE{type_}"))


def _exchange(server: Server, question: bytes) -> bytes:
    """The answer over UDP, and over TCP where that one is truncated. Raises OSError."""
    ident = os.urandom(2)
    head = ident + wire.RD.to_bytes(2) + b"\0\1\0\0\0\0\0\1"
    message = head + question + wire.opt_record(wire.UDP_PAYLOAD_BYTES)
    with socket.socket(server.family, socket.SOCK_DGRAM) as udp:
        udp.settimeout(PATIENCE_SECONDS)
        udp.connect(server.address)
        udp.send(message)
        answer = udp.recv(wire.TCP_BYTES)
        while answer[:2] != ident or len(answer) < wire.HEADER_BYTES:
            answer = udp.recv(wire.TCP_BYTES)
    if not answer[2] & wire.TC >> 8:
        return answer
    with socket.socket(server.family, socket.SOCK_STREAM) as tcp:
        tcp.settimeout(PATIENCE_SECONDS)
        tcp.connect(server.address)
        tcp.sendall(len(message).to_bytes(2) + message)
        with tcp.makefile("rb") as stream:
            whole = stream.read(int.from_bytes(stream.read(2)))
    return whole if len(whole) >= wire.HEADER_BYTES else answer
