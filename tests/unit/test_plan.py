"""Plans: what is done, in which order, and how it is taken back."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from support.wirings import BRIDGE, endpoint, network, veth, wirings

from netlib.model import HOST, Netns
from netlib.plan import (
    Change,
    Create,
    Delete,
    Ensure,
    Plan,
    Stage,
    diff,
    in_order,
    inverse,
    side_by_side,
    subject,
)
from netlib.wiring import (
    Address,
    Announce,
    FirewallBase,
    ForgetFlows,
    Forward,
    Forwarding,
    Layer,
    Loopback,
    Macvlan,
    Neighbour,
    Noun,
    Publish,
    Route,
    VethPair,
    Vlan,
    Wiring,
)

WEB = Netns(name="web", path="/run/netns/web")
DB = Netns(name="db", path="/run/netns/db")
NOTHING = Wiring()
PORT = Publish(
    family=4, protocol="tcp", port=8080, target=ip_address("198.51.100.2"), target_port=80
)


def shape(plan: Plan) -> list[str]:
    """Verbs and nouns, stage by stage."""
    return [
        f"{stage.netns}: "
        + ", ".join(f"{type(s).__name__} {type(subject(s)).__name__}" for s in stage.steps)
        for stage in plan.stages
    ]


def test_traffic_opens_last() -> None:
    """Links, then settings, then addresses, then the firewall, each netns its own stage."""
    want = network() | endpoint(WEB) | Wiring([FirewallBase(), Forward(bridge="nl-1"), PORT])

    assert shape(diff(NOTHING, want)) == [
        "host: Ensure Forwarding, Ensure FirewallBase",
        "web: Ensure Loopback",
        "host: Create Bridge, Create VethPair",
        "web: Create Sysctl",
        "host: Create Address, Create Address",
        "web: Create Address, Create Address, Create Route, Create Route",
        "host: Create Forward, Create Publish",
    ]


def test_traffic_closes_first() -> None:
    """The firewall's facts go before the links, and what rides on a link goes with it."""
    have = network() | endpoint(WEB) | Wiring([FirewallBase(), Forward(bridge="nl-1"), PORT])

    plan = diff(have, NOTHING)

    assert shape(plan) == [
        "host: Delete Publish, Delete Forward",
        "host: Delete VethPair, Delete Bridge",
    ]
    along = [type(n).__name__ for step in plan.stages[1].steps for n in step.along]  # type: ignore[union-attr]
    assert sorted(along) == ["Address"] * 4 + ["Route"] * 2 + ["Sysctl"]


def test_plans_side_by_side_are_done_layer_by_layer() -> None:
    """The sandboxes' own stages stay apart; the host's links are made at once, and go at once."""
    one = endpoint(WEB) | Wiring([PORT])
    other = endpoint(DB, 3) | Wiring([replace(PORT, port=8081)])

    assert shape(side_by_side([diff(NOTHING, one), diff(NOTHING, other)])) == [
        "web: Ensure Loopback",
        "db: Ensure Loopback",
        "host: Create VethPair, Create VethPair",
        "web: Create Sysctl",
        "db: Create Sysctl",
        "web: Create Address, Create Address, Create Route, Create Route",
        "db: Create Address, Create Address, Create Route, Create Route",
        "host: Create Publish, Create Publish",
    ]
    assert shape(side_by_side([diff(one, NOTHING), diff(other, NOTHING)])) == [
        "host: Delete Publish, Delete Publish",
        "host: Delete VethPair, Delete VethPair",
    ]


def test_a_plan_by_itself_and_none_at_all_stay_as_they_are() -> None:
    """So does what has no stages but effects."""
    plan = diff(NOTHING, network() | endpoint(WEB) | Wiring([PORT]))
    assert side_by_side([plan]) == plan
    assert side_by_side([]) == Plan()
    assert not side_by_side([Plan(), Plan()])


def test_shared_things_are_ensured_and_never_removed() -> None:
    """Others may need them."""
    shared = Wiring([Forwarding(family=4), FirewallBase(), Loopback(netns=WEB)])

    assert {type(step) for step in diff(NOTHING, shared).steps()} == {Ensure}
    assert not diff(shared, NOTHING)
    assert not diff(shared, shared)


def test_a_fixed_attribute_makes_a_device_anew_with_all_that_rides_on_it() -> None:
    """A veth pair into another namespace is another pair; its addresses come back on it."""
    have = Wiring(
        [BRIDGE, veth(WEB, 2), Address(device="nv-2", address=ip_interface("192.0.2.1/24"))]
    )
    want = Wiring([veth(DB, 2) if isinstance(n, VethPair) else n for n in have])

    assert shape(diff(have, want)) == [
        "host: Delete VethPair",
        "host: Create VethPair",
        "host: Create Address",
    ]


def test_a_device_takes_its_children_with_it() -> None:
    """A macvlan on a VLAN device goes and comes back with that, child first, parent first."""
    vlan = Vlan(name="eth0.7", owner="netlib:1", mtu=1500, parent="eth0", vlan_id=7)
    child = Macvlan(
        netns=WEB, name="eth0", owner="netlib:1", mtu=1500, parent="eth0.7", mac="02:00:00:00:00:05"
    )
    have = Wiring([vlan, child])
    want = Wiring([replace(vlan, vlan_id=8), child])

    assert shape(diff(have, want)) == [
        "web: Delete Macvlan",
        "host: Delete Vlan",
        "host: Create Vlan",
        "web: Create Macvlan",
    ]


