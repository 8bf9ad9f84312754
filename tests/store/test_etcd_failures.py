"""EtcdStore while servers die, freeze, are cut off, change their leader, forget, or go back."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import pytest
from support.etcd import Member, answers, etcd, three_members
from support.host import Host, Place
from support.patience import eventually

from netlib.errors import CommitUnknown, LeaseLost, StoreError, StoreUnavailable
from netlib.store import Commit, Event, Store
from netlib.store.etcd import EtcdStore
from netlib.store.etcd_http import Connection
from netlib.store.etcd_servers import Json, Servers

T = TypeVar("T")

ALL = ("", "~")
pytestmark = pytest.mark.slow


@pytest.fixture
def member(tmp_path: Path) -> Iterator[Member]:
    with etcd(tmp_path) as member:
        yield member


@pytest.fixture
def store(member: Member) -> Iterator[EtcdStore]:
    with closing(EtcdStore([member.url], timeout_seconds=1, quiet_seconds=0.5)) as store:
        yield store


def put(store: Store, **pairs: str) -> int:
    return store.commit(Commit(put=pairs))


class Follower:
    """A thread that keeps a copy of all keys, as an agent does, and never gives up."""

    def __init__(self, store: EtcdStore) -> None:
        self.copy: dict[str, str] = {}
        self.events: list[Event] = []
        self.errors: list[StoreError] = []
        self.full_reads = 0
        self._store = store
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        since = -1
        while not self._ending.is_set():
            try:
                if since < 0:
                    since = self._store.revision()
                    found = {record.key: record.value for record in self._store.range(*ALL)}
                    self.full_reads += 1  # before anybody sees what it gave
                    self.copy = found
                changes = self._store.changes(since, timeout_seconds=30)
            except StoreError as error:
                if not self._ending.is_set():
                    self.errors.append(error)
                continue
            if changes is None:
                since = -1
                continue
            for event in changes:
                since = event.revision
                self.events.append(event)
                if event.value is None:
                    self.copy.pop(event.key, None)
                else:
                    self.copy[event.key] = event.value

    def end(self) -> None:
        """Close its store, which wakes it."""
        self._ending.set()
        self._store.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


@contextmanager
def following(*urls: str) -> Iterator[Follower]:
    follower = Follower(EtcdStore(urls, timeout_seconds=1, quiet_seconds=0.5))
    try:
        eventually(lambda: follower.full_reads)
        yield follower
    finally:
        follower.end()


def trying(use: Callable[[], T], seconds: float = 15) -> T:
    """What a call gives, as soon as it does not find the servers gone; it may be made twice."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return use()
        except (StoreUnavailable, CommitUnknown):
            if time.monotonic() > deadline:
                raise


# -- restarts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Member.stop, Member.kill], ids=["restart", "kill -9"])
def test_a_watch_goes_on_when_its_server_was_restarted(
    member: Member, store: EtcdStore, end: Callable[[Member], None]
) -> None:
    """Nothing is missed, nothing told twice, and no full read needed."""
    with following(member.url) as follower:
        put(store, a="1")
        eventually(lambda: follower.copy == {"a": "1"})
        end(member)
        eventually(lambda: follower.errors)
        member.start()
        answers(member)
        put(store, b="2")
        eventually(lambda: follower.copy == {"a": "1", "b": "2"})

        assert [(event.key, event.value) for event in follower.events] == [("a", "1"), ("b", "2")]
        assert follower.full_reads == 1
        assert all(isinstance(error, StoreUnavailable) for error in follower.errors)


def test_a_restart_that_is_quick_is_not_noticed(member: Member, store: EtcdStore) -> None:
    """Calls wait for as long as they may, and connections that died are not used."""
    patient = EtcdStore([member.url], timeout_seconds=15)
    with closing(patient):
        put(patient, a="1")
        for number in range(3):
            member.kill()
            member.start()
            assert put(patient, a=str(number))
            record = patient.get("a")
            assert record is not None
            assert record.value == str(number)


def test_without_its_server_a_watch_says_so_soon(member: Member, store: EtcdStore) -> None:
    """Whether it waited already or begins to wait, by an error that names the endpoint."""
    revision = put(store, a="1")
    assert store.changes(revision) == []
    for _ in range(2):
        timer = threading.Timer(0.1, member.kill)
        timer.start()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match=member.url):
            store.changes(revision, timeout_seconds=30)
        assert time.monotonic() - began < 4
        timer.join()


