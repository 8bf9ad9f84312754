"""What a batch of the cluster's events means for one host. Pure: events in, news out."""

from __future__ import annotations

from collections.abc import Iterable

from netlib.cluster.model import SharedEndpoint
from netlib.cluster.records import load_shared
from netlib.store import Event
from netlib.values import dataclass, field


@dataclass(slots=True)
class News:
    """What is different after some events, whatever was between: of each thing the last word.

    `nodes` and `networks` are records' texts by ids, None where they are gone. `peers`: by
    network, what became of endpoints that are not this host's, and of hosts that take part.
    `died` are nodes whose lease ended. `joined`: networks that this host takes part in now.
    `appeared` and `vanished` are this host's own endpoints by network, which nobody else writes:
    whether that is right, its own state knows. A key that is gone does not tell whose it was, so
    it may be among `peers`, too.
    """

    revision: int = 0
    nodes: dict[str, str | None] = field(default_factory=dict)
    networks: dict[str, str | None] = field(default_factory=dict)
    peers: dict[str, dict[str, SharedEndpoint | None]] = field(default_factory=dict)
    died: set[str] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)
    appeared: dict[str, set[str]] = field(default_factory=dict)
    vanished: dict[str, set[str]] = field(default_factory=dict)


def read(events: Iterable[Event], node: str) -> News:
    """What they mean for the host that is `node`."""
    news = News()
    for event in events:
        news.revision = event.revision
        kind, _, rest = event.key.partition("/")
        if kind == "node":
            news.nodes[rest] = event.value
        elif kind == "alive":
            (news.died.add if event.value is None else news.died.discard)(rest)
        elif kind == "network":
            news.networks[rest] = event.value
        elif kind in ("endpoint", "host"):
            network, _, endpoint = rest.partition("/")
            _endpoint(news, network, endpoint, event.value, node)
            if kind == "host" and endpoint == node and event.value is not None:
                news.joined.add(network)
    return news


def _endpoint(news: News, network: str, endpoint: str, value: str | None, node: str) -> None:
    shared = None if value is None else load_shared(value)
    appeared = news.appeared.setdefault(network, set())
    vanished = news.vanished.setdefault(network, set())
    if shared is not None and shared.node == node:
        appeared.add(endpoint)
        vanished.discard(endpoint)
        return
    if shared is None:
        appeared.discard(endpoint)
        vanished.add(endpoint)
    news.peers.setdefault(network, {})[endpoint] = shared