def test_routes_and_neighbours_go_and_come_back_with_an_address() -> None:
    """Linux would remove them with the device's last address, and nothing put them back."""
    old, new = (Address(device="nl-1", address=ip_interface(f"192.0.2.{n}/24")) for n in (1, 2))
    rest: list[Noun] = [
        Route(device="nl-1", destination=ip_network("203.0.113.0/24"), via=ip_address("192.0.2.9")),
        Neighbour(device="nl-1", address=ip_address("192.0.2.9"), mac="02:00:00:00:00:09"),
        Neighbour(device="nl-1", address=ip_address("2001:db8::9"), mac="02:00:00:00:00:09"),
    ]

    plan = diff(Wiring([BRIDGE, old, *rest]), Wiring([BRIDGE, new, *rest]))

    assert shape(plan) == [
        "host: Delete Neighbour, Delete Route, Delete Address",
        "host: Create Address, Create Route, Create Neighbour",
    ]


def test_neighbours_go_and_come_back_with_a_mac() -> None:
    """A device's new MAC empties its neighbour table."""
    neighbour = Neighbour(device="nl-1", address=ip_address("192.0.2.9"), mac="02:00:00:00:00:09")
    renamed = replace(BRIDGE, mac="02:00:00:00:00:0a")

    assert shape(diff(Wiring([BRIDGE, neighbour]), Wiring([renamed, neighbour]))) == [
        "host: Delete Neighbour",
        "host: Change Bridge",
        "host: Create Neighbour",
    ]


def test_a_default_route_that_moves_leaves_no_gap() -> None:
    """The device that takes over is used before the other one goes."""
    first = Wiring([veth(WEB, 2), veth(WEB, 3, peer="eth1")])
    route = Route(netns=WEB, device="eth0", destination=ip_network("0.0.0.0/0"))
    have = first | Wiring([route])
    want = Wiring([veth(WEB, 3, peer="eth1"), replace(route, device="eth1")])

    assert shape(diff(have, want)) == ["web: Change Route", "host: Delete VethPair"]


def test_what_stays_is_unplugged_before_its_bridge_goes() -> None:
    """So that undoing knows that it was plugged in."""
    have = Wiring([BRIDGE, veth(WEB, 2)])
    plan = diff(have, Wiring([veth(WEB, 2, bridge="")]))

    assert shape(plan) == ["host: Change VethPair", "host: Delete Bridge"]


def test_a_published_port_forgets_flows() -> None:
    """UDP flows older than the port, and all flows of a port that goes or leads elsewhere."""
    moved = replace(PORT, target=ip_address("198.51.100.3"))
    udp = replace(PORT, protocol="udp")
    flows = ForgetFlows(family=4, protocol="tcp", host=None, port=8080)

    assert diff(NOTHING, Wiring([PORT])).after == ()
    assert diff(NOTHING, Wiring([udp])).after == (replace(flows, protocol="udp"),)
    assert diff(Wiring([PORT]), Wiring([moved])).after == (flows,)
    assert diff(Wiring([PORT]), NOTHING).after == (flows,)


def test_an_address_is_announced_when_it_comes() -> None:
    """Also when it comes back on another device; not when it was there."""
    address = Address(netns=WEB, device="eth0", address=ip_interface("192.0.2.2/24"), announce=True)
    announce = Announce(netns=WEB, device="eth0", address=address.address)

    assert diff(NOTHING, Wiring([address])).after == (announce,)
    assert diff(Wiring([address]), Wiring([address])).after == ()
    plugged = replace(announce, port=veth(WEB, 2).name)
    assert diff(NOTHING, Wiring([veth(WEB, 2), address])).after == (plugged,)
    again = diff(Wiring([veth(WEB, 2), address]), Wiring([veth(WEB, 2, bridge="x"), address]))
    assert again.after == ()


def test_riders_are_done_in_an_order_that_can_work() -> None:
    """Addresses before the routes through them, gateways' routes before those through gateways."""
    far = Route(device="d", destination=ip_network("0.0.0.0/0"), via=ip_address("192.0.2.1"))
    near = Route(device="d", destination=ip_network("192.0.2.1/32"))
    address = Address(device="d", address=ip_interface("198.51.100.1/32"))

    assert [subject(s) for s in in_order([Create(far), Create(near), Create(address)])] == [
        address, near, far,
    ]  # fmt: skip
    assert [subject(s) for s in in_order([Delete(address), Delete(near), Delete(far)])] == [
        far, near, address,
    ]  # fmt: skip


def test_the_inverse_builds_in_the_opposite_order() -> None:
    """What was deleted last stands lowest, so it comes back first."""
    stage = Stage(Layer.LINK, HOST, (Delete(veth(WEB, 2)), Delete(BRIDGE)))

    assert [subject(s) for s in inverse(stage).steps()] == [BRIDGE, veth(WEB, 2)]


@given(a=wirings((WEB, DB)), b=wirings((WEB, DB)))
def test_a_plan_mentions_each_thing_once_at_most_in_each_direction(a: Wiring, b: Wiring) -> None:
    """No thing is deleted twice or made twice, and what is equal and alone is left alone."""
    steps = list(diff(a, b).steps())
    deleted = [n.key() for s in steps if isinstance(s, Delete) for n in (s.noun, *s.along)]
    created = [s.noun.key() for s in steps if isinstance(s, Create)]

    assert len(deleted) == len(set(deleted))
    assert len(created) == len(set(created))
    assert not diff(a, a)
    changed = {s.new.key() for s in steps if isinstance(s, Change)}
    for noun in b:
        if noun not in a:
            assert noun.key() in {*created, *changed}


def test_two_nouns_of_one_key_must_agree() -> None:
    """A wiring that contradicts itself is a driver's mistake."""
    with pytest.raises(ValueError, match="differ"):
        Wiring([BRIDGE, replace(BRIDGE, mtu=1400)])
