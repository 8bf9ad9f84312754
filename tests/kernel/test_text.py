"""The commands that a plan prints do what the plan does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from support.host import Host
from support.wirings import endpoint, network, wirings

from netlib.apply import tear_down
from netlib.kernel.linux import LinuxKernel
from netlib.kernel.netfilter.none import NoFirewall
from netlib.model import Netns
from netlib.plan import Plan, diff
from netlib.wiring import Link, Up, Wiring

pytestmark = pytest.mark.kernel

WEB, DB = (Netns(name=n, path=f"/run/netns/{n}") for n in ("web", "db"))
NOTHING = Wiring()


@pytest.fixture
def kernel(host: Host) -> Iterator[LinuxKernel]:
    """Linux, only to look at."""
    kernel = LinuxKernel(NoFirewall())
    yield kernel
    kernel.close()


def type_in(host: Host, plan: Plan) -> None:
    """What a person would do with the plan's text."""
    script = ["set -e"]
    for line in plan.text("none").splitlines():
        where, command = line.split(maxsplit=1)
        script.append(command if where == "host" else f"ip netns exec {where} {command}")
    host.run("sh", "-c", "\n".join(script))


def test_a_network_and_an_endpoint_can_be_typed_in(host: Host, kernel: LinuxKernel) -> None:
    """By hand or by netlib, the result is the same, and so is its removal."""
    host.sandbox("web")
    want = network() | endpoint(WEB)

    type_in(host, diff(NOTHING, want))
    assert want == kernel.observe(want)

    type_in(host, diff(want, NOTHING))
    assert not [n for n in kernel.observe(want) if not n.shared]


@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(a=wirings((WEB, DB)), b=wirings((WEB, DB)))
def test_any_plan_can_be_typed_in(host: Host, a: Wiring, b: Wiring) -> None:
    """Also changes, and what is made anew."""
    # A bridge keeps an MTU of its own above its ports' only by a trick that nobody would type.
    a, b = (
        Wiring(replace(n, mtu=1400) if isinstance(n, Link) else n for n in wiring)
        for wiring in (a, b)
    )
    kernel = LinuxKernel(NoFirewall())
    try:
        made = [kernel.make_namespace(netns.name) for netns in (WEB, DB)]
        try:
            type_in(host, diff(NOTHING, a))
            assert a == kernel.observe(a)
            type_in(host, diff(a, b))
            assert b == kernel.observe(b)
            gone = [n for n in kernel.observe(a) if b.get(n.key()) is None]
            assert all(isinstance(n, Up) for n in gone)
            type_in(host, diff(b, NOTHING))
            assert not kernel.observe(b)
        finally:
            tear_down(diff(kernel.marked(), NOTHING), kernel, "all")
            for netns in made:
                kernel.drop_namespace(netns)
    finally:
        kernel.close()
