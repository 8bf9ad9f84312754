"""Relays under pressure: too many connections, too few files, targets and clients that vanish."""

from __future__ import annotations

import gc
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from support.host import HOST6, Host
from support.patience import eventually
from support.relay import WEB6, echo, relay, target, web
from support.strangers import free_at
from support.traffic import ask, serve

from netlib.codec import to_json
from netlib.model import Protocol
from netlib.relay.limits import Quota
from netlib.relay.loop import Loop
from netlib.relay.spec import Spec
from netlib.relay.tcp import Connection, TcpGate, TcpListener
from netlib.relay.udp import UdpGate, UdpListener
from netlib.wiring import Relay

pytestmark = pytest.mark.kernel


@contextmanager
def running(noun: Relay, open_files: int = 1024, seconds: float = 10.0) -> Iterator[Quota]:
    """A relay in a thread of the test, with limits and time-outs of its own."""
    loop, quota = Loop(), Quota(open_files)
    tcp, udp = TcpGate(loop, quota, seconds), UdpGate(loop, quota, seconds, seconds)
    spec = Spec(to_json(noun))
    (slot,) = spec.slots
    listener = (
        TcpListener(tcp, slot, spec) if noun.protocol == "tcp" else UdpListener(udp, slot, spec)
    )
    thread = threading.Thread(target=loop.run, daemon=True)
    stop, stopped = socket.socketpair()
    loop.add(stopped, Stop(loop), select.EPOLLIN)
    thread.start()
    try:
        yield quota
    finally:
        stop.close()
        thread.join(5)
        listener.close()
        stopped.close()


class Stop:
    """Ends a loop from another thread."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def on_event(self, events: int) -> None:
        """The other end was closed."""
        self.loop.ended = True

    def failed(self) -> None:
        """It does not."""


def connect(source: str = "") -> socket.socket:
    """A connection to the relay, from an address of the host's own."""
    return socket.create_connection(("127.0.0.1", 8080), 5, (source, 0) if source else None)


def answered(client: socket.socket) -> bool:
    """Whether the server answers on this connection; it may have been reset before."""
    try:
        client.sendall(b"?\n")
        return bool(client.recv(100))
    except OSError:
        return False


def test_one_client_can_not_take_all_places(host: Host) -> None:
    """It is refused beyond its share, and others are served."""
    with (
        target(web(host), echo),
        running(relay("127.0.0.1", 8080, WEB6), open_files=128) as quota,
        ExitStack() as clients,
    ):
        greedy = []
        for _ in range(20):
            with suppress(ConnectionResetError):
                greedy.append(clients.enter_context(connect("127.0.0.2")))
        eventually(lambda: quota.used == quota.share == 8)
        assert answered(clients.enter_context(connect("127.0.0.3")))

        assert [answered(client) for client in greedy].count(True) == 8


def test_who_comes_when_all_places_are_taken_waits(host: Host) -> None:
    """The connection is kept in the kernel's queue, and served when a place is free."""
    with (
        target(web(host), echo),
        running(relay("127.0.0.1", 8080, WEB6), open_files=128) as quota,
        ExitStack() as clients,
    ):
        first = [
            clients.enter_context(connect(f"127.0.0.{last}"))
            for last in range(2, 6)
            for _ in "12345678"
        ]
        eventually(lambda: quota.full)
        late = clients.enter_context(connect("127.0.0.9"))
        late.sendall(b"?\n")
        late.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.recv(1)

        first[0].close()
        late.settimeout(5)
        assert late.recv(1)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_where_files_are_scarce_a_port_is_served_and_not_held(
    host: Host, protocol: Protocol
) -> None:
    """A socket that only keeps others off takes no file from those that serve."""
    host.outsider()
    with (
        serve(web(host), 80, protocol, address=WEB6),
        running(relay("::1", 8080, WEB6, protocol=protocol, holds_all=True), open_files=16),
    ):
        assert eventually(lambda: ask(host.place, "::1", 8080, protocol))
        assert free_at(host, protocol, [HOST6], 8080) == {HOST6}


def test_a_lack_of_files_passes(host: Host) -> None:
    """When no more files can be opened, connections wait or are refused; later all is well."""
    program = (
        "import resource\n"
        "from support.relay import relay, WEB6\n"
        "from test_relay_limits import running\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "with running(relay('127.0.0.1', 8080, WEB6), open_files=4096):\n"
        "    print('ready', flush=True)\n"
        "    input()\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with (
        serve(web(host), 80, address=WEB6),
        subprocess.Popen(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        with ExitStack() as clients:
            for _ in range(30):
                clients.enter_context(connect())
        eventually(lambda: ask(host.place, "127.0.0.1", 8080))
        process.communicate(b"\n", timeout=5)
    assert process.returncode == 0


def test_a_target_that_does_not_answer_is_given_up(host: Host) -> None:
    """The client is reset when the time for connecting is over, and its place is free."""
    web(host)
    host.run("ip", "neigh", "add", "2001:db8:1::99", "lladdr", "02:00:00:00:00:99", "dev", "web0")
    with running(relay("127.0.0.1", 8080, "2001:db8:1::99"), seconds=0.1) as quota:
        with connect() as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        eventually(lambda: quota.used == 0)


def test_a_client_that_leaves_before_its_target_answers_is_forgotten(host: Host) -> None:
    """Its place is free at once."""
    web(host)
    host.run("ip", "neigh", "add", "2001:db8:1::99", "lladdr", "02:00:00:00:00:99", "dev", "web0")
    with running(relay("127.0.0.1", 8080, "2001:db8:1::99")) as quota:
        with connect() as client:
            eventually(lambda: quota.used == 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        eventually(lambda: quota.used == 0)


def test_an_ended_connection_leaves_nothing_behind(host: Host) -> None:
    """Its memory is free at once: it does not wait for the garbage collector."""
    with target(web(host), echo), running(relay("127.0.0.1", 8080, WEB6)) as quota:
        gc.disable()
        try:
            for _ in range(5):
                with connect() as client:
                    assert answered(client)
            eventually(lambda: quota.used == 0)
            # The loop still knows the last one that it ran.
            assert sum(isinstance(thing, Connection) for thing in gc.get_objects()) <= 1
        finally:
            gc.enable()


def test_udp_flows_are_forgotten_when_they_are_silent(host: Host) -> None:
    """The place is free again, and the next datagram begins a new flow."""
    with (
        serve(web(host), 80, "udp", address=WEB6),
        running(relay("127.0.0.1", 8080, WEB6, protocol="udp"), seconds=0.1) as quota,
    ):
        eventually(lambda: ask(host.place, "127.0.0.1", 8080, "udp", source=("127.0.0.1", 40001)))
        eventually(lambda: quota.used == 0)
        eventually(lambda: ask(host.place, "127.0.0.1", 8080, "udp", source=("127.0.0.1", 40001)))


def test_unanswered_udp_flows_make_place_for_new_ones(host: Host) -> None:
    """A flood from many addresses can not shut out a client that is answered."""
    place = web(host)
    with running(relay("127.0.0.1", 8080, WEB6, protocol="udp"), open_files=64) as quota:
        for last in range(2, 60):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind((f"127.0.0.{last}", 0))
                client.sendto(b"?", ("127.0.0.1", 8080))
        eventually(lambda: quota.full)

        with serve(place, 80, "udp", address=WEB6):
            eventually(lambda: ask(host.place, "127.0.0.1", 8080, "udp", source=("127.0.0.99", 0)))
