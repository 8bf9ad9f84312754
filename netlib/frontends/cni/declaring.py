"""A network that is declared in a configuration: its keys, as arguments of `Net.create`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network

from netlib.frontends.cni.reading import Reading
from netlib.frontends.cni.refusal import INVALID_CONFIG, UNSUPPORTED_FIELD, Refusal
from netlib.values import dataclass, field

# Keys that other plugins know and that ask for what netlib does not do.
_UNSUPPORTED: Mapping[str, str] = {
    "vlan": "leave it out",
    "vlanTrunk": "leave it out",
    "promiscMode": "leave it out; hairpinMode serves most of its purposes",
    "macspoofchk": "leave it out",
    "disableContainerInterface": "leave it out",
    "linkInContainer": "leave it out",
}
# Keys that say how a network is made: none of them belongs beside `network`.
_DECLARING = ("driver", "options", "labels", "subnet", "subnets", "ranges", "gateway", "rangeStart",
              "rangeEnd", "ipv4", "ipv6", "internal", "ipMasq", "mtu", "bridge", "hairpinMode",
              "portIsolation", "isGateway", "isDefaultGateway", "master", "mode")  # fmt: skip
_DECLARING_IPAM = ("subnet", "subnets", "ranges", "gateway", "rangeStart", "rangeEnd", "routes")
_OPTION_OF_FLAG: Mapping[str, str] = {"ipMasq": "masquerade", "hairpinMode": "hairpin"}
_OPTION_OF_TEXT: Mapping[str, str] = {"bridge": "bridge.name", "master": "parent", "mode": "mode"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A subnet to take addresses from, or the part of it from `first` to `last`."""

    subnet: str
    first: str = ""
    last: str = ""
    gateway: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What `Net.create` is told, should there be no such network yet.

    `addressed` False: it has links, and no addresses.
    """

    driver: str = "bridge"
    ranges: tuple[Range, ...] = ()
    ipv4: bool = True
    ipv6: bool = False
    addressed: bool = True
    internal: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def declaration(found: Reading, *, delegated: bool) -> Declaration | None:
    """The declaration; None where `network` names one that must be there."""
    for key, advice in _UNSUPPORTED.items():
        if found.value(key):
            raise unsupported(found, key, "netlib does not do that", advice)
    ipam = found.within("ipam")
    if "resolvConf" in ipam and not delegated:
        raise unsupported(ipam, "resolvConf", "netlib reads no file", "name the servers in dns")
    if found.text("network"):
        _refuse_beside_network(found, ipam, delegated=delegated)
        return None
    declared = [*_ranges_of(found), *([] if delegated else _ranges_of(ipam))]
    options = _options(found)
    routes = [*_routes(ipam, declared)] if not delegated else []
    if routes:
        options["routes"] = ", ".join(routes)
    is_gateway, is_default = found.flag("isGateway"), found.flag("isDefaultGateway")
    internal = bool(found.flag("internal"))
    if is_gateway is False and not is_default:
        options["gateway_mode"] = "isolated"
        internal = True
    elif is_default is False:
        options["no_default_route"] = "true"
    ipv4, ipv6 = found.flag("ipv4"), found.flag("ipv6")
    return Declaration(
        driver=found.text("driver", "bridge"),
        ranges=tuple(declared),
        ipv4=ipv4 is not False,
        ipv6=bool(ipv6),
        addressed=bool(ipv4 is not False or ipv6 or declared or delegated),
        internal=internal,
        options=options,
        labels={key: _label(found, key, v) for key, v in found.mapping("labels").items()},
    )


def unsupported(place: Reading, key: str, why: str, advice: str) -> Refusal:
    """The error for a key that asks for what is not done; it names key and value, as it must."""
    return Refusal(UNSUPPORTED_FIELD, f"{place.name(key)} {place.value(key)!r}: {why}", advice)


def _refuse_beside_network(found: Reading, ipam: Reading, *, delegated: bool) -> None:
    """What a network is like was said when it was made: a key that went unheard would mislead."""
    given = [found.name(key) for key in _DECLARING if key in found]
    given += [ipam.name(key) for key in _DECLARING_IPAM if key in ipam and not delegated]
    if given:
        raise Refusal(
            INVALID_CONFIG,
            f"network names {found.text('network')!r}, which is as it was made: {', '.join(given)}",
            "leave `network` out to declare a network, or those keys to join that one",
        )


def ranges(part: Reading) -> Range:
    """One range, as host-local's `ranges` and the capability `ipRanges` write it."""
    wanted = Range(
        subnet=part.text("subnet"),
        first=part.text("rangeStart"),
        last=part.text("rangeEnd"),
        gateway=part.text("gateway"),
    )
    try:
        prefix = ip_network(wanted.subnet, strict=False)
        for address in filter(None, (wanted.first, wanted.last, wanted.gateway)):
            if ip_address(address) not in prefix:
                raise Refusal(INVALID_CONFIG, f"{part.name('subnet')}: {address} is not within it")
    except ValueError as error:
        raise Refusal(INVALID_CONFIG, f"{part.name('subnet')}: {error}") from error
    return Range(subnet=str(prefix), first=wanted.first, last=wanted.last, gateway=wanted.gateway)


