"""What the store's keys are and mean: typed reading, and the pieces that commits are made of.

network/<id>                        a network and its recorded wiring
name/<name>                         the id of the network of that name
pool/<scope>/<4|6>/<first, hex>     a network's prefix, unique on the host or its LAN
endpoint/<network>/<id>             an endpoint and its recorded wiring
member/<network>/<sandbox>/<endpoint>   one that joins them, one for each interface there
interface/<sandbox>/<ifname>        <network>/<endpoint> that has this interface, or is without
                                    one: then `:` and the endpoint's id stand for its name
device/<name>/<group>/<network>     a network that hangs off a device of the host, see driver.Option
single/<driver>                     the only network that this driver makes
mac/<network>/<mac>                 the sandbox that asked for this MAC address
linked/<sandbox>/<network>/<endpoint>   the sandbox whose endpoint has a link to this one
sandbox/<name>                      a sandbox
namespace/<inode>                   the name of the sandbox with this network namespace
lease/<network>/<address, hex>      who holds an address, since when, in which boot
cursor/<network>/<first, hex>       the address that was given last in a subnet
port/<4|6>/<protocol>/<port>/<address, hex, or *>   the endpoint that publishes it
operation/<id>                      since when a daemon is at it, and its answer
host/identity                       the network namespace and boot that all this is about
host/realm                          digits that the ids of what this state makes share
host/forwarding/<4|6>               for whom forwarding was switched on
host/forward-policy                 the policies of FORWARD before we set them
cluster/<what>                      what this host has and knows as a member, see cluster.state
node/<id>                           copy of a node of the cluster
offer/<network>                     copy of a network of the cluster's
peer/<network>/<endpoint>           copy of an endpoint elsewhere of a network that is here
place/<network>/<address, hex>      which of those has an address
clash/<network>/<endpoint>          an endpoint here whose address another host's has got
behind/<network>/why                why a network here is not as the cluster has it
look/<network>                      that the agent is to look at what this host had, and has, of it
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import ip_address
from threading import Lock
from typing import Any, Generic, TypeVar

from netlib import built_in
from netlib.codec import from_json, to_json
from netlib.errors import NoSuchNetwork, NoSuchSandbox, NotConnected, StoreError
from netlib.ipam import lease_address, lease_key
from netlib.links import Link
from netlib.memo import of_same
from netlib.model import Endpoint, Family, IPAddress, IPNetwork, Network, Sandbox, Subnet
from netlib.store import Absent, Store, Unchanged, under
from netlib.values import dataclass, replace
from netlib.wiring import Publish, Wiring

T = TypeVar("T")
IDENTITY_KEY = "host/identity"
REALM_KEY = "host/realm"
FORWARD_POLICY_KEY = "host/forward-policy"
MEMBERSHIP_KEY = "cluster/membership"
OFFERS = "offer/"
# Nobody waits for news of these: they come with others that are told of.
UNTOLD = ("place/",)
_FEW = 8
_ID_DIGITS = 64
_DIGITS = re.compile("[0-9a-f]{0,64}")
_PART = re.compile("[A-Za-z0-9._:@-]*")
# json.dumps makes one for each value. What `to_json` makes is new, and never in itself.
_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRecord:
    """A network, the wiring it was given, and the revision this was written at."""

    network: Network
    wiring: Wiring
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRecord:
    """An endpoint, the wiring it was given, and the revision this was written at."""

    endpoint: Endpoint
    wiring: Wiring
    revision: int = 0


class Memo(Generic[T]):
    """The values of the texts that were written or read last.

    A record is read several times in one operation and again in the next, and decoding it
    takes longer than finding it. Values are frozen, so all may have the same one.
    """

    def __init__(self, decode: Callable[[str], T], size: int) -> None:
        self._decode = decode
        self._size = size
        self._known: dict[str, T] = {}
        self._texts: dict[int, str] = {}  # a value that is known keeps its id
        self._lock = Lock()

    def keep(self, text: str, value: T) -> str:
        """The text, whose value will be found again."""
        with self._lock:
            self._forget(text)
            self._known[text] = value
            self._texts[id(value)] = text
            if len(self._known) > self._size:
                self._forget(next(iter(self._known)))
        return text

    def _forget(self, text: str) -> None:
        value = self._known.pop(text, None)
        if value is not None:
            self._texts.pop(id(value), None)

    def of(self, text: str) -> T:
        """The value of a text."""
        value = self._known.get(text)
        if value is None:
            with reading(text):
                value = self._decode(text)
            self.keep(text, value)
        return value

    def text_of(self, value: T) -> str | None:
        """The text that this very value was read of, or was written as, if it is known still."""
        with self._lock:
            return self._texts.get(id(value))


@contextmanager
def reading(text: str) -> Iterator[None]:
    """StoreError for a record that is not what was written."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"a record of the state can't be read ({error!r}): {text[:_SHOWN]}",
            "put back a copy of the state's folder, or move it away and make the networks anew",
        ) from error


