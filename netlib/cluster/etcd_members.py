"""Which servers an etcd is made of, and how they are: its cluster API over HTTP (JSON gateway).

Records are read and written by the store; this is about the servers themselves.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from netlib.cluster.model import Membership
from netlib.errors import NotPermitted, StoreError

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
    """The servers that a membership leads to."""

    def __init__(self, membership: Membership, *, seconds: float = _SECONDS) -> None:
        self._membership = membership
        self._seconds = seconds
        self._bearer = ""

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
        found: Mapping[str, Any] = self._post(url, "maintenance/status", {})
        return found

    def _ask(self, path: str, document: object) -> Any:
        """What the first server that answers says."""
        failure: StoreError | None = None
        for url in self._membership.endpoints:
            try:
                return self._post(url, path, document)
            except Unreachable as error:
                failure = error
        raise failure or StoreError("the cluster's store has no address")

    def _post(self, url: str, path: str, document: object) -> Any:
        if self._membership.user and not self._bearer:
            asked = {"name": self._membership.user, "password": self._membership.password}
            self._bearer = str(self._send(url, "auth/authenticate", asked)["token"])
        return self._send(url, path, document)

    def _send(self, url: str, path: str, document: object) -> Any:
        parts = urlsplit(url)
        headers = {"Content-Type": "application/json"}
        if self._bearer:
            headers["Authorization"] = self._bearer
        host, port = parts.hostname or "", parts.port or 2379
        connection = (
            http.client.HTTPConnection(host, port, timeout=self._seconds)
            if parts.scheme == "http"
            else http.client.HTTPSConnection(
                host, port, timeout=self._seconds, context=context(self._membership)
            )
        )
        try:
            connection.request("POST", f"/v3/{path}", json.dumps(document), headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise Unreachable(url, error) from error
        finally:
            connection.close()
        if answer.status in (401, 403):
            raise NotPermitted(
                f"etcd at {url} refuses: {_said(said)}", "give a user that it knows, see --user"
            )
        if answer.status != 200:
            raise StoreError(f"etcd at {url} refuses: {_said(said)}")
        return said


class Unreachable(StoreError):
    """A server does not answer."""

    def __init__(self, url: str, cause: Exception) -> None:
        why = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
        if isinstance(cause, ssl.SSLError):
            why = cause.reason or str(cause)
        elif isinstance(cause, socket.timeout):
            why = "no answer"
        super().__init__(f"etcd at {url} can't be reached: {why}", "is it running, and open to us?")


def context(membership: Membership) -> ssl.SSLContext:
    """TLS as a membership says. Raises StoreError for files that can't be used."""
    try:
        made = ssl.create_default_context(cafile=membership.ca or None)
        if membership.certificate:
            made.load_cert_chain(membership.certificate, membership.key or None)
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(filter(None, (membership.ca, membership.certificate, membership.key)))
        raise StoreError(f"the certificates can't be used ({names}): {error}") from error
    return made


def _said(document: Any) -> str:
    return str(document.get("error") or document) if isinstance(document, dict) else str(document)


def urls(members: Iterable[Member]) -> tuple[str, ...]:
    """Where clients reach those that have a vote."""
    return tuple(sorted(url for one in members if not one.learner for url in one.client_urls))
