"""What the relay process is told: a JSON line asks, and one answers, on a unix socket.

A request has the inode of the asker's network namespace, a verb (`do`, `remove`, `observe`,
`all`) and steps or documents. An answer has documents, or an error's code, message and hint. Who
has been answered may ask again; that does not keep the process from ending.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Any

from netlib.relay.loop import Loop
from netlib.relay.table import Refused, Table

_READ_BYTES = 1 << 16
_MOST_BYTES = 64 << 20


def netns_inode() -> int:
    """Which network namespace the calling thread is in (namespaces(7))."""
    return os.stat("/proc/thread-self/ns/net").st_ino


def peer_uid(sock: socket.socket) -> int:
    """Who is at the other end of a unix socket (unix(7), SO_PEERCRED)."""
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    uid: int = struct.unpack("iII", credentials)[1]
    return uid


class Control:
    """The unix socket, and those who ask."""

    def __init__(
        self, loop: Loop, listening: socket.socket, table: Table, idle: Callable[[], None]
    ) -> None:
        self.loop = loop
        self.table = table
        self.netns = netns_inode()
        self.sessions: set[Session] = set()
        self._listening = listening
        self._idle = idle
        listening.setblocking(False)
        loop.add(listening, self, select.EPOLLIN)

    def on_event(self, events: int) -> None:
        """Take one who asks."""
        try:
            sock, _ = self._listening.accept()
        except OSError:
            return  # gone again, or no files left: then the next tick or event tries again
        if peer_uid(sock) != os.geteuid():
            sock.close()
            return
        sock.setblocking(False)
        self.sessions.add(Session(self, sock))

    def failed(self) -> None:
        """Keep listening."""

    def leave(self, session: Session) -> None:
        """One went away."""
        self.sessions.discard(session)
        self.loop.close(session.sock)
        self.served()

    def served(self) -> None:
        """One has been answered, or went away."""
        if self.is_unused():
            self._idle()

    def is_unused(self) -> bool:
        """Whether nothing is relayed, and nobody is about to ask for it."""
        return not self.table and not any(session.waits for session in self.sessions)

    def answer(self, line: bytes) -> Any:
        """Do what a request says."""
        try:
            request = json.loads(line)
            if request["netns"] != self.netns:
                raise Refused(
                    "kernel-error",
                    f"the relays of this state are in another network namespace "
                    f"(net:[{self.netns}]; this one is net:[{request['netns']}])",
                    "run where they are, or choose another folder with --state-dir",
                )
            match request["verb"]:
                case "do":
                    self.table.do(request["steps"])
                case "remove":
                    self.table.remove(request["steps"])
                case "observe":
                    return {"relays": self.table.present(request["relays"])}
                case "all":
                    return {"relays": self.table.documents()}
                case verb:
                    raise Refused("kernel-error", f"the relay process knows no {verb!r}")
        except Refused as refused:
            return {"error": refused.code, "message": refused.message, "hint": refused.hint}
        except (ValueError, KeyError, TypeError) as error:
            return {"error": "kernel-error", "message": f"not a request: {error!r}", "hint": ""}
        return {"relays": []}


class Session:
    """One who asks: a request comes in pieces, and so may its answer leave."""

    def __init__(self, control: Control, sock: socket.socket) -> None:
        self.sock = sock
        self._control = control
        self.waits = True  # for its answer, or to ask for the first time
        self._request = bytearray()
        self._answer = memoryview(b"")
        control.loop.add(sock, self, select.EPOLLIN)

    def on_event(self, events: int) -> None:
        """Read on, or write on."""
        try:
            if not self._answer:
                self._read()
            elif self._write():
                self._control.loop.resume(self.sock, select.EPOLLIN)
        except BlockingIOError:
            return
        except OSError:
            self._control.leave(self)

    def failed(self) -> None:
        """Give up."""
        self._control.leave(self)

    def _read(self) -> None:
        data = self.sock.recv(_READ_BYTES)
        self.waits = True
        self._request += data
        if not data or len(self._request) > _MOST_BYTES:
            self._control.leave(self)
        elif data.endswith(b"\n"):
            answer = self._control.answer(bytes(self._request))
            self._request.clear()
            self._answer = memoryview(json.dumps(answer).encode() + b"\n")
            if not self._write():
                self._control.loop.resume(self.sock, select.EPOLLOUT)

    def _write(self) -> bool:
        """Whether all of the answer has left."""
        try:
            self._answer = self._answer[self.sock.send(self._answer) :]
        except BlockingIOError:
            return False
        if self._answer:
            return False
        self.waits = False
        self._control.served()
        return True
