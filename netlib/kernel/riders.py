"""What rides on devices: up, addresses, routes, neighbours and forwarding entries."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from errno import EEXIST
from functools import partial
from ipaddress import IPv4Address

from netlib.errors import NetError, NotThere
from netlib.kernel import rtnl
from netlib.kernel import rtnl_entries as entries
from netlib.kernel.errnos import Refusal, is_absence, refused
from netlib.kernel.journal import Journal
from netlib.kernel.netlink import APPEND, CREATE, EXCLUSIVE, REPLACE, Request, Socket
from netlib.kernel.refusals import thing, translated
from netlib.model import IPAddress, IPInterface
from netlib.plan import Change, Create, Delete, Step, in_order, subject
from netlib.values import replace
from netlib.wiring import Address, FdbEntry, Neighbour, Noun, Route, Up

Rider = Up | Address | Route | Neighbour | FdbEntry
_RIDERS = (Up, Address, Route, Neighbour, FdbEntry)
_MAIN = 254
_NOWHERE = IPv4Address(0)


def do_riders(steps: Sequence[Step], socket: Socket, journal: Journal) -> None:
    """Do all steps in one send; on failure raise, with what was done in the journal."""
    indexes = _indexes((subject(step) for step in steps), socket)
    asleep = _asleep(steps, socket)
    parts = [
        (step, request)
        for step in in_order(steps)
        for request in _requests(step, indexes, asleep, socket)
    ]
    try:
        answers = socket.transact([request for _, request in parts])
    except BaseException:  # an interrupt, say: all of it may have been done
        for step, _ in parts:
            journal.note(step)
        raise
    for device in asleep:
        down = rtnl.set_link(index=indexes[device], up=False)
        journal.restore.append(lambda down=down: _quietly(socket, down))  # type: ignore[misc]
    refused: list[tuple[Step, Refusal]] = []
    for (step, _), refusal in zip(parts, answers, strict=True):
        if refusal is None:
            journal.note(step)
        else:
            refused.append((step, refusal))
    failure: NetError | None = None
    for step, refusal in refused:
        if _is_settled(step, refusal, asleep, indexes[_device(step)], socket):
            journal.note(step)
        elif failure is None:
            failure = translated(refusal, step)
    if failure is not None:
        raise failure


def remove_riders(nouns: Iterable[Noun], socket: Socket) -> None:
    """Remove those that are there."""
    riders = [noun for noun in nouns if isinstance(noun, _RIDERS)]
    there = {device for device in {noun.device for noun in riders} if socket.index(device)}
    steps = [Delete(noun) for noun in riders if noun.device in there]
    indexes = _indexes((step.noun for step in steps), socket)
    parts = [
        (step, request)
        for step in in_order(steps)
        for request in _requests(step, indexes, set(), socket)
    ]
    answers = socket.transact([request for _, request in parts])
    for (step, _), refusal in zip(parts, answers, strict=True):
        if refusal is not None and not is_absence(refusal):
            raise translated(refusal, step)


def forget_vtep(device: str, address: IPAddress, socket: Socket) -> None:
    """Remove a VXLAN device's own entries for a VTEP: one message, where Linux knows it."""
    index = socket.index(device)
    if not index:
        return
    (refusal,) = socket.transact([entries.delete_tunnel_entries(index, address)])
    if refusal is None or is_absence(refusal):
        return
    # Before Linux 6.7 such a message was none, or one without a MAC address.
    found = [s for s in _forwarding(index, socket) if s.address == address and not s.at_master]
    requests = [entries.delete_tunnel_entry(index, state.mac, address) for state in found]
    for answer in socket.transact(requests):
        if answer is not None and not is_absence(answer):
            raise refused(answer, f"the entries of {device} for {address} can't be removed")


def entries_of(device: str, socket: Socket) -> Iterator[Noun]:
    """The forwarding entries of a VXLAN device, or the permanent neighbours of another one."""
    index = socket.index(device)
    if not index:
        return
    found = _forwarding(index, socket)
    whole = {state.mac for state in found if entries.is_sticky(state)}
    for state in found:
        if not state.at_master and state.address is not None:
            is_half = state.mac not in whole and state.mac != entries.ZERO_MAC
            remote = _NOWHERE if is_half else state.address
            yield FdbEntry(device=device, mac=state.mac, remote=remote)
    # Of a host that was silenced only the bridge's half is left.
    for mac in whole - {state.mac for state in found if not state.at_master}:
        yield FdbEntry(device=device, mac=mac, remote=_NOWHERE)
    for version in (4, 6):
        for neighbour in _neighbours(index, version, socket).values():
            if neighbour.state & entries.PERMANENT and neighbour.address is not None:
                yield Neighbour(device=device, address=neighbour.address, mac=neighbour.mac)


