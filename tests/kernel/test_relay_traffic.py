"""Relays with real packets: every way they stand in for, as near to direct as can be."""

from __future__ import annotations

import hashlib
import socket
import threading
from contextlib import ExitStack

import pytest
from support.host import HOST4, HOST6, OUTSIDER4, Host
from support.patience import eventually
from support.relay import SECONDS, WEB4, WEB6, echo, read_all, relay, target, web
from support.traffic import Kind, answered, ask, reachable, serve, udp_ask, unreachable

from netlib.model import Protocol
from netlib.plan import Change, Create, Delete
from netlib.relay.door import RelayDoor

pytestmark = pytest.mark.kernel

PROTOCOLS: list[Protocol] = ["tcp", "udp"]


def connect(address: str = "::1", port: int = 8080) -> socket.socket:
    """A connection of the host's own to a relay."""
    return socket.create_connection((address, port), timeout=SECONDS)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("listens", "asked", "leads"),
    [
        ("::1", "::1", WEB6),
        ("::1", "::1", WEB4),
        ("::", HOST6, WEB4),
        ("::", "::1", WEB4),
        (HOST6, HOST6, WEB4),
        (HOST4, HOST4, WEB6),
        ("0.0.0.0", HOST4, WEB6),
    ],
)
def test_a_relay_leads_to_its_target(
    host: Host, listens: str, asked: str, leads: str, protocol: Protocol
) -> None:
    """From outside where the address is one, across families and within one."""
    outsider = host.outsider()
    client = host.place if asked == "::1" else outsider
    with serve(web(host), 80, protocol, address=leads):
        RelayDoor(host.state_dir).do([Create(relay(listens, 8080, leads, protocol=protocol))])

        answer = answered(client, asked, 8080, protocol)

    assert answer is not None
    assert answer.server == "web"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_ipv6_wildcard_leaves_ipv4_to_the_kernel(host: Host, protocol: Protocol) -> None:
    """The IPv4 port stays free for others, and nobody answers there."""
    with serve(web(host), 80, protocol, address=WEB4):
        RelayDoor(host.state_dir).do([Create(relay("::", 8080, WEB4, protocol=protocol))])

        assert ask(host.place, "127.0.0.1", 8080, protocol) is None
        with serve(host.place, 8080, protocol, name="own", address="0.0.0.0"):
            answer = answered(host.place, "127.0.0.1", 8080, protocol)
    assert answer is not None
    assert answer.server == "own"


