"""The least that a daemon in Python could take: the kernel's work for a call, and no thought.

It speaks with our plugin as the daemon does, and makes the same devices, sysctls, addresses, routes
and commits of the same size. It plans, checks and locks nothing, packs what can be packed ahead,
takes back nothing, and does all removals that wait by one request. What a call takes with it, no
daemon in Python can undercut; what ours takes more is the price of its thought.

Run as a program: FOLDER BRIDGE GATEWAY.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import socket
import sqlite3
import struct
import sys
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Interface, ip_network
from pathlib import Path
from typing import Any, NamedTuple

from netlib.kernel import rtnl
from netlib.kernel import rtnl_entries as entries
from netlib.kernel.kinds.common import HAIRPIN
from netlib.kernel.netlink import ACK, Request, attribute, text, u8, u32

_CLONE_NEWNET = 0x40000000
_HEADER = struct.Struct("=IHHII")
_RECORD = "x" * 900  # an endpoint's and a sandbox's are about so long
_GROUP = 77
_SYSCTLS = (("ipv4/conf/eth0/rp_filter", b"2"), ("ipv6/conf/eth0/disable_ipv6", b"1"))
_ONE_QUEUE = u32(rtnl.TX_QUEUES, 1) + u32(rtnl.RX_QUEUES, 1)
_TABLES = (
    "CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT, revision INT) WITHOUT ROWID",
    "CREATE TABLE events (revision INT, key TEXT, value TEXT, PRIMARY KEY (revision, key))"
    " WITHOUT ROWID",
)


class Call(NamedTuple):
    """A plugin that waits for its answer."""

    sock: socket.socket
    environment: dict[str, str]
    netns: int


class LeastDaemon:
    """One thread, one bridge, IPv4."""

    def __init__(self, folder: Path, bridge: str, gateway: IPv4Interface) -> None:
        self._bridge = socket.if_nametoindex(bridge)
        self._gateway = gateway
        self._setns = ctypes.CDLL(None, use_errno=True).setns
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._links = _netlink()
        self._packets: list[socket.socket] = []  # their end would be waited for
        self._made: dict[str, str] = {}
        self._count = 0
        self._revision = 0
        self._store = sqlite3.connect(folder / "least.db", isolation_level=None)
        for sql in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", *_TABLES):
            self._store.execute(sql)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / "netlib.sock"))
        self._listener.listen(512)

    def serve(self) -> None:
        """Take all who wait, and answer them."""
        gc.freeze()
        while True:
            self._listener.settimeout(None)
            calls = [self._read(self._listener.accept()[0])]
            self._listener.setblocking(False)
            while True:
                try:
                    calls.append(self._read(self._listener.accept()[0]))
                except BlockingIOError:
                    break
            going = [call for call in calls if call.environment["CNI_COMMAND"] == "DEL"]
            if going:
                self._delete(going)
            for call in calls:
                if call.environment["CNI_COMMAND"] == "ADD":
                    self._add(call)

    @staticmethod
    def _read(sock: socket.socket) -> Call:
        sock.setblocking(True)
        data, descriptors, _, _ = socket.recv_fds(sock, 65536, 4)
        head, _, body = data.partition(b"\n")
        json.loads(body)
        return Call(sock, json.loads(head)["environment"], descriptors[0])

    def _add(self, call: Call) -> None:
        self._count += 1
        name = f"least{self._count}"
        self._made[call.environment["CNI_CONTAINERID"]] = name
        address = IPv4Interface(
            f"{self._gateway.ip + self._count}/{self._gateway.network.prefixlen}"
        )
        kinds = ("member", "interface", "lease", "cursor", "namespace")
        self._commit([
            (f"endpoint/{name}", _RECORD), (f"sandbox/{name}", _RECORD),
            *((f"{kind}/{name}", name) for kind in kinds),
        ])  # fmt: skip
        self._setns(call.netns, _CLONE_NEWNET)
        self._packets.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        inside = _netlink()
        self._setns(self._home, _CLONE_NEWNET)
        peer = rtnl.link_body(
            text(rtnl.NAME, "eth0"), _ONE_QUEUE, u32(rtnl.MTU, 1500), u32(rtnl.NETNS_FD, call.netns)
        )
        _send(self._links, [
            rtnl.new_link(
                text(rtnl.NAME, name), _ONE_QUEUE, u32(rtnl.MTU, 1500),
                u32(rtnl.MASTER, self._bridge), rtnl.info("veth", attribute(1, peer)),
            ),
            rtnl.set_link(text(rtnl.NAME, name), text(rtnl.ALIAS, 9 * name),
                          rtnl.port(u8(HAIRPIN, 1)), rtnl.no_generated_address()),
            rtnl.set_link(text(rtnl.NAME, name), up=True),
        ])  # fmt: skip
        self._setns(call.netns, _CLONE_NEWNET)
        for path, value in (
            ("ipv4/conf/eth0/rp_filter", b"2"),
            ("ipv6/conf/eth0/disable_ipv6", b"1"),
        ):
            sysctl = os.open(f"/proc/sys/net/{path}", os.O_WRONLY)
            os.write(sysctl, value)
            os.close(sysctl)
        index = socket.if_nametoindex("eth0")
        self._setns(self._home, _CLONE_NEWNET)
        _send(inside, [
            rtnl.set_link(index=1, up=True),
            rtnl.set_link(index=index, up=True),
            entries.new_address(index, address),
            entries.new_route(ip_network("0.0.0.0/0"), index, self._gateway.ip),
        ])  # fmt: skip
        self._commit([(f"endpoint/{name}", _RECORD), (f"sandbox/{name}", _RECORD)])
        inside.close()
        interfaces = [{"name": name}, {"name": "eth0", "sandbox": call.environment["CNI_NETNS"]}]
        result = {"cniVersion": "1.0.0", "interfaces": interfaces,
                  "ips": [{"address": str(address), "interface": 1}]}  # fmt: skip
        self._answer(call, json.dumps(result).encode())

    def _delete(self, calls: Sequence[Call]) -> None:
        names = [self._made.pop(call.environment["CNI_CONTAINERID"]) for call in calls]
        self._commit([(f"endpoint/{name}", _RECORD) for name in names])
        if len(names) == 1:
            _send(self._links, [rtnl.delete_link(socket.if_nametoindex(names[0]))])
        else:
            group = u32(rtnl.GROUP, _GROUP)
            _send(self._links, [rtnl.set_link(text(rtnl.NAME, name), group) for name in names])
            _send(self._links, [rtnl.delete_group(_GROUP)])
        self._commit([(f"gone/{name}", "") for name in names])
        for call in calls:
            self._answer(call, b"")

    def _commit(self, puts: Iterable[tuple[str, str]]) -> None:
        self._revision += 1
        rows = [(key, value, self._revision) for key, value in puts]
        self._store.execute("BEGIN IMMEDIATE")
        self._store.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
        self._store.executemany("INSERT INTO events VALUES (?3, ?1, ?2)", rows)
        self._store.execute("COMMIT")

    @staticmethod
    def _answer(call: Call, body: bytes) -> None:
        head: dict[str, Any] = {"version": 1, "status": 0}
        if body:
            head["body"] = len(body)
        call.sock.sendmsg([json.dumps(head).encode() + b"\n" + body])
        call.sock.close()
        os.close(call.netns)


def _netlink() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    sock.bind((0, 0))
    return sock


def _send(sock: socket.socket, requests: Sequence[Request]) -> None:
    """All in one message, of which only the last is acknowledged. OSError where one is refused."""
    last = len(requests) - 1
    sock.send(b"".join(
        _HEADER.pack(_HEADER.size + len(body), kind, 1 | flags | (ACK if i == last else 0), i, 0)
        + body
        for i, (kind, flags, body) in enumerate(requests)
    ))  # fmt: skip
    (error,) = struct.unpack_from("=i", sock.recv(65536), _HEADER.size)
    if error:
        raise OSError(-error, os.strerror(-error))


if __name__ == "__main__":
    LeastDaemon(Path(sys.argv[1]), sys.argv[2], IPv4Interface(sys.argv[3])).serve()
