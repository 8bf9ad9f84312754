"""What the store knows, read in the words of the model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

from netlib import built_in, keys
from netlib.errors import NoSuchNetwork, NoSuchSandbox, NotConnected
from netlib.ipam import lease_address
from netlib.links import Link
from netlib.model import Endpoint, IPAddress, Network, Sandbox, Subnet
from netlib.records import (
    EndpointRecord,
    Lease,
    NetworkRecord,
    load,
    load_as,
    load_endpoint,
    load_network,
    load_sandbox,
)
from netlib.store import Store, under
from netlib.values import dataclass, replace
from netlib.wiring import Publish, Wiring

_FEW = 8
_ID_DIGITS = 64
_DIGITS = re.compile("[0-9a-f]{0,64}")


class State:
    """Reads a store in the words of the model. Never writes: operations commit."""

    def __init__(self, store: Store) -> None:
        self.store = store

    # -- networks ---------------------------------------------------------------------------------

    def network(self, reference: str) -> NetworkRecord:
        """A network by name, id or unique id prefix. NoSuchNetwork says what is near."""
        record = self.find_network(reference)
        if record is not None:
            return record
        known = [r.network.name for r in self.networks()]
        raise NoSuchNetwork(
            f"there is no network {reference!r}", f"{_near(reference, known)}see: net ls"
        )

    def find_network(self, reference: str) -> NetworkRecord | None:
        """Likewise, None where there is none."""
        if len(reference) == _ID_DIGITS:  # mostly by us, and then nothing else need be asked
            found_by_id = self._network(reference) if _is_hex(reference) else None
            if found_by_id is not None:
                return found_by_id
        named = self.store.get(keys.name_key(reference)) if _is_key_part(reference) else None
        if named is not None:
            return self._network(named.value)
        if reference in built_in.NAMES:
            return NetworkRecord(network=built_in.network(reference), wiring=Wiring())
        offered = next((r for r in self.offers() if r.network.name == reference), None)
        if offered is not None:
            return offered
        if not reference or not _is_hex(reference):
            return None
        first, end = under(keys.network_key(reference))
        found = self.store.range(first, end, limit=2)
        if len(found) > 1:
            raise NoSuchNetwork(
                f"several networks' ids start with {reference!r}", "give more digits of the id"
            )
        if found:
            return load_network(found[0].value, found[0].revision)
        return next((r for r in self._unmade() if r.network.id.startswith(reference)), None)

    def is_made(self, name: str) -> bool:
        """Whether a network of this name was made: others are when they are first used."""
        return _is_key_part(name) and self.store.get(keys.name_key(name)) is not None

    def _unmade(self) -> Iterator[NetworkRecord]:
        """The networks that are made when they are first used: at revision 0."""
        for name in built_in.NAMES:
            if self.store.get(keys.name_key(name)) is None:
                yield NetworkRecord(network=built_in.network(name), wiring=Wiring())
        yield from self.offers()

    def offers(self) -> list[NetworkRecord]:
        """The cluster's networks that this host has not taken up, oldest first; at revision 0."""
        found = [
            replace(load_network(record.value, record.revision), revision=0)
            for record in self.store.range(*under(keys.OFFERS))
            if self.store.get(keys.network_key(record.key.removeprefix(keys.OFFERS))) is None
        ]
        return sorted(found, key=lambda r: (r.network.created, r.network.name))

    def _network(self, network_id: str) -> NetworkRecord | None:
        record = self.store.get(keys.network_key(network_id))
        return load_network(record.value, record.revision) if record else None

    def networks(self) -> list[NetworkRecord]:
        """All networks that were made, oldest first."""
        records = self.store.range(*under("network/"))
        found = [load_network(record.value, record.revision) for record in records]
        return sorted(found, key=lambda r: (r.network.created, r.network.name))

    def known_networks(self) -> list[NetworkRecord]:
        """Likewise, with those that the cluster offers, and the built-in ones first."""
        known = [*self._unmade(), *self.networks()]
        order = {name: number for number, name in enumerate(built_in.NAMES)}
        return sorted(
            known,
            key=lambda r: (
                order.get(r.network.name, len(order)),
                r.network.created,
                r.network.name,
            ),
        )

    # -- endpoints --------------------------------------------------------------------------------

    def endpoints(self, network_id: str = "") -> list[EndpointRecord]:
        """The endpoints of a network, or of all, oldest first."""
        records = self.store.range(*keys.endpoints_of(network_id))
        found = [load_endpoint(record.value, record.revision) for record in records]
        return sorted(found, key=lambda r: (r.endpoint.created, r.endpoint.id))

    def has_endpoints(self, network_id: str) -> bool:
        """Whether a network has any endpoint."""
        return bool(self.store.range(*keys.endpoints_of(network_id), limit=1))

    def endpoint(self, network: Network, sandbox: str) -> EndpointRecord:
        """The oldest endpoint that joins a sandbox to a network, or NotConnected."""
        found = self.endpoints_between(network.id, sandbox)
        if not found:
            raise NotConnected(
                f"{sandbox} is not connected to {network.name}",
                f"see: net inspect {network.name}",
            )
        return found[0]

    def endpoints_between(self, network_id: str, sandbox: str) -> list[EndpointRecord]:
        """The endpoints that join a sandbox to a network, oldest first; mostly one."""
        found: list[EndpointRecord] = []
        for member in self.store.range(*keys.members(network_id, sandbox)):
            record = self.store.get(keys.endpoint_key(network_id, member.key.rpartition("/")[2]))
            if record is not None:
                found.append(load_endpoint(record.value, record.revision))
        return sorted(found, key=lambda r: (r.endpoint.created, r.endpoint.id))

    def endpoints_of(self, sandbox: str) -> list[EndpointRecord]:
        """A sandbox's endpoints, oldest first."""
        found: list[EndpointRecord] = []
        for interface in self.store.range(*keys.interfaces_of(sandbox)):
            record = self.store.get(f"endpoint/{interface.value}")
            if record is not None:
                found.append(load_endpoint(record.value, record.revision))
        return sorted(found, key=lambda r: (r.endpoint.created, r.endpoint.id))

    def links_of(self, endpoint: Endpoint) -> list[Link]:
        """Its links to those that are on its network now."""
        found: list[Link] = []
        for name, alias in endpoint.links.items():
            targets = self.endpoints_between(endpoint.network, name)
            box = self.find_sandbox(name)
            if targets and box:
                found.append(
                    Link(
                        sandbox=endpoint.sandbox.name,
                        alias=alias,
                        target=targets[0].endpoint,
                        environment=box.environment,
                    )
                )
        return found

    def linkers(self, sandbox: str) -> list[str]:
        """The sandboxes that are linked to one."""
        records = self.store.range(*keys.linkers_of(sandbox))
        return list(dict.fromkeys(record.value for record in records))

    def linked_to(self, sandbox: str, network_id: str) -> list[EndpointRecord]:
        """The endpoints on a network that are linked to a sandbox."""
        records = self.store.range(*keys.linkers_of(sandbox, network_id))
        found = [self.store.get(f"endpoint/{r.key.split('/', 2)[2]}") for r in records]
        return [load_endpoint(record.value, record.revision) for record in found if record]

    # -- sandboxes --------------------------------------------------------------------------------

    def sandbox(self, name: str) -> Sandbox:
        """A sandbox that the state knows by this name, or NoSuchSandbox."""
        found = self.find_sandbox(name)
        if found is None:
            near = _near(name, [box.name for box in self.sandboxes()])
            raise NoSuchSandbox(
                f"there is no sandbox {name!r}",
                f"{near}see: net ps; or name one as pid:N, netns:NAME, docker:NAME or podman:NAME",
            )
        return found

    def find_sandbox(self, name: str) -> Sandbox | None:
        """Likewise, None where there is none."""
        record = self.store.get(keys.sandbox_key(name))
        return load_sandbox(record.value) if record else None

    def sandbox_in(self, inode: int) -> Sandbox | None:
        """The sandbox that has a network namespace."""
        record = self.store.get(keys.namespace_key(inode))
        return self.find_sandbox(record.value) if record else None

    def owner(self, box: Sandbox) -> Sandbox:
        """The sandbox that the endpoints belong to: the one whose stack this one has, or itself.

        One of that name that came later, in a namespace of its own, is another one: who shared
        the earlier one's stack is left alone in it.
        """
        found = self.find_sandbox(box.shares) if box.shares else None
        if found is None or found.netns.inode != box.netns.inode or found.created > box.created:
            return box
        return found

    def sandbox_keys(self, box: Sandbox) -> tuple[str, ...]:
        """The keys that go with a sandbox. Its namespace's number may be another's by now."""
        inode = keys.namespace_key(box.netns.inode)
        owner = self.store.get(inode)
        mine = owner is not None and owner.value == box.name
        return (keys.sandbox_key(box.name), inode) if mine else (keys.sandbox_key(box.name),)

    def sandboxes(self) -> list[Sandbox]:
        """All sandboxes that the state knows, oldest first."""
        found = [load_sandbox(r.value) for r in self.store.range(*under("sandbox/"))]
        return sorted(found, key=lambda s: (s.created, s.name))

    # -- addresses and ports ----------------------------------------------------------------------

    def lease(self, network_id: str, address: IPAddress) -> Lease | None:
        """Who holds an address."""
        record = self.store.get(keys.address_key(network_id, address))
        return load_as(Lease, record.value) if record else None

    def held(self, network_id: str) -> list[tuple[IPAddress, Lease]]:
        """The addresses of a network that are held, in order, and by whom."""
        folder, end = keys.leases_of(network_id)
        return [
            (lease_address(record.key[len(folder) :]), load_as(Lease, record.value))
            for record in self.store.range(folder, end)
        ]

    def leases(self, network_id: str) -> Leases:
        """The addresses of a network that are held."""
        return Leases(self.store, network_id)

    def cursor(self, network_id: str, subnet: Subnet) -> IPAddress | None:
        """The address of a subnet that was given last."""
        record = self.store.get(keys.cursor_key(network_id, subnet.prefix))
        return ip_address(record.value) if record else None

    def published(self, protocol: str, first: int, last: int) -> list[Publish]:
        """What is published on the host's ports from `first` to `last`, in both families."""
        holders: dict[str, None] = {}
        for family in (4, 6):
            folder = f"port/{family}/{protocol}/"
            for record in self.store.range(f"{folder}{first:05d}/", f"{folder}{last:05d}0"):
                holders[load(record.value)["endpoint"]] = None
        found: list[Publish] = []
        for holder in holders:
            held = self.store.get(f"endpoint/{holder}")
            wiring = load_endpoint(held.value, held.revision).wiring if held else ()
            found += [
                noun
                for noun in wiring
                if isinstance(noun, Publish)
                and noun.protocol == protocol
                and noun.port <= last
                and noun.port + noun.count > first
            ]
        return found

    def realm(self) -> str:
        """What tells this state's networks from others' on the same host; "" before the first."""
        record = self.store.get(keys.REALM_KEY)
        return record.value if record else ""

    def forwarding_enabled_for(self) -> dict[int, Any]:
        """By family: when forwarding was switched on, and for which network."""
        return {
            int(r.key.rpartition("/")[2]): load(r.value)
            for r in self.store.range(*under("host/forwarding/"))
        }


