"""EtcdStore beyond the contract, on one server: sizes, keys, refusals, TLS, users."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Authority
from support.etcd import Member, answers, etcd, free_port, shared
from support.lossy import lossy
from support.patience import eventually

from netlib.errors import (
    CommitUnknown,
    InvalidRequest,
    LeaseLost,
    NetError,
    NotPermitted,
    StoreConflict,
    StoreError,
    StoreUnavailable,
)
from netlib.store import Absent, Commit, Event, Store, under
from netlib.store.etcd import EtcdStore
from netlib.store.etcd_requests import MAX_OPERATIONS
from netlib.store.etcd_servers import Credentials
from netlib.store.etcd_watch import Watch

ALL = ("", "~")
_prefixes = count()


@pytest.fixture
def prefix() -> str:
    return f"/beyond{next(_prefixes)}/"


@pytest.fixture
def store(prefix: str) -> Iterator[EtcdStore]:
    with closing(EtcdStore([shared().url], prefix=prefix)) as store:
        yield store


def put(store: Store, **pairs: str) -> int:
    return store.commit(Commit(put=pairs))


def uses(store: EtcdStore) -> list[Callable[[], object]]:
    """Every call there is."""
    return [
        lambda: store.get("a"),
        lambda: store.range(*ALL),
        lambda: store.count(*ALL),
        lambda: store.commit(Commit(put={"b": "1"})),
        store.revision,
        lambda: store.changes(1),
        lambda: store.changes(1, timeout_seconds=30),
        lambda: store.grant(5),
        lambda: store.keep_alive(5),
        lambda: store.revoke(5),
        lambda: store.leased(5).commit(Commit(put={"b": "1"})),
    ]


# -- what it costs ------------------------------------------------------------------------------


def test_nothing_is_connected_before_the_first_use() -> None:
    """Making a store costs nothing, and whoever never asks needs no server."""
    EtcdStore([f"http://127.0.0.1:{free_port()}"]).close()


def test_the_client_is_light() -> None:
    """No HTTP library, and no TLS where none is spoken."""
    code = (
        "import sys, netlib.store.etcd;"
        "print(*sys.modules.keys() & {'ssl', 'http.client', 'email', 'asyncio', 'sqlite3'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.split() == []


# -- sizes --------------------------------------------------------------------------------------


def test_a_commit_of_thousands_of_keys_is_one_commit(store: EtcdStore) -> None:
    """Of more operations than etcd takes in a transaction, with all or nothing done."""
    pairs = {f"k{number:04}": str(number) for number in range(MAX_OPERATIONS - 1)}
    before = store.revision()
    revision = store.commit(Commit(conditions=(Absent(*ALL),), put=pairs))

    records = store.range(*ALL)
    assert {record.key: record.value for record in records} == pairs
    assert {record.revision for record in records} == {revision}
    assert len(store.changes(before) or ()) == len(pairs)
    with pytest.raises(StoreConflict):
        store.commit(Commit(conditions=(Absent("k0000"),), put=dict.fromkeys(pairs, "lost")))
    after = store.commit(Commit(put={}, delete=tuple(pairs)))
    assert store.count(*ALL) == 0
    assert store.changes(revision) == [Event(key, None, after) for key in sorted(pairs)]


def test_a_range_of_any_length_is_read_in_pages(store: EtcdStore) -> None:
    """Thousands of records, from either end, and more bytes than one answer may have."""
    values = {f"k{number:04}": "v" * 3000 for number in range(2500)}
    for start in range(0, 2500, 250):
        part = list(values)[start : start + 250]
        store.commit(Commit(put={key: values[key] for key in part}))

    assert [record.key for record in store.range(*ALL)] == sorted(values)
    assert [r.key for r in store.range(*ALL, reverse=True)] == sorted(values, reverse=True)
    assert [r.key for r in store.range(*ALL, limit=1001)] == sorted(values)[:1001]
    newest = store.range(*ALL, limit=1001, reverse=True)
    assert [r.key for r in newest] == sorted(values, reverse=True)[:1001]
    assert store.count(*ALL) == 2500


def test_a_range_is_of_one_moment(store: EtcdStore, prefix: str) -> None:
    """However many pages: somebody who moves a key along is never seen twice, nor not at all."""
    store.commit(Commit(put={f"k{number:04}": "" for number in range(1500)}))
    store.commit(Commit(put={"k0000x": ""}))
    ending = threading.Event()

    def move() -> None:
        with closing(EtcdStore([shared().url], prefix=prefix)) as mover:
            here, there = "k0000x", "k1400x"
            while not ending.is_set():
                mover.commit(Commit(put={there: ""}, delete=(here,)))
                here, there = there, here

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(20):
            assert len(store.range(*ALL)) == 1501
    finally:
        ending.set()
        mover.join(10)


def test_a_commit_that_is_too_large_says_so(store: EtcdStore) -> None:
    """With what to change, and nothing done."""
    with pytest.raises(StoreError, match="--max-request-bytes") as refused:
        put(store, a="x" * 3_000_000, b="1")
    assert refused.value.exit_status == 7
    assert store.range(*ALL) == []


# -- keys ---------------------------------------------------------------------------------------


def test_states_below_different_prefixes_are_apart(store: EtcdStore, prefix: str) -> None:
    """What others keep in the same etcd is neither seen nor waited for."""
    revision = put(store, a="1")
    with closing(EtcdStore([shared().url], prefix=f"{prefix[:-1]}-other/")) as other:
        put(other, a="2", b="2")

        assert [record.value for record in store.range(*ALL)] == ["1"]
        assert store.changes(revision) == []
        assert store.revision() > revision
        assert store.changes(store.revision()) == []
        assert store.changes(revision, timeout_seconds=0.1) == []
        after = put(store, a="3")
        assert store.changes(revision) == [Event("a", "3", after)]


def test_nobody_is_told_of_folders_that_are_set_apart(prefix: str) -> None:
    """They are read, and are conditions, as all others; what is told comes at once all the same."""
    with closing(EtcdStore([shared().url], prefix=prefix, untold=["lease/"])) as store:
        since = put(store, **{"endpoint/1": "a", "lease/1": "a", "lease/2": "b", "lease0": "c"})
        told = store.changes(since - 1, 5)
        assert told is not None
        assert [event.key for event in told] == ["endpoint/1", "lease0"]
        assert store.changes(since) == []

        assert [record.key for record in store.range(*under("lease/"))] == ["lease/1", "lease/2"]
        assert [r.key for r in store.range(*under("lease/"), reverse=True, limit=1)] == ["lease/2"]
        assert store.count(*under("lease/")) == 2
        found = store.get("lease/1")
        assert found is not None
        assert (found.key, found.value, found.revision) == ("lease/1", "a", since)
        with pytest.raises(StoreConflict) as conflict:
            store.commit(Commit(conditions=(Absent("lease/2"),), put={"lease/2": ""}))
        assert conflict.value.key == "lease/2"
        with pytest.raises(StoreConflict):
            store.commit(Commit(conditions=(Absent(*under("lease/")),), put={"x": ""}))
        with pytest.raises(StoreError, match="no range"):
            store.range("a", "z")

        late = store.commit(Commit(put={"lease/3": ""}))  # and of nothing else
        later = put(store, **{"endpoint/2": ""})
        told = store.changes(since, 5)
        assert told is not None
        assert [(event.key, event.revision) for event in told] == [("endpoint/2", later)]
        assert since < late < later
        store.commit(Commit(put={}, delete_ranges=(under("lease/"),)))
        assert store.count(*under("lease/")) == 0
        assert store.get("lease0") is not None


def test_a_commit_that_nobody_is_told_of_is_waited_for_once(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A watch that says nothing of it was not lost."""
    opened: list[int] = []

    class Counted(Watch):
        def __init__(self, *args: Any) -> None:
            opened.append(1)
            super().__init__(*args)

    monkeypatch.setattr("netlib.store.etcd_changes.Watch", Counted)
    with closing(
        EtcdStore(
            [shared().url], prefix=prefix, untold=["lease/"], timeout_seconds=0.5, quiet_seconds=0.1
        )
    ) as store:
        since = put(store, a="1")
        assert store.changes(since, 0.1) == []
        put(store, **{"lease/1": ""})
        assert store.changes(since, 2) == []
        before = len(opened)
        assert store.changes(since, 2) == []
        assert len(opened) == before <= 3


