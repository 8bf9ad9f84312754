"""Addresses: which a subnet may give, which comes next, what a person's options mean.

Pure, and never slower for a larger prefix: a /64 costs what a /24 costs. Who holds an
address is the store's to say; `Leases` is all that is asked of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Protocol

from netlib.errors import Exhausted, InvalidAddress
from netlib.model import AddressRange, IPAddress, IPNetwork, Subnet

_PAGE = 16

# What no endpoint can have: RFC 1122 section 3.2.1.3, RFC 3927, RFC 5771; RFC 4291 sections
# 2.5.2 (unspecified), 2.5.3 (loopback), 2.5.5.2 (IPv4-mapped), 2.5.6 and 2.7.
_SPECIAL: tuple[tuple[str, IPNetwork], ...] = (
    ("'this network'", IPv4Network("0.0.0.0/8")),
    ("loopback", IPv4Network("127.0.0.0/8")),
    ("link-local", IPv4Network("169.254.0.0/16")),
    ("multicast", IPv4Network("224.0.0.0/4")),
    ("broadcast", IPv4Network("255.255.255.255/32")),
    ("unspecified", IPv6Network("::/128")),
    ("loopback", IPv6Network("::1/128")),
    ("IPv4-mapped", IPv6Network("::ffff:0:0/96")),
    ("link-local", IPv6Network("fe80::/10")),
    ("multicast", IPv6Network("ff00::/8")),
)


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


# -- what a person's options mean ---------------------------------------------------------------


def parse_prefix(text: str) -> IPNetwork:
    """A prefix that endpoints can get addresses from. Raises InvalidAddress."""
    try:
        prefix = ip_network(text)
    except ValueError as error:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise InvalidAddress(
                f"{text!r} is no prefix", "write it like 192.0.2.0/24 or 2001:db8::/64"
            ) from error
        raise InvalidAddress(
            f"{text} has bits set after its prefix length", f"did you mean {meant}?"
        ) from error
    for what, special in _SPECIAL:
        if prefix.version == special.version and prefix.overlaps(special):
            raise InvalidAddress(
                f"{prefix} overlaps the {what} addresses {special}",
                "choose a private prefix, as in RFC 1918 or RFC 4193",
            )
    return prefix


def parse_address(text: str) -> IPAddress:
    """An address without a zone. Raises InvalidAddress."""
    try:
        if "%" in text:
            raise ValueError("a zone")
        return ip_address(text)
    except ValueError as error:
        raise InvalidAddress(
            f"{text!r} is no address", "write it like 192.0.2.1 or 2001:db8::1"
        ) from error


def parse_range(text: str, prefix: IPNetwork) -> AddressRange:
    """`192.0.2.64/26` or `192.0.2.10-192.0.2.20`, within `prefix`. Raises InvalidAddress."""
    found = _range(text)
    if found.first not in prefix or found.last not in prefix:
        raise InvalidAddress(f"{text} is not within {prefix}", "choose a part of the subnet")
    return found


def _range(text: str) -> AddressRange:
    first, dash, last = text.partition("-")
    if not dash:
        part = parse_prefix(text)
        return AddressRange(first=part[0], last=part[-1])
    found = AddressRange(first=parse_address(first.strip()), last=parse_address(last.strip()))
    if found.first.version != found.last.version:
        raise InvalidAddress(f"{text} mixes IPv4 and IPv6", "give a range for each family")
    if int(found.first) > int(found.last):
        raise InvalidAddress(f"{text} ends before it begins", f"did you mean {last}-{first}?")
    return found


def plain_subnet(prefix: IPNetwork, *, gateway: bool = True) -> Subnet:
    """A subnet of a prefix that was chosen, with the default gateway or none."""
    return _with_gateway(Subnet(prefix=prefix)) if gateway else Subnet(prefix=prefix)


def parse_subnet_options(
    subnets: Iterable[str],
    gateways: Iterable[str] = (),
    ip_ranges: Iterable[str] = (),
    aux: Iterable[str] = (),
    *,
    gateway: bool = True,
) -> tuple[Subnet, ...]:
    """The subnets that `--subnet`, `--gateway`, `--ip-range` and `--aux-address` mean together.

    Each option belongs to the subnet that holds it, in whatever order they come. A subnet
    without one gets its first free address as its gateway, unless `gateway` is False.
    Raises InvalidAddress.
    """
    prefixes = [parse_prefix(text) for text in subnets]
    for number, prefix in enumerate(prefixes):
        for other in prefixes[:number]:
            if prefix.version == other.version and prefix.overlaps(other):
                raise InvalidAddress(
                    f"the subnets {other} and {prefix} overlap", "give each address only once"
                )
    chosen: dict[IPNetwork, IPAddress] = {}
    for text in gateways:
        address = parse_address(text)
        prefix = _holding(prefixes, address, f"gateway {text}")
        if chosen.setdefault(prefix, address) != address:
            raise InvalidAddress(
                f"{prefix} has two gateways, {chosen[prefix]} and {address}", "give one of them"
            )
    ranges: dict[IPNetwork, list[AddressRange]] = {}
    for text in ip_ranges:
        found = _range(text)
        prefix = _holding(prefixes, found.first, f"range {text}")
        ranges.setdefault(prefix, []).append(parse_range(text, prefix))
    reserved: dict[IPNetwork, dict[str, IPAddress]] = {}
    for text in aux:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise InvalidAddress(f"{text!r} is no NAME=IP", "write it like router=192.0.2.5")
        address = parse_address(value)
        names = reserved.setdefault(_holding(prefixes, address, f"reserved address {text}"), {})
        if names.setdefault(name, address) != address:
            raise InvalidAddress(
                f"{name!r} reserves {names[name]} and {address}", "give each its own name"
            )
    return tuple(
        _checked(
            Subnet(
                prefix=prefix,
                gateway=chosen.get(prefix),
                ranges=tuple(ranges.get(prefix, ())),
                reserved=reserved.get(prefix, {}),
            ),
            gateway,
        )
        for prefix in prefixes
    )


def _holding(prefixes: list[IPNetwork], address: IPAddress, what: str) -> IPNetwork:
    for prefix in prefixes:
        if address in prefix:
            return prefix
    known = ", ".join(map(str, prefixes))
    raise InvalidAddress(
        f"the {what} is in no subnet of this network" + (f" ({known})" if known else ""),
        "give the --subnet that it belongs to",
    )


def _checked(subnet: Subnet, gateway: bool) -> Subnet:
    """The subnet with its gateway, when all that it names can be."""
    bare = Subnet(prefix=subnet.prefix)
    for address in subnet.reserved.values():
        if address == subnet.gateway:
            raise InvalidAddress(
                f"{address} is the gateway of {subnet.prefix}, and reserved", "drop one of the two"
            )
    if subnet.gateway is not None:
        check_static(bare, subnet.gateway)
    elif gateway:
        subnet = _with_gateway(subnet)
    if subnet.ranges and not usable(subnet):
        raise InvalidAddress(
            f"the ranges of {subnet.prefix} leave no address for endpoints",
            "widen --ip-range",
        )
    return subnet


def _with_gateway(subnet: Subnet) -> Subnet:
    """The first address of the prefix that is not reserved is the gateway's."""
    free = usable(Subnet(prefix=subnet.prefix, reserved=subnet.reserved))
    if not free or sum(map(_size, free)) < 2:
        raise InvalidAddress(
            f"{subnet.prefix} has no room for a gateway and an endpoint",
            "choose a shorter prefix length",
        )
    return Subnet(
        prefix=subnet.prefix,
        gateway=free[0].first,
        ranges=subnet.ranges,
        reserved=subnet.reserved,
    )
