"""A network with sandboxes and a resolver at its gateway, on real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

from netlib.dns.facts import EndpointNames, NetworkNames, Update
from netlib.dns.loop import Loop
from netlib.dns.server import Server
from netlib.dns.within import Opened, Request, open_all
from support.host import Host, Place
from support.traffic import Somewhere

GATEWAY4, GATEWAY6 = "198.51.100.1", "2001:db8:1::1"
WEB4, WEB6, DB4 = "198.51.100.2", "2001:db8:1::2", "198.51.100.3"

MY_NET = NetworkNames(
    id="n1", name="my-net", subnets=("198.51.100.0/24", "2001:db8:1::/64"), servers=("192.0.2.100",)
)
WEB = EndpointNames(
    id="e1", network="n1", sandbox="web", aliases=("front",), addresses=(WEB4, WEB6)
)
DB = EndpointNames(id="e2", network="n1", sandbox="db", short_id="0123456789ab", addresses=(DB4,))
EVERYTHING = Update(revision=1, full=True, networks=(MY_NET,), endpoints=(WEB, DB))


def build(host: Host) -> tuple[Place, Place]:
    """The sandboxes web and db on a bridge of the host's, by hand: names need no engine."""
    web, db = host.sandbox("web"), host.sandbox("db")
    lines = [
        "link add nl-test type bridge",
        f"addr add {GATEWAY4}/24 dev nl-test",
        f"addr add {GATEWAY6}/64 dev nl-test nodad",
        "link set nl-test up",
    ]
    for place in (web, db):
        lines += [
            f"link add nv-{place.name} type veth peer name eth0 netns {place.netns.path}",
            f"link set nv-{place.name} master nl-test up",
        ]
    host.run("ip", "-batch", "-", stdin="\n".join(lines))
    for place, addresses in ((web, (f"{WEB4}/24", f"{WEB6}/64")), (db, (f"{DB4}/24",))):
        inner = [f"addr add {a} dev eth0{' nodad' if ':' in a else ''}" for a in addresses]
        inner += ["link set eth0 up"]
        place.run("ip", "-batch", "-", stdin="\n".join(inner))
    return web, db


def ask(
    where: Somewhere,
    message: bytes,
    server: str = GATEWAY4,
    port: int = 53,
    *,
    timeout: float = 5.0,
) -> bytes | None:
    """The answer over UDP to a packed query; None when none comes."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with where.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as client:
        client.settimeout(timeout)
        client.connect((server, port))
        client.send(message)
        try:
            return client.recv(65535)
        except TimeoutError:
            return None


def ask_tcp(
    where: Somewhere, *messages: bytes, server: str = GATEWAY4, timeout: float = 6.0
) -> list[bytes]:
    """The answers to several queries on one connection, in the order they come."""
    with where.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as client:
        client.settimeout(timeout)
        client.connect((server, 53))
        client.sendall(b"".join(len(m).to_bytes(2) + m for m in messages))
        with client.makefile("rb") as stream:
            return [stream.read(int.from_bytes(stream.read(2))) for _ in messages]


class Running:
    """A server in a thread of this process, listening at the network's gateway."""

    def __init__(self, resolv_conf: Path = Path("/nonexistent")) -> None:
        from netlib.dns.sockets import bind_gateway

        self.loop = Loop()
        self.namespaces: dict[str, str] = {}
        self.server = Server(self.loop, str(resolv_conf), lambda: None, self._open_within)
        self.bound = [bind_gateway(GATEWAY4), bind_gateway(GATEWAY6)]
        self.server.update(EVERYTHING)
        self.server.listen("network", "n1", [s for b in self.bound for s in b.sockets])
        self._wake, self._woken = socket.socketpair()
        self._work: list[Callable[[], None]] = []
        self.loop.watch(self._woken, self._do)
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()

    def _open_within(self, request: Request, done: Opened) -> None:
        """What a keeper does, for the sandboxes whose `namespaces` are told."""
        paths = self.namespaces
        done(open_all([request], lambda sandbox: (paths[sandbox], 0))[0])

    def _do(self, _events: int) -> None:
        self._woken.recv(1)
        self._work.pop(0)()

    def do(self, work: Callable[[], None]) -> None:
        """Run something in the server's thread, and wait until it ran."""
        done = threading.Event()
        self._work.append(lambda: (work(), done.set())[1])
        self._wake.send(b"!")
        assert done.wait(5)

    def update(self, update: Update) -> None:
        """Serve a changed zone."""
        self.do(lambda: self.server.update(update))

    def close(self) -> None:
        """End it."""
        self.do(self.loop.stop)
        self._thread.join(5)
        for bound in self.bound:
            bound.close()
