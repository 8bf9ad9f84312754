"""The listener that lets hosts in: strangers can neither end it nor hold it up."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.patience import eventually

from netlib.cluster.asking import Manager
from netlib.cluster.certificates import Authority, Request
from netlib.cluster.listener import Failures, Listener
from netlib.cluster.tokens import Token, pin_of
from netlib.cluster.wire import MOST_BYTES
from netlib.errors import (
    ClockSkew,
    InvalidRequest,
    ManagerUnreachable,
    NotPermitted,
    WrongToken,
)

NODE, CLUSTER = "a0" * 32, "c1" * 32
AUTHORITY = Authority.new(CLUSTER)
NOW = 1_800_000_000.0
SECONDS = 0.5


def answer(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """A manager that greets, repeats, and refuses as it is told to."""
    match asked["do"]:
        case "greet":
            return {"ca": AUTHORITY.certificate, "time": NOW}
        case "repeat":
            return {"said": asked["text"]}
        case "refuse":
            raise NotPermitted("no", "ask another")
    raise InvalidRequest("what?")


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A manager's side of TLS."""
    return server_context(tmp_path_factory.mktemp("manager"), "manager")


def server_context(folder: Path, role: Any) -> ssl.SSLContext:
    request = Request.new(NODE)
    signed = AUTHORITY.sign(request.text, NODE, role, [ip_address("127.0.0.1")])
    (folder / "crt").write_text(signed)
    (folder / "key").write_text(request.key)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(folder / "crt", folder / "key")
    return made


@pytest.fixture
def listener(context: ssl.SSLContext) -> Iterator[Listener]:
    """One as it is."""
    listener = Listener("127.0.0.1", 0, context, answer)
    yield listener
    listener.close()


@pytest.fixture
def hasty(context: ssl.SSLContext) -> Iterator[Listener]:
    """One that gives everybody little time."""
    listener = Listener("127.0.0.1", 0, context, answer, seconds=SECONDS)
    yield listener
    listener.close()


def asker(listener: Listener, *, clock: float = NOW, authority: Authority = AUTHORITY) -> Manager:
    """Somebody with a token of `authority`'s cluster, whose clock stands still."""
    pin = pin_of(authority.certificate)
    token = Token(role="worker", generation=0, expires=NOW + 60, pin=pin)
    return Manager("127.0.0.1", listener.port, token, lambda: clock)


def serves(listener: Listener) -> bool:
    """Whether it answers to who comes now: not as long as we have too many connections."""
    manager = asker(listener)
    try:
        manager.greet()
        return manager.ask({"do": "repeat", "text": "hello"})["said"] == "hello"
    except ManagerUnreachable:
        return False


def test_who_has_a_token_is_served(listener: Listener) -> None:
    """It greets, proves what it is, and answers; its errors keep their class and status."""
    assert serves(listener)
    manager = asker(listener)
    manager.greet()
    with pytest.raises(NotPermitted, match="no") as refusal:
        manager.ask({"do": "refuse"})
    assert refusal.value.exit_status == 6


def test_a_manager_of_another_cluster_gets_no_token(listener: Listener) -> None:
    """The pin is another, which is seen before anything is told."""
    with pytest.raises(WrongToken, match="another cluster"):
        asker(listener, authority=Authority.new(CLUSTER)).greet()


@pytest.mark.parametrize(("clock", "word"), [(NOW - 90, "behind"), (NOW + 90, "ahead")])
def test_clocks_that_differ_are_noticed(listener: Listener, clock: float, word: str) -> None:
    """By more than a minute, in either direction, and it is said in which."""
    with pytest.raises(ClockSkew, match=f"90 s {word}"):
        asker(listener, clock=clock).greet()
    asker(listener, clock=NOW + 59).greet()


def test_a_worker_that_answers_is_shown_no_token(tmp_path: Path) -> None:
    """Who has a certificate of the cluster but is no manager can greet, and nothing more."""
    listener = Listener("127.0.0.1", 0, server_context(tmp_path, "worker"), answer)
    try:
        manager = asker(listener)
        manager.greet()
        with pytest.raises(ManagerUnreachable, match="no manager"):
            manager.ask({"do": "repeat", "text": "secret"})
    finally:
        listener.close()


