"""What the daemon reads from the state by itself: one damaged record keeps no other from it."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from support.patience import eventually

from netlib import Net, keys
from netlib.errors import StoreError
from netlib.frontends.daemon import server
from netlib.frontends.daemon.events import Bus, Teller, follow, stream
from netlib.frontends.daemon.journal import Journal, look_up
from netlib.frontends.daemon.messages import Channel, Lost
from netlib.frontends.daemon.ports import Holder
from netlib.frontends.daemon.server import Listener, Server
from netlib.kernel.fake import FakeKernel
from netlib.store import Commit
from netlib.store.memory import MemoryStore

BROKEN = ["", "{", "[]", "null", '"text"', "7", "{}", '{"endpoint": {"ports": [1]}}', "\0"]


@pytest.fixture
def net() -> Iterator[Net]:
    """A network with a sandbox that publishes a port."""
    with Net(store=MemoryStore(), kernel=FakeKernel()) as net:
        net.create("front", subnets=["192.0.2.0/24"])
        net.create_sandbox("web")
        net.connect("front", "web", publish=[f"127.0.0.1:{free_port()}:80"])
        yield net


def free_port() -> int:
    """A port of the host that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def damage(net: Net, key: str, value: str) -> None:
    """Somebody wrote there by hand."""
    net.engine.state.store.commit(Commit(put={key: value}))


@pytest.mark.parametrize("value", BROKEN)
def test_events_go_on_past_a_record_that_can_not_be_read(net: Net, value: str) -> None:
    """It is named; the next change is told of as ever, and a new reader starts all the same."""
    store = net.engine.state.store
    ending = threading.Event()
    events = stream(store, ending)
    first = next(events)
    assert first == {}
    damage(net, "network/damaged", value)
    damage(net, "endpoint/front/damaged", value)
    net.create("back")
    told = [next(events) for _ in range(3)]
    assert [(e["event"], e.get("key")) for e in told[:2]] == [
        ("unreadable", "network/damaged"),
        ("unreadable", "endpoint/front/damaged"),
    ]
    assert told[2]["event"] == "create"
    Teller(store)


class Busy(MemoryStore):
    """Somebody else works at this moment: once, right after a call of `revision`."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] | None = None

    def revision(self) -> int:
        """As ever, but for what happens then."""
        found = super().revision()
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return found


def test_what_comes_and_goes_while_a_follower_begins_does_not_end_it() -> None:
    """It is told as it happened, whether what is there now was read before or after it."""
    store = Busy()
    with Net(store=store, kernel=FakeKernel()) as net:
        net.create("front", subnets=["192.0.2.0/24"])
        for name in ("web", "db"):
            net.create_sandbox(name)
        net.connect("front", "db")

        def work() -> None:
            net.connect("front", "web")
            net.disconnect("front", "db")

        store.meanwhile = work
        events = stream(store, threading.Event())
        net.disconnect("front", "web")
        net.create("back")
        told = [(e["event"], e.get("sandbox")) for e in islice(filter(None, events), 4)]
        assert told == [
            *(("connect", "web"), ("disconnect", "db")),
            *(("disconnect", "web"), ("create", None)),
        ]


def test_who_missed_something_is_told_what_comes_after_it() -> None:
    """Also of what was made in the time that nobody knows about."""
    store = MemoryStore(keep_events=20)
    with Net(store=store, kernel=FakeKernel()) as net:
        net.create("front", subnets=["192.0.2.0/24"])
        net.create_sandbox("web")
        events = filter(None, stream(store, threading.Event()))
        net.connect("front", "web")
        for number in range(30):
            net.update("front", labels={"number": str(number)})
        assert next(events)["event"] == "missed"
        net.disconnect("front", "web")
        assert next(events)["event"] == "disconnect"


def test_a_follower_is_told_what_is_done_as_soon_as_it_was_let_in(net: Net) -> None:
    """Not only what is done some moments later."""
    ours, theirs = socket.socketpair()

    class Quick(Channel):
        """Its other side does not wait."""

        def send(
            self, document: dict[str, Any], body: bytes = b"", descriptors: tuple[int, ...] = ()
        ) -> None:
            """Send, and go on as whoever hears it does."""
            super().send(document, body, descriptors)
            if "ok" in document:
                net.create("back")
            else:
                raise Lost("that is enough")

    with ours, theirs:
        follow(net.engine.state.store, Bus(), Quick(theirs), threading.Event())
        told = Channel(ours)
        assert told.receive().document["ok"]
        assert told.receive().document["event"]["event"] == "create"


@pytest.mark.parametrize("value", BROKEN)
def test_ports_are_held_past_a_record_that_can_not_be_read(net: Net, value: str) -> None:
    """It is logged once, and the other endpoints' ports are held."""
    damage(net, "endpoint/a/damaged", value)
    said: list[str] = []
    holder = Holder(net, said.append)
    holder.start()
    try:
        eventually(lambda: len(holder.held()) == 1 and said)
        assert len(said) == 1
        assert "endpoint/a/damaged" in said[0]
    finally:
        holder.stop()


