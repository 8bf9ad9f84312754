"""The server's process as the keeper holds it: what it must know is sent again when it dies."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterable

from netlib.dns.channel import Channel, Closed, Message
from netlib.dns.complaint import complain
from netlib.dns.loop import Loop
from netlib.dns.spawn import python
from netlib.values import dataclass

SEND_SECONDS = 5  # a server that takes nothing for so long is as good as dead
PING_SECONDS = 5.0
START_SECONDS = 60.0  # until it has read tens of thousands of names, on a machine that is busy
LONGEST_PAUSE_SECONDS = 5.0

Reply = Callable[[Message], None]
State = Callable[[], Iterable[tuple[Message, tuple[int, ...]]]]


@dataclass(frozen=True, slots=True)
class _Waiting:
    message: Message
    fds: tuple[int, ...]
    reply: Reply


class Child:
    """Starts the server, and starts it again when it dies or answers no more.

    `state` gives the messages that tell a new server all it must know; `wanted` gets what the
    server asks for by itself; in the file of `lock` it finds word of changes.
    """

    def __init__(
        self,
        loop: Loop,
        state: State,
        wanted: Callable[[Message], None],
        lock: int,
        resolv_conf: str,
    ) -> None:
        self.restarts = 0
        self._wanted = wanted
        self._loop = loop
        self._state = state
        self._lock = lock
        self._resolv_conf = resolv_conf
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._waiting: dict[int, _Waiting] = {}
        self._tag = 0
        self._started = 0.0
        self._pause = 0.0
        self._pinged = False
        self._is_up = False
        self._ending = False

    def start(self) -> None:
        """Start a server and tell it everything; who waits for an answer will get it."""
        try:
            ours = self._spawn()
        except OSError as error:  # no process, memory or descriptor to be had just now
            complain(f"the server can't be started: {error}")
            self._pause = min(2 * self._pause + 0.05, LONGEST_PAUSE_SECONDS)
            self._loop.later(self._pause, self.start)
            return
        self._channel = Channel(ours)
        self._started = time.monotonic()
        self._pinged = self._is_up = False
        self._loop.watch(ours, self._ready)
        waiting, self._waiting = self._waiting, {}
        for message, fds in self._state():
            self.send(message, fds)
        for each in waiting.values():
            # The state includes what they changed; what they asked is asked again.
            again = each.message if each.message["do"] in ("stats", "log") else {"do": "sync"}
            self.send(again, each.fds if again is each.message else (), each.reply)

    def _spawn(self) -> socket.socket:
        """Start a server's process; our end of the channel to it."""
        ours, theirs = socket.socketpair()
        ours.settimeout(SEND_SECONDS)
        given = [theirs.fileno(), self._lock]
        command = python("netlib.dns.server", *map(str, given), self._resolv_conf)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=given, cwd="/"
                )
        except OSError:
            ours.close()
            raise
        return ours

    def send(
        self, message: Message, fds: tuple[int, ...] = (), reply: Reply = lambda _: None
    ) -> None:
        """Tell the server something; `reply` gets what it says when it has done so."""
        self._tag += 1
        self._waiting[self._tag] = _Waiting(message, fds, reply)
        if self._channel is None:
            return  # between two servers: the next one is told
        try:
            self._channel.send({**message, "tag": self._tag}, fds)
        except Closed:
            self._lost()

    def ping(self) -> None:
        """Find out whether the server still answers; called again and again."""
        is_starting = not self._is_up and time.monotonic() - self._started < START_SECONDS
        if self._channel is not None and not is_starting:
            if self._pinged:
                self._lost()
            else:
                self._pinged = True
                self.send({"do": "sync"}, reply=self._heard)
        self._loop.later(PING_SECONDS, self.ping)

    def _heard(self, _answer: Message) -> None:
        self._pinged = False

    def _ready(self, _events: int) -> None:
        if self._channel is None:
            return
        try:
            answers = self._channel.receive()
        except Closed:
            self._lost()
            return
        self._is_up = True
        for answer, _ in answers:
            if "tag" not in answer:
                self._wanted(answer)
                continue
            waiting = self._waiting.pop(answer["tag"], None)
            if waiting is not None:
                waiting.reply(answer)

    def _lost(self) -> None:
        """The server died or hangs: end it for certain, and start another."""
        if self._channel is None or self._ending:
            return
        self._close()
        self.restarts += 1
        # At once, but not in a tight circle where it dies each time it starts.
        lived = time.monotonic() - self._started
        self._pause = 0.0 if lived > 1 else min(2 * self._pause + 0.05, LONGEST_PAUSE_SECONDS)
        complain(f"the server ended after {lived:.1f} s; it is started again")
        self._loop.later(self._pause, self.start)

    def stop(self) -> None:
        """End the server."""
        self._ending = True
        self._close()

    def _close(self) -> None:
        if self._channel is not None:
            self._loop.forget(self._channel)
            self._channel.close()
            self._channel = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
