"""The resolver's event loop, where several things come at the same time."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netlib.dns.channel import Channel
from netlib.dns.loop import Loop
from netlib.dns.server import Parent
from netlib.dns.word import BYTES, Word


@pytest.fixture
def loop() -> Iterator[Loop]:
    """One that is turned by hand."""
    loop = Loop()
    yield loop
    loop.close()


def test_what_came_with_a_query_is_not_waited_for_again(loop: Loop, tmp_path: Path) -> None:
    """A query and a change that the keeper tells by itself: who hears the first hears both."""
    (tmp_path / "lock").write_bytes(bytes(BYTES))
    with ExitStack() as closing:
        query, client = map(closing.enter_context, socket.socketpair())
        theirs, ours = map(closing.enter_context, socket.socketpair())
        theirs.setblocking(False)  # where it would wait for ever, it fails
        lock = os.open(tmp_path / "lock", os.O_RDWR)
        closing.callback(os.close, lock)
        parent, keeper = Parent(Channel(theirs), Word(lock), loop, "/nonexistent"), Channel(ours)
        os.pwrite(lock, b"modified", 0)
        loop.watch(query, lambda _: (query.recv(1), parent.catch_up())[1])

        client.send(b"?")
        keeper.send({"do": "sync", "tag": 1})
        keeper.send({"do": "sync", "tag": 2, "number": 1})  # what the query will ask for
        loop.turn(0)

        heard = keeper.receive()
        while len(heard) < 3:
            heard += keeper.receive()
        assert [message for message, _ in heard] == [{"read": 1}, {"tag": 1}, {"tag": 2}]


def test_what_a_closed_socket_had_to_say_is_not_told_to_the_next_of_its_number(loop: Loop) -> None:
    """Both may be of one turn: the kernel gives the lowest number that is free."""
    told: list[str] = []
    first, ring_first = socket.socketpair()
    second, ring_second = socket.socketpair()
    with ExitStack() as closing:
        for sock in (first, ring_first, ring_second):
            closing.enter_context(sock)

        def make_room(_events: int) -> None:
            number = second.fileno()
            loop.forget(second)
            second.close()
            fresh, other = map(closing.enter_context, socket.socketpair())
            if fresh.fileno() != number:
                os.dup2(fresh.fileno(), number)
                fresh = closing.enter_context(socket.socket(fileno=number))
            loop.watch(fresh, lambda _: told.append("fresh"))
            closing.enter_context(other)
            first.recv(1)

        loop.watch(first, make_room)
        loop.watch(second, lambda _: told.append("second"))
        ring_first.send(b"!")
        ring_second.send(b"!")
        loop.turn(0)
        loop.turn(0)
    assert not told
