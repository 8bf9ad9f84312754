"""What is known by name: an immutable snapshot, made anew for each change.

Pure. A change copies the tables it touches and shares the rest, so that a resolver swaps
snapshots in one assignment and a change costs no more than copying one network's table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from netlib.dns import wire
from netlib.dns.facts import EndpointNames, NetworkNames, Update
from netlib.values import dataclass, field

TTL_SECONDS = 0  # a change shows in the next query, also behind a caching stub
SANDBOX_ADDRESS = "127.0.0.11"  # where the resolver listens inside a sandbox, as Docker's does

# Type and class, packed → the records of that RRset, each packed. A name without any is there for
# the names below it (RFC 8020): it exists, and what it has may be known elsewhere.
Sets = Mapping[bytes, tuple[bytes, ...]]

# Who gives a name RRsets: an endpoint's id, or "" for the network's own records.
Holders = tuple[tuple[str, Sets], ...]

A_IN = b"\0\x01\0\x01"
AAAA_IN = b"\0\x1c\0\x01"
PTR_IN = b"\0\x0c\0\x01"
SRV_IN = b"\0\x21\0\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Who asks: the networks it sees, that of the question first, and where else to ask.

    `forwards` False: on internal networks alone, nothing leaves. `servers` empty: the host's.
    `within` names the sandbox from where they are asked; empty: the host.
    """

    sandbox: str
    networks: tuple[str, ...]
    servers: tuple[str, ...] = ()
    within: str = ""
    forwards: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """All names at one revision.

    `names`: network id → name in wire form → RRsets, and `holders` whose they are.
    `askers`: network id → packed source address → who asks there; `sandboxes`: sandbox → who
    asks on its own loopback; `members`: sandbox → ids of its endpoints.
    """

    revision: int = 0
    networks: Mapping[str, NetworkNames] = field(default_factory=dict)
    endpoints: Mapping[str, EndpointNames] = field(default_factory=dict)
    names: Mapping[str, Mapping[bytes, Sets]] = field(default_factory=dict)
    holders: Mapping[str, Mapping[bytes, Holders]] = field(default_factory=dict)
    askers: Mapping[str, Mapping[bytes, Asker]] = field(default_factory=dict)
    sandboxes: Mapping[str, Asker] = field(default_factory=dict)
    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        networks: Iterable[NetworkNames] = (),
        endpoints: Iterable[EndpointNames] = (),
        revision: int = 0,
    ) -> Zone:
        """The zone of these networks and endpoints."""
        everything = Update(
            revision=revision, full=True, networks=tuple(networks), endpoints=tuple(endpoints)
        )
        return cls().changed(everything)

    def changed(self, update: Update) -> Zone:
        """The zone after an update."""
        draft = _Draft(Zone() if update.full else self)
        for gone in update.gone:
            draft.remove(gone)
        for network in update.networks:
            draft.put_network(network)
        for endpoint in update.endpoints:
            draft.put_endpoint(endpoint)
        return draft.finished(update.revision)

    def askers_at(self, kind: str, name: str) -> Callable[[bytes], Asker | None]:
        """Who asks the resolver of a network or sandbox, as a function of the packed source."""
        if kind == "network":
            return self.askers.get(name, {}).get
        asker = self.sandboxes.get(name)
        return lambda _source: asker

    def asker_at(self, kind: str, network: str, source: bytes) -> Asker | None:
        """Who asks there from this packed address.

        On a network, the host and whoever else has an address of its subnets see this network
        alone; strangers see nothing. Inside a sandbox it can only be that sandbox.
        """
        known = self.askers_at(kind, network)(source)
        if known is not None or kind != "network" or network not in self.networks:
            return known
        address = ip_address(source)
        facts = self.networks[network]
        if not any(address in ip_network(subnet) for subnet in facts.subnets):
            return None
        return Asker(
            sandbox="",
            networks=(network,),
            servers=facts.servers,
            forwards=not facts.internal,
        )