def test_a_port_is_held_once_it_is_free_however_much_happens(net: Net) -> None:
    """Of a state that changes all the time, too."""
    (endpoint,) = net.endpoints()
    ending = threading.Event()

    def work() -> None:
        while not ending.wait(0.02):
            damage(net, "anything", "else")

    working = threading.Thread(target=work)
    holder = Holder(net, lambda line: None)
    with socket.create_server(("127.0.0.1", endpoint.ports[0].host_port)):
        working.start()
        holder.start()
        eventually(lambda: holder._missing)
    try:
        eventually(holder.held)
    finally:
        ending.set()
        holder.stop()
        working.join()


@pytest.mark.parametrize("value", [*BROKEN, '{"since": "today"}'])
def test_notes_that_can_not_be_read_are_forgotten(net: Net, value: str) -> None:
    """Who asks for one is told that the state is damaged; a new daemon clears it away."""
    store = net.engine.state.store
    damage(net, keys.operation_key("x"), value)
    with pytest.raises(StoreError):
        look_up(store, "x")
    Journal(store).clear()
    assert store.get(keys.operation_key("x")) is None


def test_who_does_not_read_how_far_it_is_keeps_nobody_waiting(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that was stopped would hold up repair, which has the state's lock."""
    ended = threading.Event()

    def repair(watch: Callable[[str, int, int], None]) -> None:
        for number in range(5000):
            watch("one of many networks", number, 5000)
        ended.set()

    monkeypatch.setattr(net, "repair", repair)
    with serving(net, tmp_path) as client:
        asked = {"do": "call", "verb": "repair", "watched": True, "arguments": [], "named": {}}
        client().send(asked)
        assert ended.wait(20)


@contextmanager
def serving(net: Net, folder: Path) -> Iterator[Callable[[], Channel]]:
    """A server, and who connects to it."""
    with ExitStack() as held, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket"))
        listening.listen()
        served = Server(net, Listener(listening), Bus())
        running = threading.Thread(target=served.run)

        def client() -> Channel:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(20)
            sock.connect(str(folder / "socket"))
            channel = Channel(sock)
            held.callback(channel.close)
            return channel

        with served.accepting():
            running.start()
            yield client
            held.close()
            served.stop()
            running.join(20)


HELLO = {"do": "hello"}


def test_where_no_thread_can_be_had_clients_wait_and_are_served(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a moment there are too many processes: nobody is lost by it, and nobody after it."""
    real = threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if thread.name == "netlib-client":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(server, "_LOOK_SECONDS", 0.05)
    with serving(net, tmp_path) as client:
        first = client()
        assert "pid" in first.call(HELLO).document
        monkeypatch.setattr(threading.Thread, "start", start)
        second, third = client(), client()
        assert "pid" in second.call(HELLO).document
        third.send(HELLO)
        first.close()
        assert "pid" in third.receive().document
        monkeypatch.undo()
        assert "pid" in client().call(HELLO).document


def test_where_no_descriptor_can_be_had_clients_wait_and_are_served(
    net: Net, tmp_path: Path
) -> None:
    """Likewise of open files (accept(2), EMFILE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(net, tmp_path) as client:
        first = client()
        assert "pid" in first.call(HELLO).document
        # One that waits in accept(2) has its descriptor already.
        clients = [Channel(socket.socket(socket.AF_UNIX)) for _ in range(4)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            for one in clients:
                one.sock.settimeout(20)
                one.sock.connect(str(tmp_path / "socket"))
                one.send(HELLO)
            assert not all(one.is_ready(0.05) for one in clients)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in clients:
            assert "pid" in one.receive().document
            one.close()
