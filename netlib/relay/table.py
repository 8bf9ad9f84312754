"""The relays that there are, changed all at once or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from netlib.relay.spec import Key, Slot, Spec, slot_text


class Refused(Exception):
    """A step can not be done. `code` is that of the error to raise, as netlib.errors has it."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class Listener(Protocol):
    """A listening socket of a relay."""

    spec: Spec

    def cut(self) -> None:
        """End what came through it."""

    def close(self) -> None:
        """Listen no more, and end what came through it."""


Open = Callable[[Slot, Spec], Listener]
Document = dict[str, Any]
Step = Sequence[Any]  # [verb, document] or ["change", old, new]


class Table:
    """Relays by what they are, and listening sockets by port."""

    def __init__(self, listen: Open) -> None:
        self._listen = listen
        self._relays: dict[Key, Spec] = {}
        self._listeners: dict[Slot, Listener] = {}

    def __len__(self) -> int:
        return len(self._relays)

    def documents(self) -> list[Document]:
        """All relays."""
        return [spec.document for spec in self._relays.values()]

    def present(self, documents: Iterable[Document]) -> list[Document]:
        """Of these relays, those that are there, as they are."""
        keys = [(d["protocol"], d["host"], d["port"]) for d in documents]
        return [self._relays[key].document for key in keys if key in self._relays]

    def do(self, steps: Iterable[Step]) -> None:
        """Do all steps, or none and raise Refused."""
        changes: dict[Key, Spec | None] = {}
        for verb, *documents in steps:
            spec = Spec(documents[-1])
            there = changes.get(spec.key, self._relays.get(spec.key))
            name = f"the relay for {slot_text(spec.key)}"
            if verb == "create" and there:
                raise Refused("already-there", f"{name} is there")
            if verb in ("change", "delete") and not there:
                raise Refused("not-there", f"{name} is not there")
            changes[spec.key] = None if verb == "delete" else spec
        self._become(changes)

    def remove(self, steps: Iterable[Step]) -> None:
        """Do each step that can be done; raise Refused with all that could not."""
        failures: list[Refused] = []
        for step in steps:
            try:
                self.do([step])
            except Refused as refused:
                if refused.code != "not-there" or step[0] != "delete":
                    failures.append(refused)
        if failures:
            raise Refused(failures[0].code, "; ".join(f.message for f in failures))

    def _become(self, changes: dict[Key, Spec | None]) -> None:
        wanted = {slot: spec for spec in changes.values() if spec for slot in spec.slots}
        had = [slot for key in changes if key in self._relays for slot in self._relays[key].slots]
        gone = [slot for slot in had if slot not in wanted]
        fresh = [slot for slot in wanted if slot not in had]
        self._open(fresh, gone, wanted)
        for slot in gone:
            self._listeners.pop(slot).close()
        for slot in had:
            if slot in wanted:
                self._lead(slot, wanted[slot])
        for key, spec in changes.items():
            if spec:
                self._relays[key] = spec
            else:
                self._relays.pop(key, None)

    def _open(self, fresh: list[Slot], gone: list[Slot], wanted: dict[Slot, Spec]) -> None:
        """Listen on fresh slots, or leave everything as it was and raise Refused.

        A socket that goes can be in the way of a fresh one, as a wildcard is in the way of an
        address: then it goes first, and comes back should anything fail.
        """
        ports = {(protocol, port) for protocol, _, port, _ in fresh}
        away = {s: self._listeners[s].spec for s in gone if (s[0], s[2]) in ports}
        opened: list[Slot] = []
        try:
            for slot in fresh:
                if slot in self._listeners:
                    raise Refused("port-held", f"{slot_text(slot)} has a relay already")
            for slot in away:
                self._listeners.pop(slot).close()
            for slot in fresh:
                self._listeners[slot] = self._listener(slot, wanted[slot])
                opened.append(slot)
        except Refused:
            for slot in opened:
                self._listeners.pop(slot).close()
            for slot, spec in away.items():
                if slot not in self._listeners:
                    self._listeners[slot] = self._listener(slot, spec)
            raise
        for slot in away:
            gone.remove(slot)

    def _listener(self, slot: Slot, spec: Spec) -> Listener:
        try:
            return self._listen(slot, spec)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise Refused(
                    "port-held",
                    f"{slot_text(slot)} is in use by another process",
                    "stop that process, or publish another host port",
                ) from error
            hint = ""
            if error.errno in (errno.EMFILE, errno.ENFILE):
                hint = "raise the limit of open files (ulimit -n), or publish fewer ports"
            raise Refused(
                "not-permitted" if error.errno in (errno.EACCES, errno.EPERM) else "kernel-error",
                f"{slot_text(slot)} can't be listened on: {os.strerror(error.errno or 0)}",
                hint,
            ) from error

    def _lead(self, slot: Slot, spec: Spec) -> None:
        listener = self._listeners[slot]
        old, listener.spec = listener.spec, spec
        if not old.leads_as(spec, slot[2]):
            listener.cut()
