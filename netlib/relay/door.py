"""The door to the relay process: Relay nouns in, and the process started when it is needed."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
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

    def do(self, steps: Sequence[Step]) -> None:
        """Do all steps, or none and raise."""
        if not steps:
            return
        starts = not isinstance(steps[0], Delete | Change)
        if self._ask({"verb": "do", "steps": _documents(steps)}, starts=starts) is None:
            raise NotThere(f"{_name(steps[0])} is not there: the relay process is not running")

    def begin(self, steps: Sequence[Step]) -> Callable[[], None]:
        """Ask for steps; what is returned waits for the answer. Safe to ask again, as `_ask` is."""
        with ExitStack() as opening:
            sock = opening.enter_context(reach(self._folder))
            sent = sock is not None and self._send(sock, {"verb": "do", "steps": _documents(steps)})
            opened = opening.pop_all()

        def finish() -> None:
            with opened:
                answer = _answer(sock, self._folder) if sock is not None and sent else None
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
        with reach(self._folder) as sock:
            if sock is None or not self._send(sock, request):
                return None
            return _answer(sock, self._folder)

    def _send(self, sock: socket.socket, request: dict[str, Any]) -> bool:
        """Whether the process was there to be asked."""
        if peer_uid(sock) != os.geteuid():
            raise NotPermitted(
                f"the relay process of {self._folder} belongs to another user",
                "run as that user, or choose another folder with --state-dir",
            )
        sock.settimeout(_ANSWER_SECONDS)
        try:
            sock.sendall(json.dumps({"netns": netns_inode(), **request}).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True


def _answer(sock: socket.socket, folder: Path) -> bytes | None:
    """What the process says; None where it ended before it did anything."""
    try:
        answer = b"".join(_parts(sock))
    except ConnectionResetError:
        return None
    except TimeoutError as error:
        raise KernelError(
            f"the relay process of {folder} does not answer",
            "end it (its name is netlib-relay), then run: net repair",
        ) from error
    return answer if answer.endswith(b"\n") else None


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


def _parts(sock: socket.socket) -> Iterator[bytes]:
    while part := sock.recv(1 << 16):
        yield part


def _checked(answer: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(answer)
    if "error" in document:
        shape = _ERRORS.get(document["error"], KernelError)
        raise shape(document["message"], document["hint"])
    return document
