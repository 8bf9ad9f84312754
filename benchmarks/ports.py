"""New connections through a published port: the only one, and the last of thousands."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from support.host import Place, new_host

from benchmarks.measure import Series, ratio, show
from netlib import Net
from netlib.settings import Backend

ROUNDS = 12
SECONDS = 0.25
PORTS = {"nftables": 5000, "iptables": 5000}
FIRST, ADDRESS = 20000, "192.0.2.1"


def run() -> None:
    """Two hosts, one with a single published port; connections to each in turn."""
    backends: tuple[Backend, ...] = ("nftables", "iptables")
    for firewall in backends:
        many = PORTS[firewall]
        with _published(firewall, 1) as alone, _published(firewall, many) as crowded:
            single, last = Series("the only port", "/s"), Series(f"the last of {many}", "/s")
            for _ in range(ROUNDS):
                single.samples.append(_rate(alone, FIRST))
                last.samples.append(_rate(crowded, FIRST + many - 1))
        show(f"New connections through a published port, {firewall}", [single, last])
        show("", [ratio(last, single, 0.9, at_least=True)])


@contextmanager
def _published(firewall: Backend, count: int) -> Iterator[Place]:
    """A host with so many published ports of one sandbox; where its clients are."""
    with new_host() as host, Net(host.state_dir, firewall=firewall) as net:
        outsider, web = host.outsider(), host.sandbox(f"web-{count}")
        net.create("bench")
        net.connect("bench", f"netns:{web.name}")
        start = time.perf_counter()
        net.publish(f"netns:{web.name}", [f"{FIRST + n}:80" for n in range(count)])
        took = Series(f"net.publish of {count} at once")
        took.samples.append((time.perf_counter() - start) * 1000)
        show(f"Publishing, {firewall}", [took])
        with _server(web):
            yield outsider


@contextmanager
def _server(web: Place) -> Iterator[None]:
    """Accepts, and closes."""
    server = web.call(lambda: socket.create_server(("", 80), backlog=1024))

    def serve() -> None:
        while True:
            try:
                server.accept()[0].close()
            except OSError:  # shut down
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join(2)
        server.close()


def _rate(client: Place, port: int) -> float:
    """Connections per second, one after the other."""

    def connect() -> float:
        start, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < SECONDS:
            with socket.create_connection((ADDRESS, port), timeout=2) as connection:
                connection.recv(1)  # the server has closed: its end waits, not ours
            count += 1
        return count / passed

    return client.call(connect)
