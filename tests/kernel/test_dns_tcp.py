"""Clients on TCP: many queries, slow ones, idle ones, rude ones."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from support.host import Host, Place
from support.names import query, rcode, values
from support.patience import eventually
from support.resolving import DB4, GATEWAY4, WEB4, Running, ask, ask_tcp, build

from netlib.dns import tcp
from netlib.dns.facts import EndpointNames, Update
from netlib.dns.loop import Loop
from netlib.dns.sockets import bind_sandbox
from netlib.dns.tcp import TcpService

pytestmark = pytest.mark.kernel


@pytest.fixture
def web(host: Host) -> Place:
    """The sandbox that asks."""
    return build(host)[0]


@pytest.fixture
def running(web: Place) -> Iterator[Running]:
    """The resolver, soon tired of idle clients."""
    running = Running()
    running.server._tcp.idle_seconds = 0.5
    yield running
    running.close()


def connected(web: Place) -> socket.socket:
    """A connection from the sandbox."""
    client = web.call(lambda: socket.create_connection((GATEWAY4, 53), 5))
    client.settimeout(5)
    return client


def framed(message: bytes) -> bytes:
    """With its length before it."""
    return len(message).to_bytes(2) + message


def test_a_thousand_queries_on_one_connection(running: Running, web: Place) -> None:
    """More than may be open at once: the rest waits its turn."""
    answers = ask_tcp(web, *(query("db", ident=n) for n in range(1000)))

    assert sorted(int.from_bytes(a[:2]) for a in answers) == list(range(1000))
    assert {tuple(values(a)) for a in answers} == {(DB4,)}


def test_who_sends_many_queries_takes_turns_with_others(host: Host) -> None:
    """Else each of its connections would have all that it sent answered before anybody else."""
    loop, answered = Loop(), []

    def respond(message: bytes, _later: object) -> bytes:
        answered.append(message)
        return message

    service = TcpService(loop)
    blob = b"".join(framed(query("db", ident=n)) for n in range(1000))
    with ExitStack() as closing:
        listener = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        client = closing.enter_context(socket.create_connection(listener.getsockname(), 5))
        client.sendall(blob)
        service.accept(listener, lambda _: ("web", respond))
        turns = []
        while sum(turns) < 1000:
            before = len(answered)
            loop.turn(5)
            turns.append(len(answered) - before)
        assert 20 < max(turns) < 60
        stream = closing.enter_context(client.makefile("rb"))
        assert stream.read(len(blob)) == blob
    loop.close()


def test_a_query_may_come_byte_by_byte(running: Running, web: Place) -> None:
    """And its answer is one."""
    with connected(web) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in framed(query("web")):
            client.send(bytes([byte]))
        answer = client.recv(512)
    assert values(answer[2:]) == [WEB4]


def test_idle_clients_are_sent_away(running: Running, web: Place) -> None:
    """One that says nothing, one that never ends its query, one that was answered."""
    with connected(web) as silent, connected(web) as slow, connected(web) as done:
        began = time.monotonic()
        slow.send(framed(query("web"))[:5])
        done.send(framed(query("web")))
        assert done.recv(512)
        for client in (silent, slow, done):
            assert client.recv(512) == b""
        assert 0.4 < time.monotonic() - began < 3
    eventually(lambda: running.server.stats()["connections"] == 0)


def test_drops_of_a_query_keep_nobody_alive(running: Running, web: Place) -> None:
    """A byte now and then is not use."""
    with connected(web) as client:
        client.settimeout(0.1)
        slow = framed(query("web"))
        began = time.monotonic()
        for byte in slow:
            try:
                client.send(bytes([byte]))
                if client.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert time.monotonic() - began < 0.1 * len(slow)


def test_a_client_that_reads_nothing_holds_nobody(running: Running, web: Place) -> None:
    """Its answers pile up to a limit; others are served, and it is sent away."""
    rude = connected(web)
    with rude:
        rude.settimeout(0.2)
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(OSError):  # full, or sent away already
            for _ in range(1000):
                rude.send(framed(query("db")) * 1000)
        assert values(ask(web, query("db"))) == [DB4]
        assert values(ask_tcp(web, query("db"))[0]) == [DB4]
        eventually(lambda: running.server.stats()["connections"] == 0)


def test_malformed_messages_do_not_end_the_connection(running: Running, web: Place) -> None:
    """Wrong lengths, junk, an answer: each gets its code or nothing, the next its answer."""
    junk = b"\x12\x35\x01\x00" + b"\xff" * 65000
    response = bytearray(query("web"))
    response[2] |= 0x80
    with connected(web) as client:
        client.sendall(framed(b"") + framed(b"\1") + framed(bytes(response)) + framed(junk))
        client.sendall(framed(query("web")))
        with client.makefile("rb") as stream:
            first, second = (stream.read(int.from_bytes(stream.read(2))) for _ in range(2))
    assert rcode(first) == "FORMERR"
    assert values(second) == [WEB4]


def test_a_client_that_hangs_up_after_asking_is_answered(running: Running, web: Place) -> None:
    """It closed its sending half only (shutdown(2))."""
    with connected(web) as client:
        client.sendall(framed(query("web")))
        client.shutdown(socket.SHUT_WR)
        assert values(client.recv(512)[2:]) == [WEB4]
        assert client.recv(512) == b""


def test_one_client_can_not_take_all_connections(
    running: Running, web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its idlest one makes room for its next."""
    monkeypatch.setattr(tcp, "MOST_PER_CLIENT", 5)
    running.server._tcp.idle_seconds = 30
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(web)) for _ in range(12)]
        assert values(ask_tcp(web, query("db"))[0]) == [DB4]
        assert running.server.stats()["connections"] <= 5
        clients[-1].sendall(framed(query("web")))
        assert values(clients[-1].recv(512)[2:]) == [WEB4]


def test_each_sandbox_has_connections_of_its_own(
    running: Running, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where each asks from its loopback: what one opens closes none of another's."""
    monkeypatch.setattr(tcp, "MOST_PER_CLIENT", 3)
    running.server._tcp.idle_seconds = 30
    ours, theirs = host.sandbox("ours"), host.sandbox("theirs")
    for place in (ours, theirs):
        bound = bind_sandbox(place.netns.path)
        running.do(partial(running.server.listen, "sandbox", place.name, list(bound.sockets)))

    def opened(place: Place) -> socket.socket:
        client = place.call(lambda: socket.create_connection(("127.0.0.11", 53), 5))
        client.settimeout(5)
        return client

    running.update(
        Update(
            revision=2,
            endpoints=tuple(
                EndpointNames(id=place.name, network="n1", sandbox=place.name)
                for place in (ours, theirs)
            ),
        )
    )
    with opened(ours) as first, ExitStack() as stack:
        for _ in range(9):
            stack.enter_context(opened(theirs))
        eventually(lambda: running.server.stats()["connections"] == 4)
        first.sendall(framed(query("web")))
        assert values(first.recv(512)[2:]) == [WEB4]
