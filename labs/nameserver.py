"""A name server for the world outside a lab: it knows the names it is given, and no others.

`python3 -m netlib.labs.nameserver www.example.com=192.0.2.100 …`
"""

from __future__ import annotations

import socketserver
import sys

from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSRecord


class _Server(socketserver.UDPServer):
    names: dict[str, str]


class _Question(socketserver.DatagramRequestHandler):
    server: _Server

    def handle(self) -> None:
        query = DNSRecord.parse(self.rfile.read())
        reply = query.reply()
        address = self.server.names.get(str(query.q.qname).rstrip(".").lower())
        if address is None:
            reply.header.rcode = RCODE.NXDOMAIN
        elif QTYPE[query.q.qtype] == ("AAAA" if ":" in address else "A"):
            data = AAAA(address) if ":" in address else A(address)
            reply.add_answer(RR(query.q.qname, query.q.qtype, rdata=data, ttl=60))
        self.wfile.write(reply.pack())


def main(arguments: list[str]) -> None:
    """Serve until killed."""
    with _Server(("0.0.0.0", 53), _Question) as server:  # noqa: S104 - a machine of the lab's own
        server.names = dict(argument.split("=", 1) for argument in arguments)
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
