"""Commits to etcd, each made once or not at all, whatever becomes of its answer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from netlib.errors import CommitUnknown, LeaseLost, NetError, StoreConflict, StoreUnavailable
from netlib.store import Commit
from netlib.store.etcd_http import Lost
from netlib.store.etcd_refusals import Refused, explained
from netlib.store.etcd_requests import failed, transaction
from netlib.store.etcd_space import GRANT, TXN, LastCommit, Space, last_commit
from netlib.store.etcd_watch import Compacted, Watch

_VOID_SECONDS = 60  # far longer than a server holds what it was asked


def make(space: Space, commit: Commit, lease: int) -> int:
    """The revision of this commit; what it puts goes with the lease (0: with none).

    When the answer is lost, the commit is voided, in case it is still under way, and looked for;
    if it was not made, it is tried again.
    """
    floor = space.newest or space.last_commit().now
    deadline = space.servers.deadline()
    while True:
        mark = os.urandom(8).hex()
        question = transaction(space.keys, commit, mark, lease)
        try:
            answer = space.servers.ask_once(TXN, question, deadline)
        except Lost as lost:
            if revision := _find_out(space, mark, floor, lost):
                return revision
            if time.monotonic() >= deadline:
                raise StoreUnavailable(
                    f"{space.servers.name} did not answer ({lost}), and nothing was changed",
                    "try again",
                ) from lost
            continue
        except Refused as refused:
            if refused.is_lost_lease:
                raise LeaseLost(lease) from refused
            if refused.is_out_of_space:
                # The one that finds the space used up is made, and told that it was not.
                with _or_unknown(space, refused.message):
                    revision = _look_for(space, mark, floor)
                if revision:
                    return revision
            raise explained(space.servers.name, refused) from refused
        revision = space.note(answer)
        if not answer.get("succeeded"):
            raise StoreConflict(failed(space.keys, commit, answer))
        return revision


def _find_out(space: Space, mark: str, floor: int, lost: Lost) -> int:
    """The revision of the commit of this mark, made after `floor`; 0: it never will be made."""
    with _or_unknown(space, str(lost)):
        lease = space.ask(GRANT, {"TTL": str(_VOID_SECONDS)})["ID"]
        void = {"key": space.keys.void(mark), "value": "", "lease": lease}
        look = {"request_range": {"key": space.keys.commits}}
        # At once: what is under way comes before this, or finds itself voided.
        answer = space.ask(TXN, {"success": [{"request_put": void}, look]})
        last = last_commit(answer["responses"][1]["response_range"], space.newest)
        return _look_for(space, mark, floor, last)


@contextmanager
def _or_unknown(space: Space, why: str) -> Iterator[None]:
    """Whatever keeps us from finding out what became of a commit is CommitUnknown."""
    try:
        yield
    except (NetError, Refused, Lost, Compacted) as error:
        space.servers.check_open()
        raise CommitUnknown(
            f"{space.servers.name} was lost before it answered ({why}),"
            f" and whether the commit was made could not be found out: {error}",
            "look what there is before you try again",
        ) from error


def _look_for(space: Space, mark: str, floor: int, last: LastCommit | None = None) -> int:
    """The revision after `floor` and up to the last one whose commit has this mark, or 0."""
    last = last or space.last_commit()
    if last.mark == mark:
        return last.revision
    if last.revision <= floor:
        return 0
    deadline = space.servers.deadline()
    watch = Watch(space.servers, {"key": space.keys.commits}, floor, space.keys.event, deadline)
    try:
        while watch.newest < last.revision:
            if not watch.receive(deadline):
                raise Lost("it does not tell what was committed")
        marks = {event.value: event.revision for event in watch.take(floor)}
        return marks.get(mark, 0)
    finally:
        watch.close()
