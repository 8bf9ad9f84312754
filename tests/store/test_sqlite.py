"""SqliteStore beyond the contract: its file, its errors, crashes, forks, versions."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from netlib.errors import StoreConflict, StoreError
from netlib.store import Absent, Commit, Event, Record, Unchanged
from netlib.store.sqlite import SqliteStore
from netlib.store.sqlite_connection import SharedConnection, forks
from netlib.store.sqlite_file import STEPS

HERE = Path(__file__).parent


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state is to be: nothing is there yet, not even the directory."""
    return tmp_path / "state" / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path, busy_seconds=0.2)) as store:
        yield store


def put(store: SqliteStore, durable: bool = True, **pairs: str) -> int:
    return store.commit(Commit(put=pairs, durable=durable))


@contextmanager
def sqlite(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as another program sees it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A small file system of its own; the whole test run is in a mount namespace of its own."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, timeout=10)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=10)


# -- the file -----------------------------------------------------------------------------------


def test_nothing_is_made_before_the_first_use(path: Path) -> None:
    """Making a store costs no system call, and closing an unused one leaves nothing."""
    SqliteStore(path).close()

    assert not path.parent.exists()


def test_the_state_is_for_its_owner_only(path: Path, store: SqliteStore) -> None:
    """Directory 0700, files 0600, and no draft is left beside them."""
    put(store, a="1")

    assert path.parent.stat().st_mode & 0o777 == 0o700
    files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert files == dict.fromkeys(["state.db", "state.db-shm", "state.db-wal"], 0o600)
    store.close()
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]


def test_the_file_says_what_it_is(path: Path, store: SqliteStore) -> None:
    """Its mark, its version, and that it keeps a log."""
    put(store, a="1")
    with sqlite(path) as other:
        for pragma, value in [
            ("application_id", int.from_bytes(b"netl")),
            ("user_version", len(STEPS)),
            ("journal_mode", "wal"),
        ]:
            assert other.execute(f"PRAGMA {pragma}").fetchone() == (value,)


@pytest.mark.parametrize("name", ["with space", "100%", "a?b#c", "é"])
def test_a_state_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    """What means something in a URI is only a name here."""
    with closing(SqliteStore(tmp_path / name / "state.db")) as store:
        put(store, a="1")
    assert [file.name for file in (tmp_path / name).iterdir()] == ["state.db"]


@pytest.mark.parametrize(("durable", "level"), [(True, 2), (False, 1)])
def test_a_durable_commit_waits_for_the_disk(path: Path, durable: bool, level: int) -> None:
    """FULL syncs the log at each commit, NORMAL does not; one connection changes over."""
    shared = SharedConnection(str(path), 1)
    with shared.take(durable=not durable):
        pass
    with shared.take(durable=durable) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
    shared.close()


def test_events_are_kept_within_bounds(path: Path) -> None:
    """Neither many commits nor a huge one make the log of events grow without end."""
    with closing(SqliteStore(path, keep_events=32)) as store:
        for number in range(200):
            put(store, durable=False, a=str(number))
        store.commit(Commit(put={f"k{number}": "" for number in range(500)}))
        with sqlite(path) as other:
            assert other.execute("SELECT count(*) FROM events").fetchone()[0] <= 500
        put(store, a="x")
        for number in range(40):
            put(store, durable=False, a=str(number))
        with sqlite(path) as other:
            assert other.execute("SELECT count(*) FROM events").fetchone()[0] <= 36


def test_waiting_costs_next_to_nothing(store: SqliteStore) -> None:
    """No busy loop: half a second of waiting is a few milliseconds of work."""
    put(store, a="1")
    store.changes(1)
    began = time.thread_time()
    store.changes(1, timeout_seconds=0.5)
    assert time.thread_time() - began < 0.05


# -- errors -------------------------------------------------------------------------------------


def refused(use: Callable[[], object]) -> str:
    """What the error says."""
    with pytest.raises(StoreError) as error:
        use()
    assert error.value.hint
    assert not isinstance(error.value, StoreConflict)
    return str(error.value)


