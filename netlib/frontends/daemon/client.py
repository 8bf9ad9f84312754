"""`Net` for who has a daemon at hand: the verbs that change something are done there."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlib.errors import AnotherFirewall, DaemonLost, DaemonStuck, KernelError, NetError
from netlib.frontends.daemon.calls import VERBS, pack
from netlib.frontends.daemon.findings import read_error
from netlib.frontends.daemon.journal import look_up
from netlib.frontends.daemon.messages import (
    PATIENCE_SECONDS,
    VERSION,
    Channel,
    Lost,
    connect,
    is_stuck,
    pid_of,
)
from netlib.model import Netns, Sandbox
from netlib.names import new_id
from netlib.net import Net
from netlib.settings import FIREWALL, Backend, state_folder

if TYPE_CHECKING:
    from netlib.verbs.remove import Watch


def open_net(
    state_dir: str | Path | None = None,
    *,
    firewall: Backend | None = None,
    warn: Callable[[str], None] | None = None,
) -> Net:
    """The library: by the state's daemon where one answers, else in this process.

    A firewall backend that is asked for and is not the daemon's is used here. Else what is done
    or shown in this process is by the daemon's, too, whatever would be chosen here.
    Raises AnotherFirewall for `none` where the daemon has one: it puts back what goes.
    """
    channel = connect(state_folder(state_dir), PATIENCE_SECONDS)
    if channel is None:
        return Net(state_dir, firewall=firewall, warn=warn)
    try:
        hello = channel.call({"do": "hello"}).document
    except Lost as error:
        if error.is_silence:  # it starts, or stands still, which matters to who changes something
            silent = Client(channel, state_dir, firewall=firewall, warn=warn, silent=True)
            silent.engine.warn(f"the daemon of {silent.state_dir} does not answer")
            return silent
        hello = {}
    wanted = firewall or os.environ.get(FIREWALL) or "auto"
    if hello.get("version") != VERSION or wanted not in ("auto", hello.get("firewall")):
        channel.close()
        if wanted == "none" and hello.get("firewall") not in (None, "none"):
            raise AnotherFirewall(
                f"the daemon of this host looks after its rules in {hello['firewall']}",
                "leave --firewall none out (or NETLIB_FIREWALL), or end the daemon and start it "
                "so: net --firewall none daemon",
            )
        return Net(state_dir, firewall=firewall, warn=warn)
    return Client(channel, state_dir, firewall=hello.get("firewall") or firewall, warn=warn)


class Client(Net):
    """A `Net` whose changes are made by a daemon. It reads the state itself."""

    def __init__(
        self,
        channel: Channel,
        state_dir: str | Path | None,
        *,
        firewall: Backend | None = None,
        warn: Callable[[str], None] | None = None,
        silent: bool = False,
    ) -> None:
        """`silent`: the daemon took the connection, and has said nothing since."""
        super().__init__(state_dir, firewall=firewall, warn=warn)
        self._channel = channel
        self._silent = silent
        self._closing.append(channel.close)
        for verb in VERBS:  # what is not among them is done here
            setattr(self, verb, partial(self._ask, verb))

    def _ask(self, verb: str, *arguments: Any, **named: Any) -> Any:
        if self._silent:
            if is_stuck(self.state_dir):
                raise self._stuck(begun=False)
            return getattr(Net, verb)(self, *arguments, **named)  # nothing was asked of it yet
        operation = new_id()
        watch = named.pop("watch", None)
        if arguments and callable(arguments[-1]):
            *arguments, watch = arguments  # type: ignore[assignment]
        opened: list[int] = []
        placed = [self._placed(value, opened) for value in arguments]
        document = {
            "do": "call",
            "verb": verb,
            "operation": operation,
            "watched": watch is not None,
            "arguments": pack(placed),
            "named": {key: pack(self._placed(value, opened)) for key, value in named.items()},
        }
        try:
            answer = self._answer(document, tuple(opened), watch)
        except Lost as error:
            if error.is_silence:  # half a message came, or went
                raise self._stuck(begun=not self._withdrawn()) from error
            again = partial(getattr(Net, verb), self, *arguments, **named)
            again = partial(again, watch=watch) if watch else again
            return again() if VERBS[verb].repeats else self._looked_up(verb, operation, again)
        finally:
            for descriptor in opened:
                os.close(descriptor)
        self.engine.tell(answer.get("warnings", ()))
        return _result(verb, answer)

    def _answer(
        self, document: dict[str, Any], descriptors: tuple[int, ...], watch: Watch | None
    ) -> dict[str, Any]:
        """The answer; on the way there `watch` is told how far it is."""
        self._channel.send(document, descriptors=descriptors)
        answer = self._heard()
        while watch is not None and "progress" in answer:
            watch(*answer["progress"])
            answer = self._heard()
        return answer

    def _heard(self) -> dict[str, Any]:
        """What the daemon says next, for as long as it lives. Raises DaemonStuck, Lost."""
        while not self._channel.is_ready(PATIENCE_SECONDS):
            if is_stuck(self.state_dir):
                raise self._stuck(begun=not self._withdrawn())
        return self._channel.receive().document

    def _withdrawn(self) -> bool:
        """Whether the daemon leaves what was asked of it last, when it goes on."""
        self._silent = True
        return self._channel.withdraw()

    def _stuck(self, *, begun: bool) -> DaemonStuck:
        return DaemonStuck(str(self.state_dir), pid_of(self.state_dir), begun=begun)

    def _placed(self, value: Any, opened: list[int]) -> Any:
        """A reference to a namespace is resolved here, where it was written, and handed over."""
        from netlib.kernel.netns import open_netns
        from netlib.kernel.sandboxes import resolve

        if isinstance(value, str) and value.partition(":")[0] in ("pid", "netns"):
            with suppress(NetError):  # the daemon tells what is wrong with it
                value = resolve(value, _Here())  # type: ignore[arg-type]
        if isinstance(value, Sandbox):
            opened.append(open_netns(value.netns.path, value.name))
        return value

    def _looked_up(
        self,
        verb: str,
        operation: str,
        here: Callable[[], Any],
    ) -> Any:
        """The daemon is gone: what it did is found in the state, and never done again blindly."""
        with self.engine.lock.alone():  # nothing of it is under way any more
            answer = look_up(self.engine.state.store, operation)
        if answer is None:
            return here()
        if answer:
            return _result(verb, answer)
        Net.repair(self)
        raise DaemonLost(
            f"the daemon ended while it did this ({verb})",
            "what it left half done was taken back; see: net ps, net ls",
        )


class _Here:
    """As much of a kernel as it takes to open a namespace."""

    @staticmethod
    def enter(path: str, name: str) -> Netns:
        from netlib.kernel.netns import open_netns

        descriptor = open_netns(path, name)
        try:
            return Netns(name=name, path=path, inode=os.fstat(descriptor).st_ino)
        finally:
            os.close(descriptor)


def _result(verb: str, answer: dict[str, Any]) -> Any:
    if "error" in answer:
        raise read_error(answer["error"])
    if "result" not in answer:
        raise KernelError("the daemon's answer can't be read", "restart it, and try again")
    return VERBS[verb].read(answer["result"])
