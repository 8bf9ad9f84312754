"""A manager's side of joining: who has a right token gets a certificate, and is told the rest."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from netlib.cluster import files as names
from netlib.cluster import keys, tokens
from netlib.cluster.doors import Doors
from netlib.cluster.etcd_members import EtcdMembers, Member, urls
from netlib.cluster.model import Cluster, Membership
from netlib.cluster.server import peer_url
from netlib.cluster.state import cluster_of
from netlib.cluster.wire import VERSION
from netlib.codec import to_json
from netlib.errors import InvalidRequest, StoreError
from netlib.values import dataclass

_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Admission:
    """Answers what comes in at a manager's listener."""

    doors: Doors
    log: Callable[[str], None] = lambda line: None

    def answer(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to a request. Raises NetErrors, and others for what is none."""
        if asked.get("version") != VERSION:
            raise InvalidRequest(
                f"the manager speaks version {VERSION}, and was asked in another",
                "use the same version of netlib on all hosts",
            )
        match asked.get("do"):
            case "greet":  # before there is any trust: nothing here is secret
                return {"ca": self.doors.files.read(names.CA), "time": self.doors.engine.clock()}
            case "join":
                return self._admit(asked)
            case other:
                raise InvalidRequest(f"the manager does not know how to {str(other)[:40]!r}")

    def _admit(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        from netlib.cluster.certificates import Authority

        node = str(asked["node"])
        if not _ID.fullmatch(node):
            raise InvalidRequest("that is no node's id")
        files = self.doors.files
        with self.doors.store() as (membership, store):
            cluster, _ = cluster_of(store)
            known = store.get(keys.node(node)) or store.get(keys.revoked(node))
        token = tokens.verify(
            str(asked["token"]), token_key(files), cluster.generation, self.doors.engine.clock()
        )
        if known is not None:  # it would get another node's certificate
            raise InvalidRequest("that node's id is another's already")
        address = ip_address(str(asked["address"]))
        authority = Authority(files.read(names.CA), files.read(names.CA_KEY))
        addresses = [address] if token.role == "manager" else []
        certificate = authority.sign(str(asked["request"]), node, token.role, addresses)
        answer = {
            "cluster": to_json(cluster),
            "role": token.role,
            "ca": authority.certificate,
            "certificate": certificate,
            "prefix": membership.prefix,
        }
        if token.role == "manager":
            answer["keys"] = {"ca": authority.key, "token": files.read(names.TOKEN_KEY)}
        self.log(f"node {node[:12]} at {address} was let in as a {token.role}")
        if not membership.supervised:
            return answer | {"endpoints": membership.endpoints, "store": _store(membership)}
        return answer | self._servers(membership, cluster, node, peer_url(address), token.role)

    def _servers(
        self, membership: Membership, cluster: Cluster, node: str, peer: str, role: str
    ) -> dict[str, Any]:
        """Where the servers are; a manager's own is expected from now on."""
        etcd = EtcdMembers(membership)
        known = etcd.all()
        told: dict[str, Any] = {"endpoints": urls(known)}
        if role == "manager":
            # Of who tried before and died half-way: its data is gone.
            for stale in [one for one in known if peer in one.peer_urls]:
                etcd.remove(stale.id)
                known.remove(stale)
            told["member"] = etcd.add(peer)
            told["servers"] = _peers(known)
        return told


def token_key(files: names.Files) -> bytes:
    """The key that this cluster's tokens are signed with."""
    return base64.b64decode(files.read(names.TOKEN_KEY))


def pin(files: names.Files) -> bytes:
    """What tells this cluster's authority from all others."""
    return tokens.pin_of(files.read(names.CA))


def _store(membership: Membership) -> dict[str, str]:
    """How a store of somebody else's is reached: as we do it, for it knows no others of us."""
    shared = {"user": membership.user, "password": membership.password}
    for name in ("ca", "certificate", "key"):
        path = getattr(membership, name)
        try:
            shared[name] = Path(path).read_text(encoding="ascii") if path else ""
        except OSError as error:
            raise StoreError(f"{path} can't be read: {error.strerror}") from error
    return shared


def _peers(known: list[Member]) -> dict[str, str]:
    """Where servers meet each other, by name; one that has not started yet has no name."""
    return {one.name: one.peer_urls[0] for one in known if one.name and one.peer_urls}