@dataclass(frozen=True, slots=True)
class Leases:
    """The held addresses of one network as `netlib.ipam` wants to see them."""

    store: Store
    network_id: str

    def count(self, first: IPAddress, last: IPAddress) -> int:
        """How many are held from `first` to `last`."""
        return self.store.count(*self._range(first, last))

    def page(self, first: IPAddress, last: IPAddress, limit: int) -> list[IPAddress]:
        """The lowest `limit` of those."""
        start = len(keys.leases_of(self.network_id)[0])
        found = self.store.range(*self._range(first, last), limit=limit)
        return [lease_address(record.key[start:]) for record in found]

    def _range(self, first: IPAddress, last: IPAddress) -> tuple[str, str]:
        end = keys.address_key(self.network_id, last)
        return keys.address_key(self.network_id, first), f"{end}\0"


def _near(name: str, known: list[str]) -> str:
    """What somebody who typed `name` may have meant, as the beginning of a hint."""
    import difflib

    close = difflib.get_close_matches(name, known, n=3)
    if close:
        return f"did you mean {' or '.join(close)}? "
    return f"there are: {', '.join(known)}; " if 0 < len(known) <= _FEW else ""


def _is_hex(text: str) -> bool:
    return _DIGITS.fullmatch(text) is not None


def _is_key_part(text: str) -> bool:
    return bool(text) and text.isascii() and "/" not in text