def test_a_commit_of_many_removals_that_finds_nothing_is_waited_for_in_vain_once(
    store: EtcdStore,
) -> None:
    """It counts as a commit, so one look for changes takes the time to be sure; no more."""
    revision = put(store, a="1")
    store.commit(Commit(put={}, delete=tuple(f"k{number}" for number in range(100))))

    assert store.changes(revision) == []
    after = put(store, a="2")
    assert store.changes(revision) == [Event("a", "2", after)]


def test_an_older_revision_can_be_asked_for_again(store: EtcdStore) -> None:
    """A handle that has told its changes tells them again to who asks."""
    start = store.revision()
    first, second = put(store, a="1"), put(store, a="2")

    for _ in range(2):
        assert store.changes(start) == [Event("a", "1", first), Event("a", "2", second)]
        assert store.changes(first) == [Event("a", "2", second)]
        assert store.changes(second) == []


@pytest.mark.parametrize("url", ["192.0.2.1:2379", "ftp://192.0.2.1", "http://", "http://x:y", ""])
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    """Before anything is asked."""
    with pytest.raises(InvalidRequest, match="no endpoint"):
        EtcdStore([url])


def test_an_etcd_needs_an_endpoint_and_a_prefix() -> None:
    """Both are checked when the store is made."""
    with pytest.raises(InvalidRequest, match="endpoint"):
        EtcdStore([])
    with pytest.raises(InvalidRequest, match="prefix"):
        EtcdStore(["http://127.0.0.1:2379"], prefix="")


