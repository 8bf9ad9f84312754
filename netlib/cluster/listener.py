"""Where a manager's daemon lets others in: a TLS listener that nobody can hold up.

Each connection has a thread, a few seconds, and one message of some kilobytes each way. An
address has few connections at once, and may be wrong a few times a minute.
"""

from __future__ import annotations

import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

from netlib.cluster.wire import Silent, receive, send
from netlib.errors import InvalidRequest, NetError, NotPermitted, to_document

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]

_SECONDS = 10.0
_MOST, _MOST_OF_ONE = 64, 4
_FAILURES, _FAILURE_SECONDS = 10, 60.0
_REMEMBERED = 1024
_BACKLOG = 128
# What accept(2) fails with for reasons that pass.
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED,
                      errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH})  # fmt: skip


class Listener:
    """Serves `answer` at an address until it is closed. Raises OSError where it can't listen."""

    def __init__(
        self,
        address: str,
        port: int,
        context: ssl.SSLContext,
        answer: Answer,
        log: Callable[[str], None] = lambda line: None,
        *,
        seconds: float = _SECONDS,
    ) -> None:
        self._context = context
        self._answer = answer
        self._log = log
        self._seconds = seconds
        self._lock = threading.Lock()
        self._open: dict[str, int] = {}
        self._failures = Failures()
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._socket.bind((address, port))
            self._socket.listen(_BACKLOG)
        except OSError:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="netlib-join", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more connections; those that are there end by themselves."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(self._seconds)

    def _accept(self) -> None:
        while True:
            try:
                sock, peer = self._socket.accept()
            except OSError as error:
                if self._socket.fileno() < 0:
                    return
                if error.errno in _PASSING:  # no descriptors just now, or the client went
                    time.sleep(0.1)
                    continue
                return
            source = _source(peer[0])
            if not self._enter(source):
                sock.close()
                continue
            try:
                threading.Thread(
                    target=self._serve, args=(sock, source), name="netlib-joiner", daemon=True
                ).start()
            except RuntimeError:  # no thread to be had
                self._leave(source)
                sock.close()

    def _enter(self, source: str) -> bool:
        with self._lock:
            mine = self._open.get(source, 0)
            if mine >= _MOST_OF_ONE or sum(self._open.values()) >= _MOST:
                return False
            self._open[source] = mine + 1
            return True

    def _leave(self, source: str) -> None:
        with self._lock:
            self._open[source] -= 1
            if not self._open[source]:
                del self._open[source]

    def _serve(self, sock: socket.socket, source: str) -> None:
        deadline = time.monotonic() + self._seconds
        try:
            sock.settimeout(self._seconds)
            # A handshake's time-out is for all of it, not for each message (ssl.SSLSocket).
            with self._context.wrap_socket(sock, server_side=True) as secure:
                asked = receive(secure, deadline)
                send(secure, self._answered(asked, source), deadline)
        except (OSError, Silent, ValueError):
            pass  # ssl.SSLError is an OSError: strangers may send anything
        finally:
            sock.close()
            self._leave(source)

    def _answered(self, asked: Mapping[str, Any], source: str) -> Mapping[str, Any]:
        if self._failures.too_many(source):  # which is not worth a line each time
            return _error(NotPermitted("too many wrong requests came from there", "wait a minute"))
        try:
            return self._answer(asked)
        except NetError as error:
            if isinstance(error, NotPermitted):
                self._failures.note(source)
            self._log(f"{source} could not join: {error.message}")
            return _error(error)
        except Exception as error:  # whatever a stranger sends, the next one is served
            self._failures.note(source)
            self._log(f"{source} could not join: {error!r}")
            return _error(InvalidRequest("the request can't be read"))


def _error(error: NetError) -> Mapping[str, Any]:
    return {"error": {**to_document(error), "exit_status": error.exit_status}}


class Failures:
    """How often each address was wrong lately; only so many addresses are remembered."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, int]] = {}

    def note(self, source: str) -> None:
        """It was wrong."""
        with self._lock:
            since, count = self._seen.pop(source, (self._clock(), 0))
            if self._clock() - since > _FAILURE_SECONDS:
                since, count = self._clock(), 0
            self._seen[source] = since, count + 1
            while len(self._seen) > _REMEMBERED:
                del self._seen[next(iter(self._seen))]

    def too_many(self, source: str) -> bool:
        """Whether it should wait."""
        with self._lock:
            since, count = self._seen.get(source, (0.0, 0))
            return count >= _FAILURES and self._clock() - since <= _FAILURE_SECONDS


def _source(address: str) -> str:
    """What counts as one source: an IPv4 address, or a /64, which a host may have all of."""
    parsed = ip_address(address.partition("%")[0])
    if parsed.version == 4:
        return str(parsed)
    return str(ip_network(f"{parsed}/64", strict=False))