def test_a_directory_on_a_read_only_file_system(tmp_path: Path) -> None:
    """Said as such, whether the state is there already or not."""
    for content in (False, True):
        folder = tmp_path / f"mount{content}"
        with mounted(folder, "size=1m"):
            path = folder / "state.db"
            store = SqliteStore(path)
            if content:
                put(store, a="1")
                store.close()
                store = SqliteStore(path)
            subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True, timeout=10)
            text = refused(lambda: put(store, a="2"))  # noqa: B023
            assert "read-only" in text
            assert str(folder) in text
            assert [file.name for file in folder.iterdir()] == ["state.db"] * content


@pytest.mark.parametrize("kilobytes", [4, 16, 48])
def test_a_disk_without_room_for_a_new_state(tmp_path: Path, kilobytes: int) -> None:
    """Nothing half-made is left, and it works as soon as there is room."""
    folder = tmp_path / "small"
    with mounted(folder, "size=256k"):
        filler = folder / "filler"
        filler.write_bytes(b"x" * (256 - kilobytes) * 1024)
        path = folder / "state" / "state.db"
        with closing(SqliteStore(path)) as store:
            text = refused(lambda: put(store, a="1"))
            assert "no space left" in text
            assert str(path.parent) in text
            assert not list(folder.glob("state/state.db.*"))
            filler.unlink()
            put(store, a="1")
            assert store.get("a") == Record("a", "1", 1)


def test_whatever_room_there_is_no_file_is_made_by_half(tmp_path: Path) -> None:
    """A new state fits, or the error says why not; one that was made is whole."""
    folder = tmp_path / "small"
    outcomes = set()
    with mounted(folder, "size=256k"):
        for kilobytes in range(4, 120, 4):
            filler = folder / "filler"
            filler.write_bytes(b"x" * (256 - kilobytes) * 1024)
            path = folder / "state" / "state.db"
            with closing(SqliteStore(path)) as store:
                try:
                    put(store, a="1")
                except StoreError as error:
                    outcomes.add(error.message)
                else:
                    outcomes.add("made")
                filler.unlink()
                put(store, b="1")
                assert store.get("b") is not None, kilobytes
            shutil.rmtree(path.parent)
    assert outcomes == {"made", f"there is no space left for {path}, so nothing was changed"}


def test_a_disk_that_becomes_full(tmp_path: Path) -> None:
    """The commit that finds no room leaves nothing; all before it stays, and is readable."""
    folder = tmp_path / "small"
    with mounted(folder, "size=192k"), closing(SqliteStore(folder / "state.db")) as store:
        written: dict[str, str] = {}

        def fill() -> None:
            while True:
                pair = {f"k{len(written):04}": "x" * 1000}
                store.commit(Commit(put={**pair, "last": next(iter(pair))}))
                written.update(pair)

        assert "no space left" in refused(fill)
        assert "nothing was changed" in refused(fill)
        assert len(written) > 3
        assert {r.key: r.value for r in store.range("k", "l")} == written
        assert store.get("last") == Record("last", max(written), store.revision())
        store.close()
        with sqlite(folder / "state.db") as other:
            assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"x" * len(data),
        lambda data: data[:700],
        lambda data: data[:100] + b"\xff" * (len(data) - 100),
        lambda data: data[:4096] + b"\xff" * (len(data) - 4096),
    ],
    ids=["not SQLite", "cut off", "schema", "pages"],
)
def test_a_damaged_file(path: Path, damage: Callable[[bytes], bytes]) -> None:
    """Said as such, with a way out; the file is left for the experts as it is."""
    with closing(SqliteStore(path)) as store:
        put(store, a="1")
    data = damage(path.read_bytes())
    path.write_bytes(data)

    with closing(SqliteStore(path)) as store:
        for use in (lambda: put(store, a="2"), lambda: store.get("a")):
            text = refused(use)
            assert f"{path} is damaged" in text
            assert ".recover" in text
    assert path.read_bytes() == data


@pytest.mark.parametrize("content", [b"", None], ids=["empty", "another program's"])
def test_a_file_that_is_not_ours(path: Path, content: bytes | None) -> None:
    """An empty file is no empty state, and another program's database is left alone."""
    path.parent.mkdir()
    if content is None:
        with sqlite(path) as other:
            other.execute("CREATE TABLE entries (key, value)")
    else:
        path.write_bytes(content)
    before = path.read_bytes()

    with closing(SqliteStore(path)) as store:
        assert f"{path} holds no state of netlib" in refused(lambda: put(store, a="1"))
    assert path.read_bytes() == before


