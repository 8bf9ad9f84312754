"""What endpoints on other hosts, and those hosts, mean on this one: told, compared and mended."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from netlib import keys
from netlib.cluster.copies import (
    AWAY_KEY,
    COPIES,
    LEASE_KEY,
    SEEN_KEY,
    WIRING_KEY,
    behind_key,
    clash_key,
    node_key,
    peers_thing,
)
from netlib.cluster.members import membership
from netlib.cluster.model import Node, SharedEndpoint
from netlib.cluster.records import load_shared
from netlib.engine import Engine
from netlib.errors import InvalidOption
from netlib.model import HostFacts, Network
from netlib.operation import Operation
from netlib.peers import (
    beside,
    copies_among,
    copies_of,
    copies_put,
    devices,
    loaded,
    own_keys,
    peers_of,
    peers_wiring,
    places_put,
    puts_of,
    still,
    stray_places,
)
from netlib.plan import Plan, diff
from netlib.records import NetworkRecord, dump, load, load_as, load_network, unchanged
from netlib.store import Commit, Condition, Record, Unchanged, under
from netlib.values import replace
from netlib.wiring import Wiring

# Which network, which endpoint, and as what it is there now; None: it is not there any more.
Changes = Mapping[str, SharedEndpoint | None]
_TOLD = (LEASE_KEY, SEEN_KEY, AWAY_KEY)
# A store that is started again, or chooses another leader, is away for less.
_AWAY_SECONDS = 10.0
_NOTES = (WIRING_KEY, *_TOLD)


def sync(engine: Engine, network_id: str, changes: Changes) -> Operation[None]:
    """Make what changed elsewhere in a network be so here: one plan for all of it.

    Deletions are done as far as there is something to delete.
    """
    record = taken_up(engine, network_id)
    copies = copies_among(engine, network_id, changes.keys()) if record else {}
    before = loaded(copies)
    pairs = [(before.get(one), now) for one, now in changes.items() if before.get(one) != now]
    if record is None or not pairs:
        return Operation(subject="nothing", plan=Plan(), result=None)
    gone = {was.id: was for was, _ in pairs if was is not None}
    there = {now.id: now for _, now in pairs if now is not None}
    held = beside(engine, record.network, there.values())
    host = engine.facts()
    return _peers_operation(
        record,
        diff(
            have=peers_wiring(engine, record.network, gone.values(), host),
            want=peers_wiring(engine, record.network, there.values(), host),
        ),
        new=there.values(),
        gone=[copies[one] for one in gone],
        held=held,
    )


def reconcile(
    engine: Engine, network_id: str, everybody: Iterable[SharedEndpoint]
) -> Operation[None]:
    """Make a network have these endpoints elsewhere and no others, whatever is known or there."""
    record = taken_up(engine, network_id)
    if record is None:
        return Operation(subject="nothing", plan=Plan(), result=None)
    there = {one.id: one for one in everybody}
    copies = copies_of(engine, network_id)
    known = loaded(copies)
    held = beside(engine, record.network, there.values())
    return _peers_operation(
        record,
        _difference(engine, record, there.values(), engine.facts()),
        new=[one for key, one in there.items() if known.get(key) != one],
        gone=[copies[key] for key, one in known.items() if there.get(key) != one],
        held=held,
        strays=stray_places(engine, network_id, there.values()),
    )


def _peers_operation(
    record: NetworkRecord,
    plan: Plan,
    *,
    new: Collection[SharedEndpoint],
    gone: Collection[Record],
    held: tuple[tuple[Condition, ...], Mapping[str, str]],
    strays: Iterable[str] = (),
) -> Operation[None]:
    """What is entered and taken away by what endpoints here have; see `beside`.

    A sandbox that gets the address of one elsewhere gets its entries, too: the MAC is the
    address's. So whoever of both begins second sees the other: addresses are noted from the
    beginning. Their copies are later, or entries would wait for them.
    """
    network = record.network
    conditions, words = held
    places, copies = places_put(new), copies_put(new)
    past = dict.fromkeys((*puts_of([load_shared(record.value) for record in gone]), *strays))
    return Operation(
        subject=f"what is elsewhere on {network.name}",
        holds={keys.network_key(network.id): False, peers_thing(network.id): True},
        plan=plan,
        result=None,
        dismantles=True,
        begin=Commit(
            conditions=(unchanged(record), *still(gone), *conditions),
            put=places,
            durable=False,
        ),
        done=Commit(
            put={**copies, **words},
            delete=tuple(past.keys() - places.keys() - copies.keys()),
            durable=False,
        ),
    )


def taken_up(engine: Engine, network_id: str) -> NetworkRecord | None:
    """The network, if it is here and all of it is made."""
    found = engine.state.store.get(keys.network_key(network_id))
    if found is None:
        return None
    record = load_network(found.value, found.revision)
    return record if record.network.state == "ready" else None


def _difference(
    engine: Engine,
    record: NetworkRecord,
    everybody: Collection[SharedEndpoint],
    host: HostFacts,
    made: Collection[str] = (),
) -> Plan:
    """From what is entered on a network's devices to what these endpoints need, and no more."""
    wanted = peers_wiring(engine, record.network, everybody, host)
    there = [
        noun
        for device in devices(record)
        if device not in made
        for noun in engine.kernel.entries(device)
    ]
    # After those: who connects meanwhile has entries of his own.
    own = own_keys(engine, record)
    return diff(
        have=Wiring(n for n in there if wanted.get(n.key()) is not None or n.key() not in own),
        want=wanted,
    )


