"""Where the keeper reads what it serves: updates of names, made of a store's records."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlib.dns.facts import EndpointNames, NetworkNames, Update
from netlib.settings import STATE_FILE
from netlib.store import under

if TYPE_CHECKING:
    from netlib.store import Store

# All that changed after a revision (0: everything), waiting up to so many seconds for it;
# None: nothing did.
ZoneSource = Callable[[int, float], Update | None]

# Who asks for a name before we have looked by ourselves has us look at once: see word.py.
_POLL_SECONDS = 0.2
_MOST_SERVICES = 32  # of an endpoint: who publishes a range of thousands looks none of them up


def store_source(store: Store) -> ZoneSource:
    """The names of a store's networks and ready endpoints, here and on other hosts."""

    def read(since: int, timeout_seconds: float) -> Update | None:
        events = store.changes(since, timeout_seconds) if since else None
        if events is None:
            return _everything(store, since)
        networks: dict[str, NetworkNames | None] = {}
        endpoints: dict[str, EndpointNames | None] = {}
        revision = since
        for event in events:
            revision = event.revision
            kind, _, rest = event.key.partition("/")
            if kind == "network":
                networks[rest] = _network(event.value) if event.value else None
            elif kind == "endpoint":
                endpoints[rest.rpartition("/")[2]] = _endpoint(event.value) if event.value else None
            elif kind == "peer":
                endpoints[rest.rpartition("/")[2]] = _peer(event.value) if event.value else None
        if revision == since:
            return None
        found: dict[str, object] = {**networks, **endpoints}
        return Update(
            revision=revision,
            since=since,
            networks=tuple(n for n in networks.values() if n is not None),
            endpoints=tuple(e for e in endpoints.values() if e is not None),
            gone=tuple(key for key, value in found.items() if value is None),
        )

    return read


def _everything(store: Store, since: int) -> Update:
    # The revision first: what is committed while we read comes again as a change.
    revision = store.revision()
    networks = [_network(record.value) for record in store.range(*under("network/"))]
    endpoints = [_endpoint(record.value) for record in store.range(*under("endpoint/"))]
    endpoints += [_peer(record.value) for record in store.range(*under("peer/"))]
    return Update(
        revision=revision,
        since=since,
        full=True,
        networks=tuple(network for network in networks if network is not None),
        endpoints=tuple(endpoint for endpoint in endpoints if endpoint is not None),
    )


def _network(text: str) -> NetworkNames | None:
    """What names need of a network's record; None for a network without names.

    Read as plain JSON: the decoders of all nouns would cost the keeper more than all the rest.
    """
    network = json.loads(text)["network"]
    if network.get("options", {}).get("names") == "false":
        return None
    return NetworkNames(
        id=network["id"],
        name=network["name"],
        internal=network.get("internal", False),
        subnets=tuple(subnet["prefix"] for subnet in network.get("subnets", ())),
        servers=tuple(network.get("servers", ())),
        records=tuple(network.get("records", ())),
    )


def _endpoint(text: str) -> EndpointNames | None:
    """What names need of an endpoint's record; None until it is ready, and when it goes."""
    endpoint = json.loads(text)["endpoint"]
    if endpoint.get("state") != "ready":
        return None
    sandbox: dict[str, Any] = endpoint["sandbox"]
    servers = tuple(sandbox.get("servers", ()))
    netns = sandbox.get("netns", {}) if servers else {}
    return EndpointNames(
        id=endpoint["id"],
        network=endpoint["network"],
        sandbox=sandbox["name"],
        hostname=sandbox.get("hostname", ""),
        short_id=endpoint["id"][:12],
        aliases=tuple(endpoint.get("aliases", ())),
        addresses=tuple(a.partition("/")[0] for a in endpoint.get("addresses", ())),
        servers=servers,
        netns=netns.get("path", ""),
        inode=netns.get("inode", 0),
        services=tuple(_services(endpoint.get("ports", ()))),
    )


def _services(ports: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The published ports as services (RFC 2782), by number and as services(5) names them."""
    for published in islice(ports, _MOST_SERVICES):
        protocol = published.get("protocol", "tcp")
        first = published["port"]
        for port in range(first, first + min(published.get("count", 1), _MOST_SERVICES)):
            yield f"_{port}._{protocol} {port}"
            name = _service(port, protocol)
            if name:
                yield f"_{name}._{protocol} {port}"


@lru_cache(maxsize=256)
def _service(port: int, protocol: str) -> str:
    """What services(5) calls a port, "" if nothing: each look goes through all of that file."""
    try:
        return socket.getservbyport(port, protocol)
    except OSError:
        return ""


def _peer(text: str) -> EndpointNames | None:
    """What names need of an endpoint on another host; None for such a host itself.

    Its sandbox is another one than any of the same name here: the node's id comes before it.
    """
    peer: dict[str, Any] = json.loads(text)
    if peer.get("is_host"):
        return None
    return EndpointNames(
        id=peer["id"],
        network=peer["network"],
        sandbox=f"{peer['node']}:{peer['sandbox']}",
        hostname=peer.get("hostname", ""),
        short_id=peer["id"][:12],
        aliases=tuple(peer.get("aliases", ())),
        addresses=tuple(a.partition("/")[0] for a in peer.get("addresses", ())),
    )


def state_source(folder: Path) -> ZoneSource:
    """The names of the state in a folder: what a keeper on its own reads."""
    from netlib.store.sqlite import SqliteStore

    return store_source(SqliteStore(folder / STATE_FILE, poll_seconds=_POLL_SECONDS))
