"""What one operation has open of the network namespaces that it works in."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, TypeVar

from netlib.kernel import netlink
from netlib.kernel.netns import Namespaces, is_host
from netlib.kernel.procfs import Sysctls
from netlib.model import Netns

T = TypeVar("T")


class Session:
    """The sockets and descriptors of one operation, each namespace opened once at most.

    It may be used again after its end, and then opens them anew. In those of `announcing` a
    socket for packets is opened with the first other one: to enter takes longer than to open.
    """

    def __init__(self, namespaces: Namespaces, announcing: Collection[Netns] = ()) -> None:
        self._namespaces = namespaces
        self._announcing = {netns.path for netns in announcing}
        self._open = ExitStack()
        self._fds: dict[str, int] = {}
        self._sockets: dict[str, netlink.Socket] = {}
        self._packets: dict[str, socket.socket] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._fds.clear()
        self._sockets.clear()
        # Closing them waits for RCU, 10 to 20 ms (packet_release in net/packet/af_packet.c), and
        # nobody needs to wait with it.
        for packets in self._packets.values():
            self._namespaces.close_later(packets)
        self._packets.clear()
        self._open.__exit__(*exception)

    def fd(self, netns: Netns) -> int:
        """A descriptor of a network namespace, good until the session ends."""
        if is_host(netns):
            return self._namespaces.host_fd
        fd = self._fds.get(netns.path)
        if fd is None:
            fd = self._namespaces.open(netns)
            self._open.callback(os.close, fd)
            self._fds[netns.path] = fd
        return fd

    def rtnl(self, netns: Netns) -> netlink.Socket:
        """An rtnetlink socket in a network namespace, good until the session ends."""
        found = self._sockets.get(netns.path)
        if found is None:
            if is_host(netns):
                found = self._open.enter_context(self._namespaces.host_socket())
            else:
                found = self._namespaces.run(self.fd(netns), partial(self._rtnl_in, netns))
                self._open.callback(found.close)
            self._sockets[netns.path] = found
        return found

    def packets(self, netns: Netns) -> socket.socket:
        """A packet socket in a network namespace, likewise, that receives nothing."""
        found = self._packets.get(netns.path)
        if found is None:
            found = self._packets[netns.path] = self._namespaces.run(self.fd(netns), _packet_socket)
        return found

    def _rtnl_in(self, netns: Netns) -> netlink.Socket:
        if netns.path in self._announcing and netns.path not in self._packets:
            with suppress(OSError):  # whoever needs it tries again, and is told
                self._packets[netns.path] = _packet_socket()
        return netlink.Socket()

    @property
    def sysctls(self) -> Sysctls:
        """What opens sysctls for work that is run in a namespace."""
        return self._namespaces.sysctls

    def run_in(self, netns: Netns, work: Callable[[], T]) -> T:
        """Do `work` in a network namespace."""
        return self._namespaces.run(self.fd(netns), work)


def _packet_socket() -> socket.socket:
    # Protocol 0: the socket only sends, no frame is queued to it (packet(7)).
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