def test_a_log_without_its_file(path: Path) -> None:
    """A log that stayed behind must never be played into a new state."""
    path.parent.mkdir()
    log = path.with_name("state.db-wal")
    log.write_bytes(b"anything")
    with closing(SqliteStore(path)) as store:
        text = refused(lambda: put(store, a="1"))
    assert str(log) in text
    assert not path.exists()


@pytest.mark.parametrize("where", ["state", "state/state.db"])
def test_something_else_is_in_the_way(tmp_path: Path, where: str) -> None:
    """A file where the directory should be, or a directory where the file should be."""
    if where == "state":
        (tmp_path / where).write_text("")
    else:
        (tmp_path / where).mkdir(parents=True)
    with closing(SqliteStore(tmp_path / "state" / "state.db")) as store:
        assert str(tmp_path / "state") in refused(lambda: put(store, a="1"))


def test_a_file_that_others_keep_locked(path: Path, store: SqliteStore) -> None:
    """Writers give up after the time-out, readers never wait."""
    put(store, a="1")
    with sqlite(path) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        text = refused(lambda: put(store, a="2"))
        assert 0.2 <= time.monotonic() - began < 5
        assert "locked by another process for 0.2 s" in text
        assert str(path) in text
        assert store.get("a") == Record("a", "1", 1)
        other.execute("ROLLBACK")
    assert put(store, a="2") == 2


