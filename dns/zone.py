"""What is known by name, and by whom: tables that a change is entered into.

No I/O. A change costs what it changes, however many names there are. It is entered between two
queries by the one thread that answers them, so no query meets it half entered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from netlib.dns import wire
from netlib.dns.facts import EndpointNames, NetworkNames, Update
from netlib.values import dataclass

TTL_SECONDS = 0  # a change shows in the next query, also behind a caching stub
SANDBOX_ADDRESS = "127.0.0.11"  # where the resolver listens inside a sandbox, as Docker's does

# Type and class, packed → the records of that RRset, each packed. A name without any is there for
# the names below it (RFC 8020): it exists, and what it has may be known elsewhere.
Sets = Mapping[bytes, tuple[bytes, ...]]

# Who gives a name RRsets: an endpoint's id, or "" for the network's own records; in order.
Holders = dict[str, Sets]

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


class Zone:
    """All names at one revision, for one thread: who reads sees each change whole.

    `names`: network id → name in wire form → RRsets; `wildcards`: network id → those of its names
    that stand for others, too. `askers`: network id → packed source address → who asks there;
    `sandboxes`: sandbox → who asks on its own loopback.
    """

    def __init__(self) -> None:
        self.revision = 0
        self.networks: dict[str, NetworkNames] = {}
        self.endpoints: dict[str, EndpointNames] = {}
        self.names: dict[str, dict[bytes, Sets]] = {}
        self.wildcards: dict[str, set[bytes]] = {}
        self.askers: dict[str, dict[bytes, Asker]] = {}
        self.sandboxes: dict[str, Asker] = {}
        self._holders: dict[str, dict[bytes, Holders]] = {}
        self._members: dict[str, dict[str, None]] = {}  # sandbox → ids of its endpoints, in order
        self._joined: dict[str, dict[str, None]] = {}  # network → likewise, also of one not there

    @classmethod
    def build(
        cls,
        networks: Iterable[NetworkNames] = (),
        endpoints: Iterable[EndpointNames] = (),
        revision: int = 0,
    ) -> Zone:
        """The zone of these networks and endpoints."""
        zone = cls()
        zone.change(Update(revision=revision, networks=tuple(networks), endpoints=tuple(endpoints)))
        return zone

    def change(self, update: Update) -> None:
        """Be as after an update, which tells what is new and what is gone."""
        change = _Change(self)
        for gone in update.gone:
            change.remove(gone)
        for network in update.networks:
            change.put_network(network)
        for endpoint in update.endpoints:
            change.put_endpoint(endpoint)
        change.finish()
        self.revision = update.revision

    def askers_at(self, kind: str, name: str) -> Callable[[bytes], Asker | None]:
        """Who asks the resolver of a network or sandbox, as a function of the packed source.

        True until the zone changes.
        """
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


class _Change:
    """A zone while it changes: what follows from a change is made once, when all is said."""

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self._unmerged: dict[tuple[str, bytes], None] = {}  # names of networks, holders changed
        self._unseated: dict[str, None] = {}  # sandboxes whose askers are to be made anew

    def finish(self) -> None:
        for network, name in self._unmerged:
            if network in self.zone.networks:
                self._merge(network, name)
        for sandbox in self._unseated:
            self._seat(sandbox)

    def put_network(self, network: NetworkNames) -> None:
        zone = self.zone
        known = zone.networks.get(network.id)
        if known == network:
            return
        if known is not None and (known.name, known.records) == (network.name, network.records):
            zone.networks[network.id] = network  # all names stay as they are
            self._unseat(network.id)
            return
        if known is not None:
            self._remove_network(network.id)
        zone.networks[network.id] = network
        zone.names[network.id], zone._holders[network.id], zone.askers[network.id] = {}, {}, {}
        zone.wildcards[network.id] = set()
        own = _domain(network.name)
        if network.records:
            from netlib.dns.records import custom_sets  # costs dnslib, which few need

            own |= custom_sets(network.records, network.name)
        self._hold(network.id, "", own | _parents(own))
        for endpoint in self._endpoints_of(network.id):
            self._hold(network.id, endpoint.id, sets_of(endpoint, network.name))
        self._unseat(network.id)

    def put_endpoint(self, endpoint: EndpointNames) -> None:
        zone = self.zone
        old = zone.endpoints.get(endpoint.id)
        if old == endpoint:
            return
        if old is not None:
            self._remove_endpoint(old)
        zone.endpoints[endpoint.id] = endpoint
        zone._members.setdefault(endpoint.sandbox, {})[endpoint.id] = None
        zone._joined.setdefault(endpoint.network, {})[endpoint.id] = None
        self._unseated[endpoint.sandbox] = None
        network = zone.networks.get(endpoint.network)
        if network is not None:
            self._hold(network.id, endpoint.id, sets_of(endpoint, network.name))

    def remove(self, gone: str) -> None:
        endpoint = self.zone.endpoints.get(gone)
        if endpoint is not None:
            self._remove_endpoint(endpoint)
        elif gone in self.zone.networks:
            self._remove_network(gone)

    def _remove_network(self, network: str) -> None:
        zone = self.zone
        del zone.networks[network], zone.names[network], zone._holders[network]
        del zone.askers[network], zone.wildcards[network]
        self._unseat(network)

    def _remove_endpoint(self, endpoint: EndpointNames) -> None:
        zone = self.zone
        del zone.endpoints[endpoint.id]
        del zone._members[endpoint.sandbox][endpoint.id]
        joined = zone._joined[endpoint.network]
        del joined[endpoint.id]
        if not joined:
            del zone._joined[endpoint.network]
        self._unseated[endpoint.sandbox] = None
        network = zone.networks.get(endpoint.network)
        if network is None:
            return
        askers = zone.askers[network.id]
        for address in endpoint.addresses:
            packed = ip_address(address).packed
            if packed in askers and askers[packed].sandbox == endpoint.sandbox:
                del askers[packed]  # else another has the address already
        for name, sets in sets_of(endpoint, network.name).items():
            holders = zone._holders[network.id][name]
            del holders[endpoint.id]
            if sets or not holders:
                self._unmerged[network.id, name] = None

    def _endpoints_of(self, network: str) -> list[EndpointNames]:
        return [self.zone.endpoints[i] for i in self.zone._joined.get(network, ())]

    def _unseat(self, network: str) -> None:
        self._unseated |= {endpoint.sandbox: None for endpoint in self._endpoints_of(network)}

    def _hold(self, network: str, holder: str, names: Mapping[bytes, Sets]) -> None:
        table = self.zone._holders[network]
        for name, sets in names.items():
            holders = table.setdefault(name, {})
            # A thousand may have names below the same parent, which says nothing itself.
            if sets or not holders:
                self._unmerged[network, name] = None
            holders[holder] = sets

    def _merge(self, network: str, name: bytes) -> None:
        """Make the RRsets of a name from those of all who hold it."""
        names, table = self.zone.names[network], self.zone._holders[network]
        holders = table.get(name)
        if name.startswith(b"\x01*"):
            wildcards = self.zone.wildcards[network]
            (wildcards.add if holders else wildcards.discard)(name)
        if not holders:
            table.pop(name, None)
            names.pop(name, None)
        elif len(holders) == 1:
            (names[name],) = holders.values()
        else:
            merged: dict[bytes, dict[bytes, None]] = {}
            for sets in holders.values():
                for wanted, records in sets.items():
                    merged.setdefault(wanted, {}).update(dict.fromkeys(records))
            names[name] = {wanted: tuple(records) for wanted, records in merged.items()}

    def _seat(self, sandbox: str) -> None:
        """Say anew who asks from the addresses of a sandbox."""
        zone = self.zone
        members = zone._members.get(sandbox, {})
        if not members:
            zone._members.pop(sandbox, None)
        endpoints = [zone.endpoints[i] for i in members]
        endpoints = [e for e in endpoints if e.network in zone.networks]
        if not endpoints:
            zone.sandboxes.pop(sandbox, None)
            return
        networks = tuple(dict.fromkeys(e.network for e in endpoints))
        # Who is on an open network as well gets out, whichever of its networks it asks on: a stub
        # takes the first NXDOMAIN for the last word.
        ways_out = [facts for n in networks if not (facts := zone.networks[n]).internal]
        own = tuple(dict.fromkeys(s for e in endpoints for s in e.servers if s != SANDBOX_ADDRESS))
        servers = own or next((n.servers for n in ways_out if n.servers), ())
        zone.sandboxes[sandbox] = Asker(
            sandbox=sandbox,
            networks=networks,
            servers=servers,
            # Where the host holds no address, it need not reach the network's servers either.
            within=sandbox if servers else "",
            forwards=bool(ways_out),
        )
        for endpoint in endpoints:
            here = zone.networks[endpoint.network]
            asker = Asker(
                sandbox=sandbox,
                networks=(here.id, *(n for n in networks if n != here.id)),
                servers=servers if here.internal else own or here.servers,
                within=sandbox if own else "",
                forwards=bool(ways_out),
            )
            for address in endpoint.addresses:
                zone.askers[here.id][ip_address(address).packed] = asker


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


LOCALHOST = wire.packed_name("localhost")
LOOPBACK: Sets = {
    A_IN: (_address_record(IPv4Address("127.0.0.1")),),
    AAAA_IN: (_address_record(IPv6Address("::1")),),
}
LOOPBACK_POINTERS: Mapping[bytes, Sets] = {
    wire.packed_name(ip_address(address).reverse_pointer): {
        PTR_IN: (wire.resource(wire.PTR, TTL_SECONDS, LOCALHOST),)
    }
    for address in ("127.0.0.1", "::1")
}
