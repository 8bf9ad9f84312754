"""A proxy between a client and an HTTP server that loses what it is told to lose."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

# What becomes of one request: its answer is lost; it is lost itself; the client is told that the
# connection broke, and the request goes on only when it is released; or all the client hears is
# that an answer without end begins.
Loss = Literal["answer", "request", "late", "silence"]


_ENDLESS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class _Pair:
    """A client's connection, and ours to the server that it leads to."""

    client: socket.socket
    server: socket.socket
    swallow: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)

    def pump(self) -> None:
        """Give the client what the server says, or swallow it."""
        with suppress(OSError):
            while data := self.server.recv(1 << 16):
                if self.swallow.is_set():
                    self.answered.set()
                else:
                    self.client.sendall(data)
            self.client.shutdown(socket.SHUT_RDWR)

    def send(self, request: bytes) -> None:
        """Have the server answer, and nobody hear it."""
        self.swallow.set()
        self.server.sendall(request)
        assert self.answered.wait(5), "the server does not answer"


class Lossy:
    """Forwards to `target` on loopback, but for what `lose` says of requests for a path."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._losses: list[tuple[str, Loss]] = []
        self._late: list[tuple[_Pair, bytes]] = []
        self._pairs: list[_Pair] = []
        self.requests: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self, path: str, *losses: Loss) -> None:
        """What becomes of the next requests for a path, one after the other."""
        self._losses.extend((path, loss) for loss in losses)

    def release(self) -> None:
        """Send on what is late, and wait until the server took note of it."""
        for pair, request in self._late:
            pair.send(request)
        self._late.clear()

    def close(self) -> None:
        """End all connections."""
        self._listener.close()
        for pair in self._pairs:
            for end in (pair.client, pair.server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                pair = _Pair(client, socket.create_connection(("127.0.0.1", self._target), 5))
                pair.server.settimeout(None)
                self._pairs.append(pair)
                threading.Thread(target=pair.pump, daemon=True).start()
                threading.Thread(target=self._serve, args=(pair,), daemon=True).start()

    def _serve(self, pair: _Pair) -> None:
        with suppress(OSError):
            while request := _request(pair.client):
                path = request.split(b" ", 2)[1].decode()
                self.requests.append(path)
                loss = self._loss(path)
                if loss is None:
                    pair.server.sendall(request)
                    continue
                if loss == "silence":
                    pair.client.sendall(_ENDLESS)
                    continue
                if loss == "answer":
                    pair.send(request)
                elif loss == "late":
                    self._late.append((pair, request))
                pair.client.shutdown(socket.SHUT_RDWR)
                return

    def _loss(self, path: str) -> Loss | None:
        for entry in self._losses:
            if entry[0] == path:
                self._losses.remove(entry)
                return entry[1]
        return None


def _request(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(1 << 16)
        if not more:
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    length = int(found.group(1)) if found else 0
    while len(body) < length:
        body += client.recv(1 << 16)
    return head + b"\r\n\r\n" + body


@contextmanager
def lossy(target: int) -> Iterator[Lossy]:
    """A proxy to a port of loopback."""
    proxy = Lossy(target)
    try:
        yield proxy
    finally:
        proxy.close()
