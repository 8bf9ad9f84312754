"""Serves clients, each by a thread.

Threads that work side by side in one interpreter take it from each other at every system call:
forty attachments at once took twice the processor time of forty one after the other. So what many
ask for at once is done by one thread for all of them, see side_by_side.run_with_others.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from netlib.errors import InUse, InvalidRequest, NamespaceGone, NetError, StoreError
from netlib.frontends.cni.plugin import Answer, answer
from netlib.frontends.cni.refusal import UNKNOWN_CONTAINER, Refusal
from netlib.frontends.cni.request import Request
from netlib.frontends.daemon.calls import VERBS, unpack
from netlib.frontends.daemon.events import Bus, follow
from netlib.frontends.daemon.findings import write_error
from netlib.frontends.daemon.in_order import InOrder
from netlib.frontends.daemon.journal import Journal
from netlib.frontends.daemon.messages import SOCKET, VERSION, Channel, Lost, Message, peer
from netlib.frontends.daemon.namespaces import absolute, locate
from netlib.lock import open_lock
from netlib.model import Netns, Sandbox
from netlib.net import Net

LOCK = "daemon.lock"
_BACKLOG = 512
_DRAIN_SECONDS = 30.0
_LOOK_SECONDS = 2.0  # how often, whether our socket is still there
# A thread that was used has its memory already: a new one costs more than a request.
_SPARE_THREADS = 8
# Why nobody can be accepted just now (accept(2)).
_PASSING = (errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS = 0.1


class Listener(NamedTuple):
    """Where clients come in. `shared`: systemd has it too, and goes on listening when we end.

    `place` and `inode`: what our own socket is called, and whether that is still it.
    """

    sock: socket.socket
    shared: bool = False
    place: Path | None = None
    inode: int = 0

    def is_there(self) -> bool:
        """Whether clients find it."""
        try:
            return self.place is None or self.place.stat().st_ino == self.inode
        except OSError:
            return False


class Server:
    """One daemon of one state; `bus` has what followers are told beside the state's changes."""

    def __init__(
        self,
        net: Net,
        listener: Listener,
        bus: Bus,
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._net = net
        self._listener = listener
        self._bus = bus
        self._log = log
        self._journal = Journal(net.engine.state.store)
        self._containers = InOrder()
        self._busy = 0
        self._pool = threading.Lock()
        self._waiting = 0  # threads that wait for a client
        self._idle = threading.Condition()
        self._open = threading.Event()
        self._ending = threading.Event()
        self._told = threading.local()
        self._wake, self._waker = socket.socketpair()
        self._waker.setblocking(False)

    @contextmanager
    def accepting(self) -> Iterator[None]:
        """Take requests, which `run` has served; whoever asks is told meanwhile that we live."""
        for _ in range(2):
            self._add_thread()
        try:
            yield
        finally:
            self._end()

    def _end(self) -> None:
        self._ending.set()
        self._open.set()  # who waits for that finds that we end
        if not self._listener.shared:
            with suppress(OSError):  # nobody waits in accept(), which this wakes
                self._listener.sock.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        """Serve until `stop`, then let what is under way end.

        Raises StoreError where the socket was taken away, with the whole state perhaps: nobody
        comes any more, and the next daemon does not know of this one.
        """
        self._journal.clear()
        self._net.engine.warn = self._warn
        self._open.set()
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        is_told = False
        while not is_told and self._listener.is_there():
            is_told = bool(poll.poll(_LOOK_SECONDS * 1000))
            if not self._waiting:  # no thread could be had
                self._add_thread()
        self._end()
        self._drain()
        if not is_told:
            raise StoreError(
                f"{self._listener.place} was taken away from the daemon that listened there",
                "end a daemon before its folder is removed, and start it again after that",
            )

    def _drain(self) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        with self._idle:
            while self._busy and (left := deadline - time.monotonic()) > 0:
                self._idle.wait(left)

    def stop(self) -> None:
        """Take no more requests."""
        self._waker.send(b"!")

    @property
    def waker(self) -> int:
        """A descriptor: who writes there, stops it. For signals, which come at any moment."""
        return self._waker.fileno()

    def _add_thread(self) -> None:
        with self._pool:
            self._waiting += 1
        try:
            threading.Thread(target=self._accept, name="netlib-client", daemon=True).start()
        except RuntimeError as error:  # too many processes: whoever is free next accepts
            with self._pool:
                self._waiting -= 1
            self._log(f"clients have to wait: {error}")

    def _accept(self) -> None:
        """Serve one client after the other; somebody else always waits for the next one."""
        while True:
            try:
                sock, _ = self._listener.sock.accept()
            except OSError as error:
                if self._ending.is_set() or error.errno not in _PASSING:
                    return  # closed by stop
                self._ending.wait(_PAUSE_SECONDS)
                continue
            with self._pool:
                self._waiting -= 1
                was_last = not self._waiting
            if was_last:
                self._add_thread()
            self._serve(sock)
            with self._pool:
                if self._waiting >= _SPARE_THREADS:
                    return
                self._waiting += 1

    def _serve(self, sock: socket.socket) -> None:
        channel = Channel(sock)
        try:
            if peer(sock)[1] not in (0, os.geteuid()):
                return  # the socket's mode let nobody in; somebody handed it on
            while True:
                message = channel.receive()
                if message.document.get("do") != "ping":
                    self._open.wait()
                with self._working():
                    self._answer(channel, message)
        except Lost:
            pass  # clients go when they like
        except Exception:  # it loses its connection, and nobody else anything
            self._log(traceback.format_exc())
        finally:
            channel.close()

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._idle:
            if self._ending.is_set():
                raise Lost("the daemon ends")
            self._busy += 1
        try:
            yield
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def _answer(self, channel: Channel, message: Message) -> None:
        document = message.document
        try:
            if document.get("version") != VERSION:
                error = InvalidRequest(
                    f"the daemon speaks version {VERSION} and was asked in another",
                    "restart it after an update",
                )
                channel.send({"error": write_error(error)})
                return
            match document.get("do"):
                case "ping":  # of who waits for long, and wants to know whether we live
                    channel.send({"pid": os.getpid()})
                case "hello":
                    channel.send(self._hello())
                case "cni":
                    self._cni(channel, message)
                case "call":
                    self._call(channel, message)
                case "events":
                    self._idle_while_following(channel)
                case other:
                    error = InvalidRequest(f"the daemon does not know how to do {other!r}")
                    channel.send({"error": write_error(error)})
        finally:
            for descriptor in message.descriptors:
                os.close(descriptor)

    def _hello(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "firewall": self._net.engine.kernel.firewall}

    def _idle_while_following(self, channel: Channel) -> None:
        """A follower is no work that the end has to wait for."""
        with self._idle:
            self._busy -= 1
        try:
            follow(self._net.engine.state.store, self._bus, channel, self._ending)
        finally:
            with self._idle:
                self._busy += 1

    def _cni(self, channel: Channel, message: Message) -> None:
        environment = {str(k): str(v) for k, v in message.document["environment"].items()}
        operation = str(message.document.get("operation", ""))
        pid = peer(channel.sock)[0]
        environment["CNI_PATH"] = absolute(environment.get("CNI_PATH", ""), pid)

        def enter(net: Net, request: Request) -> Netns:
            if not message.descriptors:
                raise Refusal(UNKNOWN_CONTAINER, f"failed to open netns {request.netns!r}")
            try:
                netns = absolute(request.netns, pid)
                return locate(message.descriptors[0], netns, request.sandbox)
            except NamespaceGone as error:
                raise Refusal(UNKNOWN_CONTAINER, error.message, error.hint) from error

        def serve(command: str) -> Answer:
            said = answer(
                lambda: self._net,
                {**environment, "CNI_COMMAND": command},
                message.body,
                operation=operation,
                enter=enter,
            )
            if said.log:
                self._log(said.log)
            return said

        command = environment.get("CNI_COMMAND", "")
        # A plugin that was killed with its ADD is followed by a DEL, and that by another ADD: the
        # first must be over by then, with all that is taken back of it.
        with self._containers.at(environment.get("CNI_CONTAINERID") or operation):
            if channel.is_gone():  # and what comes late would undo what came after it
                raise Lost("the plugin was killed, or was told to try again")
            said = serve(command)
            try:
                channel.send({"status": said.status}, said.stdout.encode())
            except Lost:
                # Its runtime knows of no attachment, and calls DEL perhaps before there is one.
                if command == "ADD" and not said.status:
                    serve("DEL")
                raise

    def _warn(self, text: str) -> None:
        """Keep a warning for whose request this thread is at; a runtime could not read it."""
        kept: list[str] | None = getattr(self._told, "warnings", None)
        if kept is None:
            self._log(text)
        else:
            kept.append(text)

    def _call(self, channel: Channel, message: Message) -> None:
        if channel.is_gone():
            raise Lost("who asked was told that it is not done")
        operation = str(message.document.get("operation", ""))
        verb = VERBS.get(message.document.get("verb", ""))
        noted = operation and verb is not None and not verb.repeats
        if noted:
            self._journal.begin(operation)
        found = self._answered(channel, message)
        if noted:
            self._journal.end(operation, found)
        channel.send(found)
        if noted:
            self._journal.answered(operation)

    def _answered(self, channel: Channel, message: Message) -> dict[str, Any]:
        """A verb's result or error, and what it warned of."""
        warnings: list[str] = []
        self._told.warnings = warnings
        try:
            found: dict[str, Any] = {"result": self._done(channel, message)}
        except NetError as error:
            found = {"error": write_error(error)}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._log(traceback.format_exc())
            refusal = InvalidRequest(f"the daemon can't do what was asked: {error!r}")
            found = {"error": write_error(refusal)}
        finally:
            self._told.warnings = None
        if warnings:
            found["warnings"] = warnings
        return found

    def _done(self, channel: Channel, message: Message) -> Any:
        verb = message.document["verb"]
        if verb not in VERBS:
            raise InvalidRequest(f"the daemon does not know the verb {verb!r}")
        descriptors = iter(message.descriptors)
        arguments = [
            self._placed(value, descriptors) for value in unpack(message.document["arguments"])
        ]
        named = {
            key: self._placed(unpack(value), descriptors)
            for key, value in message.document["named"].items()
        }
        if message.document.get("watched"):
            named["watch"] = partial(_progress, channel)
        return VERBS[verb].write(getattr(self._net, verb)(*arguments, **named))

    def _placed(self, value: Any, descriptors: Iterator[int]) -> Any:
        """A sandbox by the descriptor that came with it: as the state knows it, or as found."""
        if not isinstance(value, Sandbox):
            return value
        from netlib.values import replace

        netns = locate(next(descriptors), value.netns.path, value.name)
        known = self._net.engine.state.sandbox_in(netns.inode)
        return known or replace(value, netns=netns)


def _progress(channel: Channel, subject: str, number: int, total: int) -> None:
    """Tell who waits how far it is; who has gone, or was stopped, is not waited for.

    Repair tells while it holds the state's lock.
    """
    with suppress(Lost):
        if channel.has_room():
            channel.send({"progress": [subject, number, total]})


@contextmanager
def listening(folder: Path) -> Iterator[Listener]:
    """The daemon's socket, for the one daemon that a state can have.

    systemd may have it ready (sd_listen_fds(3)); it is then left in place at the end. Raises
    InUse, NotPermitted, StoreError.
    """
    lock = open_lock(folder / LOCK)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUse(f"a daemon serves {folder} already", "one is enough") from error
        if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS") == "1":
            for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
                os.environ.pop(name, None)  # for us, not for what we start
            with socket.socket(fileno=3) as sock:
                sock.set_inheritable(False)
                yield Listener(sock, shared=True)
            return
        with socket.socket(socket.AF_UNIX) as sock:
            place = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            name = f"/proc/self/fd/{place}/{SOCKET}"
            own: Listener | None = None
            try:
                # Before it has a name: bind(2) gives the name the socket's own mode.
                os.fchmod(sock.fileno(), 0o600)
                (folder / SOCKET).unlink(missing_ok=True)  # of one that was killed
                sock.bind(name)
                sock.listen(_BACKLOG)
                own = Listener(sock, place=folder / SOCKET, inode=(folder / SOCKET).stat().st_ino)
                yield own
            finally:
                if own is None or own.is_there():  # it may be the next one's by now
                    (folder / SOCKET).unlink(missing_ok=True)
                os.close(place)
    finally:
        os.close(lock)
