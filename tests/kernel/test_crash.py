"""Whenever netlib dies, `repair` makes host and state agree again, and nothing is lost or left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pytest
from support.crash import FIREWALL, STEPS, Steps, deaths
from support.host import Host

from netlib import Net
from netlib.side_by_side import run_each
from netlib.store import under
from netlib.verbs import connect as verbs
from netlib.verbs.departing import depart_all

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(400)]
# What Ensure makes: with iptables our chains, in tables of the system's.
RESIDUE = [r"^nft table (inet netlib|ip6? (filter|nat|mangle|raw))", r"^sysctl .*forwarding=1"]

PORTS = ("8080:80", "127.0.0.1:9000-9001:90-91", "[::1]:7000:70/udp")
THREE = ("p", "q", "r")
FRONT, BACK = "198.51.100.0/25", "198.51.100.128/25"


def networks(net: Net) -> None:
    """Two networks, and a sandbox on one of them."""
    known = {r.network.name for r in net.engine.state.networks()}
    if "front" not in known:
        net.create("front", subnets=[FRONT, "2001:db8:a::/64"], options={"mtu": "1400"})
    if "back" not in known:
        net.create("back", subnets=[BACK])
    if net.engine.state.find_sandbox("web") is None:
        net.create_sandbox("web")
    if "front" not in on(net):
        net.connect("front", "web", publish=["8443:443"])


def on(net: Net) -> dict[str, set[int]]:
    """The networks that the sandbox is on, with the host ports that it publishes there."""
    names = {r.network.id: r.network.name for r in net.engine.state.networks()}
    return {
        names[r.endpoint.network]: {p.host_port for p in r.endpoint.ports}
        for r in net.engine.state.endpoints_of("web")
    }


def joined(net: Net) -> None:
    """And it is on the other one too, which has its default route."""
    networks(net)
    if "back" not in on(net):
        connect(net)


def connect(net: Net) -> None:
    net.connect("back", "web", publish=PORTS, gateway_priority=5)


def apart(net: Net) -> None:
    networks(net)
    if "back" in on(net):
        net.disconnect("back", "web")


def only_front_ports(net: Net) -> None:
    apart(net)
    if 8080 in on(net)["front"]:
        net.unpublish("web", PORTS)


def all_ports(net: Net) -> None:
    apart(net)
    if 8080 not in on(net)["front"]:
        net.publish("web", PORTS)


def no_third(net: Net) -> None:
    if any(r.network.name == "third" for r in net.engine.state.networks()):
        net.remove("third")


def third(net: Net) -> None:
    if not any(r.network.name == "third" for r in net.engine.state.networks()):
        create(net)


def create(net: Net) -> None:
    net.create("third", subnets=["203.0.113.0/25", "2001:db8:c::/64"], options={"mtu": "1300"})


def as_made(net: Net) -> None:
    joined(net)
    if net.engine.state.network("back").network.options.get("mtu") == "1280":
        net.update("back", options={"mtu": "1500", "icc": "true", "masquerade": "true",
                                    "host_binding_ipv4": "0.0.0.0"})  # fmt: skip


def update(net: Net) -> None:
    net.update("back", options={"mtu": "1280", "icc": "false", "masquerade": "false",
                                "host_binding_ipv4": "127.0.0.1"})  # fmt: skip


def no_box(net: Net) -> None:
    if net.engine.state.find_sandbox("box") is not None:
        net.remove_sandbox("box")


def no_three(net: Net) -> None:
    """Three sandboxes that are on no network."""
    networks(net)
    for name in THREE:
        if net.engine.state.find_sandbox(name) is None:
            net.create_sandbox(name)
    disconnect_three(net)


def disconnect_three(net: Net) -> None:
    depart_all(net.engine, [r for name in THREE for r in net.engine.state.endpoints_of(name)])


def three(net: Net) -> None:
    """They are on one, all at once."""
    no_three(net)
    connect_three(net)


def connect_three(net: Net) -> None:
    found = run_each(net.engine, [
        partial(verbs.connect, net.engine, "front", name, publish=[f"{8090 + number}:80"])
        for number, name in enumerate(THREE)
    ])  # fmt: skip
    assert not [one for one in found if isinstance(one, Exception)]


def box(net: Net) -> None:
    if net.engine.state.find_sandbox("box") is None:
        net.create_sandbox("box")
    networks(net)
    if not net.engine.state.endpoints_of("box"):
        net.connect("front", "box")


@dataclass(frozen=True)
class Verb:
    """`prepare` brings a clean state to where `act` can be done; said again, it changes nothing."""

    prepare: Callable[[Net], None]
    act: Callable[[Net], object]


VERBS = {
    "create": Verb(no_third, create),
    "remove": Verb(third, lambda net: net.remove("third")),
    "remove-force": Verb(joined, lambda net: net.remove("back", force=True)),
    "connect": Verb(apart, connect),
    "disconnect": Verb(joined, lambda net: net.disconnect("back", "web")),
    "publish": Verb(only_front_ports, lambda net: net.publish("web", PORTS)),
    "unpublish": Verb(all_ports, lambda net: net.unpublish("web", PORTS)),
    "update": Verb(as_made, update),
    "connect-three": Verb(no_three, connect_three),
    "disconnect-three": Verb(three, disconnect_three),
    "create-sandbox": Verb(no_box, lambda net: net.create_sandbox("box")),
    "remove-sandbox": Verb(box, lambda net: net.remove_sandbox("box")),
}


@contextmanager
def a_fresh_process(host: Host) -> Iterator[Net]:
    """Nothing of an earlier one is known."""
    with Net(host.state_dir) as net:
        yield net


# With iptables only what it does otherwise: whole rules by programs, not one transaction.
DEATHS = [
    *(pytest.param(verb, "nftables", STEPS, id=f"{verb}-nftables") for verb in VERBS),
    *(
        pytest.param(verb, "iptables", FIREWALL, id=f"{verb}-iptables")
        for verb in VERBS
        if not verb.endswith(("-sandbox", "-three"))
    ),
]


@pytest.mark.parametrize(("verb", "backend", "steps"), DEATHS)
def test_a_death_at_any_step_is_repaired(
    host: Host, verb: str, backend: str, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Repair makes check clean, the verb works again, and at the end nothing is left."""
    monkeypatch.setenv("NETLIB_FIREWALL", backend)
    case = VERBS[verb]
    with a_fresh_process(host) as net:
        case.prepare(net)
    died = 0
    for step in deaths(host.state_dir, case.act, steps):
        died = step
        with a_fresh_process(host) as net:
            report = net.repair()
            assert report.failed == (), f"step {step}"
            net.collect_garbage()
            assert net.check() == (), f"step {step}"
            assert stale(net) == set(), f"step {step}"
            case.prepare(net)
            case.act(net)
            assert net.check() == (), f"step {step}, done again"
            case.prepare(net)
    assert died > 3
    with a_fresh_process(host) as net:
        remove_all(net)
        assert list(net.engine.kernel.marked()) == []
        every = {r.key for r in net.engine.state.store.range(" ", "~")}
    assert {k for k in every if not k.startswith("host/")} == set()
    assert host.leftovers(RESIDUE) == []


def remove_all(net: Net) -> None:
    """All sandboxes and networks."""
    for sandbox in net.engine.state.sandboxes():
        net.remove_sandbox(sandbox.name)
    for record in net.engine.state.networks():
        net.remove(record.network.id)


def stale(net: Net) -> set[str]:
    """What is claimed for endpoints that are not there, or that do not have it."""
    state = net.engine.state
    held = set()
    for record in state.endpoints():
        from netlib.publishing import claim_ports

        endpoint = record.endpoint
        network = state.network(endpoint.network).network
        held |= set(claim_ports(network, endpoint)[1])
    return {r.key for r in state.store.range(*under("port/"))} ^ held
