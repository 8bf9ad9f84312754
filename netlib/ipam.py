"""Addresses: which a subnet may give, and which comes next.

Pure, and never slower for a larger prefix: a /64 costs what a /24 costs. Who holds an
address is the store's to say; `Leases` is all that is asked of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol

from netlib.errors import Exhausted, InvalidAddress
from netlib.memo import of_same
from netlib.model import AddressRange, IPAddress, IPNetwork, Subnet

_PAGE = 16


class Leases(Protocol):
    """The addresses of one network that are taken: range reads of the store, in order."""

    def count(self, first: IPAddress, last: IPAddress) -> int:
        """How many are taken from `first` to `last`, both included."""

    def page(self, first: IPAddress, last: IPAddress, limit: int) -> Sequence[IPAddress]:
        """The lowest `limit` of those, in order."""


# -- keys ---------------------------------------------------------------------------------------


def lease_key(address: IPAddress) -> str:
    """The address as text whose order is the addresses' own: family, `/`, fixed-width hex.

    >>> lease_key(IPv4Address("192.0.2.10"))
    '4/c000020a'
    """
    return f"{address.version}/{int(address):0{address.max_prefixlen // 4}x}"


def lease_address(key: str) -> IPAddress:
    """The address of a `lease_key`."""
    family, _, digits = key.partition("/")
    return (IPv4Address if family == "4" else IPv6Address)(int(digits, 16))


# -- what a subnet may give ---------------------------------------------------------------------


def hosts(prefix: IPNetwork) -> AddressRange:
    """The addresses of a prefix that a host may have.

    Not IPv4's network and broadcast address (RFC 1122 section 3.2.1.3), nor IPv6's
    subnet-router anycast address (RFC 4291 section 2.6.1). A point-to-point link has both of
    its two (RFC 3021, RFC 6164), a host's own prefix its one.
    """
    first, last = prefix[0], prefix[-1]
    if prefix.num_addresses > 2:
        first += 1
        last -= prefix.version == 4
    return AddressRange(first=first, last=last)


@of_same
def usable(subnet: Subnet) -> tuple[AddressRange, ...]:
    """What endpoints may be given, in order: hosts within `ranges`, but gateway and reserved."""
    whole = hosts(subnet.prefix)
    limits = sorted(
        (max(limit.first, whole.first), min(limit.last, whole.last))
        for limit in subnet.ranges or (whole,)
    )
    excluded = sorted(_excluded(subnet))
    result: list[AddressRange] = []
    start = int(whole.first)
    make = type(whole.first)
    for first, last in limits:
        start = max(start, int(first))  # ranges may overlap
        for address in excluded:
            if start <= int(address) <= int(last):
                if start < int(address):
                    result.append(AddressRange(first=make(start), last=address - 1))
                start = int(address) + 1
        if start <= int(last):
            result.append(AddressRange(first=make(start), last=last))
            start = int(last) + 1
    return tuple(result)


def capacity(subnet: Subnet) -> int:
    """How many endpoints the subnet can give an address to."""
    return sum(_size(part) for part in usable(subnet))


def choose(subnet: Subnet, leases: Leases, cursor: IPAddress | None = None) -> IPAddress:
    """The next free address after `cursor`, the one given last, beginning again at the end.

    So an address is used again as late as can be, when neighbours' tables have forgotten its
    last holder. Raises Exhausted.
    """
    for part in _from_cursor(usable(subnet), cursor):
        address = _first_gap(part, leases)
        if address is not None:
            return address
    raise _exhausted(subnet, leases)


def beginning(subnet: Subnet, seed: str) -> IPAddress:
    """Where who shares a subnet with others begins to look, instead of a cursor.

    Another place for each seed, so that hosts that choose at the same moment seldom choose the
    same; within the first 65536, so that what is given can be read.
    """
    from hashlib import sha256

    parts = usable(subnet)
    total = min(sum(_size(part) for part in parts), 1 << 16)
    if not total:
        return subnet.prefix.network_address
    place = int.from_bytes(sha256(seed.encode()).digest()[:8]) % total
    for part in parts:
        if place < _size(part):
            return part.first + place
        place -= _size(part)
    raise AssertionError("not reached")


def check_static(subnet: Subnet, address: IPAddress) -> IPAddress:
    """`address`, if an endpoint may ask for it; also outside `ranges`. Raises InvalidAddress."""
    if address not in subnet.prefix:
        raise InvalidAddress(
            f"{address} is not in {subnet.prefix}", f"choose one of {hosts(subnet.prefix)}"
        )
    if address not in hosts(subnet.prefix):
        what = "network" if address == subnet.prefix[0] else "broadcast"
        if address.version == 6:
            what = "subnet-router anycast"
        raise InvalidAddress(
            f"{address} is the {what} address of {subnet.prefix}",
            f"choose one of {hosts(subnet.prefix)}",
        )
    if address == subnet.gateway:
        raise InvalidAddress(f"{address} is the gateway of {subnet.prefix}", "choose another one")
    for name, reserved in subnet.reserved.items():
        if address == reserved:
            raise InvalidAddress(
                f"{address} is reserved in {subnet.prefix} for {name!r}", "choose another one"
            )
    return address


def _excluded(subnet: Subnet) -> set[IPAddress]:
    gateway = () if subnet.gateway is None else (subnet.gateway,)
    return {*gateway, *subnet.reserved.values()}


def _size(part: AddressRange) -> int:
    return int(part.last) - int(part.first) + 1


def _from_cursor(
    parts: tuple[AddressRange, ...], cursor: IPAddress | None
) -> Iterator[AddressRange]:
    """The parts in order, from the address after the cursor round to the cursor itself."""
    if cursor is None:
        yield from parts
        return
    before: list[AddressRange] = []
    for part in parts:
        if part.last <= cursor:  # type: ignore[operator]  # one family
            before.append(part)
        elif cursor < part.first:  # type: ignore[operator]
            yield part
        else:
            before.append(AddressRange(first=part.first, last=cursor))
            yield AddressRange(first=cursor + 1, last=part.last)
    yield from before


def _first_gap(part: AddressRange, leases: Leases) -> IPAddress | None:
    """The lowest address of a part that is free.

    Usually the first one is. After a page without a gap, counting finds it: what is full has
    as many leases as addresses. Doubling before halving keeps the counted stretch near the
    run of taken addresses, however large the part.
    """
    taken = leases.page(part.first, part.last, _PAGE)
    for offset, address in enumerate(taken):
        if address != part.first + offset:
            return part.first + offset
    if len(taken) == _size(part):
        return None
    if len(taken) < _PAGE:
        return part.first + len(taken)

    def is_full(size: int) -> bool:
        return leases.count(part.first, part.first + (size - 1)) == size

    full, size = _PAGE, _PAGE
    while True:
        size = min(2 * size, _size(part))
        if not is_full(size):
            break
        if size == _size(part):
            return None
        full = size
    while size - full > 1:  # the first `full` are taken, of the first `size` one is free
        middle = (full + size) // 2
        full, size = (middle, size) if is_full(middle) else (full, middle)
    return part.first + full


def _exhausted(subnet: Subnet, leases: Leases) -> Exhausted:
    parts = usable(subnet)
    within = f" ({', '.join(map(str, subnet.ranges))})" if subnet.ranges else ""
    held = [f"{sum(leases.count(p.first, p.last) for p in parts)} by endpoints"]
    if subnet.gateway is not None:
        held.append("1 by the gateway")
    if subnet.reserved:
        held.append(f"{len(set(subnet.reserved.values()))} reserved")
    return Exhausted(
        f"no address is free in {subnet.prefix}{within}: {', '.join(held)}",
        "net gc frees what vanished sandboxes held, net disconnect what others hold;"
        " or give the network one more --subnet",
    )