def test_a_server_that_froze_is_noticed(member: Member, store: EtcdStore) -> None:
    """Its connections stay open, but it does not answer: a watch is told within seconds."""
    revision = put(store, a="1")
    assert store.changes(revision, timeout_seconds=0.1) == []
    member.send(signal.SIGSTOP)
    try:
        for use in (
            lambda: store.changes(revision, timeout_seconds=60),
            lambda: store.get("a"),
            lambda: put(store, a="2"),
        ):
            began = time.monotonic()
            with pytest.raises(StoreError, match=r"does not answer|lost before it answered"):
                use()
            assert time.monotonic() - began < 6
    finally:
        member.send(signal.SIGCONT)
    # What was asked while it was frozen may have been done, or voided, but not both.
    assert trying(lambda: store.get("a"))
    assert trying(lambda: put(store, a="3")) > revision


def test_leases_survive_a_restart(member: Member, store: EtcdStore) -> None:
    """With their keys, and they still end."""
    lease = store.grant(3)
    put(store.leased(lease), a="1")
    member.kill()
    member.start()
    answers(member)

    assert store.get("a")
    assert store.keep_alive(lease) == 3
    eventually(lambda: store.get("a") is None, timeout=15)
    with pytest.raises(LeaseLost):
        store.keep_alive(lease)


# -- what is forgotten, and what never was ------------------------------------------------------


def test_who_was_away_during_a_compaction_reads_everything_again(
    member: Member, store: EtcdStore
) -> None:
    """`changes` says None, once."""
    start = put(store, a="1")
    assert store.changes(start) == []
    revision = 0
    for number in range(5):
        revision = put(store, a=str(number))
    with closing(EtcdStore([member.url])) as other:
        member.ctl("compaction", str(revision))
        assert other.changes(start) is None
        assert other.changes(start, timeout_seconds=5) is None
        assert other.changes(revision - 1) is None or other.changes(revision) == []
        assert other.changes(other.revision()) == []


def test_a_quiet_state_is_followed_through_compactions(member: Member, store: EtcdStore) -> None:
    """Others write and compact in the same etcd, and the connection breaks: no read is in vain."""
    put(store, a="1")
    with (
        closing(EtcdStore([member.url], prefix="/busy/")) as busy,
        following(member.url) as follower,
    ):
        member.ctl("compaction", str(put(busy, x="1")))
        member.kill()
        member.start()
        answers(member)
        put(store, b="1")
        eventually(lambda: follower.copy == {"a": "1", "b": "1"})
        assert follower.full_reads <= 2
        put(store, c="1")
        eventually(lambda: "c" in follower.copy)
        assert follower.full_reads <= 2


def put_back(member: Member, copy: Path) -> None:
    """Replace all that the server has by a copy."""
    member.kill()
    shutil.rmtree(member.data)
    member.ctl(
        *("snapshot", "restore", str(copy), f"--name={member.name}"),
        *(f"--data-dir={member.data}", f"--initial-cluster={member.name}={member.peer_url}"),
        f"--initial-advertise-peer-urls={member.peer_url}",
    )
    member.start()
    answers(member)


def test_after_a_state_was_put_back_everything_is_read_again(
    member: Member, store: EtcdStore, tmp_path: Path
) -> None:
    """Revisions that are not there any more are known to be none."""
    put(store, a="1")
    copy = tmp_path / "copy"
    member.ctl("snapshot", "save", str(copy))
    for number in range(5):
        put(store, lost=str(number))
    with following(member.url) as follower:
        eventually(lambda: follower.copy == {"a": "1", "lost": "4"})
        put_back(member, copy)
        eventually(lambda: follower.copy == {"a": "1"}, timeout=15)
        assert follower.full_reads == 2
        trying(lambda: put(store, b="1"))
        eventually(lambda: follower.copy == {"a": "1", "b": "1"})


