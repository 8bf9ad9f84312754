"""Messages between client, keeper and server: lines of JSON on a unix stream socket, with files.

Descriptors ride along (SCM_RIGHTS, unix(7)): a message that brings some says how many under
"fds". They arrive with, or before, the line's last byte, and in order: a message with more of them
than the kernel takes at once goes in parts.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Message = dict[str, Any]

VERSION = 1
_MOST_FDS = 253  # SCM_MAX_FD in linux/net/scm.h
_CHUNK_BYTES = 256 * 1024
_PAUSE_SECONDS = 0.01


class Closed(Exception):
    """The other side went away."""


class Silent(Closed):
    """The other side is there, and did nothing for as long as the socket waits."""


class Channel:
    """One end. Sending blocks until all is taken; receiving as the socket is set."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._text = bytearray()
        self._fds: list[int] = []

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self.sock.fileno()

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send one message; the descriptors stay open here too. Raises Closed."""
        if fds:
            message = {**message, "fds": len(fds)}
        data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        try:
            while data:
                some, fds = fds[:_MOST_FDS], fds[_MOST_FDS:]
                rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", some))]
                part = data[:1] if fds else data
                data = data[self.sock.sendmsg([part], rights if some else []) :]
        except TimeoutError as error:
            raise Silent(str(error)) from error
        except OSError as error:
            raise Closed(str(error)) from error

    def receive(self) -> list[tuple[Message, tuple[int, ...]]]:
        """The messages that came in, each with its descriptors, which are now the caller's.

        Raises Closed, BlockingIOError on a socket that doesn't wait, and ValueError for what
        is no message.
        """
        try:
            data, fds, _, _ = socket.recv_fds(self.sock, _CHUNK_BYTES, _MOST_FDS)
        except TimeoutError as error:
            raise Silent(str(error)) from error
        except ConnectionError as error:
            raise Closed(str(error)) from error
        self._fds += fds
        if not data:
            raise Closed("end of stream")
        self._text += data
        *lines, rest = self._text.split(b"\n")
        self._text = rest
        messages = []
        for line in lines:
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ValueError(f"{message!r} is no message")
            count = message.get("fds", 0)
            messages.append((message, tuple(self._fds[:count])))
            del self._fds[:count]
        return messages

    def call(self, message: Message, fds: tuple[int, ...] = ()) -> Message:
        """Send a message and wait for the one that answers it."""
        self.send(message, fds)
        return self.answer()

    def answer(self) -> Message:
        """Wait for the next message, which answers the last one that was sent."""
        while not (answers := self.receive()):
            pass
        return answers[0][0]

    def close(self) -> None:
        """Close the socket and what was received and not taken."""
        for number in self._fds:
            os.close(number)
        self._fds = []
        self.sock.close()


def listen(path: Path) -> socket.socket:
    """A unix socket that listens at `path`, for its owner only."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        with _short(path) as name:
            sock.bind(name)
    finally:
        os.umask(mask)
    sock.listen(128)
    return sock


def connect(path: Path, timeout_seconds: float) -> Channel:
    """A channel to who listens at `path`. Raises OSError where nobody does, or nobody accepts."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_seconds)
    deadline = time.monotonic() + timeout_seconds
    try:
        with _short(path) as name:
            while True:
                try:
                    sock.connect(name)
                except BlockingIOError:  # others wait, as many as the kernel lets (unix(7))
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"nobody accepts at {path}") from None
                    time.sleep(_PAUSE_SECONDS)
                else:
                    return Channel(sock)
    except OSError:
        sock.close()
        raise


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of at most 107 bytes for a path of any length (unix(7), sun_path)."""
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
