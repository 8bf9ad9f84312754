"""The keeper: a small privileged process that holds the resolver's sockets and feeds its server.

The server dies and comes back, the sockets stay open: what was asked meanwhile waits in them.
It ends with the last network or sandbox that has names, or lives in the daemon in its place.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from netlib.dns.channel import VERSION, Channel, Closed, Message, connect
from netlib.dns.child import Child
from netlib.dns.complaint import complain
from netlib.dns.facts import Update
from netlib.dns.feed import POLL_SECONDS, Feed
from netlib.dns.held import Held, note, noted
from netlib.dns.loop import Loop
from netlib.dns.place import LOG, SOCKET, AlreadyKept, Place
from netlib.dns.sockets import bind_at, bind_sandbox, close_at
from netlib.dns.source import ZoneSource
from netlib.dns.spawn import be_known
from netlib.dns.within import open_all
from netlib.errors import KernelError, NetError

UNUSED_SECONDS = 10.0  # how long it waits for its first socket
LINGER_SECONDS = 2.0  # and for the next one after its last

Key = tuple[str, str]  # network or sandbox, and its id or name


class Keeper:
    """Serves clients on a unix socket in the state's folder until nobody has names any more.

    `source` feeds it; without one, clients push updates. `stays`: it does not end by itself.
    """

    def __init__(
        self,
        place: Place,
        source: ZoneSource | None = None,
        *,
        resolv_conf: str = "/etc/resolv.conf",
        stays: bool = False,
    ) -> None:
        self._place = place
        self._stays = stays
        self._loop = Loop()
        self._held: dict[Key, list[socket.socket]] = {}
        self._namespaces: dict[Key, tuple[str, int]] = {}
        self._feed = Feed(source, self._pass_on)
        self._served = 0
        self._patient: list[tuple[int, Callable[[], None]]] = []
        self._child = Child(self._loop, self._state, self._wanted, place.lock, resolv_conf)
        self._ended = threading.Event()

    # -- life -------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the end."""
        self._inherit()
        self._feed.read()
        self._child.start()
        self._child.ping()
        self._listen()
        self._feed.follow(self._loop, self._ended)
        if not self._stays:
            self._loop.later(UNUSED_SECONDS, self._end_if_unused)
        self._loop.run()
        self._close()

    def _inherit(self) -> None:
        """Listen where a keeper did that was killed, before any client is heard.

        Who found it dead meanwhile and takes something away is obeyed after that. What can not be
        had again (a namespace that ended, a port that was taken) is left out: `net check` shows it.
        """
        left = noted(self._place.folder)
        for each in left:
            with contextlib.suppress(KernelError):
                if each.kind == "sandbox":
                    bound = bind_sandbox(each.path, each.inode)
                else:
                    bound = bind_at(each.address, each.port)
                self._held.setdefault((each.kind, each.name), []).extend(bound.sockets)
                self._namespaces[each.kind, each.name] = each.path, each.inode
        if left:
            self._note()

    def stop(self) -> None:
        """End `run`; safe from any thread."""
        self._ended.set()
        with contextlib.suppress(OSError):  # it ended already
            connect(self._place.folder / SOCKET, POLL_SECONDS).close()  # that wakes the loop

    def _end_if_unused(self) -> None:
        if not self._held and not self._stays:
            self._ended.set()
            self._loop.stop()

    def _close(self) -> None:
        self._place.unname()
        self._child.stop()
        for sockets in self._held.values():
            for sock in sockets:
                sock.close()
        self._loop.close()
        self._place.give_back()

    # -- what is served ---------------------------------------------------------------------------

    def _state(self) -> Iterator[tuple[Message, tuple[int, ...]]]:
        """All that a new server must know."""
        yield {"do": "update", "update": self._feed.everything().to_json()}, ()
        for (kind, name), sockets in self._held.items():
            message = {"do": "listen", "kind": kind, "name": name}
            yield message, tuple(sock.fileno() for sock in sockets)

    def _wanted(self, message: Message) -> None:
        """Do what the server asks for: have it know what changed, or open sockets in sandboxes."""
        if "read" in message:
            self._read()
            self._child.send({"do": "sync", "number": message["read"]})
        else:
            self._open(message)

    def _read(self) -> None:
        """Pass on what changed."""
        try:
            self._feed.read()
        except NetError as error:  # it is tried again soon
            complain(error)

    def _pass_on(self, update: Update) -> None:
        revision = update.revision
        self._child.send(
            {"do": "update", "update": update.to_json()},
            reply=lambda _: self._now_served(revision),
        )

    def _now_served(self, revision: int) -> None:
        self._served = max(self._served, revision)
        due = [ready for wanted, ready in self._patient if wanted <= self._served]
        self._patient = [each for each in self._patient if each[0] > self._served]
        for ready in due:
            ready()

    def _open(self, message: Message) -> None:
        """Open the sockets in sandboxes that the server wants."""
        found = open_all([tuple(request) for request in message["open"]], self._namespace_of)
        sockets = [sock for sock in found if sock is not None]
        successes = [sock is not None for sock in found]
        fds = tuple(sock.fileno() for sock in sockets)
        self._child.send({"do": "opened", "successes": successes}, fds)
        for sock in sockets:
            sock.close()

    def _namespace_of(self, sandbox: str) -> tuple[str, int] | None:
        return self._namespaces.get(("sandbox", sandbox)) or self._feed.namespace_of(sandbox)

    # -- clients ----------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._loop.watch(self._place.listener, lambda _: self._accept())

    def _accept(self) -> None:
        if self._ended.is_set():
            self._loop.stop()
            return
        try:
            sock, _ = self._place.listener.accept()
        except OSError as error:  # no descriptor is left: soon, perhaps
            complain(f"a client has to wait: {error}")
            self._loop.forget(self._place.listener)
            self._loop.later(POLL_SECONDS, self._listen)
            return
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        user = struct.unpack("3i", peer)[1]
        if user not in (0, os.geteuid()):
            sock.close()
            return
        sock.settimeout(POLL_SECONDS)
        client = Channel(sock)
        self._loop.watch(client, lambda _: self._hear(client))

    def _hear(self, client: Channel) -> None:
        try:
            for message, fds in client.receive():
                if len(fds) < message.get("fds", 0):
                    self._refuse(client, fds)
                else:
                    self._obey(client, message, fds)
        except Closed:
            self._drop(client)
        except (KeyError, TypeError, ValueError) as error:  # it speaks something else
            complain(f"a client was not understood: {error!r}")
            self._drop(client)

    def _refuse(self, client: Channel, fds: tuple[int, ...]) -> None:
        """The kernel left out descriptors for which there was no room (unix(7), MSG_CTRUNC)."""
        for number in fds:
            os.close(number)
        client.send({"ok": False, "error": "it has too many files open (ulimit -Hn)"})

    def _drop(self, client: Channel) -> None:
        self._loop.forget(client)
        client.close()

    def _obey(self, client: Channel, message: Message, fds: tuple[int, ...]) -> None:
        def answer(found: Message) -> None:
            found.pop("tag", None)
            with contextlib.suppress(Closed):  # it waited no longer
                client.send({"ok": True, **found})

        key = (message.get("kind", ""), message.get("name", ""))
        match message["do"]:
            case "hello":
                answer({"version": VERSION, "pid": os.getpid(), "listening": self._listening()})
            case "listen":
                held = [socket.socket(fileno=number) for number in fds]
                self._held.setdefault(key, []).extend(held)
                self._namespaces[key] = message["path"], message["inode"]
                self._note()
                self._child.send({k: message[k] for k in ("do", "kind", "name")}, fds)
                answer({})  # what is asked from now on waits in the sockets
            case "forget":
                stays = close_at(self._held.pop(key, []), message["addresses"])
                if stays:
                    self._held[key] = stays
                else:
                    self._namespaces.pop(key, None)
                self._note()
                self._child.send(message, (), self._then_end(answer))
            case "update":
                update = Update.from_json(message["update"])
                self._feed.take(update)
                if self._feed.revision < update.revision:
                    missing = f"what changed since {self._feed.revision} is missing"
                    answer({"ok": False, "error": missing})
                else:
                    self._serve(update.revision, answer)
            case "stats":
                self._child.send({"do": "stats"}, (), lambda found: answer(self._stats(found)))
            case "log":
                self._child.send({"do": "log"}, fds, self._then_close(fds, answer))
            case unknown:
                answer({"ok": False, "error": f"a keeper of version {VERSION} can't {unknown!r}"})

    def _note(self) -> None:
        """Write down what is held, for an heir: where that fails, it alone has less."""
        listeners = [
            Held(kind, name, address, port, *self._namespaces[kind, name])
            for (kind, name), held in self._held.items()
            for address, port in sorted({sock.getsockname()[:2] for sock in held})
        ]
        try:
            note(self._place.folder, listeners)
        except OSError as error:
            complain(f"what is held can't be noted: {error}")

    def _listening(self) -> list[Message]:
        return [
            {"kind": kind, "name": name, "addresses": sorted({s.getsockname()[:2] for s in held})}
            for (kind, name), held in self._held.items()
        ]

    def _serve(self, revision: int, answer: Callable[[Message], None]) -> None:
        """Answer when the server answers by that revision or a later one."""
        if revision <= self._served:
            answer({"revision": self._served})
        else:
            self._patient.append((revision, lambda: answer({"revision": self._served})))

    def _then_end(self, answer: Callable[[Message], None]) -> Callable[[Message], None]:
        def done(found: Message) -> None:
            answer(found)
            # The next network often follows the last one, and a start takes a while.
            self._loop.later(LINGER_SECONDS, self._end_if_unused)

        return done

    def _then_close(
        self, fds: tuple[int, ...], answer: Callable[[Message], None]
    ) -> Callable[[Message], None]:
        def done(found: Message) -> None:
            for number in fds:
                os.close(number)
            answer(found)

        return done

    def _stats(self, found: Message) -> Message:
        stats: dict[str, Any] = {**found["stats"], "restarts": self._child.restarts}
        return {"stats": {**stats, "keeper_pid": os.getpid(), "listening": self._listening()}}


def main(state_dir: str, resolv_conf: str, source: str) -> None:
    """Become a keeper in the background: the caller goes on when clients can connect.

    `source` is `module:function`, called with the state's folder for a ZoneSource; or empty.
    """
    folder = Path(state_dir)
    try:
        place = Place.claim(folder)
    except AlreadyKept:
        return
    if os.fork():
        os._exit(0)
    be_known()
    os.setsid()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a thousand networks have 4000
    # Whoever needed us first may have blocked signals for itself (`net run` does).
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.chdir("/")
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDWR)
    for ours, standard in ((nothing, 0), (nothing, 1), (log, 2)):
        os.dup2(ours, standard)
    Keeper(place, _source(source, folder), resolv_conf=resolv_conf).run()


def _source(name: str, folder: Path) -> ZoneSource | None:
    if not name:
        return None
    from importlib import import_module

    module, _, function = name.partition(":")
    source: ZoneSource = getattr(import_module(module), function)(folder)
    return source
