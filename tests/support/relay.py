"""Relays as tests make and look for them, and what they can lead to."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

from netlib.model import Protocol
from netlib.wiring import Relay
from support.host import Host, Place
from support.netns import inode

SECONDS = 10.0
WEB4, WEB6 = "198.51.100.2", "2001:db8:1::2"


def relay(
    host: str,
    port: int,
    target: str,
    target_port: int = 80,
    *,
    protocol: Protocol = "tcp",
    count: int = 1,
    sources: tuple[str, ...] = (),
    holds_all: bool = False,
) -> Relay:
    """A relay's noun, from text."""
    return Relay(
        protocol=protocol,
        host=ip_address(host),
        port=port,
        count=count,
        target=ip_address(target),
        target_port=target_port,
        sources=tuple(ip_network(source) for source in sources),
        holds_all=holds_all,
    )


def web(host: Host) -> Place:
    """A machine behind the host with an address of each family."""
    return host.neighbour(
        "web", "web0", ("198.51.100.1/24", "2001:db8:1::1/64"), (f"{WEB4}/24", f"{WEB6}/64")
    )


def relay_processes(host: Host) -> list[int]:
    """The relay processes that are in the host."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                comm = Path("/proc", name, "comm").read_text().strip()
                if comm == "netlib-relay" and inode(f"/proc/{name}/ns/net") == host.netns.inode:
                    found.append(int(name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # ended, or ending: then it is nobody's to look into
    return found


@contextmanager
def target(
    place: Place, behave: Callable[[socket.socket], None], address: str = WEB6, port: int = 80
) -> Iterator[None]:
    """A TCP server whose every connection is handled by `behave` in a thread of its own."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = place.call(lambda: socket.create_server((address, port), family=family, backlog=4096))

    def handle(client: socket.socket) -> None:
        with client, suppress(OSError):  # what it did not hear is what the test looks at
            client.settimeout(SECONDS)
            behave(client)

    def loop() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:  # shut down
                return
            threading.Thread(target=handle, args=(client,), daemon=True).start()

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join(SECONDS)
        server.close()


def read_all(sock: socket.socket) -> bytes:
    """All until the other side sends no more."""
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


def echo(sock: socket.socket) -> None:
    """Say everything back as it comes."""
    while data := sock.recv(1 << 16):
        sock.sendall(data)
