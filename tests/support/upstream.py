"""A name server outside, that answers or misbehaves as a test tells it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from dnslib import RR, DNSRecord

from support.traffic import Somewhere

# The query, and whether it came over TCP → what to send back, in this order.
Behaviour = Callable[[DNSRecord, bool], list[bytes]]


@dataclass
class Upstream:
    """What a server was asked, as (name, over TCP)."""

    behaviour: Behaviour
    asked: list[tuple[str, bool]] = field(default_factory=list)
    queries: list[DNSRecord] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)  # of those who asked over UDP

    def answer(self, data: bytes, tcp: bool) -> list[bytes]:
        """What to send back."""
        query = DNSRecord.parse(data)
        self.asked.append((str(query.q.qname), tcp))
        self.queries.append(query)
        return self.behaviour(query, tcp)


def records(*lines: str, code: int = 0, **flags: int) -> Behaviour:
    """Answers every question with these records, in zone file form."""

    def behave(query: DNSRecord, tcp: bool) -> list[bytes]:
        reply = query.reply()
        reply.header.rcode = code
        for line in lines:
            reply.add_answer(*RR.fromZone(line))
        for flag, value in flags.items():
            setattr(reply.header, flag, value)
        return [bytes(reply.pack())]

    return behave


def echo(address: str = "203.0.113.7", ttl: int = 60) -> Behaviour:
    """Answers every question for an address with this one."""

    def behave(query: DNSRecord, tcp: bool) -> list[bytes]:
        reply = query.reply()
        reply.add_answer(*RR.fromZone(f"{query.q.qname} {ttl} IN A {address}"))
        return [bytes(reply.pack())]

    return behave


def silence(query: DNSRecord, tcp: bool) -> list[bytes]:
    """Never answers."""
    return []


@contextlib.contextmanager
def upstream(
    where: Somewhere, address: str, behaviour: Behaviour, port: int = 53, scope: int = 0
) -> Iterator[Upstream]:
    """A name server at an address in `where`, over UDP and TCP."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    name = (address, port) if family == socket.AF_INET else (address, port, 0, scope)

    def listen() -> tuple[socket.socket, socket.socket]:
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.bind(name)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind(name)
        tcp.listen()
        return udp, tcp

    udp, tcp = where.call(listen)
    server = Upstream(behaviour)

    def serve_udp() -> None:
        while True:
            data, client = udp.recvfrom(65535)
            if not data:
                return
            server.ports.append(client[1])
            try:
                for answer in server.answer(data, False):
                    udp.sendto(answer, client)
            except BrokenPipeError:  # the test ended before it had thought
                return

    def serve_tcp() -> None:
        while True:
            try:
                connection, _ = tcp.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream:
                size = int.from_bytes(stream.read(2))
                for answer in server.answer(stream.read(size), True):
                    stream.write(len(answer).to_bytes(2) + answer)
                stream.flush()

    threads = [threading.Thread(target=t, daemon=True) for t in (serve_udp, serve_tcp)]
    for thread in threads:
        thread.start()
    try:
        yield server
    finally:
        for sock in (udp, tcp):
            with contextlib.suppress(OSError):  # not connected, but woken
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(2)
        udp.close()
        tcp.close()
