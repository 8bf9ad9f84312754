"""Published ports are held by bound sockets, so that no process of the host takes one unnoticed.

A packet for a published port is translated before it would reach a socket, so these get none:
they never listen. A relay listens itself, and holds a family's other addresses where that is
called for (wiring.Relay): what it has is left to it.
"""

from __future__ import annotations

import errno
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, NamedTuple

from netlib import keys
from netlib.binding import ANY, bound
from netlib.errors import NetError, StoreError
from netlib.kernel.listeners import HELD_MARK
from netlib.model import Endpoint, Protocol
from netlib.net import Net
from netlib.records import load_endpoint
from netlib.wiring import Relay

_POLL_SECONDS = 1.0
# How soon a port is held. To be woken by each commit would take the interpreter from who commits,
# in the middle of its work.
_GLANCE_SECONDS = 0.1
_SPARE_DESCRIPTORS = 256
# Podman's monitor binds a container's ports itself, right after its ADD; other runtimes don't.
_RUNTIMES_SECONDS = 10.0
# Somebody has the port, or the address is not the host's now.
_LATER = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
_SO_MARK = 36
_TYPES: dict[Protocol, tuple[int, int]] = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, 132),
}


class HostPort(NamedTuple):
    """One port on one address of the host."""

    protocol: Protocol
    address: str
    port: int


class Holder:
    """Follows the state in a thread of its own."""

    def __init__(self, net: Net, log: Callable[[str], None]) -> None:
        self._net = net
        self._log = log
        self._held: dict[str, dict[HostPort, socket.socket]] = {}
        self._missing: dict[str, set[HostPort]] = {}  # to be tried again
        self._early: set[str] = set()  # endpoints whose runtime may be about to hold theirs
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="netlib-ports", daemon=True)
        self._most = 0
        self._count = 0

    def start(self) -> None:
        """Hold what is published, and follow what changes."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._most = hard - _SPARE_DESCRIPTORS
        self._thread.start()

    def stop(self) -> None:
        """Let all go."""
        self._ending.set()

    def held(self) -> set[HostPort]:
        """What is held now."""
        return {port for held in list(self._held.values()) for port in list(held)}

    def _run(self) -> None:
        try:
            self._follow()
        finally:
            for held in self._held.values():
                for sock in held.values():
                    sock.close()

    def _follow(self) -> None:
        store = self._net.engine.state.store
        revision: int | None = None
        tried = time.monotonic()
        while not self._ending.is_set():
            try:
                if revision is None:
                    revision = self._read_all()
                changes = store.changes(revision)
                if changes is None:
                    revision = None
                    continue
                for change in changes:
                    revision = max(revision, change.revision)
                    if change.key.startswith("endpoint/"):
                        self._hold(change.key, change.value)
                if time.monotonic() >= tried + _POLL_SECONDS:
                    tried = time.monotonic()
                    self._try_again()
                self._ending.wait(_GLANCE_SECONDS)
            except NetError as error:
                if self._ending.is_set():
                    return  # the state was closed
                self._log(f"ports are not held: {error}")
                revision = None  # something of what changed was not looked at
                self._ending.wait(_POLL_SECONDS)

    def _read_all(self) -> int:
        store = self._net.engine.state.store
        revision = store.revision()
        there = {record.key: record.value for record in store.range(*keys.endpoints_of())}
        for key in [*(k for k in self._held if k not in there), *there]:
            self._hold(key, there.get(key))
        return revision

    def _hold(self, key: str, value: str | None) -> None:
        """Hold the ports of one endpoint, and no others of it any more."""
        held = self._held.setdefault(key, {})
        self._early.discard(key)
        wanted: set[HostPort] = set()
        try:
            wanted = set(self._wanted(key, value)) if value is not None else set()
        except StoreError as error:  # others' ports are held all the same
            self._log(f"the ports of {key} are not held: {error}")
        for port in [port for port in held if port not in wanted]:
            held.pop(port).close()
            self._count -= 1
        missing = self._missing.pop(key, set())
        expected = '"kind":"cni"' in (value or "")  # then its runtime has it
        for port in sorted(wanted - held.keys()):
            if self._count >= self._most:
                self._log(f"{port.protocol} port {port.port} is not held: too many are")
                break
            try:
                held[port] = _bind(port)
                self._count += 1
            except OSError as error:
                if error.errno in _LATER:
                    self._missing.setdefault(key, set()).add(port)
                if error.errno == errno.EADDRINUSE and not (expected or port in missing):
                    self._log(f"a published port is used by {self._user(port)}")
        if not held:
            del self._held[key]

    def _try_again(self) -> None:
        """Once who had a port ends, or an address is the host's."""
        for key in [*self._missing, *self._early]:
            record = self._net.engine.state.store.get(key)
            self._hold(key, record.value if record else None)

    def _user(self, port: HostPort) -> str:
        address = ip_address(port.address)
        user = self._net.engine.kernel.port_user(
            port.protocol, None if address.is_unspecified else address, port.port, 1
        )
        return user or f"another program on {port.protocol} port {port.port}"

    def _wanted(self, key: str, value: str) -> Iterator[HostPort]:
        if '"ports":[]' in value:  # most have none, and need not be read
            return
        record = load_endpoint(value, 0)
        endpoint = record.endpoint
        if not endpoint.ports or endpoint.state != "ready":
            return
        by_runtime = endpoint.sandbox.kind == "cni"
        age = self._net.engine.clock() - endpoint.created  # less than 0 where a clock was set back
        if by_runtime and 0 <= age < _RUNTIMES_SECONDS:
            self._early.add(key)
            return
        relayed = {
            (relay.protocol, str(address), number)
            for relay in record.wiring
            if isinstance(relay, Relay)
            for address in (relay.host, ANY[relay.host.version])
            for number in range(relay.port, relay.port + relay.count)
        }
        network = self._network(endpoint)
        if network is None:
            return
        for port in endpoint.ports:
            for one in bound(network, port):
                for number in range(one.host_port, one.host_port + one.count):
                    if (one.protocol, str(one.host_address), number) not in relayed:
                        yield HostPort(one.protocol, str(one.host_address), number)

    def _network(self, endpoint: Endpoint) -> Any:
        record = self._net.engine.state.store.get(keys.network_key(endpoint.network))
        return self._net.engine.state.network(endpoint.network).network if record else None


def _bind(port: HostPort) -> socket.socket:
    """A socket that has the port. OSError where there can be none, as without the protocol."""
    family = socket.AF_INET6 if ":" in port.address else socket.AF_INET
    kind, number = _TYPES[port.protocol]
    sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, number)
    with suppress(OSError):  # then our own checks name this process as the port's user
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, HELD_MARK)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        sock.bind((port.address, port.port))
    except OSError:
        sock.close()
        raise
    return sock
