"""How listening sockets are bound."""

from __future__ import annotations

import errno
import socket

# linux/in.h, linux/in6.h; the socket module has no names for them.
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78


def free_bind(sock: socket.socket) -> None:
    """Let a socket be bound to an address that the host has not, or not yet (ip(7)).

    A redirection by the kernel does not ask for the address either; and at boot addresses of
    IPv6 come late, because they are probed first (RFC 4862 section 5.4).
    """
    if sock.family == socket.AF_INET6:
        # A wildcard would take the IPv4 port too, which the kernel redirects (ipv6(7)).
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)


def hold(beside: socket.socket, port: int, most: int) -> socket.socket | None:
    """A socket that has a port on all addresses of a family, for one that listens at an address.

    None where somebody has the port on some address, or files are scarce: at most `most` are open.
    It takes no connection. Both have SO_REUSEADDR, so that `beside` can be bound as well; until
    `claim` others with that option can be, too (socket(7)).
    """
    try:
        sock = socket.socket(beside.family, beside.type)
    except OSError:
        return None
    try:
        if sock.fileno() >= most:
            raise OSError(errno.EMFILE, "too many files are open")
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if sock.type == socket.SOCK_STREAM:
            # As for who listens: connections of an earlier listener may linger.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            # For UDP the option would let us bind beside others; and what nobody reads is dropped.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        sock.bind(("", port))
        for one in (sock, beside):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except OSError:
        sock.close()
        return None
    return sock


def claim(held: socket.socket) -> None:
    """From now on nobody can bind the port on any address, whatever options he sets.

    Only here: connections inherit the option of who listens, and it lets an heir listen while
    they linger.
    """
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