# -- threads and processes ----------------------------------------------------------------------


def test_a_child_of_a_fork_uses_the_store_beside_its_parent(store: EtcdStore) -> None:
    """Neither hears the other's answers, with connections and a watch open at the fork."""
    revision = put(store, a="1")
    assert store.changes(revision - 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number in range(50):
                put(store, **{f"child/{number}": "x"})
            events = store.changes(revision, timeout_seconds=5) or []
            status = 0 if any(event.key == "child/0" for event in events) else 2
        finally:
            os._exit(status)
    for number in range(50):
        put(store, **{f"parent/{number}": "y"})
        record = store.get(f"parent/{number}")
        assert record is not None
        assert record.value == "y"

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(store.changes(revision) or ()) == 100


def test_many_threads_watch_with_one_handle(store: EtcdStore) -> None:
    """Each is told everything once, in order."""
    start = store.revision()
    told: dict[int, list[str]] = {}

    def watch(number: int) -> None:
        seen, since = told.setdefault(number, []), start
        while len(seen) < 30:
            for event in store.changes(since, timeout_seconds=10) or ():
                seen.append(str(event.value))
                since = event.revision

    threads = [threading.Thread(target=watch, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for number in range(30):
        put(store, a=str(number))
    for thread in threads:
        thread.join(20)

    assert set(told) == set(range(5))
    assert all(values == [str(number) for number in range(30)] for values in told.values())


# -- who answers, and who does not --------------------------------------------------------------


def test_without_a_server_every_call_fails_soon_and_names_it() -> None:
    """One clear error, exit status 7, that another try can get past."""
    endpoints = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
    for number in range(len(uses(EtcdStore(endpoints)))):
        with closing(EtcdStore(endpoints, timeout_seconds=0.2)) as store:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable) as failure:
                uses(store)[number]()
            assert time.monotonic() - began < 1
            assert all(f"{url} (Connection refused)" in str(failure.value) for url in endpoints)
            assert failure.value.exit_status == 7
            assert failure.value.retryable


def test_a_server_that_never_answers_is_not_waited_for(prefix: str) -> None:
    """It accepts connections, and that is all."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        for one in (url, url.replace("http:", "https:")):
            with closing(EtcdStore([one], timeout_seconds=0.3)) as store:
                began = time.monotonic()
                with pytest.raises(StoreUnavailable, match="does not answer") as caught:
                    store.get("a")
                assert time.monotonic() - began < 1
                assert "ssl" not in caught.value.message
        with closing(EtcdStore([url, shared().url], prefix=prefix, timeout_seconds=1)) as store:
            put(store, a="1")
            assert store.get("a") is not None


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found",
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        b"",
    ],
    ids=["ssh", "not found", "html", "object", "list", "bad chunk", "half", "nothing"],
)
def test_what_is_no_etcd_is_an_error(answer: bytes) -> None:
    """Whatever listens there, no call hangs or fails otherwise."""
    import socket

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                client.recv(1 << 16)
                client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for number in (0, 3, 6):  # a read, a commit, a watch
            with (
                closing(EtcdStore([url], timeout_seconds=0.1)) as store,
                pytest.raises(StoreUnavailable, match="does not answer"),
            ):
                uses(store)[number]()
        listener.shutdown(socket.SHUT_RDWR)
        server.join(5)


def test_a_watch_that_never_begins_is_not_waited_for(store: EtcdStore, prefix: str) -> None:
    """The server took the request, and then says nothing."""
    revision = put(store, a="1")
    with (
        lossy(shared().port) as way,
        closing(EtcdStore([way.url], prefix=prefix, timeout_seconds=0.3)) as other,
    ):
        other.revision()
        way.lose("/v3/watch", *["silence"] * 100)  # type: ignore[arg-type]
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="does not answer"):
            other.changes(revision, timeout_seconds=30)
        assert time.monotonic() - began < 3


def test_a_server_is_found_by_an_ipv6_address(tmp_path: Path) -> None:
    """As an URL writes it, in brackets."""
    with etcd(tmp_path, address="::1") as member:
        assert "[::1]" in member.url
        with closing(EtcdStore([member.url])) as store:
            put(store, a="1")
            assert store.get("a")


def test_the_endpoint_that_answers_is_used(prefix: str) -> None:
    """Whichever it is, and without asking the others again."""
    dead = f"http://127.0.0.1:{free_port()}"
    with closing(EtcdStore([dead, shared().url], prefix=prefix)) as store:
        revision = put(store, a="1")
        assert store.changes(revision - 1) == [Event("a", "1", revision)]


# -- answers that are lost ----------------------------------------------------------------------


@pytest.fixture
def history(store: EtcdStore) -> Callable[[], list[str | None]]:
    """Every value that the key `a` was given."""
    start = store.revision()

    def read() -> list[str | None]:
        return [event.value for event in store.changes(start) or () if event.key == "a"]

    return read


@pytest.mark.parametrize("loss", ["answer", "request", "late"])
def test_a_commit_is_done_once_whatever_is_lost(
    prefix: str, history: Callable[[], list[str | None]], loss: str
) -> None:
    """Its answer, itself, or itself only for now; neither twice nor not at all."""
    with lossy(shared().port) as way, closing(EtcdStore([way.url], prefix=prefix)) as store:
        store.revision()
        way.lose("/v3/kv/txn", loss)  # type: ignore[arg-type]
        revision = store.commit(Commit(conditions=(Absent("a"),), put={"a": "1"}))
        way.release()

        record = store.get("a")
        assert record is not None
        assert record.revision == revision
        assert history() == ["1"]


def test_a_commit_without_conditions_is_not_done_again_late(
    prefix: str, history: Callable[[], list[str | None]]
) -> None:
    """What arrives after all when others have gone on changes nothing."""
    with lossy(shared().port) as way, closing(EtcdStore([way.url], prefix=prefix)) as store:
        store.revision()
        way.lose("/v3/kv/txn", "late")
        put(store, a="1")
        put(store, a="2")
        way.release()

        assert history() == ["1", "2"]


def test_a_commit_that_others_have_overwritten_is_found(
    store: EtcdStore, prefix: str, history: Callable[[], list[str | None]]
) -> None:
    """It was made, and its answer lost, and then others went on before it was looked for."""
    with lossy(shared().port) as way, closing(EtcdStore([way.url], prefix=prefix)) as other:
        other.revision()
        way.lose("/v3/kv/txn", "answer")
        # Looking begins by asking for a lease: that takes a while.
        way.lose("/v3/lease/grant", *["request"] * 3)  # type: ignore[arg-type]
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(put(other, a="1")))
        thread.start()
        eventually(lambda: store.get("a"))
        newest = put(store, a="2", b="2")
        thread.join(10)

        assert history() == ["1", "2"]
        assert found[0] < newest


def test_a_conflict_whose_answer_is_lost_is_a_conflict(store: EtcdStore, prefix: str) -> None:
    """The commit is found not to be made, tried again, and refused."""
    put(store, a="1")
    with lossy(shared().port) as way, closing(EtcdStore([way.url], prefix=prefix)) as other:
        other.revision()
        way.lose("/v3/kv/txn", "answer")
        with pytest.raises(StoreConflict) as conflict:
            other.commit(Commit(conditions=(Absent("a"),), put={"a": "2"}))
        assert conflict.value.key == "a"


def test_what_can_not_be_found_out_is_said(prefix: str) -> None:
    """The server is lost between the commit and its answer, and for good."""
    with (
        lossy(shared().port) as way,
        closing(EtcdStore([way.url], prefix=prefix, timeout_seconds=0.3)) as store,
    ):
        store.revision()
        way.lose("/v3/kv/txn", "answer")
        way.lose("/v3/lease/grant", *["request"] * 1000)  # type: ignore[arg-type]
        with pytest.raises(CommitUnknown) as unknown:
            put(store, a="1")
        assert unknown.value.exit_status == 7
        assert not unknown.value.retryable
        assert way.url in str(unknown.value)


def test_reads_are_asked_again(store: EtcdStore, prefix: str) -> None:
    """What changes nothing needs no care."""
    put(store, a="1")
    with lossy(shared().port) as way, closing(EtcdStore([way.url], prefix=prefix)) as other:
        way.lose("/v3/kv/range", "answer", "request", "answer")
        assert [record.key for record in other.range(*ALL)] == ["a"]


# -- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority")).create()


@pytest.fixture(scope="module")
def tls(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    """A server that wants a certificate of every client."""
    certificate, key = authority.sign("server", "127.0.0.1")
    member = Member(
        tmp_path_factory.mktemp("etcd"),
        scheme="https",
        options=(
            f"--cert-file={certificate}",
            f"--key-file={key}",
            f"--trusted-ca-file={authority.ca}",
            "--client-cert-auth",
        ),
    ).start()
    try:
        certificate, key = authority.sign("client")
        answers(member, credentials=Credentials(ca=authority.ca, certificate=certificate, key=key))
        yield member
    finally:
        member.kill()


def test_a_client_with_a_certificate_is_let_in(authority: Authority, tls: Member) -> None:
    """Commits, reads and a watch over TLS, both sides shown to the other."""
    certificate, key = authority.sign("somebody")
    credentials = Credentials(ca=authority.ca, certificate=certificate, key=key)
    with closing(EtcdStore([tls.url], credentials=credentials)) as store:
        revision = put(store, a="x" * 500_000)
        assert store.get("a")
        assert store.changes(revision - 1) == [Event("a", "x" * 500_000, revision)]
        timer = threading.Timer(0.05, put, (store,), {"b": "1"})
        timer.start()
        events = store.changes(revision, timeout_seconds=10)
        timer.join()
        assert [event.key for event in events or ()] == ["b"]


@pytest.mark.parametrize(
    ("who", "message"),
    [
        ("nobody", "does not take our certificate"),
        ("a stranger", "does not take our certificate"),
        ("one who trusts others", "its certificate is not trusted"),
        ("one without tls", "https"),
    ],
)
def test_wrong_certificates_are_an_error_that_says_so(
    authority: Authority, tls: Member, tmp_path: Path, who: str, message: str
) -> None:
    """Ours is missing or signed by others, theirs is signed by others, or there is none."""
    others = Authority(tmp_path, "others").create()
    certificate, key = (others if who == "a stranger" else authority).sign("client")
    credentials = {
        "nobody": Credentials(ca=authority.ca),
        "a stranger": Credentials(ca=authority.ca, certificate=certificate, key=key),
        "one who trusts others": Credentials(ca=others.ca, certificate=certificate, key=key),
        "one without tls": Credentials(),
    }[who]
    url = tls.url.replace("https", "http") if who == "one without tls" else tls.url
    for number in (0, 3, 6):  # a read, a commit, a watch
        with (
            closing(EtcdStore([url], credentials=credentials, timeout_seconds=0.7)) as store,
            pytest.raises(StoreUnavailable, match=message),
        ):
            uses(store)[number]()


def test_a_server_of_another_name_is_not_trusted(
    authority: Authority, tls: Member, tmp_path: Path
) -> None:
    """Its certificate must be for the address that we asked."""
    credentials = Credentials(ca=authority.ca)
    url = tls.url.replace("127.0.0.1", "localhost")
    with (
        closing(EtcdStore([url], credentials=credentials, timeout_seconds=0.2)) as store,
        pytest.raises(StoreUnavailable, match="not trusted"),
    ):
        store.get("a")


def test_certificates_that_can_not_be_read_are_named(tmp_path: Path) -> None:
    """Each of them, with the reason."""
    missing = str(tmp_path / "none.pem")
    empty = tmp_path / "empty.pem"
    empty.touch()
    for credentials in (
        Credentials(ca=missing),
        Credentials(ca=str(empty)),
        Credentials(certificate=missing, key=missing),
    ):
        with (
            closing(EtcdStore(["https://127.0.0.1:1"], credentials=credentials)) as store,
            pytest.raises(StoreError, match=r"(none|empty)\.pem"),
        ):
            store.get("a")


# -- users --------------------------------------------------------------------------------------

PASSWORDS = {"root": "toor", "netlib": "secret"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    """A server with users, one of whom may use /netlib/ only; tokens last for a second."""
    options = ("--auth-token-ttl=1", "--bcrypt-cost=4")
    with etcd(tmp_path_factory.mktemp("guarded"), options=options) as member:
        for user, password in PASSWORDS.items():
            member.ctl("user", "add", f"{user}:{password}")
        member.ctl("role", "add", "netlib")
        member.ctl("role", "grant-permission", "netlib", "readwrite", "/netlib/", "/netlib0")
        member.ctl("user", "grant-role", "netlib", "netlib")
        member.ctl("user", "grant-role", "root", "root")
        member.ctl("auth", "enable")
        yield member


def user(name: str, password: str = "") -> Credentials:
    return Credentials(user=name, password=password or PASSWORDS[name])


def test_a_user_with_a_password_is_let_in(guarded: Member) -> None:
    """To what its role permits: the prefix."""
    with closing(EtcdStore([guarded.url], credentials=user("netlib"))) as store:
        revision = put(store, a="1")
        assert store.changes(revision - 1) == [Event("a", "1", revision)]
        lease = store.grant(10)
        put(store.leased(lease), b="1")
        store.keep_alive(lease)
        store.revoke(lease)
        assert [record.key for record in store.range(*ALL)] == ["a"]
        store.commit(Commit(put={}, delete_ranges=(ALL,)))


@pytest.mark.parametrize(
    "credentials",
    [Credentials(), user("netlib", "wrong"), user("nobody", "x")],
    ids=["no password", "wrong password", "unknown user"],
)
def test_who_is_not_known_is_not_let_in(guarded: Member, credentials: Credentials) -> None:
    """Exit status 6, the etcd named, and no second try."""
    for number in range(len(uses(EtcdStore([guarded.url])))):
        with closing(EtcdStore([guarded.url], credentials=credentials)) as store:
            if number in (7, 8, 9) and not credentials.user:
                continue  # leases are not a right of anybody's
            with pytest.raises(NotPermitted, match=guarded.url) as refused:
                uses(store)[number]()
            assert refused.value.exit_status == 6


def test_what_a_role_does_not_permit_is_refused(guarded: Member) -> None:
    """Another prefix than the user's own, with what to do about it."""
    credentials = user("netlib")
    with closing(EtcdStore([guarded.url], prefix="/other/", credentials=credentials)) as store:
        for use in uses(store)[:7]:
            with pytest.raises(NotPermitted, match="grant-permission"):
                use()


def test_a_token_that_has_expired_is_renewed(guarded: Member) -> None:
    """By whatever call comes first."""
    with ExitStack() as stack:
        number = len(uses(EtcdStore([guarded.url])))
        stores = [EtcdStore([guarded.url], credentials=user("netlib")) for _ in range(number)]
        for store in stores:
            stack.enter_context(closing(store))
            store.revision()
        # Looking uses them, so they must be left alone for longer than they last.
        eventually(
            lambda: not any(_is_valid(guarded, store._servers._token) for store in stores),
            timeout=20,
            pause=2.5,
        )
        start = put(stores[0], a="1")
        for number, store in enumerate(stores):
            if number == 6:  # it would wait
                assert store.changes(start - 1, timeout_seconds=10)
            else:
                with suppress(LeaseLost):  # there is no such lease
                    uses(store)[number]()


def test_a_server_without_users_says_so() -> None:
    """A password that nobody asks for is a mistake."""
    with (
        closing(EtcdStore([shared().url], credentials=user("netlib"))) as store,
        pytest.raises(NetError, match="authentication is not enabled"),
    ):
        store.get("a")


def _is_valid(member: Member, token: str) -> bool:
    from netlib.store.etcd_http import Connection, parse_endpoint

    deadline = time.monotonic() + 5
    connection = Connection(parse_endpoint(member.url), None, deadline)
    try:
        return connection.ask("/v3/kv/range", b'{"key":"L25ldGxpYi9h"}', token, deadline)[0] == 200
    finally:
        connection.close()


# -- space --------------------------------------------------------------------------------------


def test_a_server_without_space_says_so(tmp_path: Path) -> None:
    """Reading goes on, and what to do is named."""
    with (
        etcd(tmp_path, options=("--quota-backend-bytes=300000",)) as member,
        closing(EtcdStore([member.url])) as store,
    ):

        def fill() -> None:
            for number in range(1000):
                put(store, a=f"{number:10000}")

        with pytest.raises(StoreError, match=r"no space left.*alarm disarm") as full:
            fill()
        assert full.value.exit_status == 7
        record = store.get("a")
        assert record is not None
        assert record.revision == store._space.last_commit().revision
        assert [record.key for record in store.range(*ALL)] == ["a"]
