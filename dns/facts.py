"""What names need to know of networks and endpoints, as plain values that travel as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlib.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkNames:
    """What names need of a network. `servers` answer what is not known here."""

    id: str
    name: str
    internal: bool = False
    subnets: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    records: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointNames:
    """What names need of an endpoint; `servers` are its sandbox's own, before the network's.

    They are asked from its network namespace: `netns` is the path, which leads to `inode`.
    `sandbox` is what the state knows it by: `docker:web` has the name `web`, as with Docker.
    `services` are what it publishes: `_http._tcp 80`.
    """

    id: str
    network: str
    sandbox: str
    hostname: str = ""
    short_id: str = ""
    aliases: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    netns: str = ""
    inode: int = 0
    services: tuple[str, ...] = ()

    def names(self) -> tuple[str, ...]:
        """All single names it goes by on its network, the sandbox's first."""
        every = (own_name(self.sandbox), self.hostname, self.short_id, *self.aliases)
        return tuple(dict.fromkeys(name for name in every if name))


def own_name(sandbox: str) -> str:
    """A sandbox's name without what kind it is; nothing where that is a path, which is no name.

    >>> own_name("docker:web"), own_name("web"), own_name("netns:/proc/17/ns/net")
    ('web', 'web', '')
    """
    name = sandbox.rpartition(":")[2]
    return "" if "/" in name else name


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What changed after revision `since` up to `revision`.

    `full`: these networks and endpoints are all there are; where that is of an earlier revision
    than `since`, an older state was put back. `gone` are ids of either.
    """

    revision: int
    since: int = 0
    full: bool = False
    networks: tuple[NetworkNames, ...] = ()
    endpoints: tuple[EndpointNames, ...] = ()
    gone: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is empty is left out."""
        document: dict[str, Any] = {"revision": self.revision, "since": self.since}
        if self.full:
            document["full"] = True
        if self.networks:
            document["networks"] = [_plain(network) for network in self.networks]
        if self.endpoints:
            document["endpoints"] = [_plain(endpoint) for endpoint in self.endpoints]
        if self.gone:
            document["gone"] = list(self.gone)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Update:
        """The update that `to_json` made the document of."""
        return cls(
            revision=document["revision"],
            since=document.get("since", 0),
            full=document.get("full", False),
            networks=tuple(NetworkNames(**_tuples(n)) for n in document.get("networks", ())),
            endpoints=tuple(EndpointNames(**_tuples(e)) for e in document.get("endpoints", ())),
            gone=tuple(document.get("gone", ())),
        )


def _plain(value: NetworkNames | EndpointNames) -> dict[str, Any]:
    return {slot: item for slot in value.__slots__ if (item := getattr(value, slot))}


def _tuples(document: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
