"""Sockets for the resolver, bound by whoever creates a network or connects a sandbox."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from netlib.dns.zone import SANDBOX_ADDRESS
from netlib.errors import KernelError, NamespaceGone, NotPermitted
from netlib.values import dataclass

DNS_PORT = 53

# linux/in.h, linux/in6.h, asm/socket.h: not in the socket module of Python 3.11.
_IP_FREEBIND, _IPV6_FREEBIND, _SO_RCVBUFFORCE = 15, 78, 33
_CLONE_NEWNET = 0x40000000
# Room for the queries of a moment without server: it dies, and is back in a tenth of a second.
_QUEUE_BYTES = 4 * 1024 * 1024
_BACKLOG = 128

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Bound:
    """A UDP and a TCP socket on one address. A port other than 53 needs a redirect."""

    address: str
    port: int
    sockets: tuple[socket.socket, socket.socket]

    def close(self) -> None:
        """Close both: they are served on elsewhere, or not wanted."""
        for sock in self.sockets:
            sock.close()


def bind_gateway(address: str) -> Bound:
    """Sockets on a network's gateway address, which need not exist yet.

    On port 53, or on another one where a process of the host holds it.
    """
    try:
        return _bind(address, DNS_PORT)
    except KernelError as error:
        if not is_taken(error):
            raise
    for _ in range(20):  # free for UDP need not be free for TCP
        try:
            return _bind(address, 0)
        except KernelError as error:
            if not is_taken(error):
                raise
            last = error
    raise last


def bind_at(address: str, port: int) -> Bound:
    """Sockets on an address of the host, which need not exist yet, at just this port."""
    return _bind(address, port)


def bind_sandbox(path: str, inode: int = 0) -> Bound:
    """Sockets on 127.0.0.11 in the network namespace at `path`, whose inode must be `inode`."""
    try:
        return inside(path, lambda: _bind(SANDBOX_ADDRESS, DNS_PORT, shares=True), inode)
    except KernelError as error:
        if not is_taken(error):
            raise
        raise KernelError(
            f"a program in the sandbox has port {DNS_PORT} of every address, of {SANDBOX_ADDRESS} "
            "too, where the sandbox would be told names",
            "let it listen on addresses of its own only, or with SO_REUSEPORT, or make the network "
            "with -o names=false",
        ) from error


def is_taken(error: KernelError) -> bool:
    """Whether an address could not be had because somebody else has it."""
    cause = error.__cause__
    while isinstance(cause, KernelError):
        cause = cause.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE


def _bind(address: str, port: int, *, shares: bool = False) -> Bound:
    """Sockets on an address; if it `shares`, another may have the port of all addresses.

    That one must say SO_REUSEPORT as well, and be of the same user (socket(7)): many name servers
    do. What comes to the very address is ours all the same.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.ExitStack() as undo:
        try:
            udp = undo.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            _allow_any_address(udp)
            _lengthen_queue(udp)
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
            udp.bind((address, port))
            port = udp.getsockname()[1]
            tcp = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
            _allow_any_address(tcp)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shares)
            tcp.bind((address, port))
            tcp.listen(_BACKLOG)
        except PermissionError as error:
            raise NotPermitted(
                f"may not listen for DNS at {address} port {port}", "run as root"
            ) from error
        except OSError as error:
            raise KernelError(
                f"can not listen for DNS at {address} port {port}: {error.strerror}",
                f"see what holds the port: ss -lntup 'src {address}'",
            ) from error
        undo.pop_all()
        return Bound(address, port, (udp, tcp))


def _allow_any_address(sock: socket.socket) -> None:
    """The gateway's address may come later, go with its bridge and come back (ip(7))."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)


def _lengthen_queue(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _QUEUE_BYTES)
    except PermissionError:  # in a user namespace: up to net.core.rmem_max
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE_BYTES)


def close_at(
    sockets: list[socket.socket],
    addresses: Iterable[Sequence[Any]] | None,
    before: Callable[[socket.socket], None] = lambda _: None,
) -> list[socket.socket]:
    """Close those of the sockets at these addresses and ports (None: all); the others.

    `before` is called for each that will be closed.
    """
    gone = None if addresses is None else {tuple(each) for each in addresses}
    stays = []
    for sock in sockets:
        if gone is None or sock.getsockname()[:2] in gone:
            before(sock)
            sock.close()
        else:
            stays.append(sock)
    return stays


def inside(path: str, work: Callable[[], T], inode: int = 0) -> T:
    """What `work` returns when it runs in the network namespace at `path`, in its own thread."""
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            _enter(path, inode)
            done.append(work())
        except BaseException as error:  # noqa: BLE001, RUF100  # raised again below
            failed.append(error)

    thread = threading.Thread(target=run, name="inside-netns")
    try:
        thread.start()
    except RuntimeError as error:  # pthread_create(3), EAGAIN
        raise KernelError(
            f"can not enter {path}: there is no thread to be had",
            "see how many are allowed: ulimit -u, and pids.max of the control group",
        ) from error
    thread.join()
    if failed:
        raise failed[0]
    return done[0]


def _enter(path: str, inode: int) -> None:
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise KernelError(
                f"can not enter {path}: {error.strerror}", "see: ulimit -n"
            ) from error
        raise NamespaceGone(f"the network namespace {path} is gone: {error.strerror}") from error
    try:
        if inode and os.fstat(number).st_ino != inode:
            raise NamespaceGone(f"{path} leads to another network namespace now")
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(number, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise KernelError(f"can not enter {path}: {os.strerror(code)}")
    finally:
        os.close(number)
