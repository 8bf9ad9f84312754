"""Subnets: what a person's options for them mean. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from netlib.errors import InvalidAddress
from netlib.ipam import capacity, check_static, usable
from netlib.model import AddressRange, Family, IPAddress, IPNetwork, Subnet
from netlib.values import dataclass, replace

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """Which gateway a subnet has that names none.

    `none`: families that need none. `optional`: one without room for a gateway has none.
    `near`: addresses that are gateways of the subnets they are in, such as those of the bridge
    that the network uses. `held`: addresses that can be none, unless one is asked for: the host's
    own on a LAN where it is no gateway. `others`: the subnets that the network has already.
    `lan`: the gateway is another machine, so a link-local one of IPv6 is one of all its subnets,
    as of routers that hosts know by what they advertise (RFC 4861 section 6.1.2).
    """

    none: frozenset[Family] = frozenset()
    optional: bool = False
    near: tuple[IPAddress, ...] = ()
    held: tuple[IPAddress, ...] = ()
    others: tuple[Subnet, ...] = ()
    lan: bool = False

    def router(self, prefix: IPNetwork) -> IPAddress | None:
        """Who of `near` leads out of a prefix, if one does."""
        near = [address for address in self.near if address.version == prefix.version]
        inside = (address for address in near if address in prefix)
        beside = (address for address in near if self.lan and is_beside(address))
        return next(inside, None) or next(beside, None)


def is_beside(address: IPAddress) -> bool:
    """Whether an address is reached on the link, whatever the prefixes there are."""
    return address.version == 6 and address.is_link_local


def plain_subnet(prefix: IPNetwork, ways: Ways | None = None) -> Subnet:
    """A subnet of a prefix that was chosen, with the default gateway or none."""
    ways = ways or Ways()
    return _with_gateway(Subnet(prefix=prefix), ways, ())


def parse_subnet_options(
    subnets: Iterable[str],
    gateways: Iterable[str] = (),
    ip_ranges: Iterable[str] = (),
    aux: Iterable[str] = (),
    ways: Ways | None = None,
) -> tuple[Subnet, ...]:
    """The subnets that `--subnet`, `--gateway`, `--ip-range` and `--aux-address` mean together.

    Each option belongs to the subnet that holds it, in whatever order they come. A gateway
    that is in none belongs to the /32 or /128 that has no room for one, and on a LAN a link-local
    one to every IPv6 subnet that names none. A subnet without a
    gateway gets its first free address, or what `ways` say. Raises InvalidAddress.
    """
    ways = ways or Ways()
    prefixes = [parse_prefix(text) for text in subnets]
    for number, prefix in enumerate(prefixes):
        for other in prefixes[:number]:
            if prefix.version == other.version and prefix.overlaps(other):
                raise InvalidAddress(
                    f"the subnets {other} and {prefix} overlap", "give each address only once"
                )
    chosen: dict[IPNetwork, IPAddress] = {}
    beside: dict[IPAddress, None] = {}
    for text in gateways:
        address = parse_address(text)
        if ways.lan and is_beside(address):
            beside[address] = None
            continue
        prefix = _led_to(prefixes, address, chosen) or _holding(
            prefixes, address, f"gateway {text}"
        )
        if chosen.setdefault(prefix, address) != address:
            raise InvalidAddress(
                f"{prefix} has two gateways, {chosen[prefix]} and {address}", "give one of them"
            )
    left = [prefix for prefix in prefixes if prefix.version == 6 and prefix not in chosen]
    if beside and (len(beside) > 1 or not left):
        raise InvalidAddress(
            f"the gateway {list(beside)[-1]} is of no subnet that has no other one",
            "give one link-local gateway at most, for the IPv6 subnets that have none",
        )
    ways = replace(ways, near=(*beside, *ways.near))
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
    found_subnets: list[Subnet] = []
    for prefix in sorted(prefixes, key=lambda p: p.num_addresses == 1):  # which may need others'
        subnet = Subnet(
            prefix=prefix,
            gateway=chosen.get(prefix),
            ranges=tuple(ranges.get(prefix, ())),
            reserved=reserved.get(prefix, {}),
        )
        found_subnets.append(_checked(subnet, ways, found_subnets))
    return tuple(sorted(found_subnets, key=lambda s: prefixes.index(s.prefix)))


def _led_to(
    prefixes: list[IPNetwork], gateway: IPAddress, chosen: Mapping[IPNetwork, IPAddress]
) -> IPNetwork | None:
    """The prefix of one address that a gateway beyond it leads to."""
    if any(gateway in prefix for prefix in prefixes if prefix.num_addresses > 1):
        return None
    alone = [p for p in prefixes if p.num_addresses == 1 and p.version == gateway.version]
    return next((p for p in alone if p not in chosen and gateway not in p), None)


def _holding(prefixes: list[IPNetwork], address: IPAddress, what: str) -> IPNetwork:
    for prefix in prefixes:
        if address in prefix:
            return prefix
    known = ", ".join(map(str, prefixes))
    raise InvalidAddress(
        f"the {what} is in no subnet of this network" + (f" ({known})" if known else ""),
        "give the --subnet that it belongs to",
    )


def _checked(subnet: Subnet, ways: Ways, before: Iterable[Subnet]) -> Subnet:
    """The subnet with its gateway, when all that it names can be."""
    bare = Subnet(prefix=subnet.prefix)
    for address in subnet.reserved.values():
        if address == subnet.gateway:
            raise InvalidAddress(
                f"{address} is the gateway of {subnet.prefix}, and reserved", "drop one of the two"
            )
    if subnet.gateway is None:
        subnet = _with_gateway(subnet, ways, before)
    elif subnet.prefix.num_addresses > 1:
        check_static(bare, subnet.gateway)
    elif subnet.gateway in subnet.prefix:
        raise _no_room(subnet)
    else:
        _check_near(subnet.gateway)
    if subnet.ranges and not usable(subnet):
        raise InvalidAddress(
            f"the ranges of {subnet.prefix} leave no address for endpoints",
            "widen --ip-range",
        )
    return subnet


def _check_near(gateway: IPAddress) -> None:
    """Raise InvalidAddress for what can be no gateway on the link."""
    for what, special in _SPECIAL:
        if what != "link-local" and gateway in special:
            raise InvalidAddress(f"{gateway} is a {what} address", "name another gateway")


def _with_gateway(subnet: Subnet, ways: Ways, before: Iterable[Subnet]) -> Subnet:
    """The first address of the prefix that is not reserved is the gateway's."""
    if subnet.family in ways.none:
        return subnet
    near = ways.router(subnet.prefix)
    if near is not None and near not in subnet.reserved.values():
        return replace(subnet, gateway=near)
    inside = (address for address in ways.held if address in subnet.prefix)
    held = {f"held-{number}": address for number, address in enumerate(inside)}
    everywhere = replace(subnet, ranges=(), reserved={**subnet.reserved, **held})
    if capacity(everywhere) > 1:
        return replace(subnet, gateway=usable(everywhere)[0].first)
    if subnet.prefix.num_addresses == 1:  # that of another subnet is on the same link
        lent = (s.gateway for s in (*ways.others, *before) if s.family == subnet.family)
        gateway = next((address for address in lent if address is not None), None)
        if gateway is not None or ways.optional:
            return replace(subnet, gateway=gateway)
    raise _no_room(subnet)


def _no_room(subnet: Subnet) -> InvalidAddress:
    beyond = ", or name a gateway beyond it: --gateway ADDRESS"
    return InvalidAddress(
        f"{subnet.prefix} has no room for a gateway and an endpoint",
        "choose a shorter prefix length" + (beyond if subnet.prefix.num_addresses == 1 else ""),
    )
