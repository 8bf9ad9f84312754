"""Where networks get their prefixes when none is asked for. Pure.

Pools are cut into small pieces: a /24 and a /64 are plenty for one network, and a small
prefix seldom stands in the way of a VPN that is dialled later.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network

from netlib.errors import Exhausted
from netlib.model import Family, IPNetwork
from netlib.values import dataclass

_LISTED = 6
# Anything wider is a default route in disguise: VPNs lay 0.0.0.0/1 and 128.0.0.0/1, or ::/3
# and fc00::/7, over the real one (openvpn(8), --redirect-gateway def1). A network's own route
# is longer, so it wins.
_WIDEST_BITS = 8


@dataclass(frozen=True, slots=True)
class Pool:
    """The prefixes of `length` bits in `base`, one for each network."""

    base: IPNetwork
    length: int

    def __str__(self) -> str:
        return f"{self.base} (in /{self.length}s)"


# RFC 1918 space that others seldom use, best first:
IPV4_POOLS = (
    # Docker takes /16s from 172.17 upwards, so it comes here late; not 172.31: cloud VPCs
    # have it by default, and their hosts often see no route to it but the default one.
    Pool(IPv4Network("172.28.0.0/15"), 24),
    Pool(IPv4Network("172.30.0.0/16"), 24),
    # Between Kubernetes' service addresses (10.96.0.0/12) and what cloud networks begin with
    # at 10.128; VPNs, home and company networks, Podman (10.88 and up) and other cluster
    # networks (10.42 to 10.52, 10.244) sit elsewhere too.
    Pool(IPv4Network("10.112.0.0/12"), 24),
    # Home routers live below 192.168.200.
    Pool(IPv4Network("192.168.208.0/20"), 24),
)


def default_pools(family: Family, host_id: str = "") -> tuple[Pool, ...]:
    """The pools of a family; IPv6's is a unique local prefix, `host_id`'s or a random one."""
    return IPV4_POOLS if family == 4 else (Pool(unique_local(host_id), 64),)


def unique_local(host_id: str = "") -> IPv6Network:
    """A /48 for a host: fd00::/8 and 40 bits that hardly anybody else has (RFC 4193 section 3).

    The same each time for one `host_id` (the text of /etc/machine-id, say); without one, random.
    """
    if host_id:
        from hashlib import sha256

        # machine-id(5) asks not to show the id itself, so it goes in with a name of ours.
        bits = sha256(f"netlib unique local {host_id}".encode()).digest()[:5]
    else:
        bits = os.urandom(5)
    return IPv6Network((b"\xfd" + bits + bytes(10), 48))


def free_prefix(
    family: Family, taken: Iterable[IPNetwork], pools: Sequence[Pool] = ()
) -> IPNetwork:
    """The first prefix of the pools that overlaps none of `taken`. Raises Exhausted.

    `taken` may be networks' prefixes and the host's routes; those like a default route don't
    count.

    Always the first one, so that the same steps give the same networks; unlike an address, a
    prefix is known to no neighbour any more when its network is gone.
    """
    pools = pools or default_pools(family)
    spans = sorted(_span(p) for p in taken if p.version == family and p.prefixlen >= _WIDEST_BITS)
    for pool in pools:
        found = _first_gap(pool, spans)
        if found is not None:
            return found
    raise _exhausted(family, spans, pools)


def overlapping(prefix: IPNetwork, others: Iterable[IPNetwork]) -> IPNetwork | None:
    """The first of `others` that shares an address with `prefix`; none like a default route."""
    first, last = _span(prefix)
    for other in others:
        if other.version == prefix.version and other.prefixlen >= _WIDEST_BITS:
            other_first, other_last = _span(other)
            if first <= other_last and other_first <= last:
                return other
    return None


def _span(prefix: IPNetwork) -> tuple[int, int]:
    first = int(prefix.network_address)
    return first, first | int(prefix.hostmask)


def _first_gap(pool: Pool, spans: list[tuple[int, int]]) -> IPNetwork | None:
    """One walk along the spans, which are in order; they may nest and lie outside the pool."""
    size = 1 << (pool.base.max_prefixlen - pool.length)
    start, end = _span(pool.base)
    for first, last in spans:
        if first >= start + size:
            break
        if last >= start:
            start = (last // size + 1) * size
    if start > end:
        return None
    return type(pool.base)((start, pool.length))


def _exhausted(family: Family, spans: list[tuple[int, int]], pools: Sequence[Pool]) -> Exhausted:
    make = IPv4Network if family == 4 else IPv6Network
    bits = 32 if family == 4 else 128
    edges = [_span(pool.base) for pool in pools]
    inside = [
        str(make((first, bits - (last - first).bit_length())))
        for first, last in dict.fromkeys(spans)
        if any(first <= pool_last and pool_first <= last for pool_first, pool_last in edges)
    ]
    more = f" and {len(inside) - _LISTED} more" if len(inside) > _LISTED else ""
    return Exhausted(
        f"no prefix is free in {', '.join(map(str, pools))}:"
        f" {', '.join(inside[:_LISTED]) or 'nothing'}{more} of networks and routes are in the way",
        "remove unused networks: net prune; or choose a prefix yourself: --subnet CIDR",
    )