class _Draft:
    """A zone under change: copies a table when it is first touched."""

    def __init__(self, zone: Zone) -> None:
        self.networks = dict(zone.networks)
        self.endpoints = dict(zone.endpoints)
        self.names = dict(zone.names)
        self.holders = dict(zone.holders)
        self.askers = dict(zone.askers)
        self.sandboxes = dict(zone.sandboxes)
        self.members = dict(zone.members)
        self._copied: set[tuple[int, str]] = set()
        self._unmerged: set[tuple[str, bytes]] = set()  # names of networks whose holders changed
        self._unseated: dict[
            str, None
        ] = {}  # sandboxes, in order, whose askers are to be made anew

    def finished(self, revision: int) -> Zone:
        for network, name in self._unmerged:
            self._merge(network, name)
        for sandbox in self._unseated:
            self._seat(sandbox)
        return Zone(
            revision=revision,
            networks=self.networks,
            endpoints=self.endpoints,
            names=self.names,
            holders=self.holders,
            askers=self.askers,
            sandboxes=self.sandboxes,
            members=self.members,
        )

    def put_network(self, network: NetworkNames) -> None:
        if self.networks.get(network.id) == network:
            return
        if network.id in self.networks:
            self._remove_network(network.id)
        self.networks[network.id] = network
        self.names[network.id], self.holders[network.id], self.askers[network.id] = {}, {}, {}
        own = _domain(network.name)
        if network.records:
            from netlib.dns.records import custom_sets  # costs dnslib, which few need

            own |= custom_sets(network.records, network.name)
        self._hold(network.id, "", own | _parents(own))
        for endpoint in self._endpoints_of(network.id):
            self._hold(network.id, endpoint.id, sets_of(endpoint, network.name))
            self._unseated[endpoint.sandbox] = None

    def put_endpoint(self, endpoint: EndpointNames) -> None:
        old = self.endpoints.get(endpoint.id)
        if old == endpoint:
            return
        if old is not None:
            self._remove_endpoint(old)
        self.endpoints[endpoint.id] = endpoint
        self.members[endpoint.sandbox] = (*self.members.get(endpoint.sandbox, ()), endpoint.id)
        self._unseated[endpoint.sandbox] = None
        if endpoint.network in self.networks:
            network = self.networks[endpoint.network]
            self._hold(network.id, endpoint.id, sets_of(endpoint, network.name))

    def remove(self, gone: str) -> None:
        endpoint = self.endpoints.get(gone)
        if endpoint is not None:
            self._remove_endpoint(endpoint)
        elif gone in self.networks:
            self._remove_network(gone)

    def _remove_network(self, network: str) -> None:
        del self.networks[network], self.names[network], self.holders[network]
        del self.askers[network]
        self._copied -= {mark for mark in self._copied if mark[1] == network}
        self._unmerged -= {mark for mark in self._unmerged if mark[0] == network}
        for endpoint in self._endpoints_of(network):
            self._unseated[endpoint.sandbox] = None

    def _remove_endpoint(self, endpoint: EndpointNames) -> None:
        del self.endpoints[endpoint.id]
        left = tuple(i for i in self.members[endpoint.sandbox] if i != endpoint.id)
        self.members[endpoint.sandbox] = left
        self._unseated[endpoint.sandbox] = None
        if endpoint.network not in self.networks:
            return
        askers = self._own(self.askers, endpoint.network)
        for address in endpoint.addresses:
            packed = ip_address(address).packed
            if packed in askers and askers[packed].sandbox == endpoint.sandbox:
                del askers[packed]  # else another has the address already
        network = self.networks[endpoint.network]
        holders = self._own(self.holders, network.id)
        for name in sets_of(endpoint, network.name):
            holders[name] = tuple(holder for holder in holders[name] if holder[0] != endpoint.id)
            self._unmerged.add((network.id, name))

    def _endpoints_of(self, network: str) -> list[EndpointNames]:
        return [endpoint for endpoint in self.endpoints.values() if endpoint.network == network]

    def _own(self, tables: dict[str, Any], network: str) -> dict[Any, Any]:
        """A network's table that this draft may write to."""
        mark = (id(tables), network)
        if mark not in self._copied:
            self._copied.add(mark)
            tables[network] = dict(tables[network])
        own: dict[Any, Any] = tables[network]
        return own

    def _hold(self, network: str, holder: str, names: Mapping[bytes, Sets]) -> None:
        holders = self._own(self.holders, network)
        for name, sets in names.items():
            holders[name] = (*holders.get(name, ()), (holder, sets))
            self._unmerged.add((network, name))

    def _merge(self, network: str, name: bytes) -> None:
        """Make the RRsets of a name from those of all who hold it."""
        names, holders = self._own(self.names, network), self._own(self.holders, network)
        if not holders[name]:
            del holders[name]
            names.pop(name, None)
        elif len(holders[name]) == 1:
            names[name] = holders[name][0][1]
        else:
            merged: dict[bytes, dict[bytes, None]] = {}
            for _, sets in holders[name]:
                for wanted, records in sets.items():
                    merged.setdefault(wanted, {}).update(dict.fromkeys(records))
            names[name] = {wanted: tuple(records) for wanted, records in merged.items()}

    def _seat(self, sandbox: str) -> None:
        """Say anew who asks from the addresses of a sandbox."""
        if not self.members[sandbox]:
            del self.members[sandbox]
        endpoints = [self.endpoints[i] for i in self.members.get(sandbox, ())]
        endpoints = [e for e in endpoints if e.network in self.networks]
        if not endpoints:
            self.sandboxes.pop(sandbox, None)
            return
        networks = tuple(dict.fromkeys(e.network for e in endpoints))
        # Who is on an open network as well gets out, whichever of its networks it asks on: a stub
        # takes the first NXDOMAIN for the last word.
        ways_out = [facts for n in networks if not (facts := self.networks[n]).internal]
        own = tuple(dict.fromkeys(s for e in endpoints for s in e.servers if s != SANDBOX_ADDRESS))
        servers = own or next((n.servers for n in ways_out if n.servers), ())
        self.sandboxes[sandbox] = Asker(
            sandbox=sandbox,
            networks=networks,
            servers=servers,
            # Where the host holds no address, it need not reach the network's servers either.
            within=sandbox if servers else "",
            forwards=bool(ways_out),
        )
        for endpoint in endpoints:
            here = self.networks[endpoint.network]
            asker = Asker(
                sandbox=sandbox,
                networks=(here.id, *(n for n in networks if n != here.id)),
                servers=servers if here.internal else own or here.servers,
                within=sandbox if own else "",
                forwards=bool(ways_out),
            )
            askers = self._own(self.askers, here.id)
            for address in endpoint.addresses:
                askers[ip_address(address).packed] = asker


