"""What a cluster's hosts know of each other. Frozen values; `netlib.codec` makes them JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from netlib.model import IPAddress, IPInterface, IPNetwork, Peer
from netlib.values import dataclass, field

Availability = Literal["active", "pause", "drain"]
Role = Literal["manager", "worker"]
PREFIX = "/netlib/"
JOIN_PORT = 2377
DATA_PORT = 4789  # IANA's number for VXLAN (RFC 7348 section 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What all members have in common.

    `realm` is in the ids of its networks; `pools` is where those get their subnets when none is
    asked for, empty: as on one host. `generation` counts how often tokens were rotated.
    `external`: its store was there before it. `created` is in seconds since the epoch.
    """

    id: str
    realm: str
    pools: tuple[IPNetwork, ...] = ()
    data_port: int = DATA_PORT
    lease_seconds: int = 10
    generation: int = 0
    external: bool = False
    created: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A host that belongs to a cluster.

    `address` is where it is reached, a manager at `join_port` by who wants to join;
    `data_address` and `data_port` are where it takes tunnelled frames. `availability`: pause
    takes no new endpoints, drain gives away those it has. `joined` is in seconds since the
    epoch.
    """

    id: str
    name: str
    address: IPAddress
    data_address: IPAddress
    data_port: int = DATA_PORT
    join_port: int = JOIN_PORT
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
    `supervised`: this host's daemon runs a server of the store. A manager's daemon lets others
    join at `listen` (ADDRESS:PORT).
    """

    cluster: str
    node: str
    endpoints: tuple[str, ...]
    prefix: str = PREFIX
    ca: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    password: str = ""
    supervised: bool = False
    listen: str = ""


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