def _ranges_of(place: Reading) -> Iterator[Range]:
    """`subnet` with what belongs to it, `subnets`, and `ranges` (one set of them per address)."""
    if "subnet" in place:
        yield ranges(place)
    for number, value in enumerate(place.items("subnets")):
        name = f"{place.name('subnets')}[{number}]"
        if isinstance(value, str):
            yield ranges(Reading({"subnet": value}, name))
        elif isinstance(value, dict):
            yield ranges(Reading(value, name))
        else:
            raise place.refusal("subnets", "a list of prefixes")
    families: set[int] = set()
    for group in place.lists_of_parts("ranges"):
        wanted = [ranges(part) for part in group]
        yield from wanted
        own = {ip_network(one.subnet).version for one in wanted}
        if families & own:
            raise Refusal(
                INVALID_CONFIG,
                f"{place.name('ranges')}: two sets of ranges of one family, and so two addresses",
                "netlib gives one address of each family: put the ranges into one set",
            )
        families |= own


def _options(found: Reading) -> dict[str, str]:
    """Options of the driver, and the standard keys that mean some of them."""
    options = {key: _word(found, key, v) for key, v in found.mapping("options").items()}
    for key, option in _OPTION_OF_FLAG.items():
        value = found.flag(key)
        if value is not None:
            options.setdefault(option, str(value).lower())
    for key, option in _OPTION_OF_TEXT.items():
        if found.text(key):
            options.setdefault(option, found.text(key))
    mtu = found.number("mtu")
    if mtu:
        options.setdefault("mtu", str(mtu))
    if found.flag("portIsolation"):
        options.setdefault("icc", "false")
    return options


def _routes(ipam: Reading, declared: list[Range]) -> Iterator[str]:
    """host-local's `routes`, but default routes: those follow from the gateway."""
    for part in ipam.parts("routes"):
        try:
            destination = ip_network(part.text("dst"), strict=False)
            via = ip_address(part.text("gw")) if part.text("gw") else None
        except ValueError as error:
            raise Refusal(INVALID_CONFIG, f"{part.name('dst')}: {error}") from error
        own = _gateway(declared, destination.version)
        if destination.prefixlen == 0:
            if via is not None and own is not None and via != ip_address(str(own)):
                raise Refusal(
                    INVALID_CONFIG,
                    f"{part.name('gw')}: the default route leads to the gateway {own}",
                    f"give the subnet the gateway {via}",
                )
            continue
        gateway = via or own
        if gateway is None:
            raise Refusal(
                INVALID_CONFIG, f"{part.name('gw')}: {destination} needs a gateway", "name one"
            )
        yield f"{destination} via {gateway}"


def _gateway(declared: list[Range], family: int) -> object | None:
    for one in declared:
        prefix = ip_network(one.subnet)
        if prefix.version == family:
            # A /31 has two addresses, and the gateway the first (RFC 3021); a /32 has none.
            size = prefix.num_addresses
            return one.gateway or (None if size == 1 else prefix[0 if size == 2 else 1])
    return None


def _word(found: Reading, key: str, value: object) -> str:
    """An option's value; JSON's true and 5 are written as a command line would have them."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int):
        return str(value)
    raise Refusal(INVALID_CONFIG, f"{found.name('options')}.{key} is no string: {value!r}")


def _label(found: Reading, key: str, value: object) -> str:
    if not isinstance(value, str):
        raise Refusal(INVALID_CONFIG, f"{found.name('labels')}.{key} is no string: {value!r}")
    return value
