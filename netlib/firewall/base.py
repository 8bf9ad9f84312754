"""What both backends say in the same way: marks, device names, prefixes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from netlib.errors import InvalidName
from netlib.model import Family, IPNetwork, bracketed, port_range
from netlib.values import dataclass
from netlib.wiring import (
    Allow,
    DnsRedirect,
    Forward,
    Masquerade,
    Noun,
    Open,
    Publish,
    Segment,
    SourceGuard,
    Unmasked,
    VxlanMember,
    VxlanPort,
)

# `+` at the end is a wildcard to iptables, `*` to nft; quotes and brackets would need a
# quoting that both understand. Linux allows them all in a device's name, we do not.
_DEVICE = re.compile(r"[A-Za-z0-9_.@=-]{1,15}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Bits of the packet and connection mark that are ours. Others leave them alone.

    `allowed` is set on what we let through, so that one rule in a foreign chain can tell;
    `refused` (iptables only) goes from a published port's chain, where nothing may be
    dropped, to INPUT, where it may. 0x2000, 0x4000 and 0x8000 are taken by other tools.
    """

    allowed: int = 0x1000
    refused: int = 0x0800


def device(name: str) -> str:
    """`name`, or InvalidName where a rule that names it could mean other devices too."""
    if not _DEVICE.fullmatch(name) or name.startswith("-"):
        raise InvalidName(
            f"{name!r} can not stand in a firewall rule",
            "name the device with letters, digits, '_', '.', '@', '=' and '-', '-' not first",
        )
    return name


def prefix_text(prefix: IPNetwork) -> str:
    """A prefix as the kernel's tools list it: one address without its length."""
    return str(prefix.network_address) if prefix.prefixlen == prefix.max_prefixlen else str(prefix)


def sources_of(family: Family, sources: Iterable[IPNetwork]) -> list[IPNetwork]:
    """The sources of a family, none within another: the kernel refuses overlaps."""
    if family == 4:
        return list(collapse_addresses(s for s in sources if isinstance(s, IPv4Network)))
    return list(collapse_addresses(s for s in sources if isinstance(s, IPv6Network)))


def is_mutual(noun: Forward) -> bool:
    """Whether other networks that are not isolated get in: never where nothing may."""
    return not noun.isolated and noun.inbound != "drop" and noun.outbound != "drop"


def words(noun: Noun) -> str:
    """A firewall noun as a person would name it."""
    match noun:
        case Publish():
            host = "" if noun.host is None else f"{bracketed(noun.host)}:"
            return f"published port {host}{port_range(noun.port, noun.count)}/{noun.protocol}"
        case Open():
            ports = port_range(noun.port, noun.count)
            return f"open port {bracketed(noun.target)}:{ports}/{noun.protocol}"
        case Segment():
            return f"prefix {noun.prefix} of bridge {noun.bridge}"
        case Allow():
            ports = port_range(noun.port, noun.count)
            return f"link from {noun.source} to {bracketed(noun.target)}:{ports}/{noun.protocol}"
        case Unmasked():
            return f"prefix {noun.prefix} left unmasked behind bridge {noun.bridge}"
        case Masquerade():
            return f"IPv{noun.family} masquerade of bridge {noun.bridge}"
        case DnsRedirect():
            return f"DNS redirect of bridge {noun.bridge}"
        case VxlanPort():
            return f"VXLAN port {noun.port}"
        case VxlanMember():
            return f"VXLAN member {bracketed(noun.address)}:{noun.port}"
        case SourceGuard():
            return f"source guard of {noun.device}"
        case Forward():
            return f"forwarding of bridge {noun.bridge}"
        case _:
            return "the firewall's base"
