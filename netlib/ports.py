"""Published ports: what a person's SPEC means, which ports clash, which one to choose.

`[[IP:][HOST[-HOST]]:]PORT[-PORT][/tcp|udp|sctp]`, IPv6 in brackets. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from math import gcd
from typing import NamedTuple, get_args

from netlib.errors import InvalidPort
from netlib.model import (
    Family,
    IPAddress,
    IPNetwork,
    Protocol,
    PublishedPort,
    bracketed,
    port_range,
)
from netlib.values import dataclass

_PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
_FORM = "write it like 8080:80, 127.0.0.1:8080:80/udp, [::1]:8080:80, 7000-7010:7000-7010 or 80"


@dataclass(frozen=True, slots=True, kw_only=True)
class PortRequest:
    """A published port as it was asked for.

    `host_port` 0: any free one of the host's. `choices` more than 1: any one from
    `host_port` on, so many to choose from. Else exactly it. `held`: who asks holds the port by a
    socket already, as container runtimes do, so that a listener is nobody else's use of it.
    """

    protocol: Protocol = "tcp"
    host_address: IPAddress | None = None
    host_port: int = 0
    choices: int = 1
    port: int
    count: int = 1
    sources: tuple[IPNetwork, ...] = ()
    held: bool = False

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return self.host_port != 0 and self.choices == 1

    def __str__(self) -> str:
        count = self.count + self.choices - 1
        host = port_range(self.host_port, count) if self.host_port else ""
        address = "" if self.host_address is None else f"{bracketed(self.host_address)}:"
        before = f"{address}{host}:" if address or host else ""
        return f"{before}{port_range(self.port, self.count)}/{self.protocol}"


class PortKey(NamedTuple):
    """A key that a published port holds in the store, and the ranges that must be absent.

    Each pair of `absent` is an Absent condition's `first` and `end`.
    """

    key: str
    absent: tuple[tuple[str, str], ...]


# -- what was typed -----------------------------------------------------------------------------


def parse(spec: str, sources: Iterable[str | IPNetwork] = ()) -> PortRequest:
    """The request that a SPEC means; `sources` are prefixes as in `--from`. Raises InvalidPort."""
    if spec.split() != [spec]:
        raise InvalidPort(f"the port {spec!r} is empty or has blanks in it", _FORM)
    ports, slash, name = spec.partition("/")
    protocol = next((p for p in _PROTOCOLS if p == name.lower()), None) if slash else "tcp"
    if protocol is None:
        raise InvalidPort(
            f"the port {spec!r} has an unknown protocol {name!r}",
            f"choose one of {', '.join(_PROTOCOLS)}",
        )
    address, host, inside = _parts(spec, ports)
    port, last = _ports(spec, inside)
    count = last - port + 1
    host_port, choices = 0, 1
    if host:
        host_port, last = _ports(spec, host)
        width = last - host_port + 1
        if width != count:
            if count > 1:
                raise InvalidPort(
                    f"the port {spec!r} has {width} host ports for {count} ports",
                    "give both ranges the same length",
                )
            choices = width
    return PortRequest(
        protocol=protocol,
        host_address=address,
        host_port=host_port,
        choices=choices,
        port=port,
        count=count,
        sources=_sources(spec, address, sources),
    )


def resolve(request: PortRequest, choose: Callable[[PortRequest], int]) -> PublishedPort:
    """The published port: as asked for, or on the host port that `choose` gives."""
    return PublishedPort(
        protocol=request.protocol,
        host_address=request.host_address,
        host_port=request.host_port if request.is_fixed else choose(request),
        port=request.port,
        count=request.count,
        sources=request.sources,
    )


def candidates(request: PortRequest, ephemeral: tuple[int, int], seed: int) -> Iterator[int]:
    """The host ports that could serve, each once: a given range in order, else all shuffled.

    `ephemeral`: the first and last port that programs get by themselves
    (ip-sysctl.rst, ip_local_port_range). `seed` tells the order: a random one keeps
    processes that choose at the same time apart.
    """
    if request.host_port:
        yield from range(request.host_port, request.host_port + request.choices)
        return
    first, last = ephemeral
    size = last - first + 2 - request.count
    if size < 1:
        return
    # Steps of a length that shares no factor with the size come by every port once.
    step = seed // size % size + 1
    while gcd(step, size) != 1:
        step += 1
    for number in range(size):
        yield first + (seed + number * step) % size


def _parts(spec: str, ports: str) -> tuple[IPAddress | None, str, str]:
    """Host address, host ports (empty: to be chosen) and the sandbox's ports."""
    if ports.startswith("["):
        address, bracket, rest = ports[1:].partition("]:")
        parts = rest.split(":")
        if not bracket or len(parts) > 2:
            raise InvalidPort(f"the port {spec!r} can not be read", _FORM)
        if len(parts) == 1:
            raise _two_colons(spec, f"[{address}]", rest)
        return _address(spec, address, 6), parts[0], parts[1]
    parts = ports.split(":")
    if len(parts) > 3:
        raise InvalidPort(
            f"the port {spec!r} has too many colons", "put an IPv6 address in brackets: [::1]:80:80"
        )
    if len(parts) == 3:
        return _address(spec, parts[0], 4), parts[1], parts[2]
    if len(parts) == 1:
        return None, "", parts[0]
    if "." in parts[0]:
        raise _two_colons(spec, *parts)
    return None, parts[0], parts[1]


