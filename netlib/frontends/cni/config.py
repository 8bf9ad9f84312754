"""A network configuration as a runtime hands it over on stdin (CNI specification, "Section 1")."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import ip_interface
from typing import Any

from netlib.errors import InvalidName, NetError
from netlib.frontends.cni import results
from netlib.frontends.cni.declaring import (
    Declaration,
    Range,
    declaration,
    ranges,
    unsupported,
)
from netlib.frontends.cni.reading import Reading
from netlib.frontends.cni.refusal import (
    INVALID_CONFIG,
    UNDECODABLE,
    Refusal,
)
from netlib.names import check_alias
from netlib.ports import PortRequest
from netlib.ports import parse as parse_port
from netlib.subnets import parse_address
from netlib.values import dataclass, field, replace

OURS = "netlib"
VALID_ATTACHMENTS = "cni.dev/valid-attachments"
_VALID_ATTACHMENTS_ONCE = "cni.dev/attachments"  # as libcni 1.2.0 has it
_KNOWN_BYTES = 1 << 16  # a longer configuration is not remembered
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-]?[0-9A-Fa-f]{2}){5}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TAKING_AWAY = frozenset({"DEL", "GC"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What is wanted: a network that is there, or is made as declared, and how it is joined.

    `delegate` is the IPAM plugin that chooses addresses, "" where netlib does. `dns` is what
    replaces the resolver's own in the result; `insists`: the default route is to be by this
    network. `attachments` are (container id, interface) that are valid (GC). `document` is all
    of it, for other plugins.
    """

    version: str
    name: str
    network: str
    declared: Declaration | None
    delegate: str = ""
    ports: tuple[PortRequest, ...] = ()
    addresses: tuple[str, ...] = ()
    address_sets: tuple[tuple[Range, ...], ...] = ()
    mac: str = ""
    aliases: tuple[str, ...] = ()
    ifname: str = ""
    dns: Mapping[str, Any] | None = None
    insists: bool = False
    previous: results.Result | None = None
    attachments: frozenset[tuple[str, str]] | None = None
    document: Mapping[str, Any] = field(default_factory=dict)


def version_of(stdin: bytes) -> str:
    """The version that an answer is written in, whatever else is wrong with the input."""
    try:
        asked = json.loads(stdin).get("cniVersion")
    except (ValueError, AttributeError, RecursionError):
        return results.NEWEST
    return asked if asked in results.VERSIONS else results.NEWEST


def parse(stdin: bytes, arguments: Mapping[str, str], command: str = "ADD") -> Config:
    """The configuration. Raises Refusal; 7 for what it can't mean, 6 for what is no JSON.

    For a `command` that takes away, only what says from where: whatever ADD refused, a runtime
    asks to have removed, with the same configuration and until that succeeds.
    """
    # A runtime says the same of each container, but for what is the container's own.
    if len(stdin) > _KNOWN_BYTES or b"prevResult" in stdin:
        return _parsed(stdin, arguments, command)
    return _known(stdin, tuple(sorted(arguments.items())), command)


@lru_cache(maxsize=64)
def _known(stdin: bytes, arguments: tuple[tuple[str, str], ...], command: str) -> Config:
    return _parsed(stdin, dict(arguments), command)


def _parsed(stdin: bytes, arguments: Mapping[str, str], command: str) -> Config:
    document = _decoded(stdin)
    found = Reading(document)
    version = results.check_version(found.text("cniVersion") or "0.1.0")
    name = found.text("name")
    if not _NAME.fullmatch(name):
        what = f"invalid characters in network name: {name!r}" if name else "missing network name"
        raise Refusal(INVALID_CONFIG, what)
    try:
        if command in _TAKING_AWAY:
            return _where(found, document, version, name, removing=True)
        return _config(found, document, version, name, arguments)
    except Refusal:
        raise
    except NetError as error:
        raise Refusal(INVALID_CONFIG, error.message, error.hint) from error


def _config(
    found: Reading,
    document: Mapping[str, Any],
    version: str,
    name: str,
    arguments: Mapping[str, str],
) -> Config:
    runtime, asked = found.within("runtimeConfig"), found.within("args").within("cni")
    _refuse_bandwidth(found, runtime)
    where = _where(found, document, version, name)
    previous = document.get("prevResult")
    return replace(
        where,
        declared=declaration(found, delegated=bool(where.delegate)),
        ports=tuple(_port(part) for part in runtime.parts("portMappings")),
        addresses=_addresses(runtime, asked, arguments),
        address_sets=tuple(
            tuple(map(ranges, group)) for group in runtime.lists_of_parts("ipRanges")
        ),
        mac=_mac(
            runtime.text("mac")
            or asked.text("mac")
            or arguments.get("MAC", "")
            or found.text("mac")
        ),
        aliases=tuple(
            dict.fromkeys((*_called(arguments), *found.texts("aliases"), *_aliases(runtime, name)))
        ),
        dns=_dns(found, runtime),
        insists=bool(found.flag("isDefaultGateway")),
        previous=None if previous is None else results.read(previous, version),
    )


