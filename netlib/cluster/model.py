"""What a cluster's hosts know of each other. Frozen values; `netlib.codec` makes them JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from netlib.model import IPAddress, IPInterface, Peer

Availability = Literal["active", "pause", "drain"]
Role = Literal["manager", "worker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A host that belongs to a cluster.

    `address` is where managers are reached, `data_address` and `data_port` where it takes
    tunnelled frames. `availability`: pause takes no new endpoints, drain gives away those it
    has. `joined` is in seconds since the epoch.
    """

    id: str
    name: str
    address: IPAddress
    data_address: IPAddress
    data_port: int = 4789
    role: Role = "worker"
    availability: Availability = "active"
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    joined: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership:
    """How this host reaches its cluster's store, and as whom: kept by the host itself.

    `endpoints` are URLs; `ca`, `certificate` and `key` are paths of PEM files, empty without
    TLS; `password` only where the store wants one. `prefix` is what all keys start with.
    `supervised`: this host's daemon runs a server of the store.
    """

    cluster: str
    node: str
    endpoints: tuple[str, ...]
    prefix: str = "/netlib/"
    ca: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    password: str = ""
    supervised: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedEndpoint:
    """An endpoint as other hosts see it: where frames for it go, and which names it has.

    `is_host`: no sandbox's, but the addresses that a host has of its own in the network.
    """

    id: str
    network: str
    node: str
    host: IPAddress
    mac: str
    addresses: tuple[IPInterface, ...]
    sandbox: str = ""
    hostname: str = ""
    aliases: tuple[str, ...] = ()
    is_host: bool = False

    def peer(self) -> Peer:
        """What a driver needs to describe it."""
        return Peer(
            mac=self.mac,
            addresses=tuple(address.ip for address in self.addresses),
            host=self.host,
            is_host=self.is_host,
        )
