"""What the daemon and its clients say: a line of JSON, then as many bytes as its "body" says.

File descriptors ride along with a message's first bytes (SCM_RIGHTS, unix(7)). Every message
has a "version"; who gets one of another version says so, and nothing else.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import struct
import sys
from pathlib import Path
from typing import Any, NamedTuple

VERSION = 1
SOCKET = "netlib.sock"
_MOST_FDS = 8
_MOST_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 16
_UCRED = struct.Struct("=iII")
_TIMEVAL = struct.Struct("@ll")
# For so long a daemon that lives has never let anybody wait for a word.
PATIENCE_SECONDS = 5.0


class Lost(Exception):
    """The other side went away, or speaks another language."""

    @property
    def is_silence(self) -> bool:
        """Whether it is there, and says or takes nothing for as long as the socket waits."""
        return isinstance(self.__cause__, TimeoutError)


class Message(NamedTuple):
    """One message; the descriptors are the receiver's to close."""

    document: dict[str, Any]
    body: bytes = b""
    descriptors: tuple[int, ...] = ()


class Channel:
    """One end of a connection, for one thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._read = bytearray()
        self._descriptors: list[int] = []

    def send(
        self, document: dict[str, Any], body: bytes = b"", descriptors: tuple[int, ...] = ()
    ) -> None:
        """Send one message. Raises Lost."""
        whole = {"version": VERSION, **document}
        if body:
            whole["body"] = len(body)
        data = memoryview(json.dumps(whole, separators=(",", ":")).encode() + b"\n" + body)
        rights = array.array("i", descriptors)
        extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        try:
            while data:
                data = data[self.sock.sendmsg([data], extra) :]
                extra = []
        except OSError as error:
            raise Lost(str(error)) from error

    def receive(self) -> Message:
        """The next message. Raises Lost, also for what is none."""
        while (end := self._read.find(b"\n")) < 0:
            self._more()
        try:
            document = json.loads(self._read[:end].decode(errors="surrogateescape"))
            size = int(document.get("body", 0))
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise Lost(f"no message: {error}") from error
        del self._read[: end + 1]
        if not 0 <= size <= _MOST_BYTES:
            raise Lost(f"a body of {size} bytes")
        while len(self._read) < size:
            self._more()
        body = bytes(self._read[:size])
        del self._read[:size]
        descriptors, self._descriptors = tuple(self._descriptors), []
        return Message(document, body, descriptors)

    def _more(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self.sock, _CHUNK_BYTES, _MOST_FDS)
        except OSError as error:
            raise Lost(str(error)) from error
        self._descriptors += descriptors
        if not data or len(self._read) > _MOST_BYTES:
            raise Lost("the connection ended")
        self._read += data

    def is_ready(self, seconds: float = 0.0) -> bool:
        """Whether `receive` would not wait: something comes within this time, or the end."""
        if b"\n" in self._read:
            return True
        poll = select.poll()  # select() takes no descriptor above 1023
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def has_room(self) -> bool:
        """Whether a short message can be sent without waiting for who reads."""
        poll = select.poll()
        poll.register(self.sock, select.POLLOUT)
        return bool(poll.poll(0))

    def is_gone(self) -> bool:
        """Whether the other side has ended, so that nobody would get an answer."""
        poller = select.poll()
        poller.register(self.sock, 0)  # one that only sends no more is there still
        return bool(poller.poll(0))

    def withdraw(self) -> bool:
        """End what is waited for; whether the other side had not read it, and so leaves it.

        First the end, then the look: who reads after the look finds that we are gone.
        """
        import fcntl
        import termios

        try:
            self.sock.shutdown(socket.SHUT_RDWR)
            left = fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4))  # SIOCOUTQ (unix(7))
        except OSError:  # it has just ended
            return False
        return bool(int.from_bytes(left, sys.byteorder))

    def call(
        self, document: dict[str, Any], body: bytes = b"", descriptors: tuple[int, ...] = ()
    ) -> Message:
        """Send a message and wait for the one that answers it."""
        self.send(document, body, descriptors)
        return self.receive()

    def close(self) -> None:
        """End the connection."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        self.sock.close()


def connect(folder: Path, timeout_seconds: float | None = None) -> Channel | None:
    """A connection to the daemon of a state; None where none runs, or it is somebody else's."""
    try:
        return _dialled(folder, timeout_seconds)
    except OSError:
        return None


def is_stuck(folder: Path) -> bool:
    """Whether a daemon takes connections and says nothing."""
    try:
        channel = _dialled(folder, PATIENCE_SECONDS)
    except BlockingIOError:  # so many wait already that nobody else can
        return True
    except OSError:
        return False
    try:
        channel.call({"do": "ping"})  # answered by one that is starting, too
    except Lost as error:  # one that has just ended is no trouble
        return error.is_silence
    finally:
        channel.close()
    return False


def pid_of(folder: Path) -> int:
    """Who listens at a state's socket; 0 where nobody does, or it can't be seen from here."""
    channel = connect(folder, PATIENCE_SECONDS)
    if channel is None:
        return 0
    try:
        return peer(channel.sock)[0]
    finally:
        channel.close()


def _dialled(folder: Path, timeout_seconds: float | None) -> Channel:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if timeout_seconds is not None:  # of connect(2) itself: by Python's it would not wait
            patience = _TIMEVAL.pack(*divmod(int(timeout_seconds * 1e6), 1_000_000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
        descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # A socket's address has 108 bytes (unix(7)): a folder's path may have more.
            sock.connect(f"/proc/self/fd/{descriptor}/{SOCKET}")
        finally:
            os.close(descriptor)
        if peer(sock)[1] not in (0, os.geteuid()):
            raise PermissionError
        sock.settimeout(timeout_seconds)
    except BaseException:
        sock.close()
        raise
    return Channel(sock)


def peer(sock: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end (SO_PEERCRED, unix(7))."""
    packed = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(packed)
    return pid, uid