def _two_colons(spec: str, address: str, port: str) -> InvalidPort:
    return InvalidPort(
        f"the port {spec!r} has an address where a host port belongs",
        f"to have a host port chosen, write {address}::{port}",
    )


def _address(spec: str, text: str, family: Family) -> IPAddress:
    try:
        address = ip_address(text)
    except ValueError as error:
        raise InvalidPort(f"{text!r} in the port {spec!r} is no address", _FORM) from error
    if address.version != family:
        raise InvalidPort(f"{text!r} in the port {spec!r} is not of IPv{family}", _FORM)
    if address.is_multicast or "%" in text:
        raise InvalidPort(
            f"{text!r} in the port {spec!r} can be no address of this host",
            "give an address without a zone, and no multicast one",
        )
    return address


def _ports(spec: str, text: str) -> tuple[int, int]:
    """The first and last port of `N` or `N-N`."""
    numbers = []
    for part in text.split("-"):
        digits = part.lstrip("0")[:6]  # of more, six are too many already
        if not (part.isascii() and digits.isdecimal()) or not 0 < int(digits) < 65536:
            raise InvalidPort(
                f"{part!r} in the port {spec!r} is no port from 1 to 65535",
                "leave the host port out to have one chosen"
                if part and not part.strip("0")
                else _FORM,
            )
        numbers.append(int(digits))
    if len(numbers) > 2 or numbers[0] > numbers[-1]:
        raise InvalidPort(f"{text!r} in the port {spec!r} is no range", "write it like 7000-7010")
    return numbers[0], numbers[-1]


def _sources(
    spec: str, address: IPAddress | None, sources: Iterable[str | IPNetwork]
) -> tuple[IPNetwork, ...]:
    found = []
    for source in sources:
        try:
            found.append(ip_network(source))
        except ValueError as error:
            raise InvalidPort(
                f"{source!r} is no prefix that may use the port {spec!r}",
                "write it like 192.0.2.0/24 or 2001:db8::/64, without further bits",
            ) from error
    if address is not None and found and all(s.version != address.version for s in found):
        raise InvalidPort(
            f"nobody could use the port {spec!r}: no --from is of IPv{address.version}",
            f"give a prefix of the same family as {address}",
        )
    return tuple(found)


# -- which ports clash --------------------------------------------------------------------------


def bindings(
    port: PublishedPort, families: Sequence[Family]
) -> tuple[tuple[Family, IPAddress | None], ...]:
    """Where the host listens: families, each with an address, or None for all of its.

    `families` are the endpoint's, which say what a host address of None stands for.
    0.0.0.0 is every IPv4 address and no IPv6 one, `::` the other way round.
    """
    address = port.host_address
    if address is None:
        return tuple((family, None) for family in families)
    return ((address.version, None if address.is_unspecified else address),)


def conflict(
    one: PublishedPort,
    other: PublishedPort,
    families: Sequence[Family] = (4, 6),
    other_families: Sequence[Family] = (4, 6),
) -> bool:
    """Whether both want a port of the host's that only one can have."""
    return (
        one.protocol == other.protocol
        and one.host_port < other.host_port + other.count
        and other.host_port < one.host_port + one.count
        and any(
            family == other_family
            and (address == other_address or None in (address, other_address))
            for family, address in bindings(one, families)
            for other_family, other_address in bindings(other, other_families)
        )
    )


def port_keys(port: PublishedPort, families: Sequence[Family]) -> list[PortKey]:
    """What a port holds in the store, so that two that conflict can not both be there.

    `port/<family>/<protocol>/<port>/<address in hex, or *>`: all addresses of a port stand
    together, so a wildcard asks for an empty range and an address for two absent keys.
    """
    keys = []
    for family, address in bindings(port, families):
        for number in range(port.host_port, port.host_port + port.count):
            folder = f"port/{family}/{port.protocol}/{number:05d}"
            if address is None:
                # '0' follows '/': the range is all that is in the folder.
                keys.append(PortKey(f"{folder}/*", ((f"{folder}/", f"{folder}0"),)))
            else:
                key = f"{folder}/{int(address):0{address.max_prefixlen // 4}x}"
                keys.append(PortKey(key, ((key, ""), (f"{folder}/*", ""))))
    return keys


# -- what people read ---------------------------------------------------------------------------


def describe(ports: Iterable[PublishedPort], families: Sequence[Family]) -> str:
    """The ports as Docker lists them: `0.0.0.0:8080->80/tcp, [::]:8080->80/tcp`."""
    return ", ".join(
        f"{_where(family, address)}:{port_range(port.host_port, port.count)}"
        f"->{port_range(port.port, port.count)}/{port.protocol}"
        for port in ports
        for family, address in bindings(port, families)
    )


def _where(family: Family, address: IPAddress | None) -> str:
    return bracketed(address or (IPv4Address(0) if family == 4 else IPv6Address(0)))
