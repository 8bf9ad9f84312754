"""One connection to an etcd server: HTTP/1.1 that stays open, with a deadline for everything.

As much of HTTP as etcd's JSON gateway speaks: requests of known length, answers of known length
or in chunks (RFC 9112 sections 6 and 7.1), and answers without end, one JSON document a line.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from netlib.errors import InvalidRequest
from netlib.values import dataclass

if TYPE_CHECKING:
    import ssl

_MAX_HEAD = 64 * 1024
# A peer that vanished is noticed by the kernel, too, within about ten seconds (tcp(7)).
_KEEP_ALIVE = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 4),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


class NotReached(Exception):
    """No connection could be made: nothing was asked."""


class Lost(Exception):
    """A connection broke, or was too slow: what was asked on it may have been done."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens."""

    url: str
    host: str
    port: int
    is_tls: bool


def parse_endpoint(url: str) -> Endpoint:
    """The endpoint of `https://192.0.2.1:2379`; InvalidRequest if it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port or 2379
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise InvalidRequest(
            f"{url!r} is no endpoint of etcd", "write it like https://192.0.2.1:2379"
        )
    return Endpoint(url.rstrip("/"), parts.hostname, port, parts.scheme == "https")


class Connection:
    """For one thread at a time."""

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None, deadline: float) -> None:
        self.endpoint = endpoint
        self._raw = bytearray()  # received, not looked at yet
        self._text = bytearray()  # of a stream's chunks
        self._status = 0
        self._is_used = self._has_answered = False
        try:
            self._socket = _connect(endpoint, tls, deadline)
        except OSError as error:
            raise NotReached(_reason(error)) from error

    @property
    def is_usable(self) -> bool:
        """Whether one more question can be asked: the server did not hang up meanwhile."""
        if not self._is_used:
            return True
        return not self._raw and not _is_readable(self._socket)

    @property
    def has_more(self) -> bool:
        """Whether something of a stream is here, or came, that was not looked at yet."""
        pending = getattr(self._socket, "pending", int)  # decrypted already
        return bool(self._raw or self._text or pending()) or _is_readable(self._socket)

    def ask(self, path: str, body: bytes, token: str, deadline: float) -> tuple[int, bytes]:
        """Status and body of the answer."""
        length = self._begin(path, body, token, deadline)
        if length is not None:
            return self._status, self._take(length, deadline)
        answer = bytearray()
        while chunk := self._chunk(deadline):
            answer += chunk
        return self._status, bytes(answer)

    def start(self, path: str, body: bytes, token: str, deadline: float) -> tuple[int, bytes]:
        """Ask for a stream: status 200 and nothing, or what is said instead of it."""
        length = self._begin(path, body, token, deadline)
        if length is None:
            return self._status, b""
        return self._status, self._take(length, deadline)

    def line(self, deadline: float) -> bytes | None:
        """The stream's next line; None when there is none until then."""
        searched = 0
        while True:
            end = self._text.find(b"\n", searched)
            if end >= 0:
                line = bytes(self._text[:end])
                del self._text[: end + 1]
                return line
            searched = len(self._text)
            while (chunk := self._whole_chunk()) is None:
                if not self._fill(deadline):
                    return None
            if not chunk:
                raise Lost("the server ended the stream")
            self._text += chunk

    def interrupt(self) -> None:
        """From any thread: whoever waits for the server gets Lost now."""
        with suppress(OSError):  # not connected any more
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back. After a fork, the other process still has the connection."""
        self._socket.close()

    # -- one question ---------------------------------------------------------------------------

    def _begin(self, path: str, body: bytes, token: str, deadline: float) -> int | None:
        """Send, and read the head of the answer; its length, None for chunks."""
        self._is_used = True
        authorization = f"Authorization: {token}\r\n" if token else ""
        host = f"[{self.endpoint.host}]" if ":" in self.endpoint.host else self.endpoint.host
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{self.endpoint.port}\r\n{authorization}"
            # A member that has lost its leader says so, instead of keeping us waiting.
            "Grpc-Metadata-Hasleader: true\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            self._socket.settimeout(_remaining(deadline))
            self._socket.sendall(head.encode() + body)
        except OSError as error:
            raise self._lost(_reason(error)) from error
        length = self._head(deadline)
        self._has_answered = True
        return length

    def _head(self, deadline: float) -> int | None:
        while (end := self._raw.find(b"\r\n\r\n")) < 0:
            if len(self._raw) > _MAX_HEAD:
                raise Lost("what answers does not speak HTTP")
            self._need(deadline)
        lines = self._raw[:end].decode("latin-1").split("\r\n")
        del self._raw[: end + 4]
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
            raise Lost("what answers does not speak HTTP")
        self._status = int(rest[:3])
        pairs = (line.partition(":") for line in lines[1:])
        fields = {name.lower(): value.strip() for name, _, value in pairs}
        if fields.get("transfer-encoding", "").lower() == "chunked":
            return None
        length = fields.get("content-length", "0")
        return int(length) if length.isdigit() else 0

    def _take(self, length: int, deadline: float) -> bytes:
        while len(self._raw) < length:
            self._need(deadline)
        body = bytes(self._raw[:length])
        del self._raw[:length]
        return body

    def _chunk(self, deadline: float) -> bytes:
        while (chunk := self._whole_chunk()) is None:
            self._need(deadline)
        return chunk

    def _whole_chunk(self) -> bytes | None:
        """The next chunk if all of it is here; the last one is empty."""
        end = self._raw.find(b"\r\n")
        if end < 0:
            return None
        try:
            size = int(self._raw[:end].split(b";")[0], 16)
        except ValueError:
            raise Lost("what answers does not speak HTTP") from None
        start = end + 2
        if len(self._raw) < start + size + 2:
            return None
        chunk = bytes(self._raw[start : start + size])
        del self._raw[: start + size + 2]
        return chunk

    def _need(self, deadline: float) -> None:
        if not self._fill(deadline):
            raise Lost("it does not answer")

    def _fill(self, deadline: float) -> bool:
        """Receive some more; False when nothing came until then."""
        try:
            self._socket.settimeout(_remaining(deadline))
            received = self._socket.recv(1 << 18)
        except TimeoutError:
            return False
        except OSError as error:
            raise self._lost(_reason(error)) from error
        if not received:
            raise self._lost("it hung up")
        self._raw += received
        return True

    def _lost(self, reason: str) -> Lost:
        # With TLS 1.3 a server judges our certificate when we take the handshake for done
        # (RFC 8446 section 4.4.2.4), and it may hang up before we hear why.
        if self._has_answered:
            return Lost(reason)
        if self.endpoint.is_tls:
            return Lost(f"it does not take our certificate, or broke down: {reason}")
        return Lost(f"{reason}; does it want https?")


def _is_readable(polled: socket.socket) -> bool:
    poll = select.poll()
    poll.register(polled, select.POLLIN)
    return bool(poll.poll(0))


def _connect(endpoint: Endpoint, tls: ssl.SSLContext | None, deadline: float) -> socket.socket:
    made = socket.create_connection((endpoint.host, endpoint.port), _remaining(deadline))
    try:
        for option in _KEEP_ALIVE:
            made.setsockopt(*option)
        if tls is None:
            return made
        made.settimeout(_remaining(deadline))
        return tls.wrap_socket(made, server_hostname=endpoint.host)
    except BaseException:
        made.close()
        raise


def _remaining(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.001)


def _reason(error: OSError) -> str:
    """Why, in the system's words."""
    verification = getattr(error, "verify_message", "")  # of ssl.SSLCertVerificationError
    if verification:
        return f"its certificate is not trusted ({verification})"
    if isinstance(error, TimeoutError):  # of TLS it has the place in its own source
        return "timed out"
    return str(getattr(error, "reason", "") or error.strerror or error)
