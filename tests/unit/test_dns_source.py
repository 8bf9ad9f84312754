"""What the keeper reads from the state: networks with names, endpoints that are ready."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from netlib import built_in, keys, records
from netlib.dns.facts import EndpointNames, NetworkNames, Update
from netlib.dns.source import ZoneSource, store_source
from netlib.model import Endpoint, Netns, Network, PublishedPort, Sandbox, Subnet
from netlib.store import Commit, Store
from netlib.store.memory import MemoryStore
from netlib.wiring import Wiring

NET = Network(
    id="4f1d" * 16,
    name="my-net",
    driver="bridge",
    subnets=(Subnet(prefix=ip_network("192.0.2.0/24"), gateway=ip_address("192.0.2.1")),),
    records=("ns1 A 192.0.2.9",),
    servers=("192.0.2.54",),
    internal=True,
)
WEB = Endpoint(
    id="ab12" * 16,
    network=NET.id,
    sandbox=Sandbox(
        name="docker:web",
        kind="docker",
        netns=Netns(name="web", path="/run/netns/web"),
        hostname="www1",
        servers=("192.0.2.53",),
    ),
    ifname="eth0",
    mac="02:00:00:00:00:01",
    addresses=(ip_interface("192.0.2.2/24"), ip_interface("2001:db8::2/64")),
    aliases=("front",),
    ports=(
        PublishedPort(host_port=8080, port=80),
        PublishedPort(host_port=5000, port=60053, count=1000, protocol="udp"),
    ),
    state="ready",
)
NET_NAMES = NetworkNames(
    id=NET.id,
    name="my-net",
    internal=True,
    subnets=("192.0.2.0/24",),
    records=("ns1 A 192.0.2.9",),
    servers=("192.0.2.54",),
)
WEB_NAMES = EndpointNames(
    id=WEB.id,
    network=NET.id,
    sandbox="docker:web",
    hostname="www1",
    short_id="ab12ab12ab12",
    aliases=("front",),
    addresses=("192.0.2.2", "2001:db8::2"),
    servers=("192.0.2.53",),
    netns="/run/netns/web",
    services=(
        "_80._tcp 80",
        "_http._tcp 80",
        *(f"_{port}._udp {port}" for port in range(60053, 60053 + 32)),
    ),
)


@pytest.fixture
def store() -> Store:
    """With one network and one endpoint."""
    store = MemoryStore()
    put(store, network=NET)
    put(store, endpoint=WEB)
    return store


def put(store: Store, **what: Network | Endpoint) -> int:
    """Write a record as the engine does."""
    for value in what.values():
        if isinstance(value, Network):
            key, text = keys.network_key(value.id), records.dump_network(value, Wiring())
        else:
            key = keys.endpoint_key(value.network, value.id)
            text = records.dump_endpoint(value, Wiring())
        revision = store.commit(Commit(put={key: text}))
    return revision


@pytest.fixture
def source(store: Store) -> ZoneSource:
    """What the keeper reads by."""
    return store_source(store)


def test_at_first_everything_is_read(store: Store, source: ZoneSource) -> None:
    """All that names need, and nothing else."""
    assert source(0, 0.0) == Update(
        revision=store.revision(), full=True, networks=(NET_NAMES,), endpoints=(WEB_NAMES,)
    )
    assert WEB_NAMES.names() == ("web", "www1", "ab12ab12ab12", "front")


def test_then_what_changed(store: Store, source: ZoneSource) -> None:
    """By revision: written, and gone."""
    since = store.revision()
    assert source(since, 0.0) is None
    moved = replace(WEB, aliases=())
    revision = put(store, endpoint=moved)

    assert source(since, 0.0) == Update(
        revision=revision, since=since, endpoints=(replace(WEB_NAMES, aliases=()),)
    )
    gone = store.commit(Commit(put={}, delete=(keys.endpoint_key(NET.id, WEB.id),)))
    assert source(revision, 0.0) == Update(revision=gone, since=revision, gone=(WEB.id,))


@pytest.mark.parametrize("unready", ["pending", "removing"])
def test_only_what_is_ready_has_names(store: Store, source: ZoneSource, unready: str) -> None:
    """A name that leads to an address before it is there, or after, is worse than none."""
    since = store.revision()
    put(store, endpoint=replace(WEB, state=unready))  # type: ignore[arg-type]

    change = source(since, 0.0)
    assert change is not None
    assert (change.endpoints, change.gone) == ((), (WEB.id,))


def test_a_network_can_be_without_names(store: Store, source: ZoneSource) -> None:
    """As the default one is: there sandboxes find each other by address only."""
    put(store, network=replace(NET, options=built_in.network("bridge").options))
    found = source(0, 0.0)
    assert found is not None
    assert found.networks == ()


def test_commits_about_other_things_move_the_revision_on(store: Store, source: ZoneSource) -> None:
    """So that who waits for a revision is told when it is served."""
    since = store.revision()
    revision = store.commit(Commit(put={"lease/x": "{}"}))
    assert source(since, 0.0) == Update(revision=revision, since=since)


def test_a_past_that_is_forgotten_is_read_anew(
    store: Store, source: ZoneSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store keeps only so many events."""
    forgets: Callable[..., None] = lambda *_: None  # noqa: E731 - a stand-in
    monkeypatch.setattr(store, "changes", forgets)
    found = source(1, 0.0)
    assert found is not None
    assert found.full


def test_an_older_state_that_was_put_back_is_told_as_such(store: Store, source: ZoneSource) -> None:
    """By the revision that was asked for changes since, which it does not know."""
    revision = store.revision()
    found = source(revision + 5, 0.0)
    assert found is not None
    assert (found.full, found.revision, found.since) == (True, revision, revision + 5)


def test_an_update_travels_as_plain_values(source: ZoneSource) -> None:
    """Between keeper and server, and from clients that push."""
    found = source(0, 0.0)
    assert found is not None
    for update in (found, Update(revision=7, since=6, gone=("x",))):
        assert Update.from_json(update.to_json()) == update
