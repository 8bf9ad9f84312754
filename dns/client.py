"""How the engine and the command line speak with the resolver of a state.

Whoever creates a network or connects a sandbox binds the sockets, hands them to the keeper,
and leaves word of its change: what is asked from then on is answered by it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlib.dns import word
from netlib.dns.channel import Channel, Closed, Message, Silent, connect
from netlib.dns.place import LOCK, LOG, SOCKET
from netlib.errors import KernelError, ResolverDown
from netlib.values import dataclass

if TYPE_CHECKING:  # every operation says `tell`; only a few need these
    from netlib.dns.facts import Update
    from netlib.dns.sockets import Bound

PATIENCE_SECONDS = 10.0
# A keeper that is just ending may still be found; everything that is asked may be asked again.
_TRIES = 3
_PAUSE_SECONDS = 0.02
STATE_SOURCE = "netlib.dns.source:state_source"


@dataclass(frozen=True, slots=True)
class _Place:
    """A network, or a sandbox with its network namespace."""

    kind: str
    name: str
    path: str = ""
    inode: int = 0

    def to_json(self) -> Message:
        """As a message has it."""
        return {"kind": self.kind, "name": self.name, "path": self.path, "inode": self.inode}


@dataclass(frozen=True, slots=True)
class Resolver:
    """The resolver of the state in `state_dir`.

    `source` is `module:function`, what a keeper that we start reads the names by; empty: we
    push updates. A daemon that keeps the sockets itself is spoken to in the same way.
    """

    state_dir: Path
    source: str = STATE_SOURCE
    resolv_conf: str = "/etc/resolv.conf"

    # -- sockets ----------------------------------------------------------------------------------

    def listen_network(self, network_id: str, gateways: Iterable[str]) -> dict[str, int]:
        """Answer at a network's gateway addresses; the port of each, 53 unless it is taken.

        To be said before the network is described: another port needs a DnsRedirect. Said
        again, it changes nothing. Raises KernelError, NotPermitted, ResolverDown.
        """
        from netlib.dns.sockets import bind_gateway

        return self._listen(_Place("network", network_id), tuple(gateways), bind_gateway)

    def listen_at(self, network_id: str, addresses: Iterable[str], port: int) -> None:
        """Answer at a network's addresses on one port that is known to be free.

        Said again, it changes nothing. Raises KernelError, NotPermitted, ResolverDown.
        """
        from netlib.dns.sockets import bind_at

        place = _Place("network", network_id)
        self._listen(place, tuple(addresses), lambda address: bind_at(address, port), port)

    def move_to(self, network_id: str, addresses: Iterable[str], port: int) -> None:
        """Likewise, and nowhere else for this network. Sockets that may stay are not closed."""
        wanted = {(address, port) for address in addresses}
        before = self.listening().get(("network", network_id), {})
        self.listen_at(network_id, [address for address, _ in wanted], port)
        gone = sorted(set(before.items()) - wanted)
        if gone:
            self._forget("network", network_id, gone)

    def listening(self) -> dict[tuple[str, str], dict[str, int]]:
        """Where it answers: addresses with ports, by ("network", id) and ("sandbox", name)."""
        answer = self._ask({"do": "hello"})
        return {
            (listener["kind"], listener["name"]): dict(listener["addresses"])
            for listener in (answer["listening"] if answer else ())
        }

    def listen_sandbox(self, sandbox: str, path: str, inode: int = 0) -> dict[str, int]:
        """Answer at 127.0.0.11 in the network namespace at `path`.

        Raises KernelError, NamespaceGone, NotPermitted, ResolverDown.
        """
        from netlib.dns.sockets import bind_sandbox

        place = _Place("sandbox", sandbox, path, inode)
        return self._listen(place, ("127.0.0.11",), lambda _: bind_sandbox(path, inode))

    def _listen(
        self, place: _Place, wanted: tuple[str, ...], bind: Callable[[str], Bound], port: int = 0
    ) -> dict[str, int]:
        """Hand over sockets for the addresses that have none (0: on any port)."""
        from netlib.dns.sockets import is_taken

        for _ in range(_TRIES - 1):
            try:
                return self._listen_once(place, wanted, bind, port)
            except ResolverDown as error:
                if isinstance(error.__cause__, Silent | TimeoutError):
                    raise
                continue  # it was just ending
            except KernelError as error:
                if not is_taken(error):
                    raise
                # Perhaps by who has it listen in the same place at this moment.
                time.sleep(_PAUSE_SECONDS)
        return self._listen_once(place, wanted, bind, port)

    def _listen_once(
        self, place: _Place, wanted: tuple[str, ...], bind: Callable[[str], Bound], port: int
    ) -> dict[str, int]:
        with self._opened() as (channel, hello), ExitStack() as closing:
            ports = _ports(hello, place)
            missing = []
            for address in wanted:
                if address not in ports or port not in (0, ports[address]):
                    missing.append(bind(address))
                    closing.callback(missing[-1].close)
            if missing:
                fds = tuple(sock.fileno() for bound in missing for sock in bound.sockets)
                _checked(channel.call({"do": "listen", **place.to_json()}, fds))
            return ports | {bound.address: bound.port for bound in missing}

    def forget_network(self, network_id: str) -> None:
        """Answer there no more. The keeper ends with the last."""
        self._forget("network", network_id)

    def forget_sandbox(self, sandbox: str) -> None:
        """Answer in that sandbox no more."""
        self._forget("sandbox", sandbox)

    def _forget(self, kind: str, name: str, addresses: list[tuple[str, int]] | None = None) -> None:
        """Of these addresses and ports, or all."""
        self._ask({"do": "forget", "kind": kind, "name": name, "addresses": addresses})

    # -- names ------------------------------------------------------------------------------------

    def tell(self) -> None:
        """Say that the state changed: every query from now on is answered by what it says now.

        A keeper that was killed is started anew. Raises ResolverDown where that fails.
        """
        if not word.leave(f"{self.state_dir}/{LOCK}"):
            self._ask({"do": "hello"})

    def update(self, update: Update) -> None:
        """Push an update to a keeper without a source; return when it is served."""
        self._ask({"do": "update", "update": update.to_json()})

    # -- looking ----------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any] | None:
        """What was asked and answered, by code and by name; None where no resolver runs."""
        answer = self._ask({"do": "stats"})
        return answer and answer["stats"]

    def log(self) -> Iterator[dict[str, Any]]:
        """Each query as it comes, for as long as the resolver runs, also by another server."""
        while True:
            reader, writer = os.pipe()
            with os.fdopen(reader) as lines:
                try:
                    runs = self.log_to(writer)
                finally:
                    os.close(writer)
                if not runs:
                    return
                for line in lines:
                    yield json.loads(line)

    def log_to(self, descriptor: int) -> bool:
        """Have a line of JSON for each query written there, until its reader is closed."""
        return self._ask({"do": "log"}, (descriptor,)) is not None

    # -- the keeper -------------------------------------------------------------------------------

    def ensure_keeper(self) -> None:
        """Start a keeper where none runs. It waits some seconds for its first socket."""
        with self._opened():
            return

    def _ask(self, message: Message, fds: tuple[int, ...] = ()) -> Message | None:
        """What the keeper says to a message; None where none runs."""
        for _ in range(_TRIES):
            try:
                channel = connect(self.state_dir / SOCKET, PATIENCE_SECONDS)
            except (FileNotFoundError, ConnectionRefusedError):
                if not self._revive():
                    return None
                continue
            except TimeoutError as error:
                raise _still() from error
            try:
                return _checked(channel.call(message, fds))
            except Silent as error:
                raise _still() from error
            except Closed:
                continue  # it was just ending: ask again, whether one runs and what it says
            finally:
                channel.close()
        raise ResolverDown("the DNS resolver does not answer", "try again")

    def _revive(self) -> bool:
        """Start a keeper in place of one that was killed; it listens where that did.

        False where there is nothing to listen for.
        """
        from netlib.dns.held import noted

        if not noted(self.state_dir):
            return False
        self._start()
        return True

    def _opened(self) -> _Open:
        """A channel to the keeper, which is started where none runs, and what it said."""
        for _ in range(_TRIES):
            try:
                channel = connect(self.state_dir / SOCKET, PATIENCE_SECONDS)
                hello = channel.call({"do": "hello"})
            except (TimeoutError, Silent) as error:
                raise _still() from error
            except (OSError, Closed):
                self._start()
            else:
                return _Open(channel, hello)
        raise self._down("it ends as soon as it is started")

    def _start(self) -> None:
        import subprocess

        from netlib.dns.spawn import python

        command = python(
            "netlib.dns.keeper", str(self.state_dir.absolute()), self.resolv_conf, self.source
        )
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=PATIENCE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._down("it does not start") from error
        if done.returncode:
            lines = done.stderr.decode(errors="replace").strip().splitlines()
            raise self._down(lines[-1] if lines else f"it ended with {done.returncode}")

    def _down(self, why: str) -> ResolverDown:
        return ResolverDown(
            f"the DNS resolver can not be started: {why}", f"see {self.state_dir / LOG}"
        )


class _Open:
    """Closes a channel; what breaks on it is ResolverDown."""

    def __init__(self, channel: Channel, hello: Message) -> None:
        self._channel = channel
        self._hello = hello

    def __enter__(self) -> tuple[Channel, Message]:
        return self._channel, self._hello

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._channel.close()
        if isinstance(error, Silent):
            raise _still() from error
        if isinstance(error, Closed):
            raise ResolverDown("the DNS resolver does not answer", "try again") from error


def _still() -> ResolverDown:
    return ResolverDown(
        f"the DNS resolver has said nothing for {PATIENCE_SECONDS:.0f} s: it stands still",
        "if it was stopped, let it go on (kill -CONT), or kill it: the next command starts another",
    )


def _checked(answer: Message) -> Message:
    if not answer["ok"]:
        raise ResolverDown(f"the DNS resolver failed: {answer['error']}", "try again")
    return answer


def _ports(hello: Message, place: _Place) -> dict[str, int]:
    for listener in hello["listening"]:
        if (listener["kind"], listener["name"]) == (place.kind, place.name):
            return dict(listener["addresses"])
    return {}
