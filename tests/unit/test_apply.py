"""Applying is all or nothing; tearing down does all that it can."""

from __future__ import annotations

from ipaddress import ip_interface

import pytest
from support.wirings import BRIDGE, endpoint, network, veth

from netlib.apply import apply, tear_down
from netlib.errors import InterfaceTaken, KernelError, LeftOver, NotPermitted, StageFailed
from netlib.kernel.fake import FakeKernel
from netlib.plan import Create, Delete, Stage, Step, diff
from netlib.wiring import Address, Effect, Sysctl, Wiring

NOTHING = Wiring()


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