def load(text: str) -> Any:
    """A record's JSON value."""
    with reading(text):
        return json.loads(text)


def load_as(shape: type[T], text: str) -> T:
    """A record's value of a class."""
    with reading(text):
        return from_json(shape, json.loads(text))


def _sandbox(text: str) -> Sandbox:
    return from_json(Sandbox, json.loads(text))


def _endpoint(text: str) -> tuple[Endpoint, Wiring]:
    document = json.loads(text)
    return from_json(Endpoint, document["endpoint"]), from_json(Wiring, document["wiring"])


def _network(text: str) -> tuple[Network, Wiring]:
    document = json.loads(text)
    return from_json(Network, document["network"]), from_json(Wiring, document["wiring"])


_ENDPOINTS = Memo(_endpoint, 512)
_NETWORKS = Memo(_network, 64)
_SANDBOXES = Memo(_sandbox, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who holds an address. `since` is in seconds since the epoch."""

    endpoint: str
    sandbox: str
    boot_id: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The network namespace and the boot that a state speaks of."""

    netns: int
    boot_id: str


def network_key(network_id: str) -> str:
    """Where a network is kept."""
    return f"network/{network_id}"


def name_key(name: str) -> str:
    """Where a network's name is kept."""
    return f"name/{name}"


def endpoint_key(network_id: str, endpoint_id: str) -> str:
    """Where an endpoint is kept."""
    return f"endpoint/{network_id}/{endpoint_id}"


def members(network_id: str, sandbox: str) -> tuple[str, str]:
    """The range in which it is kept that a sandbox is on a network."""
    return under(f"member/{network_id}/{part(sandbox)}/")


def member_key(endpoint: Endpoint) -> str:
    """Where it is kept that an endpoint joins its sandbox and its network."""
    return f"member/{endpoint.network}/{part(endpoint.sandbox.name)}/{endpoint.id}"


def interface_key(sandbox: str, ifname: str) -> str:
    """Where it is kept what an interface of a sandbox is."""
    return f"interface/{part(sandbox)}/{part(ifname)}"


def place_key(endpoint: Endpoint) -> str:
    """Where it is kept that a sandbox has an endpoint, which may be without an interface."""
    # No device can be called like that (dev_valid_name in net/core/dev.c refuses colons).
    return interface_key(endpoint.sandbox.name, endpoint.ifname or f":{endpoint.id[:12]}")


def mac_key(network_id: str, mac: str) -> str:
    """Where it is kept who asked for a MAC address: the others follow from ids, and never meet."""
    return f"mac/{network_id}/{mac}"


def link_keys(endpoint: Endpoint) -> tuple[str, ...]:
    """Where it is kept to whom an endpoint is linked."""
    return tuple(
        f"linked/{part(target)}/{endpoint.network}/{endpoint.id}" for target in endpoint.links
    )


def devices_of(name: str, group: str = "") -> tuple[str, str]:
    """The range of what hangs off a device, or of one group of that."""
    return under(f"device/{part(name)}/" + (f"{part(group)}/" if group else ""))


def device_key(name: str, group: str, network_id: str) -> str:
    """Where it is kept that a network hangs off a device."""
    return f"device/{part(name)}/{part(group)}/{network_id}"


def single_key(driver: str) -> str:
    """Where the only network of a driver is kept."""
    return f"single/{part(driver)}"


def sandbox_key(name: str) -> str:
    """Where a sandbox is kept."""
    return f"sandbox/{part(name)}"


def namespace_key(inode: int) -> str:
    """Where it is kept which sandbox a network namespace is."""
    return f"namespace/{inode}"


def address_key(network_id: str, address: IPAddress) -> str:
    """Where an address's lease is kept."""
    return f"lease/{network_id}/{lease_key(address)}"


def cursor_key(network_id: str, prefix: IPNetwork) -> str:
    """Where a subnet's last given address is kept."""
    return f"cursor/{network_id}/{lease_key(prefix.network_address)}"


def pools_of(scope: str, family: int) -> tuple[str, str]:
    """The range of a scope's prefixes, in the order of addresses."""
    return under(f"pool/{part(scope)}/{family}/")


def pool_key(scope: str, prefix: IPNetwork) -> str:
    """Where a network's prefix is kept."""
    return f"pool/{part(scope)}/{lease_key(prefix.network_address)}"


def pool_end(scope: str, prefix: IPNetwork) -> str:
    """The end of the range of prefixes that start inside this one."""
    return f"pool/{part(scope)}/{lease_key(prefix.broadcast_address)}\0"


def forwarding_key(family: Family) -> str:
    """Where it is kept for whom we switched forwarding on."""
    return f"host/forwarding/{family}"


def operation_key(operation: str) -> str:
    """Where it is kept what became of a request to a daemon."""
    return f"operation/{part(operation)}"


def part(text: str) -> str:
    """A sandbox's or interface's name as one part of a key: no slash, ASCII."""
    if _PART.fullmatch(text):
        return text
    return "".join(
        c if c.isascii() and (c.isalnum() or c in "._:@-") else f"%{ord(c):x}%" for c in text
    )


def dump(value: object) -> str:
    """A value's JSON text, as records hold it."""
    return _ENCODER.encode(to_json(value))


def dump_network(network: Network, wiring: Wiring) -> str:
    """The record of a network."""
    return _NETWORKS.keep(_record("network", network, wiring), (network, wiring))


def dump_sandbox(box: Sandbox) -> str:
    """The record of a sandbox."""
    return _SANDBOXES.keep(dump(box), box)


def dump_endpoint(endpoint: Endpoint, wiring: Wiring) -> str:
    """The record of an endpoint."""
    return _ENDPOINTS.keep(_record("endpoint", endpoint, wiring), (endpoint, wiring))


def _record(kind: str, value: object, wiring: Wiring) -> str:
    return f'{{"{kind}":{dump(value)},"wiring":{_dump_wiring(wiring)}}}'


@of_same
def _dump_wiring(wiring: Wiring) -> str:
    """A wiring's text: an endpoint has the same one before and when it is ready."""
    return dump(wiring)


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
        named = self.store.get(name_key(reference)) if _is_key_part(reference) else None
        if named is not None:
            return self._network(named.value)
        if reference in built_in.NAMES:
            return NetworkRecord(network=built_in.network(reference), wiring=Wiring())
        offered = next((r for r in self.offers() if r.network.name == reference), None)
        if offered is not None:
            return offered
        if not reference or not _is_hex(reference):
            return None
        first, end = under(network_key(reference))
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
        return _is_key_part(name) and self.store.get(name_key(name)) is not None

    def _unmade(self) -> Iterator[NetworkRecord]:
        """The networks that are made when they are first used: at revision 0."""
        for name in built_in.NAMES:
            if self.store.get(name_key(name)) is None:
                yield NetworkRecord(network=built_in.network(name), wiring=Wiring())
        yield from self.offers()

    def offers(self) -> list[NetworkRecord]:
        """The cluster's networks that this host has not taken up, oldest first; at revision 0."""
        found = [
            replace(load_network(record.value, record.revision), revision=0)
            for record in self.store.range(*under(OFFERS))
            if self.store.get(network_key(record.key.removeprefix(OFFERS))) is None
        ]
        return sorted(found, key=lambda r: (r.network.created, r.network.name))

    def _network(self, network_id: str) -> NetworkRecord | None:
        record = self.store.get(network_key(network_id))
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
        prefix = f"endpoint/{network_id}/" if network_id else "endpoint/"
        found = [load_endpoint(r.value, r.revision) for r in self.store.range(*under(prefix))]
        return sorted(found, key=lambda r: (r.endpoint.created, r.endpoint.id))

    def has_endpoints(self, network_id: str) -> bool:
        """Whether a network has any endpoint."""
        return bool(self.store.range(*under(f"endpoint/{network_id}/"), limit=1))

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
        for member in self.store.range(*members(network_id, sandbox)):
            record = self.store.get(endpoint_key(network_id, member.key.rpartition("/")[2]))
            if record is not None:
                found.append(load_endpoint(record.value, record.revision))
        return sorted(found, key=lambda r: (r.endpoint.created, r.endpoint.id))

    def endpoints_of(self, sandbox: str) -> list[EndpointRecord]:
        """A sandbox's endpoints, oldest first."""
        found: list[EndpointRecord] = []
        for interface in self.store.range(*under(f"interface/{part(sandbox)}/")):
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
        records = self.store.range(*under(f"linked/{part(sandbox)}/"))
        return list(dict.fromkeys(record.value for record in records))

    def linked_to(self, sandbox: str, network_id: str) -> list[EndpointRecord]:
        """The endpoints on a network that are linked to a sandbox."""
        records = self.store.range(*under(f"linked/{part(sandbox)}/{network_id}/"))
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
        record = self.store.get(sandbox_key(name))
        return _SANDBOXES.of(record.value) if record else None

    def sandbox_in(self, inode: int) -> Sandbox | None:
        """The sandbox that has a network namespace."""
        record = self.store.get(namespace_key(inode))
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
        inode = namespace_key(box.netns.inode)
        owner = self.store.get(inode)
        mine = owner is not None and owner.value == box.name
        return (sandbox_key(box.name), inode) if mine else (sandbox_key(box.name),)

    def sandboxes(self) -> list[Sandbox]:
        """All sandboxes that the state knows, oldest first."""
        found = [_SANDBOXES.of(r.value) for r in self.store.range(*under("sandbox/"))]
        return sorted(found, key=lambda s: (s.created, s.name))

    # -- addresses and ports ----------------------------------------------------------------------

    def lease(self, network_id: str, address: IPAddress) -> Lease | None:
        """Who holds an address."""
        record = self.store.get(address_key(network_id, address))
        return load_as(Lease, record.value) if record else None

    def held(self, network_id: str) -> list[tuple[IPAddress, Lease]]:
        """The addresses of a network that are held, in order, and by whom."""
        start = len(f"lease/{network_id}/")
        return [
            (lease_address(record.key[start:]), load_as(Lease, record.value))
            for record in self.store.range(*under(f"lease/{network_id}/"))
        ]

    def leases(self, network_id: str) -> Leases:
        """The addresses of a network that are held."""
        return Leases(self.store, network_id)

    def cursor(self, network_id: str, subnet: Subnet) -> IPAddress | None:
        """The address of a subnet that was given last."""
        record = self.store.get(cursor_key(network_id, subnet.prefix))
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
        record = self.store.get(REALM_KEY)
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
        start = len(f"lease/{self.network_id}/")
        found = self.store.range(*self._range(first, last), limit=limit)
        return [lease_address(record.key[start:]) for record in found]

    def _range(self, first: IPAddress, last: IPAddress) -> tuple[str, str]:
        return address_key(self.network_id, first), address_key(self.network_id, last) + "\0"


def load_endpoint(value: str, revision: int) -> EndpointRecord:
    """An endpoint's record from its text."""
    endpoint, wiring = _ENDPOINTS.of(value)
    return EndpointRecord(endpoint=endpoint, wiring=wiring, revision=revision)


@lru_cache(maxsize=64)
def load_network(value: str, revision: int) -> NetworkRecord:
    """A network's record from its text."""
    network, wiring = _NETWORKS.of(value)
    return NetworkRecord(network=network, wiring=wiring, revision=revision)


def unchanged(record: NetworkRecord | EndpointRecord) -> Unchanged:
    """The condition that nobody wrote a record since it was read."""
    if isinstance(record, NetworkRecord):
        return Unchanged(network_key(record.network.id), record.revision)
    endpoint = record.endpoint
    return Unchanged(endpoint_key(endpoint.network, endpoint.id), record.revision)


def no_members(network_id: str) -> Absent:
    """The condition that a network has no endpoint."""
    return Absent(*under(f"endpoint/{network_id}/"))


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
