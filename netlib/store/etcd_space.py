"""The part of an etcd below a prefix: how it is asked, and how far it is known."""

from __future__ import annotations

from typing import Any

from netlib.store.etcd_refusals import Refused, explained
from netlib.store.etcd_requests import Keys, decode
from netlib.store.etcd_servers import Servers
from netlib.values import dataclass

Json = dict[str, Any]

RANGE, TXN = "/v3/kv/range", "/v3/kv/txn"
GRANT, KEEP_ALIVE, REVOKE = "/v3/lease/grant", "/v3/lease/keepalive", "/v3/lease/revoke"


@dataclass(frozen=True, slots=True)
class LastCommit:
    """Revision and mark of the last commit, and the server's own revision then."""

    revision: int
    mark: str
    now: int


class Space:
    """What the keys below a prefix have in common; `newest` is the newest revision we know of."""

    def __init__(self, servers: Servers, keys: Keys) -> None:
        self.servers = servers
        self.keys = keys
        self.newest = 0

    def ask(self, path: str, question: Json) -> Json:
        """The answer to a question that may be asked again, its refusal as an error for people."""
        try:
            answer = self.servers.ask(path, question)
        except Refused as refused:
            raise explained(self.servers.name, refused) from refused
        self.note(answer)
        return answer

    def note(self, answer: Json) -> int:
        """The revision of the server when it answered."""
        revision = int(answer.get("header", {}).get("revision", 0))
        self.newest = max(self.newest, revision)
        return revision

    def last_commit(self) -> LastCommit:
        """The last commit there was, whoever made it."""
        answer = self.ask(RANGE, {"key": self.keys.commits})
        return last_commit(answer, self.note(answer))


def last_commit(answer: Json, now: int) -> LastCommit:
    """The last commit as an answer tells it, at the server's revision `now`."""
    found = answer.get("kvs")
    if not found:
        return LastCommit(0, "", now)
    return LastCommit(int(found[0]["mod_revision"]), decode(found[0]["value"]), now)
