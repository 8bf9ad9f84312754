"""A relay at one address that keeps strangers from the port on all addresses of the family."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations

import pytest
from support.host import HOST4, HOST6, Host
from support.patience import eventually
from support.relay import WEB4, WEB6, echo, relay, relay_processes, target, web
from support.strangers import bound, free_at
from support.traffic import answered, serve

from netlib.model import Protocol
from netlib.plan import Change, Create, Delete
from netlib.relay.door import RelayDoor

pytestmark = pytest.mark.kernel

PROTOCOLS: list[Protocol] = ["tcp", "udp"]
OPTIONS = (socket.SO_REUSEADDR, socket.SO_REUSEPORT)
ADDRESSES = ("::", "::1", HOST6)


@pytest.fixture
def outside(host: Host) -> Host:
    """A host with addresses that others know it by."""
    host.outsider()
    return host


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_stranger_gets_an_address_beside_it(outside: Host, protocol: Protocol) -> None:
    """Whatever options he sets; a range's, too, and it serves its own address alone."""
    held = relay("::1", 8080, WEB6, protocol=protocol, count=3, holds_all=True)
    door = RelayDoor(outside.state_dir)
    with serve(web(outside), 80, protocol, address=WEB6):
        door.do([Create(held)])
        for port in (8080, 8082):
            assert not free_at(outside, protocol, ADDRESSES, port)
        assert free_at(outside, protocol, ["127.0.0.1", "0.0.0.0", HOST4], 8080)
        assert free_at(outside, protocol, ADDRESSES, 8083) == {*ADDRESSES}
        assert answered(outside.place, "::1", 8080, protocol)
        assert answered(outside.place, HOST6, 8080, protocol) is None
    assert door.observe([held]) == [held]

    door.do([Delete(held)])

    for port in (8080, 8082):
        assert free_at(outside, protocol, ADDRESSES, port) == {*ADDRESSES}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_ipv4_address_is_held_likewise(outside: Host, protocol: Protocol) -> None:
    """The family is that of the address that is served."""
    held = relay("127.0.0.1", 8080, WEB6, protocol=protocol, holds_all=True)

    RelayDoor(outside.state_dir).do([Create(held)])

    assert not free_at(outside, protocol, ["0.0.0.0", "127.0.0.1", HOST4], 8080)
    assert free_at(outside, protocol, [HOST6], 8080)


@pytest.mark.parametrize("options", [o for n in range(3) for o in combinations(OPTIONS, n)])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_has_an_address_already_keeps_it(
    outside: Host, protocol: Protocol, options: tuple[int, ...]
) -> None:
    """The relay serves its own all the same, and holds what it can: nothing."""
    stranger = bound(outside, protocol, HOST6, 8080, options)
    assert stranger is not None
    with serve(web(outside), 80, protocol, address=WEB6), stranger:
        if protocol == "tcp":
            stranger.listen()
        RelayDoor(outside.state_dir).do(
            [Create(relay("::1", 8080, WEB6, protocol=protocol, holds_all=True))]
        )
        assert answered(outside.place, "::1", 8080, protocol)
        if protocol == "tcp":
            with socket.create_connection((HOST6, 8080)):
                stranger.accept()[0].close()


def test_who_has_not_yet_listened_can_not(outside: Host) -> None:
    """With SO_REUSEADDR two may bind one TCP port, and only one may listen."""
    held = relay("::1", 8080, WEB6, holds_all=True)
    stranger = bound(outside, "tcp", HOST6, 8080, [socket.SO_REUSEADDR])
    assert stranger is not None
    with stranger:
        RelayDoor(outside.state_dir).do([Create(held)])

        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
            stranger.listen()
    assert not free_at(outside, "tcp", ADDRESSES, 8080)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_addresses_are_left_to_others_unless_it_is_asked_to(
    outside: Host, protocol: Protocol
) -> None:
    """And it can be asked later, also to let them go again."""
    alone = relay("::1", 8080, WEB6, protocol=protocol, count=2)
    held = relay("::1", 8080, WEB6, protocol=protocol, count=2, holds_all=True)
    door = RelayDoor(outside.state_dir)
    with serve(web(outside), 80, protocol, address=WEB6):
        door.do([Create(alone)])
        assert free_at(outside, protocol, ADDRESSES, 8081) == {HOST6}

        door.do([Change(alone, held)])
        assert door.observe([alone]) == [held]
        assert not free_at(outside, protocol, ADDRESSES, 8081)
        assert answered(outside.place, "::1", 8080, protocol)

        door.do([Change(held, alone)])
        assert free_at(outside, protocol, ADDRESSES, 8081) == {HOST6}
        assert answered(outside.place, "::1", 8080, protocol)


@contextmanager
def lingering(host: Host) -> Iterator[socket.socket]:
    """A connection of which the relay's end stays, since the client's never ends its half."""
    with target(web(host), echo), socket.create_connection(("::1", 8080), 5) as client:
        client.sendall(b"!")
        assert client.recv(1) == b"!"
        yield client


def test_a_killed_one_has_an_heir_that_holds_all(outside: Host) -> None:
    """At once, though connections of the killed one linger."""
    held = relay("::1", 8080, WEB6, holds_all=True)
    door = RelayDoor(outside.state_dir)
    door.do([Create(held)])
    with lingering(outside) as client:
        (pid,) = relay_processes(outside)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not relay_processes(outside))
        assert client.recv(1) == b""
        assert free_at(outside, "tcp", [HOST6], 8080) == {HOST6}

        door.do([Create(held)])

        assert not free_at(outside, "tcp", ADDRESSES, 8080)
        with socket.create_connection(("::1", 8080), 5) as other:
            other.sendall(b"?")
            assert other.recv(1) == b"?"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_wildcard_that_listens_follows_and_is_followed(outside: Host, protocol: Protocol) -> None:
    """The sandbox gets an address of the family, or loses it: in one step, and back."""
    held = relay("::1", 8080, WEB6, protocol=protocol, holds_all=True)
    wildcard = relay("::", 8080, WEB4, protocol=protocol)
    door = RelayDoor(outside.state_dir)
    door.do([Create(held)])
    for old, new in ((held, wildcard), (wildcard, held)):
        door.do([Delete(old), Create(new)])
        assert door.marked() == [new]
        assert not free_at(outside, protocol, ADDRESSES, 8080)
