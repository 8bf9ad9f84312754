"""Connections from outside, made and counted by processes of their own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

from benchmarks.bench import Bench, Host
from benchmarks.measure import Comparison
from netlib import throwaway

_SECONDS = 0.7
_MANY = 5000
_PORTS_PER_SANDBOX = 500

_SERVER = """
import socket, sys
server = socket.create_server(("0.0.0.0", 80), backlog=4096)
print("ready", flush=True)
while True:
    server.accept()[0].close()
"""

# A reset at the end leaves nothing in TIME_WAIT, of which there would soon be too many.
_CLIENT = """
import socket, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
count, begin = 0, time.perf_counter()
while (took := time.perf_counter() - begin) < seconds:
    with socket.create_connection((address, port), timeout=5) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
    count += 1
print(count / took)
"""


def connections(bench: Bench) -> Iterator[Comparison]:
    """New connections through the last of many published ports, and through the only one."""
    hosts = {"one": (bench.host(), 1), "many": (bench.host(), _MANY)}
    rates: dict[str, list[float]] = {which: [] for which in hosts}
    published: list[float] = []
    for host, ports in hosts.values():
        host.do(host.net.create, "my-net")
        for first in range(0, ports, _PORTS_PER_SANDBOX):
            numbers = range(first, min(first + _PORTS_PER_SANDBOX, ports))
            name = host.sandbox()
            specs = [f"{20000 + number}:80" for number in numbers]
            host.do(host.net.connect, "my-net", name)
            published.append(host.time(host.net.publish, name, specs))
        bench.closing.callback(_serve(f"/run/netns/{name}").kill)
    for _ in range(bench.runs):
        for which, (host, ports) in hosts.items():
            rates[which].append(_rate(host, 20000 + ports - 1))
    yield Comparison(name=f"publish {_PORTS_PER_SANDBOX} ports in one call", ours=published[1:])
    yield Comparison(
        name=f"new connections, last of {_MANY} published ports",
        ours=rates["many"],
        other="the only one",
        others=rates["one"],
        unit="1/s",
        aim=0.9,
        better="more",
    )


def _serve(netns: str) -> subprocess.Popen[str]:
    """A server at port 80 of a network namespace, which ends when it is killed."""
    started: list[subprocess.Popen[str]] = []

    def work() -> None:
        with open(netns, "rb") as namespace:
            throwaway.join(namespace.fileno(), throwaway.NEW_NET)
        command = [sys.executable, "-c", _SERVER]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (server,) = started
    assert server.stdout
    if server.stdout.readline() != "ready\n":
        raise RuntimeError("the server did not start")
    return server


def _rate(host: Host, port: int) -> float:
    """How many connections a client outside makes in a second, one after the other."""
    client = host.outside.python(_CLIENT, "192.0.2.1", str(port), str(_SECONDS))
    said, _ = client.communicate(timeout=30)
    if client.returncode:
        raise RuntimeError(f"no connection to port {port}")
    return float(said)
