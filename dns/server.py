"""The DNS server's process: sockets and zones come over one channel, answers go out.

It runs without privileges and opens no listening socket: its parent, the keeper, hands them
over. When the keeper goes, so does it.
"""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from netlib.dns.batch import Batch
from netlib.dns.channel import Channel, Closed, Message
from netlib.dns.facts import Update
from netlib.dns.loop import Loop
from netlib.dns.querylog import QueryLog
from netlib.dns.quick import quick_road
from netlib.dns.resolver import Later, Resolver
from netlib.dns.sockets import close_at
from netlib.dns.tcp import TcpService
from netlib.dns.upstream import Server as Upstream


@dataclass(slots=True)
class Listener:
    """The sockets of one network's gateway addresses, or of one sandbox's loopback."""

    kind: str  # network or sandbox
    name: str  # its id or name
    sockets: list[socket.socket] = field(default_factory=list)

    def addresses(self) -> set[tuple[str, int]]:
        """Where it listens, as seen from the host."""
        if self.kind == "sandbox":
            return set()
        return {sock.getsockname()[:2] for sock in self.sockets}


class Server:
    """The sockets around a Resolver."""

    def __init__(self, loop: Loop, resolv_conf: str = "/etc/resolv.conf") -> None:
        self.loop = loop
        self.resolver = Resolver(loop, self._is_ours, resolv_conf)
        self._tcp = TcpService(loop)
        self._batches = {family: Batch(family) for family in (socket.AF_INET, socket.AF_INET6)}
        self._listeners: dict[tuple[str, str], Listener] = {}
        self._own: set[tuple[str, int]] = set()

    def listen(self, kind: str, name: str, sockets: list[socket.socket]) -> None:
        """Serve on these sockets too for a network or sandbox."""
        listener = self._listeners.setdefault((kind, name), Listener(kind, name))
        listener.sockets += sockets
        self._own |= listener.addresses()
        for sock in sockets:
            sock.setblocking(False)
            if sock.type == socket.SOCK_DGRAM:
                self.loop.watch(sock, self._udp_handler(sock, kind, name))
            else:
                self.loop.watch(sock, self._tcp_handler(sock, kind, name))

    def forget(self, kind: str, name: str, addresses: list[list[Any]] | None) -> None:
        """Close the sockets of a network or sandbox, at these addresses and ports or at all."""
        listener = self._listeners.pop((kind, name), None)
        if listener is not None:
            listener.sockets = close_at(listener.sockets, addresses, self.loop.forget)
            if listener.sockets:
                self._listeners[kind, name] = listener
        self._own = set().union(*(each.addresses() for each in self._listeners.values()))

    def update(self, update: Update) -> None:
        """Answer by the changed zone from the next query on."""
        if update.networks or update.gone:
            self.resolver.cache.clear()  # what was asked of others may be ours now
        self.resolver.swap(self.resolver.zone.changed(update))
        if update.full:
            gc.collect()
            gc.freeze()  # what is long-lived is looked at by no collection more: no pauses

    def stats(self) -> dict[str, Any]:
        """Counts as plain values."""
        resolver = self.resolver
        return {
            **resolver.stats.to_json(),
            "revision": resolver.zone.revision,
            "cache": {
                "entries": len(resolver.cache),
                "hits": resolver.cache.hits,
            },
            "in_flight": len(resolver.forwarder),
            "connections": len(self._tcp.connections),
            "pid": os.getpid(),
            "log": resolver.log is not None,
        }

    def _is_ours(self, upstream: Upstream) -> bool:
        return upstream.address[:2] in self._own

    def _udp_handler(self, sock: socket.socket, kind: str, name: str) -> Callable[[int], None]:
        resolver, batch, number = self.resolver, self._batches[sock.family], sock.fileno()

        def slow(message: bytes, source: bytes, slot: int) -> bytes | None:
            resolver.stats.slow += 1
            client = batch.client(slot)

            def later(answer: bytes) -> None:
                try:
                    sock.sendto(answer, client)
                except OSError:  # the client is gone, or the socket: nobody waits for it
                    return

            asker = resolver.zone.asker_at(kind, name, source)
            return resolver.respond(message, asker, later)

        respond = quick_road(resolver, lambda zone: zone.askers_at(kind, name), slow)

        def handle(_events: int) -> None:
            resolver.stats.datagrams += batch.serve(number, respond)

        return handle

    def _tcp_handler(self, sock: socket.socket, kind: str, name: str) -> Callable[[int], None]:
        resolver = self.resolver

        def respond(message: bytes, source: bytes, later: Later) -> bytes | None:
            asker = resolver.zone.asker_at(kind, name, source)
            return resolver.respond(message, asker, later, tcp=True)

        return lambda _events: self._tcp.accept(sock, respond)


class Parent:
    """The keeper's end of the channel, as the server sees it: each message is confirmed."""

    def __init__(self, channel: Channel, server: Server) -> None:
        self._channel = channel
        self._server = server
        server.loop.watch(channel, self._ready)

    def _ready(self, _events: int) -> None:
        try:
            for message, fds in self._channel.receive():
                found = self._obey(message, fds)
                self._channel.send({"tag": message["tag"], **found})
        except Closed:
            self._server.loop.stop()

    def _obey(self, message: Message, fds: tuple[int, ...]) -> Message:
        server = self._server
        match message["do"]:
            case "listen":
                sockets = [socket.socket(fileno=number) for number in fds]
                server.listen(message["kind"], message["name"], sockets)
            case "forget":
                server.forget(message["kind"], message["name"], message["addresses"])
            case "update":
                server.update(Update.from_json(message["update"]))
            case "log":
                server.resolver.log = QueryLog(server.resolver, fds[0])
            case "stats":
                return {"stats": server.stats()}
        return {}


def main(number: str, resolv_conf: str) -> None:
    """Serve what comes over the channel at descriptor `number`."""
    # All that is imported late elsewhere: without rights the interpreter's own folder may be
    # closed to us.
    import encodings.idna  # noqa: F401

    import netlib.dns.records  # noqa: F401
    from netlib.dns.privileges import drop
    from netlib.dns.spawn import be_known

    be_known()
    drop()
    loop = Loop()
    Parent(Channel(socket.socket(fileno=int(number))), Server(loop, resolv_conf))
    loop.run()
