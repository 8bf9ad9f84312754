"""What the cluster's store says of endpoints and networks, and the texts it is kept as."""

from __future__ import annotations

import json
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton

from netlib.cluster.model import SharedEndpoint
from netlib.model import IPInterface, Network
from netlib.records import Memo, dump_network
from netlib.values import replace
from netlib.wiring import Wiring


def dump_shared(network: Network) -> str:
    """A network as all hosts see it: without what is one host's."""
    return dump_network(as_shared(network), Wiring())


def as_shared(network: Network) -> Network:
    """Likewise, as a value."""
    return replace(
        network,
        subnets=tuple(replace(subnet, own=None) for subnet in network.subnets),
        underlay=None,
        borrowed=(),
        dns_port=53,
        state="ready",
    )


def load_shared(value: str) -> SharedEndpoint:
    """An endpoint elsewhere, or a host in a network, from its text."""
    return _SHARED.of(value)


def dump_endpoint(value: SharedEndpoint) -> str:
    """The text of one, as `records.dump` has it: by hand, in a sixth of its time."""
    known = _SHARED.text_of(value)
    if known is not None:
        return known
    text = _encode(
        {
            "id": value.id,
            "network": value.network,
            "node": value.node,
            "host": str(value.host),
            "mac": value.mac,
            "addresses": list(map(_interface_text, value.addresses)),
            "sandbox": value.sandbox,
            "hostname": value.hostname,
            "aliases": list(value.aliases),
            "is_host": value.is_host,
        }
    )
    return _SHARED.keep(text, value)


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _interface(text: str) -> IPInterface:
    """As ip_interface() has it, but packed by the C library: in a fourth of the time."""
    address, _, length = text.partition("/")
    try:
        if ":" in address:
            return IPv6Interface((inet_pton(AF_INET6, address), int(length)))
        return IPv4Interface((inet_pton(AF_INET, address), int(length)))
    except OSError as error:
        raise ValueError(f"{text!r} is no address") from error


def _interface_text(value: IPInterface) -> str:
    """As str() has it: of IPv6, Python's takes ten times as long as the C library's."""
    if value.version == 4:
        return str(value)
    return f"{inet_ntop(AF_INET6, value.packed)}/{value.network.prefixlen}"


_host_address = lru_cache(maxsize=1024)(ip_address)


def _shared(text: str) -> SharedEndpoint:
    """By hand, in a third of the codec's time: a thousand may come at once."""
    document = json.loads(text)
    return SharedEndpoint(
        id=document["id"],
        network=document["network"],
        node=document["node"],
        host=_host_address(document["host"]),
        mac=document["mac"],
        addresses=tuple(map(_interface, document["addresses"])),
        sandbox=document.get("sandbox", ""),
        hostname=document.get("hostname", ""),
        aliases=tuple(document.get("aliases", ())),
        is_host=document.get("is_host", False),
    )


# What comes is read, copied, and when it goes read again; a thousand go with a host.
_SHARED = Memo(_shared, 4096)
