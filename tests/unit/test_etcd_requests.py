"""Commits as etcd's transactions: what is asked, without asking."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlib.errors import StoreError
from netlib.store import Absent, Commit, Unchanged
from netlib.store.etcd_requests import MAX_CONDITIONS, MAX_OPERATIONS, Keys, transaction

KEYS = Keys("/p/")
NAMES = st.text("ab/0", min_size=1, max_size=3)


def asked(commit: Commit, lease: int = 0) -> dict[str, Any]:
    return transaction(KEYS, commit, "mark", lease)


def text(key: str) -> str:
    return b64decode(key).decode().removeprefix("/p/")


def leaves(operations: list[dict[str, Any]], left: int = 128) -> list[dict[str, Any]]:
    """All operations, those of transactions inside too; etcd would take them."""
    found = []
    assert len(operations) <= left
    for operation in operations:
        if "request_txn" not in operation:
            found.append(operation)
            continue
        inner = operation["request_txn"]
        beside = max(len(inner.get(part, ())) for part in ("compare", "success", "failure"))
        assert beside <= left - len(operations)
        for part in ("success", "failure"):
            found += leaves(inner.get(part, []), left - len(operations))
    return found


def deleted(operation: dict[str, Any], key: str) -> bool:
    keys = operation.get("request_delete_range")
    if keys is None:
        return False
    first = text(keys["key"])
    return first <= key < text(keys["range_end"]) if "range_end" in keys else first == key


@given(
    put=st.dictionaries(NAMES, st.just(""), max_size=4),
    delete=st.lists(NAMES, max_size=3),
    ranges=st.lists(st.tuples(NAMES, NAMES), max_size=3),
    key=NAMES,
)
def test_no_key_is_deleted_and_put(
    put: dict[str, str], delete: list[str], ranges: list[tuple[str, str]], key: str
) -> None:
    """Ranges are cut around what is put, and all else in them is deleted."""
    commit = Commit(put=put, delete=tuple(delete), delete_ranges=tuple(ranges))
    operations = leaves(asked(commit)["success"])

    puts = [text(o["request_put"]["key"]) for o in operations if "request_put" in o]
    assert sorted(name for name in puts if not name.startswith("~")) == sorted(put)
    wanted = key in delete or any(first <= key < end for first, end in ranges)
    assert any(deleted(o, key) for o in operations) == (wanted and key not in put)


@pytest.mark.parametrize("number", [1, 119, 120, 121, 500, MAX_OPERATIONS - 1])
def test_many_writes_are_a_tree_of_transactions(number: int) -> None:
    """In none of them, with those around it, are there more operations than etcd takes."""
    commit = Commit(put={f"k{n}": "" for n in range(number)})

    assert len(leaves(asked(commit)["success"])) == number + 1  # and the mark


@pytest.mark.parametrize("number", [1, 59, 60, 61, 500])
def test_many_removals_are_a_tree_of_transactions(number: int) -> None:
    """As many as writes."""
    commit = Commit(put={}, delete=tuple(f"k{n}" for n in range(number)))

    assert len(leaves(asked(commit)["success"])) == number + 1


def test_what_etcd_would_not_take_is_refused() -> None:
    """With the limit, before anything is sent."""
    with pytest.raises(StoreError, match=f"{MAX_OPERATIONS - 1} writes"):
        asked(Commit(put={f"k{n}": "" for n in range(MAX_OPERATIONS)}))
    conditions = tuple(Absent(f"k{n}") for n in range(MAX_CONDITIONS + 1))
    with pytest.raises(StoreError, match=f"{MAX_CONDITIONS} conditions"):
        asked(Commit(conditions=conditions, put={}))


@pytest.mark.parametrize(
    "commit",
    [
        Commit(put={"~a": ""}),
        Commit(put={}, delete=("~commit",)),
        Commit(conditions=(Unchanged("~commit", 0),), put={}),
    ],
    ids=["put", "delete", "condition"],
)
def test_our_own_keys_are_out_of_reach(commit: Commit) -> None:
    """Neither named nor in a range."""
    with pytest.raises(StoreError, match="start with ~"):
        asked(commit)
    assert not any(
        deleted(operation, "~commit")
        for operation in leaves(asked(Commit(put={}, delete_ranges=(("", "\x7f"),)))["success"])
    )


def test_only_what_is_put_goes_with_a_lease() -> None:
    """The mark of the commit stays, whatever it was made with."""
    operations = leaves(asked(Commit(put={"a": "1"}), lease=5)["success"])
    leases = {text(put["key"]): put.get("lease") for put in (o["request_put"] for o in operations)}
    assert leases == {"a": "5", "~commit": None}
