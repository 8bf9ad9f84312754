"""How many flows there may be, and how many of them one client may have."""

from __future__ import annotations

import resource
import socket

# A port of a range needs a descriptor each, and there are 65535 for each of a few addresses.
_WANTED_FILES = 1 << 20
_MOST_FLOWS = 16384


def raise_file_limit() -> int:
    """Let this process have as many open files as it may (getrlimit(2)); returns that number."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < _WANTED_FILES:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_WANTED_FILES, _WANTED_FILES))
        except (ValueError, OSError):
            pass  # not ours to raise: the hard limit has to do
        else:
            return _WANTED_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


class Quota:
    """Places for flows: a client gets at most a quarter, so that one can not shut out the rest.

    A client is an IPv4 address, or an IPv6 /64: that much one host may have on its own
    (RFC 4291 section 2.5.4, RFC 8064).
    """

    def __init__(self, open_files: int) -> None:
        # A connection takes two files. Half of all are left for listening sockets.
        self.total = min(_MOST_FLOWS, open_files // 4)
        self.share = max(1, self.total // 4)
        # A socket that only holds a port is done without where files are scarce.
        self.holding = open_files // 4
        self.used = 0
        self._by_client: dict[str, int] = {}

    @property
    def full(self) -> bool:
        """No place left for anybody."""
        return self.used >= self.total

    def take(self, client: str) -> bool:
        """A place for one of this client's flows, if it may have another."""
        has = self._by_client.get(client, 0)
        if has >= self.share or self.full:
            return False
        self._by_client[client] = has + 1
        self.used += 1
        return True

    def give_back(self, client: str) -> None:
        """The place is free again."""
        self.used -= 1
        left = self._by_client[client] - 1
        if left:
            self._by_client[client] = left
        else:
            del self._by_client[client]


def client_of(address: str) -> str:
    """Who counts as one client, by a numeric address."""
    if ":" not in address:
        return address
    return socket.inet_pton(socket.AF_INET6, address.partition("%")[0])[:8].hex()