def test_a_directory_that_may_not_be_read(tmp_path: Path) -> None:
    """NotPermitted, exit status 6, and how to go on: for root without its override, too."""
    folder = tmp_path / "state"
    folder.mkdir()
    with closing(SqliteStore(folder / "state.db")) as store:
        put(store, a="1")
    script = (
        "import sys\n"
        "from netlib.errors import NetError\n"
        "from netlib.store import Commit\n"
        "from netlib.store.sqlite import SqliteStore\n"
        "store = SqliteStore(sys.argv[1])\n"
        "for use in (lambda: store.get('a'), lambda: store.commit(Commit(put={'a': '2'}))):\n"
        "    try:\n"
        "        use()\n"
        "    except NetError as error:\n"
        "        print(error.code, error.exit_status, error)\n"
        "    else:\n"
        "        print('done')\n"
    )
    unprivileged = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]

    def run(path: Path) -> list[str]:
        done = subprocess.run(
            [*unprivileged, sys.executable, "-c", script, path],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        return done.stdout.splitlines()

    try:
        for mode in (0o000, 0o500):
            folder.chmod(mode)
            for line in run(folder / "state.db"):
                assert re.match("not-permitted 6 .*--state-dir", line), (oct(mode), line)
            for line in run(folder / "other.db"):  # not there, and can't be made
                assert re.match("not-permitted 6 [^ ]*/other.db can not", line), (oct(mode), line)
        folder.chmod(0o700)
        (folder / "state.db").chmod(0o400)
        assert [line.split()[0] for line in run(folder / "state.db")] == ["done", "not-permitted"]
        for file in folder.iterdir():  # its log was made alike
            file.chmod(0o600)
        assert run(folder / "state.db") == ["done"] * 2
        folder.chmod(0o500)
        assert str(folder) in run(folder / "new" / "state.db")[0]
    finally:
        folder.chmod(0o700)


def test_a_directory_that_is_moved_away_is_not_written_any_more(
    path: Path, store: SqliteStore
) -> None:
    """A long-lived process notices, and begins anew as every new process would."""
    put(store, a="1")
    path.parent.rename(path.parent.with_name("old"))

    assert store.get("a") is None
    assert put(store, b="1") == 1
    with closing(SqliteStore(path.parent.with_name("old") / "state.db")) as old:
        assert [record.key for record in old.range("", "~")] == ["a"]


# -- crashes ------------------------------------------------------------------------------------

WRITER = """
import sys
from netlib.store import Commit
from netlib.store.sqlite import SqliteStore

store = SqliteStore(sys.argv[1])
number = store.revision()
while True:
    number += 1
    store.commit(Commit(put={f"k{number:06}": "x" * 3000, "last": str(number)}))
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_had_committed(path: Path) -> None:
    """SIGKILL at any moment: what was reported as done is there, whole, and no half of more."""
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(30)]
            writer.kill()
            reported = int([*lines, *writer.stdout.readlines()][-1])

        with closing(SqliteStore(path)) as store:
            revision = store.revision()
            assert reported <= revision <= reported + 1
            assert store.get("last") == Record("last", str(revision), revision)
            assert store.count("k", "l") == revision
            assert store.changes(revision - 1) == [
                Event(f"k{revision:06}", "x" * 3000, revision),
                Event("last", str(revision), revision),
            ]
    with sqlite(path) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_process_that_dies_while_it_holds_the_lock_holds_up_nobody(
    path: Path, store: SqliteStore
) -> None:
    """The lock ends with the process, and its transaction never was."""
    put(store, a="1")
    child = os.fork()
    if not child:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM entries")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)

    assert put(store, b="1") == 2
    assert store.count("", "~") == 2


# -- forks --------------------------------------------------------------------------------------


def in_child(work: Callable[[], object]) -> None:
    """Fork, do the work in the child, and fail as it fails."""
    child = os.fork()
    if not child:
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_store_goes_on_in_both_processes_after_a_fork(store: SqliteStore) -> None:
    """Neither locks nor memory are shared: both open the file anew."""
    put(store, a="1")

    def work() -> None:
        assert store.get("a") == Record("a", "1", 1)
        put(store, b="1")
        store.close()

    in_child(work)
    assert store.get("b") == Record("b", "1", 2)
    assert put(store, c="1") == 3


def test_forking_in_the_midst_of_other_threads_commits(path: Path) -> None:
    """A child never inherits a lock that nobody will give back, nor a half-done commit."""
    with closing(SqliteStore(path)) as store:
        put(store, counter="0")
        stop = threading.Event()

        def count(handle: SqliteStore) -> None:
            record = handle.get("counter")
            assert record is not None
            conditions = (Unchanged("counter", record.revision),)
            value = {"counter": str(int(record.value) + 1)}
            handle.commit(Commit(conditions=conditions, put=value, durable=False))

        def keep_counting() -> None:
            while not stop.is_set():
                try:
                    count(store)
                except StoreConflict:
                    continue

        def count_once() -> None:
            while True:
                try:
                    count(store)
                except StoreConflict:
                    continue
                return

        threads = [threading.Thread(target=keep_counting) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(10):
                in_child(count_once)
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
        # Every commit was one step of the counter, whoever made it.
        record = store.get("counter")
        assert record is not None
        assert int(record.value) == record.revision - 1 == store.revision() - 1


def test_a_child_that_was_forked_in_the_midst_of_a_turn_is_refused(path: Path) -> None:
    """It neither hangs nor uses what is not its own; the parent goes on."""
    shared = SharedConnection(str(path), 0.1)

    class Stubborn:
        before_fork, after_fork = staticmethod(shared.hold), staticmethod(shared.let_go)

    stubborn = Stubborn()
    forks.tell(stubborn)

    def use() -> None:
        with shared.take() as connection:
            connection.execute("SELECT * FROM clock").fetchone()

    with shared.take():
        in_child(lambda: refused(use))
    use()
    in_child(use)
    shared.close()


def test_a_fork_that_nobody_announced_is_refused(path: Path, store: SqliteStore) -> None:
    """fork(2) by other means leaves the child connections that are not its own.

    Not only those are refused: SQLite's memory of the file's locks is the whole process's.
    """
    put(store, a="1")
    child = ctypes.CDLL(None).fork()
    if not child:
        for handle in (store, SqliteStore(path)):
            try:
                handle.get("a")
            except StoreError as error:
                if "forked" in error.message:
                    continue
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.get("a") == Record("a", "1", 1)


# -- versions -----------------------------------------------------------------------------------

NEXT = (*STEPS, ("ALTER TABLE clock ADD COLUMN note TEXT NOT NULL DEFAULT 'kept'",))


def test_the_first_version_is_still_read(path: Path) -> None:
    """A file as the first release wrote it opens, with all that it held."""
    path.parent.mkdir()
    with sqlite(path) as old:
        old.executescript((HERE / "version1.sql").read_text())
    with closing(SqliteStore(path)) as store:
        assert store.range("", "~") == [Record("a", "1", 1), Record("b", "3", 2)]
        assert store.changes(1) == [Event("b", "3", 2), Event("c", None, 2)]
        assert store.commit(Commit(conditions=(Unchanged("b", 2),), put={"b": "4"})) == 3


def test_an_older_file_is_brought_up_to_date(path: Path) -> None:
    """Step by step at the first use, and only once; what it held stays."""
    with closing(SqliteStore(path)) as store:
        put(store, a="1")
    for _ in range(2):
        with closing(SqliteStore(path, steps=NEXT)) as store:
            assert store.get("a") == Record("a", "1", 1)
    with sqlite(path) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (len(NEXT),)
        assert other.execute("SELECT note FROM clock").fetchone() == ("kept",)


def test_many_processes_bring_a_file_up_to_date_once(path: Path) -> None:
    """Who comes second finds it done."""
    with closing(SqliteStore(path)) as store:
        put(store, a="1")
    failures: list[object] = []

    def open_it() -> None:
        try:
            with closing(SqliteStore(path, steps=NEXT)) as store:
                assert store.get("a") == Record("a", "1", 1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []


def test_a_step_that_fails_changes_nothing(path: Path) -> None:
    """All steps or none: the file stays of its version, and works."""
    with closing(SqliteStore(path)) as store:
        put(store, a="1")
    broken = (*NEXT, ("CREATE TABLE more (x)", "INSERT INTO nowhere VALUES (1)"))
    with closing(SqliteStore(path, steps=broken)) as store:
        refused(lambda: store.get("a"))
    with closing(SqliteStore(path)) as store:
        assert put(store, a="2") == 2
    with sqlite(path) as other:
        assert other.execute("SELECT * FROM sqlite_master WHERE name = 'more'").fetchall() == []


def test_a_newer_file_is_left_alone(path: Path) -> None:
    """An older netlib does not guess."""
    with closing(SqliteStore(path, steps=NEXT)) as store:
        put(store, a="1")
    with closing(SqliteStore(path)) as store:
        text = refused(lambda: store.get("a"))
    assert f"version {len(NEXT)}, and this netlib knows version {len(STEPS)}" in text


def test_a_file_that_is_upgraded_under_a_running_process(path: Path, store: SqliteStore) -> None:
    """The old process writes nothing more into what it does not know."""
    put(store, a="1")
    with closing(SqliteStore(path, steps=NEXT)) as newer:
        assert put(newer, a="2") == 2
    assert "restart what runs an older one" in refused(lambda: put(store, a="3"))
    with closing(SqliteStore(path, steps=NEXT)) as newer:
        assert newer.get("a") == Record("a", "2", 2)


# -- many processes -----------------------------------------------------------------------------


def test_many_processes_make_one_state(path: Path) -> None:
    """The first use of all at once: one file, and nobody's commit is lost with a draft."""
    children = []
    for number in range(8):
        child = os.fork()
        if not child:
            try:
                with closing(SqliteStore(path)) as store:
                    key = f"k{number}"
                    store.commit(Commit(conditions=(Absent(key),), put={key: ""}))
            except BaseException as error:
                os.write(2, f"{error!r}\n".encode())
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8
    with closing(SqliteStore(path)) as store:
        assert store.revision() == store.count("k", "l") == 8
    assert [file.name for file in path.parent.iterdir()] == ["state.db"]


def test_nobody_is_told_of_folders_that_are_set_apart(path: Path) -> None:
    """They are read, and are conditions, as all others; what is told comes at once all the same."""
    with closing(SqliteStore(path, untold=["place/"])) as store:
        since = put(store, **{"peer/1": "a", "place/1": "a", "place0": "c"})
        told = store.changes(since - 1)
        assert told is not None
        assert [event.key for event in told] == ["peer/1", "place0"]

        late = put(store, **{"place/2": "b"})
        assert store.changes(since) == []
        assert store.get("place/2") == Record("place/2", "b", late)
        with pytest.raises(StoreConflict):
            store.commit(Commit(conditions=(Absent("place/2"),), put={"place/2": ""}))
        store.commit(Commit(put={}, delete=("place/1",)))
        later = put(store, **{"peer/2": ""})
        assert store.changes(since) == [Event("peer/2", "", later)]
