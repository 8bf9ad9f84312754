"""What `net run` is asked for: parsed, and checked as far as that needs no host."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from ipaddress import ip_address

from netlib import names
from netlib.errors import InvalidAddress, InvalidName, InvalidOption, InvalidRequest
from netlib.model import IPAddress
from netlib.ports import PortRequest
from netlib.values import dataclass, field

# What a host calls itself (hostname(7)): labels of letters, digits and inner dashes; we let
# underscores through, since sandboxes' names have them. HOST_NAME_MAX is 64 (limits.h).
_HOSTNAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")
HOSTNAME_BYTES = 64
# A domain to search and a resolver's option are words of a line of resolv.conf(5).
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"\.|{_LABEL}(\.{_LABEL})*\.?")
_WORD = re.compile(r"[!-~]+")
HOST_GATEWAY = "host-gateway"
_ATTACHMENT_KEYS = ("alias", "gw-priority", "ifname", "ip", "link", "mac")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A network to be connected to before the command starts, and how."""

    network: str
    addresses: tuple[str, ...] = ()
    mac: str | None = None
    aliases: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    ifname: str | None = None
    gateway_priority: int = 0
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEntry:
    """A further line of /etc/hosts. `address` None: the gateway's, `host-gateway`."""

    name: str
    address: IPAddress | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """A command and the sandbox to be made for it. Without a name it gets one.

    `environment` is added to the command's, and told to who is linked to it. `shares` names a
    sandbox whose stack it gets instead of one of its own.
    """

    command: tuple[str, ...]
    name: str = field(default_factory=lambda: f"run-{secrets.token_hex(3)}")
    hostname: str = ""
    attachments: tuple[Attachment, ...] = ()
    ports: tuple[PortRequest, ...] = ()
    nameservers: tuple[IPAddress, ...] = ()
    search: tuple[str, ...] = ()
    resolver_options: tuple[str, ...] = ()
    hosts: tuple[HostEntry, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    shares: str = ""

    def __post_init__(self) -> None:
        names.check_name(self.name, "sandbox")
        if not self.command:
            raise InvalidRequest("there is no command to run", "put it after --")
        if self.hostname:
            check_hostname(self.hostname)
        self._check_resolving()
        asked = [attachment.network for attachment in self.attachments]
        for network in asked:
            if asked.count(network) > 1:
                raise InvalidRequest(
                    f"--network {network} is given twice",
                    f"give it once, with all that it is to have: {network}:alias=db,alias=sql",
                )
        if self.shares and (self.attachments or self.ports or self.hosts or self.nameservers):
            raise InvalidRequest(
                f"the network of {self.shares} is shared as it is",
                "leave out further networks, ports, hosts and name servers, or give them to "
                f"{self.shares}",
            )
        if self.ports and not self.attachments:
            raise InvalidRequest(
                "ports can't be published without a network", "name one with --network"
            )
        if any(entry.address is None for entry in self.hosts) and not self.attachments:
            raise InvalidRequest(
                f"{HOST_GATEWAY} is nothing without a network", "name one with --network"
            )

    def _check_resolving(self) -> None:
        for domain in self.search:
            if not _DOMAIN.fullmatch(domain) or len(domain) > 253:  # RFC 1035 section 2.3.4
                raise InvalidName(
                    f"{domain!r} is no domain to search",
                    "write one like example.org, and give --dns-search once for each; . for none",
                )
        for option in self.resolver_options:
            if not _WORD.fullmatch(option):
                raise InvalidOption(
                    f"{option!r} is no option of resolv.conf", "write one word, like ndots:2"
                )

    @property
    def own_hostname(self) -> str:
        """What the sandbox calls itself."""
        return self.hostname or self.name[:HOSTNAME_BYTES].rstrip(".-")


def parse_attachment(text: str) -> Attachment:
    """`NETWORK[:KEY=VALUE,...]`; what is no key of ours is an option of the endpoint.

    Raises InvalidOption, InvalidRequest.

    >>> parse_attachment("front:ip=192.0.2.10,alias=db,alias=sql").aliases
    ('db', 'sql')
    """
    network, _, tail = text.partition(":")
    if network == "container" and tail and "=" not in tail:
        raise InvalidRequest(
            f"a sandbox of its own can't share the network of {tail}",
            f"run the command in that one: net exec {tail} -- COMMAND",
        )
    if not network:
        raise InvalidRequest(f"--network {text!r} names no network", "write NETWORK[:KEY=VALUE,…]")
    given: dict[str, list[str]] = {}
    for item in filter(None, tail.split(",")):
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise InvalidOption(
                f"{item!r} in --network {text} is not KEY=VALUE",
                f"keys are {', '.join(_ATTACHMENT_KEYS)}, and the options of endpoints",
            )
        given.setdefault(_canonical(key), []).append(value)
    priority = _single(text, given, "gw-priority") or "0"
    if not priority.removeprefix("-").isdecimal():
        raise InvalidOption(f"gw-priority in --network {text} is no number", "use one like 10")
    links: dict[str, str] = {}
    if "link" in given:
        from netlib.links import parse_links  # few have links

        links = parse_links(given.pop("link"))
    return Attachment(
        network=network,
        addresses=tuple(given.pop("ip", ())),
        mac=_single(text, given, "mac"),
        aliases=tuple(given.pop("alias", ())),
        links=links,
        ifname=_single(text, given, "ifname"),
        gateway_priority=int(priority),
        options={key: values[-1] for key, values in given.items()},
    )


def parse_host(text: str) -> HostEntry:
    """`NAME:IP`, where IP may be in brackets, or `host-gateway`. Raises InvalidAddress.

    >>> parse_host("db:2001:db8::5").address
    IPv6Address('2001:db8::5')
    """
    name, colon, address = text.partition(":")
    if not colon:
        name, colon, address = text.partition("=")
    if not name or not colon:
        raise InvalidRequest(f"--add-host {text!r} is not NAME:IP", "write it as db:192.0.2.5")
    check_hostname(name)
    if address == HOST_GATEWAY:
        return HostEntry(name=name, address=None)
    return HostEntry(name=name, address=parse_address(address.strip("[]")))


def parse_address(text: str) -> IPAddress:
    """An address of either family, or InvalidAddress."""
    try:
        return ip_address(text)
    except ValueError:
        raise InvalidAddress(
            f"{text!r} is no IP address", "write it as 192.0.2.5 or 2001:db8::5"
        ) from None


def check_hostname(name: str) -> str:
    """`name`, or InvalidName where no host can be called so."""
    if not _HOSTNAME.fullmatch(name) or len(name) > HOSTNAME_BYTES:
        raise InvalidName(
            f"{name!r} is no name for a host",
            f"use letters, digits, '-' and '.', {HOSTNAME_BYTES} at most",
        )
    return name


def _canonical(key: str) -> str:
    """Other tools' words for the same."""
    aliases = {
        "ip6": "ip",
        "mac-address": "mac",
        "mac_address": "mac",
        "interface_name": "ifname",
        "gw_priority": "gw-priority",
    }
    return aliases.get(key, key)


def _single(text: str, given: dict[str, list[str]], key: str) -> str | None:
    values = given.pop(key, [])
    if len(values) > 1:
        raise InvalidOption(f"{key} is given twice in --network {text}", f"give {key} once")
    return values[0] if values else None