def test_bytes_arrive_unchanged_in_both_directions_at_once(host: Host) -> None:
    """Several connections, 24 MB each way on each, more than all buffers hold."""
    size, many = 24 << 20, 3
    sent = hashlib.sha256(b"\x5a" * 65536 * (size // 65536)).digest()

    def both_ways(sock: socket.socket) -> bytes:
        def send() -> None:
            for _ in range(size // 65536):
                sock.sendall(b"\x5a" * 65536)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        digest = hashlib.sha256()
        while data := sock.recv(1 << 18):
            digest.update(data)
        sender.join(SECONDS)
        return digest.digest()

    results: list[bytes] = []

    def as_client() -> None:
        with connect() as client:
            results.append(both_ways(client))

    with target(web(host), lambda sock: results.append(both_ways(sock))):
        RelayDoor(host.state_dir).do([Create(relay("::1", 8080, WEB6))])
        clients = [threading.Thread(target=as_client, daemon=True) for _ in range(many)]
        for client in clients:
            client.start()
        for client in clients:
            client.join(3 * SECONDS)
        eventually(lambda: len(results) == 2 * many)

    assert set(results) == {sent}


def test_a_client_can_end_its_half_and_still_be_answered(host: Host) -> None:
    """The target sees the end of the request, and answers after it."""
    with target(web(host), lambda sock: sock.sendall(read_all(sock)[::-1])):
        RelayDoor(host.state_dir).do([Create(relay("::1", 8080, WEB6))])
        with connect() as client:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)

            assert read_all(client) == b"noitseuq"


def test_a_target_can_end_its_half_and_still_be_told(host: Host) -> None:
    """The client sees the end of the answer, and what it sends then arrives."""
    heard: list[bytes] = []

    def greet(sock: socket.socket) -> None:
        sock.sendall(b"hello")
        sock.shutdown(socket.SHUT_WR)
        heard.append(read_all(sock))

    with target(web(host), greet):
        RelayDoor(host.state_dir).do([Create(relay("::1", 8080, WEB6))])
        with connect() as client:
            assert read_all(client) == b"hello"
            client.sendall(b"thanks")
        eventually(lambda: heard == [b"thanks"])


def test_a_refused_client_sees_a_reset(host: Host) -> None:
    """Nothing listens in the sandbox: the connection is reset, never left hanging."""
    web(host)
    RelayDoor(host.state_dir).do([Create(relay("::1", 8080, WEB6))])

    with pytest.raises(ConnectionResetError), connect() as client:
        client.recv(1)


def test_a_reset_reaches_the_other_side(host: Host) -> None:
    """A client that breaks off resets its connection to the target, too."""
    seen: list[type[OSError] | None] = []

    def wait(sock: socket.socket) -> None:
        try:
            sock.sendall(sock.recv(1))
            sock.recv(1)
            seen.append(None)
        except OSError as error:
            seen.append(type(error))

    with target(web(host), wait):
        RelayDoor(host.state_dir).do([Create(relay("::1", 8080, WEB6))])
        with connect() as client:
            client.sendall(b"!")
            client.recv(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        eventually(lambda: seen == [ConnectionResetError])


def test_a_client_that_does_not_read_stops_nobody_else(host: Host) -> None:
    """Backpressure: the target is slowed down, memory stays bounded, others are served."""
    blocked = threading.Event()

    def flood(sock: socket.socket) -> None:
        sock.settimeout(0.3)
        try:
            while True:
                sock.sendall(bytes(1 << 20))
        except TimeoutError:
            blocked.set()
        except OSError:
            pass

    place = web(host)
    door = RelayDoor(host.state_dir)
    with target(place, flood), serve(place, 81, address=WEB6):
        door.do([Create(relay("::1", 8080, WEB6)), Create(relay("::1", 8081, WEB6, 81))])
        with connect():
            assert blocked.wait(SECONDS)
            assert answered(host.place, "::1", 8081) is not None


def test_an_idle_connection_stays(host: Host) -> None:
    """A second client comes and goes while the first one says nothing."""
    with target(web(host), lambda sock: sock.sendall(sock.recv(10))):
        RelayDoor(host.state_dir).do([Create(relay("::1", 8080, WEB6))])
        with connect() as first, connect() as second:
            second.sendall(b"second")
            assert read_all(second) == b"second"
            first.sendall(b"first")
            assert read_all(first) == b"first"


def test_udp_answers_come_from_the_address_that_was_asked(host: Host) -> None:
    """A wildcard's answer has the asked address as its source, whichever the route prefers."""
    outsider = host.outsider()
    host.run("ip", "addr", "add", "2001:db8:2::5/64", "dev", "eth0", "nodad")
    host.run("ip", "addr", "add", "192.0.2.5/24", "dev", "eth0")
    place = web(host)
    with serve(place, 80, "udp", address=WEB4), serve(place, 80, "udp", address=WEB6):
        RelayDoor(host.state_dir).do(
            [
                Create(relay("::", 8080, WEB4, protocol="udp")),
                Create(relay("0.0.0.0", 8080, WEB6, protocol="udp")),
            ]
        )
        # A connected socket takes datagrams from no other address.
        for address in (HOST6, "2001:db8:2::5", HOST4, "192.0.2.5"):
            assert answered(outsider, address, 8080, "udp") is not None, address


def test_udp_clients_get_their_own_answers(host: Host) -> None:
    """Each client has a flow of its own, which its next datagram uses again."""
    with serve(web(host), 80, "udp", address=WEB6):
        RelayDoor(host.state_dir).do([Create(relay("::1", 8080, WEB6, protocol="udp"))])

        one = answered(host.place, "::1", 8080, "udp", source=("::1", 40001))
        two = answered(host.place, "::1", 8080, "udp", source=("::1", 40002))
        again = answered(host.place, "::1", 8080, "udp", source=("::1", 40001))

    assert one
    assert two
    assert one == again
    assert one.source_port != two.source_port


@pytest.mark.parametrize("size", [0, 1, 1400, 60000])
def test_udp_datagrams_keep_their_bounds(host: Host, size: int) -> None:
    """Empty, small, and larger than any packet: each comes back as one."""
    server = web(host).call(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
    RelayDoor(host.state_dir).do([Create(relay("::1", 8080, WEB6, protocol="udp"))])
    with server, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
        server.bind((WEB6, 80))
        for sock in (server, client):
            sock.settimeout(SECONDS)
        client.connect(("::1", 8080))
        client.send(bytes(size))
        data, peer = server.recvfrom(65535)
        server.sendto(data[:1] + data, peer)
        answer = client.recv(65535)

    assert len(data) == size
    assert answer == data[:1] + data


def test_a_udp_target_may_come_later(host: Host) -> None:
    """A closed port's ICMP error ends neither the relay nor the client's flow."""
    place = web(host)
    RelayDoor(host.state_dir).do([Create(relay("::1", 8080, WEB6, protocol="udp"))])

    assert udp_ask(host.place, "::1", 8080) is None
    with serve(place, 80, "udp", address=WEB6):
        eventually(lambda: udp_ask(host.place, "::1", 8080))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("allowed", "let_in"), [(OUTSIDER4, True), ("192.0.2.101", False)])
def test_only_sources_are_let_in(
    host: Host, protocol: Protocol, allowed: str, let_in: bool
) -> None:
    """A client outside the given prefixes gets nothing."""
    outsider = host.outsider()
    with serve(web(host), 80, protocol, address=WEB6) as seen:
        one = relay(
            HOST4, 8080, WEB6, protocol=protocol, sources=("198.51.100.0/24", f"{allowed}/32")
        )
        RelayDoor(host.state_dir).do([Create(one)])

        as_meant = reachable if let_in else unreachable
        assert as_meant(outsider, HOST4, 8080, protocol)
        assert bool(seen) == let_in


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_range_of_a_thousand_ports_leads_port_to_port(host: Host, protocol: Protocol) -> None:
    """The first, the last and one between lead to theirs, the next one nowhere."""
    place = web(host)
    RelayDoor(host.state_dir).do(
        [Create(relay("::1", 20000, WEB6, 10000, protocol=protocol, count=1000))]
    )
    with ExitStack() as servers:
        for offset in (0, 500, 999, 1000):
            servers.enter_context(
                serve(place, 10000 + offset, protocol, name=str(offset), address=WEB6)
            )
        answers = [answered(host.place, "::1", 20000 + n, protocol) for n in (0, 500, 999)]
        assert unreachable(host.place, "::1", 21000, protocol)

    assert [answer and answer.server for answer in answers] == ["0", "500", "999"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_change_leads_new_clients_to_the_new_target(host: Host, protocol: Protocol) -> None:
    """The port stays open all the time, and what led to the old target is ended."""
    place = web(host)
    old = relay("::1", 8080, WEB6, 80, protocol=protocol)
    new = relay("::1", 8080, WEB4, 81, protocol=protocol)
    door = RelayDoor(host.state_dir)
    with (
        serve(place, 80, protocol, name="old", address=WEB6),
        serve(place, 81, protocol, name="new", address=WEB4),
    ):
        door.do([Create(old)])
        before = answered(host.place, "::1", 8080, protocol, source=("::1", 40001))
        door.do([Change(old, new)])
        after = answered(host.place, "::1", 8080, protocol, source=("::1", 40001))

    assert before
    assert after
    assert (before.server, after.server) == ("old", "new")


@pytest.mark.parametrize("change", ["removed", "led elsewhere"])
def test_connections_end_with_their_relay(host: Host, change: str) -> None:
    """As those of a redirection do: a port that is taken back serves nobody any more."""
    one, other = relay("::1", 8080, WEB6), relay("::1", 8081, WEB6)
    door = RelayDoor(host.state_dir)
    with target(web(host), echo):
        door.do([Create(one), Create(other)])
        with connect() as ended, connect(port=8081) as stays:
            for client in (ended, stays):
                client.sendall(b"!")
                assert client.recv(1) == b"!"
            if change == "removed":
                door.do([Delete(one)])
            else:
                door.do([Change(one, relay("::1", 8080, WEB4))])

            with pytest.raises(ConnectionResetError):
                ended.recv(1)
            stays.sendall(b"?")
            stays.shutdown(socket.SHUT_WR)
            assert read_all(stays) == b"?"


def test_a_wider_range_keeps_connections(host: Host) -> None:
    """More ports are no reason to end what the old ones carry."""
    one = relay("::1", 8080, WEB6)
    door = RelayDoor(host.state_dir)
    with target(web(host), lambda sock: sock.sendall(read_all(sock))):
        door.do([Create(one)])
        with connect() as client:
            client.sendall(b"still ")
            door.do([Change(one, relay("::1", 8080, WEB6, count=2))])
            client.sendall(b"here")
            client.shutdown(socket.SHUT_WR)
            assert read_all(client) == b"still here"


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_an_address_that_the_host_gets_later_can_be_listened_on(host: Host, kind: Kind) -> None:
    """At boot relays are put back before all addresses are there."""
    outsider = host.outsider()
    with serve(web(host), 80, kind, address=WEB4):
        RelayDoor(host.state_dir).do([Create(relay("2001:db8:2::9", 8080, WEB4, protocol=kind))])
        host.run("ip", "addr", "add", "2001:db8:2::9/64", "dev", "eth0", "nodad")

        assert eventually(lambda: ask(outsider, "2001:db8:2::9", 8080, kind))
