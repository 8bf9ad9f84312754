"""Queries and zones for the tests of names."""

from __future__ import annotations

from dnslib import QTYPE, DNSRecord

from netlib.dns import wire
from netlib.dns.facts import EndpointNames, NetworkNames


def query(
    name: str, type_: str = "A", *, ident: int = 0x1234, edns: int = 0, flags: int = wire.RD
) -> bytes:
    """A packed query, made by hand: `edns` is the size that the client takes."""
    head = ident.to_bytes(2) + flags.to_bytes(2) + b"\0\1\0\0\0\0" + bool(edns).to_bytes(2)
    labels = [label.encode() for label in name.removesuffix(".").split(".") if label]
    packed = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    number = int(type_) if type_.isdigit() else getattr(QTYPE, type_)
    opt = wire.opt_record(edns) if edns else b""
    return head + packed + number.to_bytes(2) + wire.IN.to_bytes(2) + opt


def values(message: bytes | None) -> list[str]:
    """The answers' data as text, in order."""
    assert message is not None
    return [str(rr.rdata) for rr in DNSRecord.parse(message).rr]


def rcode(message: bytes | None) -> str:
    """The response code's name."""
    assert message is not None
    return wire.rcode_text(message[3] & 0xF)


MY_NET = NetworkNames(
    id="n1", name="my-net", subnets=("192.0.2.0/24", "2001:db8::/64"), servers=("198.51.100.53",)
)
BACK = NetworkNames(id="n2", name="back", subnets=("198.51.100.0/24",), internal=True)


def endpoint(
    name: str, *addresses: str, network: NetworkNames = MY_NET, **more: object
) -> EndpointNames:
    """An endpoint of a sandbox."""
    return EndpointNames(
        id=f"{network.id}-{name}", network=network.id, sandbox=name, addresses=addresses, **more
    )  # type: ignore[arg-type]
