"""The door to the relay process: Relay nouns in, and the process started when it is needed."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from netlib.codec import from_json, to_json
from netlib.errors import AlreadyThere, KernelError, NotPermitted, NotThere, PortHeld
from netlib.plan import Change, Create, Delete, Ensure, Step, subject
from netlib.relay.control import netns_inode, peer_uid
from netlib.relay.start import reach, start
from netlib.wiring import Noun, Relay

_ANSWER_SECONDS = 30.0
# A process that ends lets the next one start within milliseconds; so does one that starts.
_START_SECONDS = 10.0
_STARTS = 3
_RETRY_SECONDS = 0.002
_IDLE = 4  # connections that are kept

_ERRORS: dict[str, type[KernelError | NotPermitted]] = {
    "already-there": AlreadyThere,
    "not-there": NotThere,
    "not-permitted": NotPermitted,
    "port-held": PortHeld,
}


class RelayDoor:
    """Keeps the relays of one state in one process. Safe in many threads and processes at once.

    Relays are in the network namespace of the thread that asks, and only that one may ask.
    """

    name = "relay"

    def __init__(self, state_dir: Path) -> None:
        self._folder = state_dir
        self._idle: list[tuple[int, socket.socket]] = []  # connections, and whose they are

    def do(self, steps: Sequence[Step]) -> None:
        """Do all steps, or none and raise."""
        if not steps:
            return
        starts = not isinstance(steps[0], Delete | Change)
        if self._ask({"verb": "do", "steps": _documents(steps)}, starts=starts) is None:
            raise NotThere(f"{_name(steps[0])} is not there: the relay process is not running")

    def begin(self, steps: Sequence[Step]) -> Callable[[], None]:
        """Ask for steps; what is returned waits for the answer. Safe to ask again, as `_ask` is."""
        asked = self._send(_line({"verb": "do", "steps": _documents(steps)}))

        def finish() -> None:
            answer = None if asked is None else self._hear(asked[0])
            if answer is None:
                self.do(steps)
            else:
                _checked(answer)

        return finish

    def remove(self, steps: Sequence[Step]) -> None:
        """Do the steps that can be done: a Delete of what is absent is no failure."""
        if steps:
            starts = not all(isinstance(step, Delete) for step in steps)
            self._ask({"verb": "remove", "steps": _documents(steps)}, starts=starts)

    def observe(self, nouns: Iterable[Noun]) -> list[Noun]:
        """Of these relays, those that are there, as they are now."""
        asked = [to_json(noun) for noun in nouns if isinstance(noun, Relay)]
        return self._relays({"verb": "observe", "relays": asked}) if asked else []

    def marked(self) -> list[Noun]:
        """All relays of this state."""
        return self._relays({"verb": "all"})

    def _relays(self, request: dict[str, Any]) -> list[Noun]:
        answer = self._ask(request, starts=False) or {"relays": []}
        return [from_json(Relay, document) for document in answer["relays"]]

    def _ask(self, request: dict[str, Any], *, starts: bool) -> dict[str, Any] | None:
        """The answer; None when no process runs, and none is to be started."""
        deadline = time.monotonic() + _START_SECONDS
        started = 0
        while True:
            answer = self._try(request)
            if answer is not None:
                return _checked(answer)
            # No process, or one that ended before it answered: with its last relay, or by
            # force. Either way nothing it did is left, so it is safe to ask again.
            if not starts:
                return None
            if started < _STARTS and time.monotonic() < deadline:
                if start(self._folder):
                    started += 1
                else:
                    time.sleep(_RETRY_SECONDS)  # another one starts or ends this moment
            else:
                raise KernelError(
                    "the relay process does not start",
                    f"see {self._folder / 'relay.log'}",
                )

    def _try(self, request: dict[str, Any]) -> bytes | None:
        line = _line(request)
        while (asked := self._send(line)) is not None:
            sock, is_new = asked
            answer = self._hear(sock)
            # An old connection may be one to a process that has ended: there may be another now.
            if answer is not None or is_new:
                return answer
        return None

    def _send(self, line: bytes) -> tuple[socket.socket, bool] | None:
        """The connection by which the process was asked, and whether it is a new one.

        None where there is no process.
        """
        while True:
            sock = self._kept()
            is_new = sock is None
            if sock is None and (sock := self._connection()) is None:
                return None
            try:
                sock.sendall(line)
            except (BrokenPipeError, ConnectionResetError):
                sock.close()
                if is_new:
                    return None
            except BaseException:
                sock.close()
                raise
            else:
                return sock, is_new

    def _kept(self) -> socket.socket | None:
        """A connection that was used before, for the caller alone."""
        while self._idle:
            try:
                pid, sock = self._idle.pop()
            except IndexError:  # another thread was first
                break
            if pid == os.getpid():
                return sock
            sock.close()  # our parent's, which goes on using its own
        return None

    def _connection(self) -> socket.socket | None:
        sock = reach(self._folder)
        if sock is not None:
            if peer_uid(sock) != os.geteuid():
                sock.close()
                raise NotPermitted(
                    f"the relay process of {self._folder} belongs to another user",
                    "run as that user, or choose another folder with --state-dir",
                )
            sock.settimeout(_ANSWER_SECONDS)
        return sock

    def _hear(self, sock: socket.socket) -> bytes | None:
        """What the process says; None where it ended before it did anything."""
        answer = bytearray()
        try:
            while not answer.endswith(b"\n"):
                part = sock.recv(1 << 16)
                if not part:
                    sock.close()
                    return None
                answer += part
        except ConnectionResetError:
            sock.close()
            return None
        except TimeoutError as error:
            sock.close()
            raise KernelError(
                f"the relay process of {self._folder} does not answer",
                "end it (its name is netlib-relay), then run: net repair",
            ) from error
        except BaseException:
            sock.close()  # an answer may be under way
            raise
        if len(self._idle) < _IDLE:
            self._idle.append((os.getpid(), sock))
        else:
            sock.close()
        return bytes(answer)

    def close(self) -> None:
        """Give back connections; it may be used again."""
        while self._idle:
            self._idle.pop()[1].close()


def _line(request: dict[str, Any]) -> bytes:
    return json.dumps({"netns": netns_inode(), **request}).encode() + b"\n"


def _documents(steps: Iterable[Step]) -> list[list[Any]]:
    return [_document(step) for step in steps]


def _document(step: Step) -> list[Any]:
    match step:
        case Change(old, new):
            return ["change", to_json(old), to_json(new)]
        case Delete(noun):
            return ["delete", to_json(noun)]
        case Ensure(noun):
            return ["ensure", to_json(noun)]
        case Create(noun):
            return ["create", to_json(noun)]


def _name(step: Step) -> str:
    noun = subject(step)
    assert isinstance(noun, Relay)
    return f"the relay for port {noun.port}/{noun.protocol} of {noun.host}"


def _checked(answer: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(answer)
    if "error" in document:
        shape = _ERRORS.get(document["error"], KernelError)
        raise shape(document["message"], document["hint"])
    return document