@pytest.mark.parametrize("last", ["put", "removed"])
def test_what_was_told_since_a_copy_was_made_tells_its_history_from_the_next(
    member: Member, tmp_path: Path, last: str
) -> None:
    """Also where the last commit by which the history was known is in the copy, too."""
    copy = tmp_path / "copy"
    with closing(EtcdStore([member.url])) as reader, closing(EtcdStore([member.url])) as other:
        start = put(other, a="1")
        assert reader.changes(start) == []
        between = put(other, b="1")
        member.ctl("snapshot", "save", str(copy))
        lost = revision = put(other, lost="1")
        if last == "removed":  # and in the next history it never was
            revision = other.commit(Commit(put={}, delete=("lost",)))
        told: list[Event] = []
        while not told or told[-1].revision < revision:
            told += reader.changes(told[-1].revision if told else start, timeout_seconds=5) or []
        assert [event.revision for event in told] == sorted({between, lost, revision})

        put_back(member, copy)
        with closing(EtcdStore([member.url])) as later:
            while put(later, c="1") <= revision + 1:
                pass
        assert reader.changes(revision) is None


def test_a_state_that_is_put_back_while_a_watch_begins_is_not_waited_for_in_vain(
    member: Member, store: EtcdStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that takes the watch has another past than the one that was asked before it."""
    put(store, a="1")
    copy = tmp_path / "copy"
    member.ctl("snapshot", "save", str(copy))
    revision = put(store, lost="1")
    begin = Servers.stream

    def begin_late(servers: Servers, path: str, question: Json, deadline: float) -> Connection:
        put_back(member, copy)
        return begin(servers, path, question, servers.deadline())

    monkeypatch.setattr(Servers, "stream", begin_late)
    with closing(EtcdStore([member.url])) as reader:
        assert reader.revision() == revision
        assert reader.changes(revision, timeout_seconds=5) is None


def test_a_state_that_was_put_back_and_has_gone_on_is_known_to_be_another(
    member: Member, store: EtcdStore, tmp_path: Path
) -> None:
    """Before the watcher is back there are as many revisions again, of other commits."""
    put(store, a="1")
    copy = tmp_path / "copy"
    member.ctl("snapshot", "save", str(copy))
    revision = put(store, lost="1")
    assert store.changes(revision - 1) == [Event("lost", "1", revision)]
    with closing(EtcdStore([member.url])) as reader:
        assert reader.revision() == revision
        put_back(member, copy)
        with closing(EtcdStore([member.url])) as other:
            for number in range(5):
                assert put(other, b=str(number))
            assert other.revision() > revision + 1

        for handle in (store, reader):
            assert handle.changes(revision) is None
            assert [record.key for record in handle.range(*ALL)] == ["a", "b"]
            assert handle.changes(handle.revision()) == []


# -- three members ------------------------------------------------------------------------------


def leader(members: list[Member]) -> Member:
    """Which of them leads."""
    for member in members:
        if member.process is None:
            continue
        found = json.loads(member.ctl("endpoint", "status", "-w", "json", check=False) or "[]")
        if found and found[0]["Status"]["leader"] == found[0]["Status"]["header"]["member_id"]:
            return member
    raise AssertionError("no leader")


def test_a_change_of_leader_loses_nothing(tmp_path: Path) -> None:
    """Commits wait or are tried again, each is done once, and every watch tells them all."""
    with three_members(tmp_path) as members:
        urls = [member.url for member in members]
        first = eventually(lambda: leader(members))
        others = [member.url for member in members if member is not first]
        with (
            following(first.url, *others) as of_leader,
            following(*others, first.url) as of_others,
            closing(EtcdStore([first.url, *others], timeout_seconds=5)) as store,
        ):
            lease = store.grant(20)
            put(store.leased(lease), alive="yes")
            for number in range(20):
                put(store, **{f"before{number}": "1"})
            first.kill()
            for number in range(20):
                put(store, **{f"after{number}": "1"})
            assert leader([member for member in members if member is not first]) is not first
            assert store.keep_alive(lease) == 20
            wanted = {record.key for record in store.range(*ALL)}
            assert len(wanted) == 41
            for follower in (of_leader, of_others):
                eventually(lambda follower=follower: follower.copy.keys() == wanted, 15)  # type: ignore[misc]
                assert len(follower.events) == 41
                assert follower.full_reads == 1
            first.start()
            answers(first)
            with closing(EtcdStore([urls[0]])) as back:
                assert {record.key for record in back.range(*ALL)} == wanted


def test_without_a_majority_nothing_is_done(tmp_path: Path) -> None:
    """One of three knows what there is, but not whether it is still true."""
    with three_members(tmp_path) as members:
        store = EtcdStore([members[0].url], timeout_seconds=1, quiet_seconds=0.5)
        with closing(store):
            revision = trying(lambda: put(store, a="1"))
            assert trying(lambda: store.changes(revision)) == []
            members[1].kill()
            members[2].kill()
            for use in (
                lambda: put(store, a="2"),
                lambda: store.get("a"),
                lambda: store.changes(revision, timeout_seconds=60),
            ):
                began = time.monotonic()
                with pytest.raises(StoreError) as failure:
                    use()
                assert failure.value.exit_status == 7
                assert time.monotonic() - began < 8
            members[1].start()
            answers(members[0], members[1])
            # Another leader may be chosen in between, as long as a busy machine holds one up.
            after = trying(lambda: put(store, b="1"))
            assert trying(lambda: store.get("b"))
            events = trying(lambda: store.changes(revision)) or []
            assert Event("b", "1", after) in events


# -- partitions ---------------------------------------------------------------------------------


def machines(host: Host, number: int) -> list[tuple[str, Place]]:
    """So many machines on one LAN with the host, and their addresses."""
    host.run("ip", "link", "add", "lan", "type", "bridge")
    host.run("ip", "address", "add", "192.0.2.1/24", "dev", "lan")
    host.run("ip", "link", "set", "lan", "up")
    found = []
    for index in range(number):
        place = host.empty(f"m{index}")
        address = f"192.0.2.{10 + index}"
        host.run(
            *("ip", "link", "add", f"m{index}", "type", "veth"),
            *("peer", "name", "eth0", "netns", place.netns.path),
        )
        host.run("ip", "link", "set", f"m{index}", "master", "lan", "up")
        place.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        place.run("ip", "link", "set", "eth0", "up")
        found.append((address, place))
    return found


@contextmanager
def dropping(place: Place, *sources: str) -> Iterator[None]:
    """What comes from these prefixes is dropped in this place, without a word."""
    rules = "".join(f"add rule inet cut in ip saddr {source} drop\n" for source in sources)
    place.run(
        *("nft", "-f", "-"),
        stdin="add table inet cut\n"
        "add chain inet cut in { type filter hook input priority 0; }\n" + rules,
    )
    yield
    place.run("nft", "delete", "table", "inet", "cut")


@pytest.mark.kernel
def test_packets_that_are_dropped_are_noticed(host: Host, tmp_path: Path) -> None:
    """A watch is told within seconds, and goes on where it was when the way is free again."""
    ((address, place),) = machines(host, 1)
    with (
        etcd(tmp_path, address=address, place=place) as member,
        closing(EtcdStore([member.url], timeout_seconds=1, quiet_seconds=0.5)) as store,
        following(member.url) as follower,
    ):
        put(store, a="1")
        eventually(lambda: "a" in follower.copy)
        with dropping(place, "0.0.0.0/0"):
            for use in (lambda: put(store, b="1"), lambda: store.get("a")):
                began = time.monotonic()
                with pytest.raises(StoreError) as failure:
                    use()
                assert failure.value.exit_status == 7
                assert time.monotonic() - began < 4
            eventually(lambda: follower.errors, timeout=6)
        trying(lambda: put(store, c="1"))
        eventually(lambda: "c" in follower.copy, timeout=15)
        assert follower.full_reads == 1


@pytest.mark.kernel
@pytest.mark.parametrize("sources", ["0.0.0.0/0", "192.0.2.10/31"], ids=["all", "members"])
def test_a_member_that_is_cut_off_is_left_for_another(
    host: Host, tmp_path: Path, sources: str
) -> None:
    """From everybody, or from the other members only: calls and watches go where they can."""
    places = machines(host, 3)
    with three_members(tmp_path, places) as members:
        cut = members[2]
        urls = [cut.url, members[0].url, members[1].url]
        with (
            closing(EtcdStore(urls, timeout_seconds=3, quiet_seconds=0.5)) as store,
            following(*urls) as follower,
        ):
            put(store, a="1")
            eventually(lambda: "a" in follower.copy)
            with dropping(places[2][1], sources):
                trying(lambda: put(store, b="1"))
                eventually(lambda: "b" in follower.copy, timeout=15)
            trying(lambda: put(store, c="1"))
            eventually(lambda: "c" in follower.copy, timeout=15)
            assert follower.full_reads == 1
            # Once each, but what was tried again because its answer was lost for too long.
            assert [key for key, _ in groupby(e.key for e in follower.events)] == ["a", "b", "c"]
