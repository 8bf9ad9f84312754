"""Applying is all or nothing; tearing down does all that it can."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest
from support.moments import Over, ctrl_c_at
from support.wirings import BRIDGE, endpoint, network, veth

from netlib.apply import apply, tear_down
from netlib.errors import InterfaceTaken, KernelError, LeftOver, NotPermitted, StageFailed
from netlib.kernel import fake as fake_module
from netlib.kernel.fake import FakeKernel
from netlib.plan import Create, Delete, Stage, Step, diff
from netlib.wiring import Address, Effect, Relay, Sysctl, Wiring

NOTHING = Wiring()
apply_module = sys.modules["netlib.apply"]


def test_a_failed_stage_has_the_codes_of_its_cause() -> None:
    """A caller still learns that an interface was taken."""
    kernel = FakeKernel()
    kernel.add_device("nl-1")

    with pytest.raises(StageFailed) as caught:
        apply(diff(NOTHING, network()), kernel)

    error = caught.value
    assert isinstance(error.cause, InterfaceTaken)
    assert (error.code, error.exit_status, error.cni_code) == ("interface-taken", 4, 4)
    assert error.undone
    assert error.hint


def test_errors_that_are_not_the_kernels_own_undo_too() -> None:
    """Rights may run out half way."""
    kernel = FakeKernel()
    web = kernel.add_namespace("web")
    kernel.fail_at(3, NotPermitted("no"))

    with pytest.raises(StageFailed) as caught:
        apply(diff(NOTHING, network() | endpoint(web)), kernel)

    assert caught.value.exit_status == 6
    assert not [n for n in kernel.wiring() if not n.shared]


def test_an_effect_that_fails_undoes_everything() -> None:
    """All or nothing includes what leaves no thing."""
    kernel = FakeKernel()
    kernel.failing = lambda what: KernelError("no") if isinstance(what, Effect) else None
    address = Address(device="nl-1", address=ip_interface("192.0.2.1/24"), announce=True)
    with pytest.raises(StageFailed):
        apply(diff(NOTHING, Wiring([BRIDGE, address])), kernel)
    assert not kernel.wiring()


def test_what_can_not_be_undone_is_told() -> None:
    """Then something is left, and repair must know."""
    kernel = FakeKernel()
    web = kernel.add_namespace("web")

    def failing(what: Step | Effect) -> KernelError | None:
        stuck = isinstance(what, Delete) or (
            isinstance(what, Create) and isinstance(what.noun, Sysctl)
        )
        return KernelError("no") if stuck else None

    kernel.failing = failing
    with pytest.raises(StageFailed) as caught:
        apply(diff(NOTHING, Wiring([BRIDGE, *endpoint(web)])), kernel)

    assert not caught.value.undone
    assert BRIDGE in kernel.wiring()


def test_a_kernel_that_can_not_take_back_a_stages_beginning_is_heard() -> None:
    """The stage that failed left something itself."""

    class Broken(FakeKernel):
        def do(self, stage: Stage) -> None:
            raise StageFailed(KernelError("half"), undone=False)

    with pytest.raises(StageFailed) as caught:
        apply(diff(NOTHING, network()), Broken())

    assert not caught.value.undone
    assert caught.value.message == "half"


def test_an_interrupt_undoes_too() -> None:
    """Ctrl-C in the middle leaves nothing behind."""
    kernel = FakeKernel()
    web = kernel.add_namespace("web")
    wiring = network() | endpoint(web)
    seen = 0

    def interrupt(what: Step | Effect) -> None:
        nonlocal seen
        seen += 1
        if seen == 8:
            raise KeyboardInterrupt

    kernel.failing = interrupt
    with pytest.raises(KeyboardInterrupt):
        apply(diff(NOTHING, wiring), kernel)
    assert not [n for n in kernel.wiring() if not n.shared]


def test_tearing_down_goes_on_and_names_all_that_failed() -> None:
    """One stage that fails keeps no other from being done."""
    kernel = FakeKernel()
    web = kernel.add_namespace("web")
    pair = veth(web, 2)
    route = next(n for n in endpoint(web) if type(n).__name__ == "Route")
    wiring = Wiring([BRIDGE, pair, *endpoint(web)])
    apply(diff(NOTHING, wiring), kernel)
    kernel.failing = lambda what: (
        KernelError("stuck") if isinstance(what, Delete) and what.noun == BRIDGE else None
    )

    with pytest.raises(LeftOver, match="stuck") as caught:
        tear_down(diff(wiring, NOTHING), kernel, "web on my-net")

    assert len(caught.value.causes) == 1
    assert BRIDGE in kernel.wiring()
    assert pair not in kernel.wiring()
    assert route not in kernel.wiring()


RELAY = Relay(
    protocol="tcp",
    host=ip_address("::1"),
    port=8080,
    target=ip_address("192.0.2.2"),
    target_port=80,
)


class Begins(FakeKernel):
    """Another process does what is begun, as soon as it is; `refuses` says that it can't."""

    def __init__(self, *, refuses: bool = False) -> None:
        super().__init__()
        self.refuses = refuses
        self.told: list[str] = []

    def begin(self, stage: Stage) -> Callable[[], None]:
        """It is done at once, and told when somebody waits for it."""
        self.told.append("begin")
        if not self.refuses:
            FakeKernel.do(self, stage)

        def finish() -> None:
            self.told.append("finish")
            if self.refuses:
                raise KernelError("no")

        return finish

    def do(self, stage: Stage) -> None:
        """As always, and noted."""
        self.told.append(stage.layer.name)
        super().do(stage)


