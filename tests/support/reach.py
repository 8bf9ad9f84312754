"""Who reaches what: hundreds of questions at once, so that silence costs half a second once.

Sockets stay in the network namespace they were made in, so one process asks from, and
answers in, every place of a test's network.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

from support.host import Host, Place

Transport = Literal["tcp", "udp"]

SILENCE = 0.2  # seconds without an answer that mean no: packets here take microseconds
PATIENCE = 5.0  # seconds to wait for an answer that is expected
AGAIN = 1.0  # seconds: datagrams may be lost on a busy machine, and TCP asks again as soon


@dataclass(frozen=True)
class Probe:
    """A question from a place to an address and port.

    `expect` is the answer, `server:port client`: who answers, at which of its ports, and
    which address the client seemed to have. Empty: nobody may answer.
    """

    name: str
    source: Host | Place
    transport: Transport
    address: str
    port: int
    expect: str = ""
    bind: str = ""

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.source.name} -> {self.transport} "
            f"[{self.address}]:{self.port}{' from ' + self.bind if self.bind else ''}"
        )


class Servers:
    """Servers for both families and transports, all in one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.datagrams: set[bytes] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._wake.send(b"x")
        self._thread.join(5)
        for one in [*self._sockets, self._wake, self._woken]:
            one.close()

    def add(self, place: Host | Place, *ports: int, address: str = "::") -> None:
        """Answer at ports of a place, TCP and UDP, both families or at one address."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def listen(port: int, kind: socket.SocketKind) -> socket.socket:
            server = socket.socket(family, kind)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                # UDP answers from the address it was asked at (ipv6(7)).
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            server.setblocking(False)
            server.bind((address, port))
            if kind == socket.SOCK_STREAM:
                server.listen(512)
            return server

        for port in ports:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                server = place.call(lambda p=port, k=kind: listen(p, k))  # type: ignore[misc]
                self._sockets.append(server)
                self._selector.register(server, selectors.EVENT_READ, f"{place.name}:{port}")

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                server = key.fileobj
                assert isinstance(server, socket.socket)
                with contextlib.suppress(OSError):  # a client that went away again
                    if server.type == socket.SOCK_STREAM:
                        self._answer_stream(server, key.data)
                    else:
                        self._answer_datagram(server, key.data)

    def _answer_stream(self, server: socket.socket, name: str) -> None:
        client, peer = server.accept()
        with client:
            client.send(f"{name} {_plain(peer[0])}".encode())

    def _answer_datagram(self, server: socket.socket, name: str) -> None:
        question, control, _, peer = server.recvmsg(512, 512)
        self.datagrams.add(question)
        server.sendmsg([f"{name} {_plain(peer[0])}".encode()], control, 0, peer)


def ask(probes: Sequence[Probe], patience: float = PATIENCE) -> list[str]:
    """The answers, in the probes' order, an empty text where nobody answered.

    Waits up to `patience` seconds for expected answers, and SILENCE for the others. The
    expected ones arrive in the same round: whoever is silent was not merely late.
    """
    answers = [""] * len(probes)
    waiting = selectors.DefaultSelector()
    sockets: list[socket.socket | None] = [None] * len(probes)
    by_place: dict[int, list[int]] = {}
    for index, probe in enumerate(probes):
        by_place.setdefault(probe.source.descriptor, []).append(index)

    def start(indices: list[int]) -> None:
        for index in indices:
            sockets[index] = _start(probes[index])

    for indices in by_place.values():
        probes[indices[0]].source.call(lambda i=indices: start(i))  # type: ignore[misc]
    for index, client in enumerate(sockets):
        if client is not None:
            waiting.register(client, selectors.EVENT_READ, index)
    missing = {index for index, probe in enumerate(probes) if probe.expect}
    missing -= {index for index in missing if sockets[index] is None}
    begun = time.monotonic()
    again = begun + AGAIN
    open_questions = waiting.get_map()
    while open_questions and time.monotonic() - begun < (patience if missing else SILENCE):
        if time.monotonic() > again:
            again += AGAIN
            for index in missing:
                _ask_again(probes[index], sockets[index])
        for key, _ in waiting.select(0.02):
            client = key.fileobj
            assert isinstance(client, socket.socket)
            try:
                answers[key.data] = client.recv(512).decode()
            except BlockingIOError:
                continue
            except OSError:  # refused, unreachable, reset: all of them mean no
                pass
            waiting.unregister(client)
            missing.discard(key.data)
    for client in sockets:
        if client is not None:
            client.close()
    return answers


def differences(probes: Iterable[Probe], patience: float = PATIENCE) -> list[str]:
    """What the probes' answers are where they are not as expected."""
    asked = list(probes)
    return [
        f"{probe}\n    expected {probe.expect or 'silence'}\n    got      {answer or 'silence'}"
        for probe, answer in zip(asked, ask(asked, patience), strict=True)
        if answer != probe.expect
    ]


def _start(probe: Probe) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in probe.address else socket.AF_INET
    kind = socket.SOCK_STREAM if probe.transport == "tcp" else socket.SOCK_DGRAM
    client = socket.socket(family, kind)
    client.setblocking(False)
    try:
        if probe.bind:
            client.bind((probe.bind, 0))
        number = client.connect_ex((probe.address, probe.port))
        if number not in (0, errno.EINPROGRESS):
            raise OSError(number, "connect")
        if probe.transport == "udp":
            client.send(b"question")
    except OSError:
        client.close()
        return None
    return client


def _ask_again(probe: Probe, client: socket.socket | None) -> None:
    if client is not None and probe.transport == "udp":
        with contextlib.suppress(OSError):  # told by the answer, or the lack of one
            client.send(b"question")


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:")
