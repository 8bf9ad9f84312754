"""What happens in the middle of an operation: a full disk, Ctrl-C, a sandbox that dies."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.crash import STEPS
from support.host import Host
from support.moments import Over, ctrl_c_at
from support.patience import eventually
from support.verbs import BACK, BACK_AGAIN, BUILDING, FRONT, VERBS, connect, facts, records, tried

from netlib import Net
from netlib.errors import KernelError, NetError, StoreError
from netlib.kernel.netlink import NoAnswer, Socket
from netlib.relay.door import RelayDoor
from netlib.store import under
from netlib.store.sqlite import SqliteStore

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture
def net(host: Host) -> Iterator[Net]:
    """Two networks, and a sandbox on the first of them."""
    with tried(host) as net:
        yield net


@contextmanager
def from_step(
    step: int, happens: Callable[[], None], steps: tuple[tuple[object, str], ...]
) -> Iterator[None]:
    """Something happens before the `step`th of some calls."""
    left = step
    with pytest.MonkeyPatch.context() as patch:

        def before(function: Callable[..., object]) -> Callable[..., object]:
            def called(*args: object, **kwargs: object) -> object:
                nonlocal left
                left -= 1
                if left == 0:
                    happens()
                return function(*args, **kwargs)

            return called

        for owner, name in steps:
            patch.setattr(owner, name, before(getattr(owner, name)))
        yield
    if left > 0:
        raise _Over


class _Over(Exception):
    """There are fewer steps."""


def files(host: Host) -> dict[str, str]:
    """The sandboxes' files."""
    return {str(p): p.read_text() for p in (host.state_dir / "sandboxes").glob("*/*")}


@pytest.mark.parametrize("verb", BUILDING)
@pytest.mark.parametrize("number", [1, 2])
def test_a_commit_that_finds_no_room_leaves_all_as_before(
    host: Host, net: Net, verb: str, number: int
) -> None:
    """The first commit, before anything is done; the last one, when all is done: it is undone."""
    before, there, texts = records(net), facts(host), files(host)

    def full() -> None:
        raise StoreError("there is no space left", "free some space")

    try:
        with (
            pytest.raises(StoreError, match="no space"),
            from_step(number, full, ((SqliteStore, "commit"),)),
        ):
            VERBS[verb](net)
    except (_Over, pytest.fail.Exception):
        assert number == 2
        assert verb in ("publish", "update", "create-sandbox")  # they need one only
        return
    assert records(net) == before
    assert facts(host) == there
    assert files(host) == texts
    assert net.check() == ()
    VERBS[verb](net)
    assert net.check() == ()


def test_a_disk_that_stays_full_leaves_what_repair_takes_back(host: Host, net: Net) -> None:
    """Not even the undoing can be written: the host is as before, and the error says repair."""
    there = facts(host)
    commits = SqliteStore.commit
    with pytest.MonkeyPatch.context() as patch:
        count = 0

        def commit(store: SqliteStore, *args: object) -> int:
            nonlocal count
            count += 1
            if count > 1:
                raise StoreError("there is no space left", "free some space")
            return commits(store, *args)  # type: ignore[arg-type]

        patch.setattr(SqliteStore, "commit", commit)
        with pytest.raises(NetError, match=r"no space.*net repair") as caught:
            connect(net)
        assert caught.value.exit_status == StoreError.exit_status
    assert facts(host) == there
    with pytest.raises(NetError, match="net repair"):
        connect(net)
    report = net.repair()
    assert report.failed == ()
    assert [f.subject for f in report.mended] == ["web on back"]
    assert net.check() == ()
    connect(net)
    assert net.check() == ()


@pytest.mark.parametrize("verb", ["create", "connect", "publish", "update"])
def test_what_an_answer_was_lost_of_is_taken_back(
    host: Host, net: Net, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The firewall has done it, and what it says of that does not arrive (netlink(7), ENOBUFS)."""
    before, there = records(net), facts(host)
    done: list[bool] = []

    def lost(*arguments: Any) -> bool:
        done.append(transaction(*arguments))
        if len(done) == 1:
            raise NoAnswer(OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS)))
        return done[-1]

    transaction = Socket.transaction
    monkeypatch.setattr(Socket, "transaction", lost)
    with pytest.raises(KernelError, match="No buffer space"):
        VERBS[verb](net)
    assert records(net) == before
    assert facts(host) == there
    assert net.check() == ()


@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_at_any_step_is_taken_back_or_repaired(host: Host, net: Net, verb: str) -> None:
    """KeyboardInterrupt comes through; what it may leave, repair mends."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    before, there = records(net), facts(host)
    undone = 0
    for step in range(1, 200):
        try:
            with pytest.raises(KeyboardInterrupt), from_step(step, interrupt, STEPS):
                VERBS[verb](net)
        except (_Over, pytest.fail.Exception):
            break
        undone += (records(net), facts(host)) == (before, there)
        with Net(host.state_dir) as fresh:
            assert fresh.repair().failed == (), step
            fresh.collect_garbage()
            assert fresh.check() == (), step
        if records(net) != before:
            break  # it was done, or removed: there is no way to begin again
    assert undone if verb in BUILDING else True


def test_ctrl_c_at_any_moment_leaves_nothing_that_no_record_tells_of(host: Host, net: Net) -> None:
    """Also while the relay is at it, whose answer is heard later or by nobody."""
    modules = [sys.modules[name] for name in ("netlib.apply", "netlib.relay.door")]
    relays = RelayDoor(host.state_dir)
    before, there, relayed = records(net), facts(host), relays.marked()
    taken_back = 0
    for moment in itertools.count(1):
        try:
            with ctrl_c_at(moment, *modules):
                VERBS["publish"](net)
        except Over:
            break
        if records(net) == before:
            assert (facts(host), relays.marked()) == (there, relayed), moment
            taken_back += 1
            continue
        with Net(host.state_dir) as fresh:
            assert fresh.repair().failed == (), moment
            assert fresh.check() == (), moment
            if records(net) != before:  # it was done
                BACK_AGAIN["publish"](fresh)
        assert relays.marked() == relayed, moment
    relays.close()
    assert taken_back > 0.9 * moment


@pytest.mark.parametrize("verb", ["connect", "publish", "disconnect", "unpublish"])
def test_a_sandbox_that_dies_at_any_step(host: Host, verb: str) -> None:
    """The error has a hint, or it went well; gc takes what is left, and nothing stays."""
    for step in range(1, 200):
        with Net(host.state_dir) as net:
            if step == 1:
                net.create("front", subnets=[FRONT])
                net.create("back", subnets=[BACK])
            net.create_sandbox("web")
            net.connect("front", "web", publish=["8443:443"])
            there = host.run("ip", "netns").stdout

            def die() -> None:
                host.run("ip", "netns", "del", "web")

            try:
                with from_step(step, die, STEPS):
                    errors = errors_of(lambda at=net: VERBS[verb](at))  # type: ignore[misc]
            except _Over:
                break
            assert all(error.hint for error in errors), (step, errors)
            # The step may have been one in the background.
            assert eventually(lambda was=there: was != host.run("ip", "netns").stdout)  # type: ignore[misc]
            net.repair()
            assert [box.name for box in net.collect_garbage()] == ["web"], step
            assert net.check() == (), step
            for folder in ("port/", "lease/", "member/", "interface/", "sandbox/", "namespace/"):
                assert net.engine.state.store.range(*under(folder)) == [], step
    assert step > 5


def errors_of(act: Callable[[], object]) -> list[NetError]:
    """What it raises, if anything."""
    try:
        act()
    except NetError as error:
        return [error]
    return []
