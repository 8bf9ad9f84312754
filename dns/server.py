"""The DNS server's process: sockets and zones come over one channel, answers go out.

It runs without privileges and opens no listening socket: its parent, the keeper, hands them
over. When the keeper goes, so does it.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from netlib.dns.batch import Batch
from netlib.dns.channel import Channel, Closed, Message
from netlib.dns.facts import Update
from netlib.dns.loop import Loop
from netlib.dns.querylog import QueryLog
from netlib.dns.quick import quick_road
from netlib.dns.resolver import Later, Resolver, who
from netlib.dns.sockets import close_at
from netlib.dns.tcp import Respond, TcpService
from netlib.dns.upstream import Server as Upstream
from netlib.dns.within import Open, Opener, Within
from netlib.dns.word import Word
from netlib.values import dataclass, field

# Less than a stub waits before it asks again, and enough for a keeper on a machine that is busy.
CATCH_UP_SECONDS = 1.0


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

    def __init__(
        self, loop: Loop, resolv_conf: str, catch_up: Callable[[], None], open_within: Open
    ) -> None:
        self.loop = loop
        self._catch_up = catch_up
        self.resolver = Resolver(loop, self._is_ours, resolv_conf, open_within)
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
        self.resolver.change(update)
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
            "silent": [
                {
                    "server": server.text,
                    "sandbox": server.sandbox if isinstance(server, Within) else "",
                    "times": times,
                }
                for server, times in resolver.forwarder.standing.silent()
            ],
            "connections": len(self._tcp.connections),
            "pid": os.getpid(),
            "log": resolver.log is not None,
        }

    def _is_ours(self, upstream: Upstream | Within) -> bool:
        if isinstance(upstream, Upstream):
            return upstream.address[:2] in self._own
        # A sandbox's port 53 of a gateway is ours, wherever we listen there.
        seen = Upstream.parse(upstream.text)
        return seen is not None and seen.address[0] in {address for address, _ in self._own}

    def _udp_handler(self, sock: socket.socket, kind: str, name: str) -> Callable[[int], None]:
        resolver, batch, number = self.resolver, self._batches[sock.family], sock.fileno()
        catch_up = self._catch_up

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
            resolver.stats.datagrams += batch.serve(number, respond, catch_up)

        return handle

    def _tcp_handler(self, sock: socket.socket, kind: str, name: str) -> Callable[[int], None]:
        resolver = self.resolver

        def greet(source: bytes) -> tuple[str, Respond]:
            self._catch_up()

            def respond(message: bytes, later: Later) -> bytes | None:
                self._catch_up()
                asker = resolver.zone.asker_at(kind, name, source)
                return resolver.respond(message, asker, later, tcp=True)

            # By sandbox: each asks from its loopback, or from as many addresses as it likes.
            return who(resolver.zone.asker_at(kind, name, source)), respond

        return lambda _events: self._tcp.accept(sock, greet)


class Parent:
    """The keeper's end of the channel, as the server sees it: each message is confirmed."""

    def __init__(self, channel: Channel, word: Word, loop: Loop, resolv_conf: str) -> None:
        self._channel = channel
        self._word = word
        self._loop = loop
        self._opener = Opener(lambda requests: channel.send({"open": requests}))
        self._server = Server(loop, resolv_conf, self.catch_up, self._opener.open)
        self._reads = 0  # how often the keeper was asked to read what changed
        self._is_behind = False  # it has not done so in time, and not yet
        self._put_off: list[tuple[Message, tuple[int, ...]]] = []
        loop.watch(channel, self._ready)

    def catch_up(self) -> None:
        """If there is word of a change, have the keeper read it, and know it before this returns.

        Not for ever: where it can't, what was known is answered, and the change comes later. One
        that stands still is waited for once, and asked nothing more until it goes on.
        """
        try:
            if self._is_behind:
                self._hear_changes()
            if self._is_behind or not self._word.is_new():
                return
            self._reads += 1
            self._is_behind = True
            self._channel.send({"read": self._reads})
            deadline = time.monotonic() + CATCH_UP_SECONDS
            while self._is_behind and self._is_ready(deadline - time.monotonic()):
                self._hear_changes()
        except Closed:
            self._loop.stop()

    def _is_ready(self, seconds: float) -> bool:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        return bool(poll.poll(max(seconds, 0.0) * 1000))

    def _hear_changes(self) -> None:
        """Obey what came in, but for what closes sockets: one of them is just being served."""
        if not self._is_ready(0):
            return
        for message, fds in self._channel.receive():
            if message["do"] in ("update", "sync"):
                self._do(message, fds)
            else:
                self._put_off.append((message, fds))
        if self._put_off:
            self._loop.later(0, self._go_on)

    def _go_on(self) -> None:
        put_off, self._put_off = self._put_off, []
        try:
            for message, fds in put_off:
                self._do(message, fds)
        except Closed:
            self._loop.stop()

    def _ready(self, _events: int) -> None:
        # A query of the same turn may have caught up, and has taken what came: waiting for more
        # here would hold everybody until the keeper has something to say.
        if not self._is_ready(0):
            return
        try:
            self._put_off += self._channel.receive()
        except Closed:
            self._loop.stop()
        self._go_on()

    def _do(self, message: Message, fds: tuple[int, ...]) -> None:
        found = self._obey(message, fds)
        self._channel.send({"tag": message["tag"], **found})

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
            case "sync" if message.get("number") == self._reads:
                self._is_behind = False
            case "log":
                server.resolver.log = QueryLog(server.resolver, fds[0])
            case "opened":
                self._opener.opened(message["successes"], fds)
            case "stats":
                return {"stats": server.stats()}
        return {}


def main(channel: str, lock: str, resolv_conf: str) -> None:
    """Serve what comes over the channel, with word in the file of a lock: two descriptors."""
    # All that is imported late elsewhere: without rights the interpreter's own folder may be
    # closed to us.
    import encodings.idna  # noqa: F401

    import netlib.dns.records  # noqa: F401
    from netlib.dns.privileges import drop, end_with_parent
    from netlib.dns.spawn import be_known

    word = Word(int(lock))
    os.close(int(lock))
    be_known()
    drop()
    end_with_parent()  # stopped, it would keep the sockets and the lock from an heir
    loop = Loop()
    Parent(Channel(socket.socket(fileno=int(channel))), word, loop, resolv_conf)
    loop.run()