def _forwarding(index: int, socket: Socket) -> list[entries.NeighbourState]:
    bodies = _listed(entries.fdb_of(index), "the entries of a device", socket)
    states = map(entries.read_neighbour, bodies)
    return [state for state in states if state.ifindex == index]


def _device(step: Step) -> str:
    noun = subject(step)
    assert isinstance(noun, _RIDERS)
    return noun.device


def _quietly(socket: Socket, request: Request) -> None:
    socket.transact([request])


def _indexes(nouns: Iterable[Noun], socket: Socket) -> dict[str, int]:
    found: dict[str, int] = {}
    for noun in nouns:
        assert isinstance(noun, _RIDERS)
        if noun.device not in found:
            index = socket.index(noun.device)
            if not index:
                raise NotThere(f"{thing(noun)}: there is no device {noun.device}")
            found[noun.device] = index
    return found


def _asleep(steps: Iterable[Step], socket: Socket) -> set[str]:
    """The devices that are down and to be up."""
    devices = {
        step.noun.device
        for step in steps
        if isinstance(step, Create) and isinstance(step.noun, Up | Address)
    }
    return {device for device in devices if not socket.is_up(device)}


def _requests(
    step: Step, indexes: dict[str, int], asleep: set[str], socket: Socket
) -> Iterator[Request]:
    noun = subject(step)
    assert isinstance(noun, _RIDERS)
    index = indexes[noun.device]
    deleting = isinstance(step, Delete)
    changing = isinstance(step, Change)
    match noun:
        case Up() if deleting:
            if not _has_addresses(index, socket):
                yield rtnl.set_link(index=index, up=False)
        case Up():
            if noun.device in asleep:
                yield rtnl.set_link(index=index, up=True)
        case Address() if deleting:
            yield entries.delete_address(index, noun.address)
        case Address() if not changing:
            yield entries.new_address(index, noun.address)
            if noun.device in asleep:
                yield rtnl.set_link(index=index, up=True)
        case Route():
            make = (
                entries.delete_route if deleting else partial(entries.new_route, replace=changing)
            )
            yield make(
                noun.destination,
                index,
                noun.via,
                noun.metric,
                on_link=noun.on_link,
                src=noun.src,
            )
        case Neighbour() if deleting:
            yield entries.delete_neighbour(index, noun.address)
        case Neighbour():
            yield entries.new_neighbour(index, noun.address, noun.mac, replace=changing)
        case FdbEntry():
            yield from _fdb_requests(step, noun, index)


def _fdb_requests(step: Step, noun: FdbEntry, index: int) -> Iterator[Request]:
    flooding = noun.mac == entries.ZERO_MAC
    if isinstance(step, Delete):
        if not flooding:
            yield entries.delete_port_entry(index, noun.mac)
        yield entries.delete_tunnel_entry(index, noun.mac, noun.remote)
        return
    flags = CREATE | (REPLACE if isinstance(step, Change) else EXCLUSIVE)
    if flooding:  # copies go to every remote of the zero address
        flags = CREATE | APPEND
    yield entries.tunnel_entry(index, noun.mac, noun.remote, flags)
    if not flooding:
        # Sticky, or a sandbox that sends from this MAC would draw its frames to itself; and
        # neighbour suppression answers only for what the bridge knows too.
        yield entries.port_entry(index, noun.mac, sticky=True)


def _has_addresses(index: int, socket: Socket) -> bool:
    return any(not address.ip.is_link_local for address in addresses(index, socket))


def _listed(request: Request, what: str, socket: Socket) -> list[bytes]:
    """The answers to a dump: none if its device is gone meanwhile."""
    try:
        return socket.ask(request, what)
    except NotThere:
        return []


def addresses(index: int, socket: Socket) -> list[IPInterface]:
    """The addresses of a device: none of one that is gone."""
    bodies = _listed(entries.addresses_of(index), "the addresses of a device", socket)
    states = map(entries.read_address, bodies)
    return [address for at, address in states if at == index]