def test_what_is_no_manager_is_told_so() -> None:
    """Nobody, and somebody who speaks something else."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        token = Token(role="worker", generation=0, expires=NOW, pin=b"p" * 32)
        manager = Manager("127.0.0.1", silent.getsockname()[1], token)
        with pytest.raises(ManagerUnreachable, match="refused"):
            manager.greet()
        silent.listen()

        def speak() -> None:
            other, _ = silent.accept()
            with other:
                other.sendall(b"220 mail.example ESMTP\r\n" * 10)

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(ManagerUnreachable, match="no manager"):
            manager.greet()
        thread.join(10)


@given(st.lists(st.binary(max_size=64), max_size=4))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_before_tls_ends_nothing(listener: Listener, parts: list[bytes]) -> None:
    """Strangers may send anything, and hang up whenever they like."""
    with (
        socket.create_connection(("127.0.0.1", listener.port), 5) as sock,
        suppress(ConnectionError),  # it hung up first
    ):
        for part in parts:
            sock.sendall(part)
    eventually(lambda: serves(listener), 5)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(
    st.binary(max_size=200)
    | _VALUES.map(lambda value: json.dumps(value).encode() + b"\n")
    | st.fixed_dictionaries({"do": st.sampled_from(["greet", "repeat", "refuse"]) | _VALUES}).map(
        lambda value: json.dumps(value).encode() + b"\n"
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_inside_tls_ends_nothing(listener: Listener, said: bytes) -> None:
    """Messages of any shape are answered with one line, or with nothing."""
    listener._failures = Failures()  # else it would soon be told to wait
    with (
        socket.create_connection(("127.0.0.1", listener.port), 5) as sock,
        anybody().wrap_socket(sock) as secure,
    ):
        line = b""
        with suppress(ConnectionError):  # likewise
            secure.sendall(said)
            if b"\n" in said:
                line = secure.makefile("rb").readline()
        assert not line or isinstance(json.loads(line), dict)
    listener._failures = Failures()
    eventually(lambda: serves(listener), 5)


def anybody() -> ssl.SSLContext:
    """TLS of who trusts everybody."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def test_slow_clients_hold_nothing(hasty: Listener) -> None:
    """One address has few connections at once, and each of them ends in time."""
    with ExitStack() as open_sockets:
        slow = []
        for number in range(20):
            sock = socket.create_connection(("127.0.0.1", hasty.port), 5)
            open_sockets.enter_context(sock)
            slow.append(sock)
            if number % 2:
                sock.sendall(b"\x16\x03")  # the beginning of a handshake
        for sock in slow:
            sock.settimeout(10)
            try:
                while sock.recv(4096):
                    pass  # the listener hangs up
            except ConnectionResetError:
                pass
    eventually(lambda: serves(hasty), 5)
    eventually(lambda: not hasty._open, 5)


def drip(sock: socket.socket) -> None:
    """A message that never ends, slowly."""
    for _ in range(1000):
        sock.sendall(b" ")
        time.sleep(SECONDS / 20)


def pour(sock: socket.socket) -> None:
    """A message that is far too long."""
    for _ in range(100):
        sock.sendall(b" " * MOST_BYTES)


@pytest.mark.parametrize("send", [drip, pour])
def test_messages_that_never_end_are_cut(
    hasty: Listener, send: Callable[[socket.socket], None]
) -> None:
    """Time and size are those of the whole message, not of a part."""
    with (
        socket.create_connection(("127.0.0.1", hasty.port), 5) as sock,
        anybody().wrap_socket(sock) as secure,
    ):
        secure.settimeout(10)
        with pytest.raises((ConnectionError, ssl.SSLError)):
            send(secure)
    eventually(lambda: serves(hasty), 5)


def test_who_is_wrong_too_often_must_wait(listener: Listener) -> None:
    """Also when it is right then; others are served meanwhile."""
    manager = asker(listener)
    manager.greet()
    for _ in range(10):
        with pytest.raises(NotPermitted, match="no"):
            manager.ask({"do": "refuse"})
    with pytest.raises(NotPermitted, match="too many"):
        manager.ask({"do": "repeat", "text": "hello"})


def test_failures_are_forgotten() -> None:
    """After a minute; and only so many addresses are remembered."""
    now = [0.0]
    failures = Failures(lambda: now[0])
    for _ in range(10):
        failures.note("192.0.2.1")
    assert failures.too_many("192.0.2.1")
    assert not failures.too_many("192.0.2.2")
    now[0] = 61.0
    assert not failures.too_many("192.0.2.1")
    failures.note("192.0.2.1")
    assert not failures.too_many("192.0.2.1")
    for number in range(5000):
        failures.note(f"198.51.100.{number}")
    assert len(failures._seen) <= 1024
