"""Custom records of a network (`--dns-record`), in the master file's form (RFC 1035 section 5).

`db A 192.0.2.9`, `_http._tcp.web 5 SRV 0 0 80 web`, `*.apps CNAME web`. Names are absolute;
an owner of one label is known on its network like a sandbox: as `db` and as `db.my-net`.
"""

from __future__ import annotations

from collections.abc import Iterable

from dnslib import RR, DNSBuffer

from netlib.dns import wire
from netlib.dns.zone import TTL_SECONDS, Sets
from netlib.errors import InvalidOption


def check_records(texts: Iterable[str]) -> None:
    """Raise InvalidOption unless each is one record of class IN, and together they make sense."""
    types: dict[str, list[int]] = {}
    for text in texts:
        owner, type_, _ = _parsed(text)
        types.setdefault(owner.lower(), []).append(type_)
    for owner, found in types.items():
        if wire.CNAME in found and len(found) > 1:  # RFC 1034 section 3.6.2
            raise InvalidOption(
                f"{owner} is an alias (CNAME) and has other records",
                "an alias has what its target has, and nothing of its own: leave the others out",
            )


def custom_sets(records: Iterable[str], network: str) -> dict[bytes, Sets]:
    """The RRsets of these records by name in wire form; what can't be read is left out."""
    found: dict[bytes, dict[bytes, tuple[bytes, ...]]] = {}
    for text in records:
        try:
            owner, type_, record = _parsed(text)
        except InvalidOption:  # refused when the network is made; here of an older version
            continue
        names = [owner] if "." in owner else [owner, f"{owner}.{network}"]
        wanted = type_.to_bytes(2) + wire.IN.to_bytes(2)
        for name in map(wire.packed_name, names):
            sets = found.setdefault(name, {})
            sets[wanted] = (*sets.get(wanted, ()), record)
    return dict(found)


def _parsed(text: str) -> tuple[str, int, bytes]:
    """Owner without trailing dot, type, and the packed record."""
    try:
        (rr,) = RR.fromZone(text, origin="", ttl=TTL_SECONDS)
        owner = str(rr.rname).removesuffix(".")
        wire.packed_name(owner)
        data = _Plain()
        rr.rdata.pack(data)
    except Exception as error:  # dnslib's parser lets through whatever its parts raise
        raise InvalidOption(
            f"{text!r} is no DNS record",
            "write it as in a zone file: NAME [TTL] TYPE DATA, such as 'db A 192.0.2.9'",
        ) from error
    if rr.rclass != wire.IN:
        raise InvalidOption(f"{text!r} is of another class than IN", "leave the class out")
    return owner, int(rr.rtype), wire.resource(rr.rtype, rr.ttl, bytes(data.data))


class _Plain(DNSBuffer):  # type: ignore[misc]  # dnslib has no types
    """Names uncompressed, so that the data is right in any message."""

    def encode_name(self, name: object) -> None:
        self.encode_name_nocompress(name)