def examine_peers(
    engine: Engine, record: NetworkRecord, made: Collection[str] = ()
) -> Iterator[tuple[str, Plan, str]]:
    """What is wrong with a network's entries for endpoints elsewhere: subject, plan and note.

    `made` are devices that are about to be made again: nothing is entered there.
    """
    network = record.network
    peers = peers_of(engine, network.id).values()
    if network.state == "ready":
        plan = _difference(engine, record, peers, engine.facts(), made)
        if plan:
            yield f"what is elsewhere on {network.name}", plan, ""
    if narrow := _narrow(engine, network):
        yield f"network {network.name}", Plan(), narrow
    if behind := engine.state.store.get(behind_key(network.id)):
        yield (
            f"network {network.name}",
            Plan(),
            f"it is not as the cluster has it: {behind.value}; this host's agent tries again",
        )
    for clash in engine.state.store.range(*under(clash_key(network.id, ""))):
        sandbox, address, holder = load(clash.value)
        yield (
            f"{sandbox} on {network.name}",
            Plan(),
            f"{address} was given to {holder} while this host was cut off from the cluster; "
            f"run: net disconnect {network.name} {sandbox}, and connect it again",
        )


def _narrow(engine: Engine, network: Network) -> str:
    """Why the longest packets of a network don't leave this host: its device's MTU was changed."""
    known = network.underlay
    device = engine.kernel.device_of(known.address) if known else None
    if known is None or device is None:
        return ""
    try:
        now = replace(network, underlay=replace(known, mtu=device.mtu))
        engine.driver(network).check_options(now)
    except InvalidOption as error:
        return str(error)
    return ""


# -- being a member -------------------------------------------------------------------------------


def recorded_membership(engine: Engine) -> Wiring:
    """What this host was given for being a member."""
    record = engine.state.store.get(WIRING_KEY)
    return load_as(Wiring, record.value) if record else Wiring()


def member_wiring(engine: Engine) -> Wiring:
    """What it is to have, by its copies of the nodes.

    Who was removed from the cluster by others keeps what it has, until it leaves: its networks
    are not to be open to everybody meanwhile.
    """
    mine = engine.meeting.membership()
    records = engine.state.store.range(*under(node_key("")))
    nodes = {node.id: node for node in (load_as(Node, r.value) for r in records)}
    here = nodes.pop(mine.node, None) if mine else None
    return membership(here, nodes.values()) if here else recorded_membership(engine)


def why_apart(engine: Engine) -> Iterator[str]:
    """What keeps the other members from sending anything to this host, by its own copies."""
    away = engine.state.store.get(AWAY_KEY)
    if away is not None:
        since, why = load(away.value)
        seconds = engine.clock() - since
        if seconds > _AWAY_SECONDS:
            yield (
                f"for {seconds:.0f} s the cluster could not be told that this host lives ({why}); "
                "the others take it for gone, and what is here goes on as it was"
            )
    mine = engine.meeting.membership()
    records = engine.state.store.range(*under(node_key("")))
    if mine is None or not records:  # the agent has not looked yet
        return
    copy = engine.state.store.get(node_key(mine.node))
    if copy is None:
        yield "other members have removed this host; run: net cluster leave -f, and join again"
        return
    node = load_as(Node, copy.value)
    uses = {node.data_address: "others send its frames to"}
    if mine.supervised:
        uses[node.address] = "the cluster's etcd is served at"
    for address, use in uses.items():
        if engine.kernel.device_of(address) is None:
            yield (
                f"this host does not have the address {address} any more, which {use}; give it "
                "back, or leave (net cluster leave -f) and join again by another one"
            )


def be_member(engine: Engine) -> Operation[None]:
    """Have what is needed for being a member, of those nodes that there are now."""
    record = engine.state.store.get(WIRING_KEY)
    have, want = recorded_membership(engine), member_wiring(engine)
    if have == want:
        return Operation(subject="nothing", plan=Plan(), result=None)
    unseen = Unchanged(WIRING_KEY, record.revision if record else 0)
    return Operation(
        subject="membership of the cluster",
        holds={WIRING_KEY: True},
        plan=diff(have=have, want=want),
        result=None,
        dismantles=True,
        # By whoever had it until now: then it is another difference.
        begin=Commit(conditions=(unseen,), put={}, durable=False),
        done=Commit(put={WIRING_KEY: dump(want)}, durable=False),
    )


def has_of_a_membership(engine: Engine) -> bool:
    """Whether a host still has anything that members have."""
    store = engine.state.store
    return any(store.get(key) for key in _NOTES) or any(
        store.range(*under(folder), limit=1) for folder in COPIES
    )


def be_nobody(engine: Engine) -> Operation[None]:
    """Give back what this host was given for being a member, and forget what it was told.

    Nothing, where it has become one again: what is noted is that membership's by then.
    """
    if engine.meeting.membership() is not None:
        return Operation(subject="nothing", plan=Plan(), result=None)
    return Operation(
        subject="membership of the cluster",
        holds={WIRING_KEY: True},
        plan=diff(have=recorded_membership(engine), want=Wiring()),
        result=None,
        dismantles=True,
        insists=True,
        begin=Commit(
            conditions=(Unchanged(keys.MEMBERSHIP_KEY, 0),),
            put={},
            delete=_TOLD,
            delete_ranges=tuple(under(folder) for folder in COPIES),
        ),
        done=Commit(put={}, delete=(WIRING_KEY,)),
    )