def _where(
    found: Reading,
    document: Mapping[str, Any],
    version: str,
    name: str,
    *,
    removing: bool = False,
) -> Config:
    """Which network and interface it speaks of, and who chose the addresses.

    `removing`: what can't be read says nothing, for it was refused when it was to be added.
    """

    def told(read: Callable[[], str]) -> str:
        try:
            return read()
        except Refusal:
            if not removing:
                raise
            return ""

    return Config(
        version=version,
        name=name,
        network=told(lambda: found.text("network")) or name,
        declared=None,
        delegate=told(lambda: _delegate(found)),
        ifname=told(lambda: found.text("ifname")),
        attachments=_attachments(found, document),
        document=document,
    )


def _delegate(found: Reading) -> str:
    """The IPAM plugin that is another's."""
    delegate = found.within("ipam").text("type")
    if "/" in delegate or "\0" in delegate:
        raise Refusal(INVALID_CONFIG, f"ipam.type is no plugin's name: {delegate!r}")
    return "" if delegate == OURS else delegate


def _decoded(stdin: bytes) -> dict[str, Any]:
    try:
        document = json.loads(stdin)
    except (ValueError, RecursionError) as error:
        raise Refusal(
            UNDECODABLE, f"the network configuration on stdin is no JSON: {error}"
        ) from error
    if not isinstance(document, dict):
        raise Refusal(UNDECODABLE, "the network configuration on stdin is no JSON object")
    return document


def _refuse_bandwidth(found: Reading, runtime: Reading) -> None:
    for place in (found, runtime):
        if any(place.mapping("bandwidth").values()):
            raise unsupported(
                place,
                "bandwidth",
                "netlib does not limit bandwidth",
                "leave it out, or put the plugin `bandwidth` after netlib in the list",
            )


def _port(part: Reading) -> PortRequest:
    host, inside = part.number("hostPort"), part.number("containerPort")
    if not host:
        raise Refusal(INVALID_CONFIG, f"{part.name('hostPort')}: invalid host port number {host}")
    if not inside:
        raise Refusal(
            INVALID_CONFIG, f"{part.name('containerPort')}: invalid container port {inside}"
        )
    address = part.text("hostIP")
    if ":" in address:
        address = f"[{address}]"
    protocol = part.text("protocol").lower() or "tcp"
    return replace(
        parse_port(f"{address}{':' if address else ''}{host}:{inside}/{protocol}"), held=True
    )


def _addresses(runtime: Reading, asked: Reading, arguments: Mapping[str, str]) -> tuple[str, ...]:
    """The addresses that are asked for: one source counts, the first that names any."""
    own = arguments.get("IP", "")
    wanted = runtime.texts("ips") or asked.texts("ips") or tuple(filter(None, own.split(",")))
    return tuple(map(_address, wanted))


def _address(text: str) -> str:
    """Without its prefix length, which must be one, and is the subnet's whatever it is."""
    address, slash, _ = text.partition("/")
    found = parse_address(address)
    if slash:
        try:
            ip_interface(text)
        except ValueError as error:
            raise Refusal(INVALID_CONFIG, f"{text!r} is no address: {error}") from error
    return str(found)


def _mac(text: str) -> str:
    if text and not _MAC.fullmatch(text):
        raise Refusal(
            INVALID_CONFIG, f"{text!r} is no MAC address", "write it as 02:00:5e:00:53:01"
        )
    return text


def _called(arguments: Mapping[str, str]) -> tuple[str, ...]:
    """What the runtime calls the container, where others can look that up."""
    name = arguments.get("K8S_POD_NAME", "")
    try:
        return (check_alias(name),) if name else ()
    except InvalidName:
        return ()


def _aliases(runtime: Reading, network: str) -> tuple[str, ...]:
    """A list, or as some runtimes have it, a list by network."""
    value = runtime.mapping("aliases") if _is_mapping(runtime, "aliases") else None
    if value is None:
        return runtime.texts("aliases")
    return Reading(value, runtime.name("aliases")).texts(network)


def _is_mapping(place: Reading, key: str) -> bool:
    try:
        place.mapping(key)
    except Refusal:
        return False
    return key in place


def _dns(found: Reading, runtime: Reading) -> dict[str, Any] | None:
    """The runtime's, else the configuration's if it sets any member; None: the resolver's own."""
    if "dns" in runtime:
        given = runtime.within("dns")
        named = {
            "nameservers": list(given.texts("servers")),
            "search": list(given.texts("searches")),
            "options": list(given.texts("options")),
        }
        if any(named.values()):
            return {key: value for key, value in named.items() if value}
    given = found.within("dns")
    members = {key: list(given.texts(key)) for key in ("nameservers", "search", "options")}
    domain = given.text("domain")
    if not domain and not any(key in given for key in members):
        return None
    chosen: dict[str, Any] = {key: value for key, value in members.items() if value}
    return {**chosen, **({"domain": domain} if domain else {})}


def _attachments(found: Reading, document: Mapping[str, Any]) -> frozenset[tuple[str, str]] | None:
    for key in (VALID_ATTACHMENTS, _VALID_ATTACHMENTS_ONCE):
        if key in document:  # of none at all, libcni says null
            parts = found.parts(key)
            return frozenset(
                (_given(part, "containerID"), _given(part, "ifname")) for part in parts
            )
    return None


def _given(part: Reading, key: str) -> str:
    """A string that must be there: whom half an attachment means would lose what it has."""
    value = part.text(key)
    if not value:
        raise Refusal(INVALID_CONFIG, f"{part.name(key)} is missing")
    return value
