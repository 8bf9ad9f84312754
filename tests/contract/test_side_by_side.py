"""Operations that have nothing to do with each other, in one go, on the fake host and on Linux."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netlib import side_by_side
from netlib.errors import (
    AddressTaken,
    AlreadyConnected,
    InterfaceTaken,
    KernelError,
    LeftOver,
    NetError,
    NoSuchSandbox,
    PortTaken,
    StoreError,
)
from netlib.kernel.fake import FakeKernel
from netlib.model import Endpoint
from netlib.net import Net
from netlib.operation import Operation
from netlib.plan import Create, Delete, Step
from netlib.side_by_side import run_each
from netlib.store import Commit
from netlib.store.memory import MemoryStore
from netlib.store.sqlite import SqliteStore
from netlib.verbs.connect import connect
from netlib.verbs.departing import depart_all
from netlib.wiring import Effect, VethPair

SUBNET = "198.51.100.0/24"
BOXES = ("a", "b", "c", "d", "e")


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.kernel)])
def net(request: pytest.FixtureRequest) -> Iterator[Net]:
    """A network and sandboxes, on a host of each kind."""
    if request.param == "fake":
        with Net(store=MemoryStore(), kernel=FakeKernel()) as net:
            yield _prepared(net)
        return
    host = request.getfixturevalue("host")
    with Net(host.state_dir) as net:
        yield _prepared(net)


@pytest.fixture
def kernel() -> FakeKernel:
    """A host in memory."""
    return FakeKernel()


@pytest.fixture
def fake(kernel: FakeKernel) -> Iterator[Net]:
    """The same on it alone, where anything can be made to fail."""
    with Net(store=MemoryStore(), kernel=kernel) as net:
        yield _prepared(net)


def _prepared(net: Net) -> Net:
    net.create("front", subnets=[SUBNET])
    for name in BOXES:
        net.create_sandbox(name)
    return net


def joining(net: Net, box: str, **asked: Any) -> Callable[[], Operation[Endpoint]]:
    """How its connection is prepared."""
    return partial(connect, net.engine, "front", box, **asked)


def join_all(net: Net, **asked: Any) -> list[Endpoint | Exception]:
    """All at once; the n-th publishes 8080 + n."""
    return run_each(
        net.engine,
        [joining(net, box, publish=[f"{8080 + n}:80"], **asked) for n, box in enumerate(BOXES)],
    )


def records(net: Net) -> dict[str, str]:
    """All of the state but what only moves forward."""
    every = net.engine.state.store.range(" ", "~")
    return {r.key: r.value for r in every if not r.key.startswith(("cursor/", "host/"))}


def applied(net: Net, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers' stages each of the plans has that are done from now on."""
    from netlib import engine

    seen: list[int] = []
    for name in ("apply", "tear_down"):
        real = getattr(engine, name)

        def counted(plan: Any, *args: Any, real: Any = real, **named: Any) -> None:
            seen.append(len([n for s in plan.stages for n in s.steps if _is_pair(n)]))
            real(plan, *args, **named)

        monkeypatch.setattr(engine, name, counted)
    return seen


def _is_pair(step: Step | Effect) -> bool:
    return isinstance(step, Create | Delete) and isinstance(step.noun, VethPair)