def _is_settled(step: Step, refusal: Refusal, asleep: set[str], index: int, socket: Socket) -> bool:
    """Whether a refused step, or a part of it, is done all the same, or is after a second try.

    An address whose device is down, or an entry that was learned, is not there for `observe`:
    making it completes it.
    """
    if isinstance(step, Delete) and is_absence(refusal):
        noun = step.noun  # of half an entry only a half can be taken away
        return isinstance(noun, FdbEntry) and noun.remote == _NOWHERE
    if not isinstance(step, Create) or refusal.errno != EEXIST:
        return False
    noun = step.noun
    if isinstance(noun, Address):
        return noun.device in asleep
    if isinstance(noun, Neighbour):
        known = _neighbours(index, noun.address.version, socket).get(noun.address)
        if known is None or not known.state & entries.PERMANENT:
            request = entries.new_neighbour(index, noun.address, noun.mac, replace=True)
            return socket.transact([request]) == [None]
    return False


def _neighbours(index: int, version: int, socket: Socket) -> dict[object, entries.NeighbourState]:
    bodies = _listed(entries.neighbours_of(index, version), "the neighbours of a device", socket)
    states = map(entries.read_neighbour, bodies)
    return {state.address: state for state in states if state.ifindex == index}


class Observer:
    """Reads riders back, each device's and table's once."""

    def __init__(self, socket: Socket, kept_up: Container[str] = ()) -> None:
        """`kept_up` are devices whose own noun says that they are up."""
        self._socket = socket
        self._kept_up = kept_up
        self._cache: dict[object, object] = {}

    def observe(self, noun: Rider) -> Noun | None:
        """The rider as it is now; None where it is not there, or not all of it."""
        socket = self._socket
        index = socket.index(noun.device)
        if not index:
            return None
        match noun:
            case Up():
                return noun if socket.is_up(noun.device) else None
            case Address():
                return noun if self._has_address(index, noun) else None
            case Route():
                return self._route(noun)
            case Neighbour():
                return self._neighbour(index, noun)
            case FdbEntry():
                return self._fdb_entry(index, noun)

    def _has_address(self, index: int, noun: Address) -> bool:
        if noun.device not in self._kept_up and not self._socket.is_up(noun.device):
            return False
        key = ("addresses", index)
        if key not in self._cache:
            self._cache[key] = set(addresses(index, self._socket))
        found = self._cache[key]
        assert isinstance(found, set)
        return noun.address in found

    def _route(self, noun: Route) -> Route | None:
        version = noun.destination.version
        key = ("routes", version)
        if key not in self._cache:
            bodies = self._socket.ask(entries.routes(version, _MAIN), "the routes")
            states = map(entries.read_route, bodies)
            self._cache[key] = {(s.destination, s.metric): s for s in states if s.table == _MAIN}
        found = self._cache[key]
        assert isinstance(found, dict)
        network = noun.destination
        destination = (entries.family(network), network.network_address.packed, network.prefixlen)
        state = found.get((destination, noun.metric))
        if state is None:
            return noun if self._is_moved(noun, destination) else None
        device = self._socket.device(state.ifindex)
        return replace(noun, device=device, via=state.via, on_link=state.on_link, src=state.src)

    def _is_moved(self, noun: Route, destination: tuple[int, bytes, int]) -> bool:
        """Whether a policy has it in another table (ip-rule(8)), as the CNI plugin sbr does."""
        index = self._socket.index(noun.device)
        bodies = self._socket.ask(
            entries.routes(noun.destination.version, index=index), "the routes"
        )
        return any(
            (state.destination, state.ifindex, state.via, state.kind)
            == (destination, index, noun.via, entries.UNICAST)
            for state in map(entries.read_route, bodies)
        )

    def _neighbour(self, index: int, noun: Neighbour) -> Neighbour | None:
        version = noun.address.version
        key = ("neighbours", index, version)
        if key not in self._cache:
            self._cache[key] = _neighbours(index, version, self._socket)
        found = self._cache[key]
        assert isinstance(found, dict)
        state = found.get(noun.address)
        if state is None or not state.state & entries.PERMANENT:
            return None
        return replace(noun, mac=state.mac)

    def _fdb_entry(self, index: int, noun: FdbEntry) -> FdbEntry | None:
        key = ("fdb", index)
        if key not in self._cache:
            by_mac: dict[str, list[entries.NeighbourState]] = {}
            for state in _forwarding(index, self._socket):
                by_mac.setdefault(state.mac, []).append(state)
            self._cache[key] = by_mac
        found = self._cache[key]
        assert isinstance(found, dict)
        known = found.get(noun.mac, ())
        remotes = [s.address for s in known if not s.at_master and s.address is not None]
        if not remotes:
            return None
        if noun.mac == entries.ZERO_MAC:
            return noun if noun.remote in remotes else None
        if not any(entries.is_sticky(state) for state in known):
            return replace(noun, remote=_NOWHERE)  # half an entry, to be changed into a whole
        return replace(noun, remote=remotes[0])
