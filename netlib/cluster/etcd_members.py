"""Which servers an etcd is made of, and how they are: its cluster API over HTTP (JSON gateway).

Records are read and written by the store; this is about the servers themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from netlib.cluster.model import Membership
from netlib.store.etcd_refusals import Refused, explained
from netlib.store.etcd_servers import Credentials, Servers
from netlib.values import dataclass

_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One server: its id, its name (a node's id), and whether it only listens so far."""

    id: str
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool


class EtcdMembers:
    """The servers that a membership leads to; each question takes some `seconds` at most."""

    def __init__(self, membership: Membership, *, seconds: float = _SECONDS) -> None:
        self._endpoints = membership.endpoints
        self._credentials = credentials(membership)
        self._seconds = seconds

    def all(self) -> list[Member]:
        """All servers."""
        found = self._ask("cluster/member/list", {})["members"]
        return [
            Member(
                id=str(one["ID"]),
                name=one.get("name", ""),
                peer_urls=tuple(one.get("peerURLs", ())),
                client_urls=tuple(one.get("clientURLs", ())),
                learner=bool(one.get("isLearner")),
            )
            for one in found
        ]

    def add(self, peer_url: str) -> str:
        """Expect a further one, which has no vote until it is promoted; its id."""
        asked = {"peerURLs": [peer_url], "isLearner": True}
        return str(self._ask("cluster/member/add", asked)["member"]["ID"])

    def promote(self, member: str) -> None:
        """Give a server a vote. StoreError until it has caught up."""
        self._ask("cluster/member/promote", {"ID": member})

    def remove(self, member: str) -> None:
        """Expect one no more."""
        self._ask("cluster/member/remove", {"ID": member})

    def status(self, url: str) -> Mapping[str, Any]:
        """How the server at a URL is: its `header`, its `leader`, its `version`."""
        found: Mapping[str, Any] = self._ask("maintenance/status", {}, (url,))
        return found

    def _ask(self, path: str, document: Any, endpoints: Iterable[str] = ()) -> Any:
        """What the first server that answers says."""
        servers = Servers(endpoints or self._endpoints, self._credentials, self._seconds)
        try:
            return servers.ask(f"/v3/{path}", document)
        except Refused as refusal:
            raise explained(servers.name, refusal) from refusal
        finally:
            servers.close()


def credentials(membership: Membership) -> Credentials:
    """As whom a member asks the servers, and by what it knows them."""
    return Credentials(
        ca=membership.ca,
        certificate=membership.certificate,
        key=membership.key,
        user=membership.user,
        password=membership.password,
    )


def urls(members: Iterable[Member]) -> tuple[str, ...]:
    """Where clients reach those that have a vote."""
    return tuple(sorted(url for one in members if not one.learner for url in one.client_urls))