def test_what_needs_nothing_of_the_rest_is_begun_first_and_waited_for_in_its_turn() -> None:
    """It is under way while everything else is done."""
    kernel = Begins()
    apply(diff(NOTHING, Wiring([BRIDGE, RELAY])), kernel)
    assert kernel.told == ["begin", "LINK", "finish"]
    assert RELAY in kernel.wiring()


def test_what_was_begun_is_taken_back_when_the_rest_fails() -> None:
    """Also when nobody came to wait for it."""
    kernel = Begins()
    kernel.add_device("nl-1")
    with pytest.raises(StageFailed) as caught:
        apply(diff(NOTHING, Wiring([BRIDGE, RELAY])), kernel)
    assert caught.value.undone
    assert not kernel.wiring()
    assert kernel.told == ["begin", "LINK", "finish", "SERVICE"]


def test_what_could_not_be_begun_is_not_taken_back() -> None:
    """There is nothing of it, and the rest goes."""
    kernel = Begins(refuses=True)
    with pytest.raises(StageFailed) as caught:
        apply(diff(NOTHING, Wiring([BRIDGE, RELAY])), kernel)
    assert caught.value.undone
    assert not kernel.wiring()

    kernel.add_device("nl-1")  # now both fail
    with pytest.raises(StageFailed) as caught:
        apply(diff(NOTHING, Wiring([BRIDGE, RELAY])), kernel)
    assert caught.value.undone


def test_a_failing_end_takes_back_what_was_begun_and_done() -> None:
    """The commit that says that all is done may fail last."""
    kernel = Begins()

    def confirm() -> None:
        raise KernelError("the disk is full")

    with pytest.raises(StageFailed):
        apply(diff(NOTHING, Wiring([BRIDGE, RELAY])), kernel, confirm=confirm)
    assert not kernel.wiring()


def test_nothing_is_begun_before_its_like_is_out_of_the_way() -> None:
    """A port that moves is free only when it is given up."""
    kernel = Begins()
    apply(diff(NOTHING, Wiring([BRIDGE, RELAY])), kernel)
    kernel.told.clear()
    moved = replace(RELAY, target=ip_address("192.0.2.3"))
    other = replace(RELAY, port=8081)
    apply(diff(Wiring([RELAY]), Wiring([moved, other])), kernel)
    apply(diff(Wiring([moved]), Wiring([RELAY])), kernel)
    assert "begin" not in kernel.told


PORT = replace(RELAY, port=8082)
WAS = Wiring([BRIDGE, Address(device="nl-1", address=ip_interface("198.51.100.1/24")), PORT])
BECOMES = Wiring([
    replace(BRIDGE, mtu=1400),
    Address(device="nl-1", address=ip_interface("198.51.100.129/25")),
    replace(PORT, target=ip_address("192.0.2.9")),
    RELAY,
])  # fmt: skip


@pytest.mark.parametrize(
    ("have", "want"),
    [
        pytest.param(NOTHING, Wiring([*WAS, RELAY]), id="made"),
        pytest.param(WAS, BECOMES, id="changed"),
        pytest.param(WAS, WAS | Wiring([RELAY]), id="begun by another process"),
    ],
)
def test_an_interrupt_at_any_moment_leaves_all_or_nothing(have: Wiring, want: Wiring) -> None:
    """And what went before is withdrawn only where nothing is left: else a record tells of it."""
    plan = diff(have, want)
    ends = set()
    for moment in itertools.count(1):
        kernel = Begins()
        apply(diff(NOTHING, have), kernel)
        told: list[str] = []
        try:
            with ctrl_c_at(moment, apply_module, fake_module, instructions=True):
                apply(plan, kernel, withdraw=lambda: told.append("withdrawn"))  # noqa: B023
        except Over:
            break
        there = kernel.wiring()
        assert there in (have, want), moment
        ends.add((there == want, bool(told)))
    assert kernel.wiring() == want
    assert ends == {(False, False), (False, True), (True, False)}
