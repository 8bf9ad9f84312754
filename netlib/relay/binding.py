"""How listening sockets are bound."""

from __future__ import annotations

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