def test_what_has_nothing_to_do_with_each_other_is_one_plan_and_comes_out_as_ever(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses in order, ports, a clean check; and all of it goes in one plan, too."""
    before = records(net)
    plans = applied(net, monkeypatch)
    found = join_all(net)

    assert plans == [5]
    assert [str(e.addresses[0]) for e in found if isinstance(e, Endpoint)] == [
        f"198.51.100.{n}/24" for n in (2, 3, 4, 5, 6)
    ]
    assert all(endpoint.state == "ready" for endpoint in net.endpoints())
    assert net.check() == ()

    depart_all(net.engine, net.engine.state.endpoints())
    assert plans == [5, 5]
    assert records(net) == before
    assert net.check() == ()


def test_what_one_of_them_can_not_have_it_is_refused_as_if_it_came_after_the_others(
    net: Net,
) -> None:
    """A port and an address of another one's; nobody else is any the worse for it."""
    found = run_each(net.engine, [
        joining(net, "a", publish=["8080:80"], addresses=["198.51.100.9"]),
        joining(net, "b", publish=["8080:80"]),
        joining(net, "c", addresses=["198.51.100.9"]),
        joining(net, "d"),
        joining(net, "nobody"),
    ])  # fmt: skip
    assert [type(each) for each in found] == [
        Endpoint, PortTaken, AddressTaken, Endpoint, NoSuchSandbox
    ]  # fmt: skip
    assert {e.sandbox.name for e in net.endpoints()} == {"a", "d"}
    assert net.check() == ()


def test_what_holds_the_same_things_is_done_one_after_the_other(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox's default route can't move by two at once; and twice the same is refused."""
    net.create("back")
    plans = applied(net, monkeypatch)
    found = run_each(net.engine, [
        joining(net, "a"),
        partial(connect, net.engine, "back", "a"),
        joining(net, "a"),
        joining(net, "b"),
    ])  # fmt: skip
    assert [type(each) for each in found] == [Endpoint, Endpoint, AlreadyConnected, Endpoint]
    assert plans == [2, 1]
    assert net.check() == ()


def test_where_the_kernel_refuses_one_the_others_are_there_and_it_alone_is_told(net: Net) -> None:
    """All are taken back first, so that nothing is half done, and then each is tried by itself."""
    place = net.engine.state.sandbox("c").netns
    before = records(net)
    if isinstance(net.engine.kernel, FakeKernel):
        net.engine.kernel.add_device("eth7", netns=place)
    else:
        _run_in(place.path, "ip", "link", "add", "eth7", "type", "veth", "peer", "eth8")
    found = join_all(net, ifname="eth7")

    assert [type(each) for each in found] == [
        Endpoint, Endpoint, InterfaceTaken, Endpoint, Endpoint
    ]  # fmt: skip
    assert net.check() == ()
    depart_all(net.engine, net.engine.state.endpoints())
    assert records(net) == before


def _run_in(path: str, *argv: str) -> None:
    import subprocess

    subprocess.run(["nsenter", f"--net={path}", *argv], check=True, capture_output=True)


def test_what_takes_long_to_think_through_holds_up_nobody_else(
    fake: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who want to write wait for the first, and give up after some seconds."""
    now = 0.0
    monkeypatch.setattr(side_by_side, "time", SimpleNamespace(monotonic=lambda: now))
    plans = applied(fake, monkeypatch)

    def slow() -> Operation[Endpoint]:
        nonlocal now
        now += 2.0
        return joining(fake, "b")()

    others = [joining(fake, box) for box in ("a", "c", "d")]
    found = run_each(fake.engine, [others[0], slow, *others[1:]])
    assert [type(each) for each in found] == 4 * [Endpoint]
    assert plans == [2, 1, 1]


def test_what_is_left_of_one_keeps_no_other(fake: Net, kernel: FakeKernel) -> None:
    """It is told what is left of its own; the others have gone."""
    join_all(fake)

    def stuck(step: Step | Effect) -> NetError | None:
        is_its = _is_pair(step) and step.noun.peer_netns.name.endswith("c")  # type: ignore[union-attr]
        return KernelError("it is stuck") if is_its else None

    kernel.failing = stuck
    with pytest.raises(LeftOver, match="endpoint of c on front"):
        depart_all(fake.engine, fake.engine.state.endpoints())
    assert [(e.sandbox.name, e.state) for e in fake.endpoints()] == [("c", "removing")]
    kernel.failing = None
    assert fake.repair().failed == ()
    assert fake.endpoints() == ()


def test_a_state_that_can_not_be_written_is_told_to_each_and_leaves_nothing(
    fake: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: nothing of what was begun before it stays."""
    before, there = records(fake), fake.engine.kernel.marked()
    store = fake.engine.state.store
    real = store.commit

    def full(commit: Commit) -> int:
        if any("/d/" in key for key in commit.put):
            raise StoreError("the disk is full")
        return real(commit)

    monkeypatch.setattr(store, "commit", full)
    found = join_all(fake)
    assert [type(each) for each in found] == [Endpoint, Endpoint, Endpoint, StoreError, Endpoint]
    monkeypatch.undo()
    assert fake.check() == ()
    depart_all(fake.engine, fake.engine.state.endpoints())
    assert records(fake) == before
    assert fake.engine.kernel.marked() == there


def test_what_nobody_expected_of_one_is_told_to_it_alone(fake: Net, kernel: FakeKernel) -> None:
    """Neither how it is prepared nor what it asks of the kernel is anything to the others."""

    def confused() -> Operation[Endpoint]:
        raise TypeError("a fault of ours, or of a driver's")

    found = run_each(fake.engine, [joining(fake, "a"), confused, joining(fake, "b")])
    assert [type(each) for each in found] == [Endpoint, TypeError, Endpoint]
    depart_all(fake.engine, fake.engine.state.endpoints())

    def broken(step: Step | Effect) -> NetError | None:
        if _is_pair(step) and step.noun.peer_netns.name.endswith("d"):  # type: ignore[union-attr]
            raise TypeError("a noun that no kernel can read")
        return None

    kernel.failing = broken
    found = join_all(fake)
    kernel.failing = None
    assert [type(each) for each in found] == [Endpoint, Endpoint, Endpoint, TypeError, Endpoint]
    assert {endpoint.sandbox.name for endpoint in fake.endpoints()} == {"a", "b", "c", "e"}
    assert fake.check() == ()


def test_what_was_never_begun_is_not_taken_from_who_has_it_since(
    tmp_path: Path, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process, which waits for the file all that time, may get the very same address."""
    path, wanted = tmp_path / "state.db", ["198.51.100.9"]
    with (
        Net(store=SqliteStore(path), kernel=kernel) as net,
        Net(store=SqliteStore(path), kernel=kernel) as other,
    ):
        _prepared(net)
        store = net.engine.state.store
        real = store.together

        @contextmanager
        def together() -> Iterator[None]:
            try:
                with real():
                    yield
            finally:
                other.connect("front", "b", addresses=wanted)

        def interrupted() -> Operation[Endpoint]:
            raise KeyboardInterrupt

        monkeypatch.setattr(store, "together", together)
        with pytest.raises(KeyboardInterrupt):
            run_each(net.engine, [joining(net, "a", addresses=wanted), interrupted])

        with pytest.raises(AddressTaken, match="b"):
            net.connect("front", "c", addresses=wanted)
        assert [endpoint.sandbox.name for endpoint in net.endpoints()] == ["b"]


@pytest.mark.parametrize("step", range(1, 40))
def test_whichever_step_fails_all_come_to_be_in_the_end(step: int) -> None:
    """One failure, at each of their steps in turn: what it kept from being done is done again."""
    kernel = FakeKernel()
    with Net(store=MemoryStore(), kernel=kernel) as net:
        _prepared(net)
        kernel.fail_at(step)
        found = join_all(net)
        assert [type(each) for each in found] == 5 * [Endpoint]
        assert net.check() == ()


def test_an_interrupt_leaves_nothing(fake: Net, kernel: FakeKernel) -> None:
    """Ctrl-C, while the last one is prepared and while all are made."""
    before, there = records(fake), kernel.marked()

    def interrupted() -> Operation[Endpoint]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_each(fake.engine, [*(joining(fake, box) for box in BOXES), interrupted])
    assert records(fake) == before

    def broken_off(step: Step | Effect) -> NetError | None:
        if _is_pair(step) and step.noun.peer_netns.name.endswith("d"):  # type: ignore[union-attr]
            raise KeyboardInterrupt
        return None

    kernel.failing = broken_off
    with pytest.raises(KeyboardInterrupt):
        join_all(fake)
    kernel.failing = None
    assert records(fake) == before
    assert kernel.marked() == there


def test_many_endpoints_go_with_their_network_by_few_plans(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the time it takes is not that of so many waits for the kernel."""
    join_all(net)
    plans = applied(net, monkeypatch)
    net.remove("front", force=True)
    assert plans == [5, 0]
    assert net.check() == ()
    assert not list(net.engine.kernel.marked())


def test_garbage_goes_together(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many sandboxes that ended at once, as with a machine's runtime."""
    join_all(net)
    for name in BOXES[:4]:
        net.engine.kernel.drop_namespace(net.engine.state.sandbox(name).netns)
    plans = applied(net, monkeypatch)
    assert {box.name for box in net.collect_garbage()} == set(BOXES[:4])
    assert plans[0] == 4
    assert net.check() == ()


def test_unused_networks_go_together_and_each_is_told_of(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What somebody begins to use meanwhile stays, and keeps no other."""
    for name in ("p", "q", "r"):
        net.create(name)
    told: list[tuple[str, int, int]] = []

    def watch(name: str, number: int, total: int) -> None:
        told.append((name, number, total))
        if name == "q":
            net.connect("q", "a")

    plans = applied(net, monkeypatch)
    assert net.prune(watch=watch) == ("front", "p", "r")
    assert told == [("front", 0, 4), ("p", 1, 4), ("q", 2, 4), ("r", 3, 4)]
    assert plans == [1, 0]  # that of `connect`, and one for all three networks
    assert {n.name for n in net.networks()} >= {"q"}
    assert net.check() == ()
