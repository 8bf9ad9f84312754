"""Linux says no to any one request of an operation: a typed error leaves, and nothing stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from errno import EBUSY, EMFILE, ENODEV

import pytest
from support.host import Host
from support.verbs import BACK_AGAIN, BUILDING, VERBS, facts, records, tried

from netlib import Net
from netlib.errors import NetError
from netlib.kernel import netns, rtnl, settings
from netlib.kernel import rtnl_entries as entries
from netlib.kernel.errnos import Refusal
from netlib.kernel.netlink import DUMP, Request, Socket

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(200)]
TAKING = [verb for verb in VERBS if verb not in BUILDING]
LOOKING: dict[str, Callable[[Net], object]] = {
    "check": lambda net: net.check(),
    "inspect": lambda net: net.inspect("front"),
    "repair": lambda net: net.repair(),
    "gc": lambda net: net.collect_garbage(),
}


@pytest.fixture
def net(host: Host) -> Iterator[Net]:
    """Two networks, and a sandbox on the first of them."""
    with tried(host) as net:
        yield net


@contextmanager
def refused(number: int, errno: int) -> Iterator[Callable[[], bool]]:
    """The kernel refuses the `number`th request; yields whether there were that many."""
    left = number
    transact, ask, index = Socket.transact, Socket.try_to_ask, Socket.index

    def is_due() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def some(self: Socket, requests: Sequence[Request]) -> list[Refusal | None]:
        due = [is_due() for _ in requests]
        kept = [r for r, no in zip(requests, due, strict=True) if not no]
        answers = iter(transact(self, kept))
        return [Refusal(errno) if no else next(answers) for no in due]

    def one(self: Socket, request: Request) -> list[bytes] | Refusal:
        # A list of all devices or routes never fails for one of them.
        whole = request.flags & DUMP == DUMP and request.kind in (rtnl.GETLINK, entries.GETROUTE)
        due = not (whole and errno == ENODEV) and is_due()
        return Refusal(errno) if due else ask(self, request)

    def number_of(self: Socket, device: str) -> int:
        return 0 if is_due() else index(self, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Socket, "transact", some)
        patch.setattr(Socket, "try_to_ask", one)
        patch.setattr(Socket, "index", number_of)
        yield lambda: left <= 0


@contextmanager
def without_descriptors(number: int, errno: int) -> Iterator[Callable[[], bool]]:
    """The `number`th opening of a namespace, or writing of a sysctl, fails."""
    left = number

    def failing(function: Callable[..., object]) -> Callable[..., object]:
        def called(*args: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                raise OSError(errno, "Too many open files")
            return function(*args)

        return called

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((netns, "open_netns"), (netns, "set_netns"), (settings, "write")):
            patch.setattr(owner, name, failing(getattr(owner, name)))
        yield lambda: left <= 0


Trouble = Callable[[int, int], object]


@pytest.mark.parametrize(
    ("trouble", "errno"),
    [(refused, ENODEV), (refused, EBUSY), (without_descriptors, EMFILE)],
    ids=["no-such-device", "busy", "no-descriptors"],
)
@pytest.mark.parametrize("verb", BUILDING)
def test_a_refusal_anywhere_is_a_typed_error_and_undone(
    host: Host, net: Net, verb: str, trouble: Callable[..., object], errno: int
) -> None:
    """Whatever was asked first: only NetError leaves, and kernel and state are as before."""
    before, there = records(net), facts(host)
    told: list[NetError] = []
    for number in range(1, 200):
        with trouble(number, errno) as reached:  # type: ignore[attr-defined]
            try:
                VERBS[verb](net)
            except NetError as error:
                told.append(error)
            else:
                if not reached():
                    break
        if records(net) == before:
            assert facts(host) == there, number
            assert net.check() == (), number
        else:  # it did without: then all of it is there
            assert net.check() == (), number
            BACK_AGAIN[verb](net)
            before, there = records(net), facts(host)
    assert all(error.message and "Refusal" not in str(error) for error in told)
    # Descriptors that are open are used again, and some verbs ask netlink for little.
    assert len(told) > 1 or errno == EMFILE or verb in ("publish", "create-sandbox")


@pytest.mark.parametrize("errno", [ENODEV, EBUSY], ids=["no-such-device", "busy"])
@pytest.mark.parametrize("verb", TAKING)
def test_a_refusal_anywhere_in_a_removal_is_told_and_repaired(
    net: Net, verb: str, errno: int
) -> None:
    """Only NetError leaves, and it names repair; then check is clean."""
    before = records(net)
    for number in range(1, 200):
        with refused(number, errno) as reached:
            try:
                VERBS[verb](net)
            except NetError as error:
                told = str(error)
            else:
                told = ""
                if not reached():
                    break
        assert not told or records(net) == before or "net repair" in told, number
        assert net.repair().failed == (), number
        assert net.check() == (), number
        if records(net) != before:
            BACK_AGAIN[verb](net)
            before = records(net)


@pytest.mark.parametrize("verb", LOOKING)
def test_a_refusal_anywhere_while_looking_changes_nothing(host: Host, net: Net, verb: str) -> None:
    """Only NetError leaves, and what a device that vanishes brings about is no failure at all."""
    before, there = records(net), facts(host)
    for errno in (ENODEV, EBUSY):
        for number in range(1, 200):
            with refused(number, errno) as reached:
                try:
                    LOOKING[verb](net)
                except NetError as error:
                    told = str(error)
                else:
                    told = ""
                if not reached():
                    break
            # Rules are no devices: there this number is as strange as any.
            assert not told or errno == EBUSY or "the rules of nftables" in told, told
            assert records(net) == before, number
            assert facts(host) == there, number