def sets_of(endpoint: EndpointNames, network: str) -> dict[bytes, Sets]:
    """The RRsets of every name of an endpoint, in wire form; names that can't be are left out.

    A name without addresses of a family has an empty set for it: it exists (NODATA).
    """
    addresses = [ip_address(address) for address in endpoint.addresses]
    forward: Sets = {
        A_IN: tuple(_address_record(a) for a in addresses if isinstance(a, IPv4Address)),
        AAAA_IN: tuple(_address_record(a) for a in addresses if isinstance(a, IPv6Address)),
    }
    found: dict[bytes, Sets] = {}
    for name in endpoint.names():
        for text in (name, f"{name}.{network}"):
            try:
                found[wire.packed_name(text)] = forward
            except ValueError:  # an alias that is no name of the DNS; the engine told its owner
                continue
    try:
        target = wire.packed_name(f"{endpoint.names()[0]}.{network}")
    except (ValueError, IndexError):
        return found
    for service in endpoint.services:
        label, _, port = service.partition(" ")
        # Priority and weight 0 (RFC 2782): all who go by one name are as good.
        place: Sets = {
            SRV_IN: (
                wire.resource(wire.SRV, TTL_SECONDS, bytes(4) + int(port).to_bytes(2) + target),
            )
        }
        for name in endpoint.names():
            for text in (f"{label}.{name}", f"{label}.{name}.{network}"):
                with suppress(ValueError):
                    found[wire.packed_name(text)] = place
    found |= _parents(found, beside=_domain(network))
    pointer: Sets = {PTR_IN: (wire.resource(wire.PTR, TTL_SECONDS, target),)}
    for address in addresses:
        found[wire.packed_name(address.reverse_pointer)] = pointer
    return found


def _domain(network: str) -> dict[bytes, Sets]:
    """A network's own name, which all names with it lie below, and its parents."""
    try:
        domain: dict[bytes, Sets] = {wire.packed_name(network): {}}
    except ValueError:
        return {}
    return domain | _parents(domain)


def _parents(names: Iterable[bytes], beside: Iterable[bytes] = ()) -> dict[bytes, Sets]:
    """The names above these, short of the root, that are neither of them nor `beside` them."""
    known = {*names, *beside}
    found: dict[bytes, Sets] = {}
    for name in names:
        at = name[0] + 1
        while name[at]:
            parent = name[at:]
            if parent not in known:
                found[parent] = {}
            at += name[at] + 1
    return found


def _address_record(address: IPv4Address | IPv6Address) -> bytes:
    type_ = wire.A if address.version == 4 else wire.AAAA
    return wire.resource(type_, TTL_SECONDS, address.packed)
