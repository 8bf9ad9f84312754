"""Commits as etcd's transactions, in JSON, and its answers as records and events. Pure.

Field names and meanings: etcd's API reference, rpc.proto and kv.proto. The gateway carries
keys and values in base64, and 64-bit numbers as text.

Beside what is committed, two kinds of keys stand below the prefix, where no range of ours
reaches. `~commit` is written by each commit with its mark, a random number: its history is that
of this state and of no other, it tells the revision of the last commit, and whether one whose
answer was lost was done. `~void/MARK` voids a commit that was not done yet, for good.

Folders that nobody is told of stand behind all that is watched: `}FOLDER`.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

from netlib.errors import StoreError
from netlib.store import Absent, Commit, Condition, Event, Record, under

Json = dict[str, Any]

_LAST = "~"  # where our own keys begin
_UNTOLD = "}"  # and those that no watch tells of
_COMMIT, _VOID = "~commit", "~void/"
# etcd takes 128 operations in a transaction (--max-txn-ops), and as many conditions. From those
# of a transaction inside another only the number beside it is taken off, so a tree holds more.
_MAX_FLAT = 120
_BRANCHES = 60
MAX_CONDITIONS = _BRANCHES
MAX_OPERATIONS = _BRANCHES * _BRANCHES


def encode(text: str) -> str:
    """As the gateway takes keys and values."""
    return b64encode(text.encode()).decode()


def decode(text: str) -> str:
    """What the gateway gave."""
    return b64decode(text).decode()


class Keys:
    """Our keys as etcd's: below a prefix. `told` are those that watches tell of.

    `untold` are folders ("leases/") that they do not: what is there is read, and is a condition,
    as anything else, but no range reaches from in there to other keys.
    """

    def __init__(self, prefix: str, untold: Iterable[str] = ()) -> None:
        self._prefix = prefix
        self._untold = tuple(untold)
        self._ours = (_UNTOLD, _LAST) if self._untold else (_LAST,)
        self._length = len(prefix)
        self.commits = encode(prefix + _COMMIT)
        self.told = {"key": encode(prefix), "range_end": encode(prefix + self._ours[0])}

    def one(self, key: str) -> Json:
        """A single key. StoreError for one that is ours."""
        if key.startswith(self._ours):
            raise StoreError(f"a key can not start with {key[:1]}: {key}")
        aside = _UNTOLD if key.startswith(self._untold) else ""
        return {"key": encode(self._prefix + aside + key)}

    def range(self, first: str, end: str) -> Json | None:
        """Keys with first <= key < end; None if there can not be any."""
        end = min(end, self._ours[0])
        if first >= end:
            return None
        place = self._prefix
        for folder in self._untold:
            begins, ends = under(folder)
            if first < ends and end > begins:
                if first < begins or end > ends:
                    raise StoreError(
                        f"no range holds keys of {folder} and others: {first} to {end}"
                    )
                place += _UNTOLD
        return {"key": encode(place + first), "range_end": encode(place + end)}

    def void(self, mark: str) -> str:
        """The key that voids the commit of this mark."""
        return encode(f"{self._prefix}{_VOID}{mark}")

    def record(self, pair: Json) -> Record:
        """A key and value that were found."""
        key = decode(pair["key"])[self._length :]
        return Record(
            key.removeprefix(_UNTOLD) if self._untold else key,
            decode(pair.get("value", "")),
            int(pair["mod_revision"]),
        )

    def event(self, event: Json) -> Event:
        """A change that was told."""
        pair = event["kv"]
        is_removal = event.get("type") == "DELETE"
        return Event(
            decode(pair["key"])[self._length :],
            None if is_removal else decode(pair.get("value", "")),
            int(pair["mod_revision"]),
        )


# -- commits ------------------------------------------------------------------------------------


def transaction(keys: Keys, commit: Commit, mark: str, lease: int) -> Json:
    """The commit as one transaction, that does nothing if a condition fails or it was voided.

    Then its answer holds what `failed` needs to know which.
    """
    if len(commit.conditions) > MAX_CONDITIONS:
        raise StoreError(
            f"a commit to etcd takes {MAX_CONDITIONS} conditions, not {len(commit.conditions)}"
        )
    compare = [_compare({"key": keys.void(mark)}, "CREATE", 0)]
    look: list[Json] = []
    for condition in commit.conditions:
        key = _condition_key(keys, condition)
        if key is None:  # of an empty range: it holds
            continue
        if isinstance(condition, Absent):
            compare.append(_compare(key, "CREATE", 0))
        else:
            compare.append(_compare(key, "MOD", condition.revision))
        look.append({"request_range": {**key, "keys_only": True, "limit": "1"}})
    return {"compare": compare, "success": _operations(keys, commit, mark, lease), "failure": look}


def failed(keys: Keys, commit: Commit, answer: Json) -> str:
    """The key of the first condition that failed."""
    looks = [response.get("response_range", {}) for response in answer.get("responses", ())]
    for condition in commit.conditions:
        if _condition_key(keys, condition) is None:
            continue
        found = looks.pop(0).get("kvs", [])
        if isinstance(condition, Absent):
            if found:
                return condition.first
        elif condition.revision != (int(found[0]["mod_revision"]) if found else 0):
            return condition.key
    raise StoreError("etcd says that a condition failed, but each of them holds", "look at its log")


def _condition_key(keys: Keys, condition: Condition) -> Json | None:
    if isinstance(condition, Absent) and condition.end:
        return keys.range(condition.first, condition.end)
    return keys.one(condition.first if isinstance(condition, Absent) else condition.key)


def _compare(key: Json, target: str, revision: int) -> Json:
    field = "create_revision" if target == "CREATE" else "mod_revision"
    return {**key, "target": target, "result": "EQUAL", field: str(revision)}


def _operations(keys: Keys, commit: Commit, mark: str, lease: int) -> list[Json]:
    deletions = [keys.one(key) for key in commit.delete if key not in commit.put]
    for first, end in commit.delete_ranges:
        deletions.extend(_around(keys, first, end, commit.put))
    operations: list[Json] = [{"request_delete_range": key} for key in deletions]
    attached = {"lease": str(lease)} if lease else {}
    operations.extend(
        {"request_put": {**keys.one(key), "value": encode(value), **attached}}
        for key, value in commit.put.items()
    )
    marking = {"request_put": {"key": keys.commits, "value": encode(mark)}}
    if commit.put or len(deletions) > _BRANCHES:
        operations.append(marking)
    elif deletions:
        # Where nothing is there to be deleted, nothing happens. (Of so many, something is.)
        compare = [_compare(key, "CREATE", 0) for key in deletions]
        operations.append({"request_txn": {"compare": compare, "failure": [marking]}})
    return _bundled(operations)


def _around(keys: Keys, first: str, end: str, put: Iterable[str]) -> Iterable[Json]:
    """The range without the keys that are put: etcd refuses to delete and put the same one."""
    for key in sorted(key for key in put if first <= key < end):
        if between := keys.range(first, key):
            yield between
        first = key + "\0"  # the next key there can be
    if rest := keys.range(first, end):
        yield rest


def _bundled(operations: list[Json]) -> list[Json]:
    """So many operations that etcd takes them: in transactions inside the transaction."""
    if len(operations) <= _MAX_FLAT:
        return operations
    if len(operations) > MAX_OPERATIONS:
        raise StoreError(
            f"a commit to etcd takes {MAX_OPERATIONS - 1} writes and removals,"
            f" not {len(operations) - 1}"
        )
    return [
        {"request_txn": {"success": operations[start : start + _BRANCHES]}}
        for start in range(0, len(operations), _BRANCHES)
    ]
