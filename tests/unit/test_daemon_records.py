"""What the daemon reads from the state by itself: one damaged record keeps no other from it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from support.patience import eventually

from netlib import Net
from netlib import state as keys
from netlib.errors import StoreError
from netlib.frontends.daemon.events import Teller, stream
from netlib.frontends.daemon.journal import Journal, look_up
from netlib.frontends.daemon.ports import Holder
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


@pytest.mark.parametrize("value", BROKEN)
def test_ports_are_held_past_a_record_that_can_not_be_read(net: Net, value: str) -> None:
    """It is logged once, and the other endpoints' ports are held."""
    damage(net, "endpoint/a/damaged", value)
    said: list[str] = []
    holder = Holder(net, said.append)
    holder.start()
    try:
        eventually(lambda: len(holder.held()) == 1)
        assert len(said) == 1
        assert "endpoint/a/damaged" in said[0]
    finally:
        holder.stop()


@pytest.mark.parametrize("value", [*BROKEN, '{"since": "today"}'])
def test_notes_that_can_not_be_read_are_forgotten(net: Net, value: str) -> None:
    """Who asks for one is told that the state is damaged; a new daemon clears it away."""
    store = net.engine.state.store
    damage(net, keys.operation_key("x"), value)
    with pytest.raises(StoreError):
        look_up(store, "x")
    Journal(store).clear()
    assert store.get(keys.operation_key("x")) is None
