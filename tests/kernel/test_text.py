"""The commands that a plan prints do what the plan does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from support.host import Host
from support.overlay import placed
from support.wirings import endpoint, network, wirings

from netlib.apply import tear_down
from netlib.drivers.overlay import OverlayDriver
from netlib.kernel.linux import LinuxKernel
from netlib.kernel.netfilter.none import NoFirewall
from netlib.model import Endpoint, Netns, Network, Peer, Sandbox, Subnet, interface
from netlib.plan import Plan, diff
from netlib.wiring import Layer, Link, Up, Wiring

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


def test_an_overlay_with_a_peer_can_be_typed_in(host: Host, kernel: LinuxKernel) -> None:
    """The tunnel, both addresses and the route that chooses between them, entries and locks."""
    netns = host.sandbox("web").netns
    driver, facts = OverlayDriver(), kernel.facts()
    prefixes = (ip_network("198.51.100.0/24"), ip_network("2001:db8:a::/64"))
    app = placed(
        Network(
            id="0a" * 32,
            name="app",
            driver="overlay",
            subnets=tuple(Subnet(prefix=p, gateway=p[1]) for p in prefixes),
            options={"flood": "on", "icc": "false"},
        )
    )
    web = Endpoint(
        id="0b" * 32,
        network=app.id,
        sandbox=Sandbox(name="web", netns=netns),
        ifname="eth0",
        mac="02:00:00:00:01:02",
        addresses=tuple(interface(p[2], p.prefixlen) for p in prefixes),
        gateway_for=(4, 6),
    )
    peer = Peer(
        mac="02:00:00:00:01:09",
        addresses=tuple(p[9] for p in prefixes),
        host=ip_address("203.0.113.9"),
        is_host=True,
    )
    want = driver.network_wiring(app, facts) | driver.endpoint_wiring(app, web, facts)
    want |= driver.peer_wiring(app, peer, facts)

    type_in(host, replace(diff(NOTHING, want), after=()))
    assert want == kernel.observe(want)

    type_in(host, diff(want, NOTHING))
    left = [n for n in kernel.observe(want) if not n.shared and n.layer < Layer.FIREWALL]
    assert not left


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
