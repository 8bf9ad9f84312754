"""A small server that says who it is and who asks: `python3 -m netlib.labs.answer PORT…`.

It answers a web page's request with one line of text, every other line with the same line and
what it heard, and a UDP datagram likewise; over IPv4 and IPv6. So `curl` shows which
address a client has by the time its packets arrive.
"""

from __future__ import annotations

import os
import socket
import socketserver
import sys
import threading
from typing import Any


def greeting(client: tuple[Any, ...]) -> str:
    """Who we are, and who asks."""
    address = str(client[0]).removeprefix("::ffff:").partition("%")[0]
    return f"I am {os.environ.get('LAB_NAME') or socket.gethostname()}, you are {address}"


class _Stream(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        said = greeting(self.client_address)
        for line in self.rfile:
            if line.startswith((b"GET ", b"HEAD ")):
                self._page(said)
                return
            self.wfile.write(f"{said}, and you said: {line.decode(errors='replace')}".encode())

    def _page(self, said: str) -> None:
        for line in self.rfile:  # what a browser says of itself; unread, it would end in a reset
            if not line.strip():
                break
        page = f"{said}\n".encode()
        head = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(page)}\r\n\r\n"
        self.wfile.write(head.encode() + page)


class _Datagram(socketserver.DatagramRequestHandler):
    def handle(self) -> None:
        heard = self.rfile.read().decode(errors="replace").rstrip("\n")
        self.wfile.write(f"{greeting(self.client_address)}, and you said: {heard}\n".encode())


class _Streams(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6  # takes IPv4 as well: ipv6(7), IPV6_V6ONLY
    allow_reuse_address = True
    daemon_threads = True


class _Datagrams(socketserver.ThreadingUDPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True


def main(ports: list[int]) -> None:
    """Serve until killed."""
    servers = [
        server
        for port in ports
        for server in (_Streams(("::", port), _Stream), _Datagrams(("::", port), _Datagram))
    ]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]])
