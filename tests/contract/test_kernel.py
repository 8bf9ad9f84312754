"""What every Kernel promises, kept by the host in memory and by Linux."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.host import Host
from support.wirings import BRIDGE, endpoint, network, veth, wirings

from netlib.apply import apply, tear_down
from netlib.errors import (
    AlreadyThere,
    InterfaceTaken,
    InvalidName,
    KernelError,
    NamespaceGone,
    NotThere,
    StageFailed,
)
from netlib.kernel import Kernel
from netlib.kernel.fake import FakeKernel
from netlib.kernel.linux import LinuxKernel
from netlib.kernel.netfilter.nftables import Nftables
from netlib.model import HOST, Netns
from netlib.plan import Change, Create, Delete, Plan, Stage, Step, diff, subject
from netlib.values import fields
from netlib.wiring import (
    Address,
    Announce,
    Effect,
    FdbEntry,
    FirewallBase,
    ForgetFlows,
    Forward,
    Forwarding,
    Macvlan,
    Neighbour,
    Noun,
    Publish,
    Route,
    Segment,
    SourceGuard,
    Sysctl,
    Up,
    Vxlan,
    VxlanMember,
    VxlanPort,
    Wiring,
)

NOTHING = Wiring()


@dataclass
class World:
    """A kernel, and the hand of fate."""

    kernel: Kernel
    host: Host | None

    def sandbox(self, name: str = "web") -> Netns:
        """A new network namespace."""
        return self.kernel.make_namespace(name)

    def end(self, netns: Netns) -> None:
        """End a sandbox."""
        self.kernel.drop_namespace(netns)

    def foreign(self, name: str, netns: Netns = HOST) -> None:
        """A device that somebody else made appears."""
        if isinstance(self.kernel, FakeKernel):
            self.kernel.add_device(name, netns=netns)
        else:
            assert self.host is not None
            inside = () if netns == HOST else ("-n", netns.name)
            self.host.run("ip", *inside, "link", "add", name, "type", "bridge")

    def make(self, *nouns: Noun) -> None:
        """Make things, in one plan."""
        apply(diff(NOTHING, Wiring(nouns)), self.kernel)

    def there(self, *nouns: Noun) -> Wiring:
        """What is there of these."""
        return self.kernel.observe(Wiring(nouns))


@pytest.fixture(params=["fake", pytest.param("linux", marks=pytest.mark.kernel)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Every Kernel must pass these tests: a fake that lies is worse than none."""
    if request.param == "fake":
        yield World(FakeKernel(), None)
        return
    host: Host = request.getfixturevalue("host")
    kernel = LinuxKernel(Nftables())
    yield World(kernel, host)
    kernel.close()


def stage(*steps: Step) -> Stage:
    """One stage of these steps."""
    noun = subject(steps[0])
    return Stage(noun.layer, noun.netns, steps)


# -- building and taking down ---------------------------------------------------------------------


def test_what_was_made_is_observed_and_what_was_removed_is_not(world: World) -> None:
    """A network and an endpoint come, are as they were described, and go without a trace."""
    web = world.sandbox()
    want = network() | endpoint(web)

    apply(diff(NOTHING, want), world.kernel)
    assert want == world.kernel.observe(want)
    assert not diff(world.kernel.observe(want), want)

    tear_down(diff(want, NOTHING), world.kernel, "all")
    left = [noun for noun in world.kernel.observe(want) if not noun.shared]
    assert not left


def test_the_same_path_may_have_two_names(world: World) -> None:
    """A sandbox is its network namespace, whatever a caller names it."""
    web = world.sandbox()
    apply(diff(NOTHING, network() | endpoint(web)), world.kernel)

    other = replace(web, name="netns:web")

    assert endpoint(other) == world.kernel.observe(endpoint(other))


def test_an_endpoint_of_a_sandbox_that_ended_can_be_removed(world: World) -> None:
    """What was in a network namespace is gone with it, and that is no failure."""
    web = world.sandbox()
    want = network() | endpoint(web)
    apply(diff(NOTHING, want), world.kernel)

    world.end(web)

    assert not world.kernel.alive(web)
    tear_down(diff(endpoint(web), NOTHING), world.kernel, "web")
    assert network() == world.kernel.observe(network())


def test_removing_twice_is_no_failure(world: World) -> None:
    """Whatever is gone already counts as removed."""
    web = world.sandbox()
    want = network() | endpoint(web)
    apply(diff(NOTHING, want), world.kernel)
    for _ in range(2):
        tear_down(diff(want, NOTHING), world.kernel, "all")


def test_many_links_go_at_once(world: World) -> None:
    """A stage may delete several links, and deletes no others."""
    web = world.sandbox()
    pairs = [veth(web, n, peer=f"eth{n}") for n in range(2, 7)]
    world.make(BRIDGE, *pairs)

    world.kernel.do(stage(*(Delete(pair) for pair in pairs[:4])))

    assert Wiring([BRIDGE, pairs[4]]) == world.there(BRIDGE, *pairs)


# -- strictness -----------------------------------------------------------------------------------

ADDRESS = Address(device="nl-1", address=ip_interface("198.51.100.1/24"))
ADDRESS6 = Address(device="nl-1", address=ip_interface("2001:db8:1::1/64"))
ROUTE = Route(device="nl-1", destination=ip_network("203.0.113.0/24"))
NEIGHBOUR = Neighbour(device="nl-1", address=ip_address("198.51.100.9"), mac="02:00:00:00:00:09")
VXLAN = Vxlan(
    name="nx-1",
    owner="netlib:1",
    mtu=1450,
    bridge="nl-1",
    vni=4001,
    local=ip_address("192.0.2.1"),
    mac="02:00:00:00:00:77",
)
FORWARD = Forward(bridge="nl-1")
SEGMENT = Segment(bridge="nl-1", prefix=ip_network("198.51.100.0/24"))
PUBLISH = Publish(
    family=4, protocol="tcp", port=8080, target=ip_address("198.51.100.2"), target_port=80
)


@pytest.fixture(
    params=[ADDRESS, ADDRESS6, ROUTE, NEIGHBOUR, VXLAN, PUBLISH], ids=lambda n: type(n).__name__
)
def noun(request: pytest.FixtureRequest, world: World) -> Noun:
    """One of the things that stand on a bridge, which is there."""
    found: Noun = request.param
    world.make(FirewallBase(), BRIDGE, Address(device="nl-1", address=ip_interface("192.0.2.1/24")))
    return found


def test_what_is_there_can_not_be_created(world: World, noun: Noun) -> None:
    """Creation is strict: it would hide that two want the same thing."""
    world.make(noun)

    again = noun
    if isinstance(noun, Publish):  # another endpoint wants the port
        again = replace(noun, target=ip_address("198.51.100.3"))
    with pytest.raises(AlreadyThere):
        world.kernel.do(stage(Create(again)))

    assert noun in world.there(noun)


def test_a_link_that_is_there_can_not_be_created(world: World) -> None:
    """A device of ours is told apart from somebody else's."""
    world.make(BRIDGE)
    with pytest.raises(AlreadyThere):
        world.kernel.do(stage(Create(BRIDGE)))


def test_what_is_not_there_can_not_be_deleted(world: World, noun: Noun) -> None:
    """Deletion in a plan is strict; in a removal it is not."""
    with pytest.raises(NotThere):
        world.kernel.do(stage(Delete(noun)))

    world.kernel.remove(stage(Delete(noun)))


def test_a_link_that_is_not_there_can_not_be_changed(world: World) -> None:
    """A change says what there was before."""
    with pytest.raises(NotThere):
        world.kernel.do(stage(Change(BRIDGE, replace(BRIDGE, mtu=1400))))


def test_a_plugged_link_needs_its_bridge(world: World) -> None:
    """A veth pair for a bridge that is not there is not made."""
    web = world.sandbox()

    with pytest.raises(NotThere):
        world.kernel.do(stage(Create(veth(web, 2))))

    assert not world.there(veth(web, 2))


def test_a_macvlan_needs_its_parent(world: World) -> None:
    """A macvlan on a device that is not there is not made."""
    web = world.sandbox()
    noun = Macvlan(
        netns=web, name="eth0", owner="netlib:1", mtu=1500, parent="no", mac="02:00:00:00:00:05"
    )
    with pytest.raises(NotThere):
        world.kernel.do(stage(Create(noun)))


@pytest.mark.parametrize(
    "noun",
    [ADDRESS, ROUTE, NEIGHBOUR, Up(device="nl-1")],
    ids=lambda n: type(n).__name__,
)
def test_what_rides_on_a_device_needs_it(world: World, noun: Noun) -> None:
    """Nothing is made on a device that is not there."""
    with pytest.raises(NotThere):
        world.kernel.do(stage(Create(noun)))


def test_a_route_needs_a_gateway_that_can_be_reached(world: World) -> None:
    """A route through an address that is on no link of the device fails and leaves nothing."""
    world.make(BRIDGE, ADDRESS)
    route = replace(ROUTE, via=ip_address("192.0.2.254"))

    with pytest.raises(KernelError):
        world.kernel.do(stage(Create(route)))
    assert not world.there(route)

    world.make(replace(route, on_link=True))  # unless it is said to be on the link


def test_a_firewall_fact_needs_the_base(world: World) -> None:
    """Without our table or chains there is nothing that a fact could mean."""
    with pytest.raises(KernelError):
        world.kernel.do(stage(Create(PUBLISH)))


def test_a_sandbox_that_ended_is_told(world: World) -> None:
    """Each layer says that the namespace is gone, not some errno."""
    web = world.sandbox()
    world.make(BRIDGE)
    world.end(web)

    for noun in endpoint(web):
        if not noun.shared:
            with pytest.raises(NamespaceGone):
                world.kernel.do(stage(Create(noun)))
    assert not world.kernel.observe(endpoint(web))


def test_a_path_that_names_another_namespace_now_is_told(world: World) -> None:
    """A name that is used again does not lead into somebody else's sandbox."""
    old = world.sandbox()
    world.end(old)
    new = world.sandbox()
    world.make(BRIDGE)

    assert new.inode != old.inode
    assert world.kernel.alive(new)
    assert not world.kernel.alive(old)
    with pytest.raises(NamespaceGone):
        world.kernel.do(stage(Create(veth(old, 2))))
    assert {"lo"} == world.kernel.interfaces(new)


# -- what is not ours -----------------------------------------------------------------------------


def test_a_foreign_device_is_never_touched(world: World) -> None:
    """A name that somebody else uses is refused, not taken, not changed, not removed."""
    world.foreign("nl-1")

    with pytest.raises(InterfaceTaken):
        world.kernel.do(stage(Create(BRIDGE)))
    world.kernel.remove(stage(Delete(BRIDGE)))

    assert not world.there(BRIDGE)
    assert "nl-1" in world.kernel.interfaces(HOST)
    assert not world.kernel.marked()
    assert not world.kernel.facts(["nl-1"]).devices["nl-1"].ours


def test_a_foreign_device_in_the_sandbox_is_told(world: World) -> None:
    """The sandbox's own eth0 stays, and ours is not made by half."""
    web = world.sandbox()
    world.make(BRIDGE)
    world.foreign("eth0", web)

    with pytest.raises(InterfaceTaken):
        world.kernel.do(stage(Create(veth(web, 2))))

    assert not world.there(veth(web, 2))
    assert "nv-2" not in world.kernel.interfaces(HOST)
    assert "eth0" in world.kernel.interfaces(web)


def test_marked_is_what_carries_our_mark(world: World) -> None:
    """What a crash left can be found, and deleted as it was found."""
    web = world.sandbox()
    world.foreign("br0")
    world.make(FirewallBase(), BRIDGE, veth(web, 2), FORWARD, SEGMENT, PUBLISH)

    found = world.kernel.marked()

    assert {n.key() for n in (BRIDGE, veth(web, 2), PUBLISH)} <= {n.key() for n in found}
    tear_down(diff(found, NOTHING), world.kernel, "what was left")
    assert not world.kernel.marked()
    assert "br0" in world.kernel.interfaces(HOST)


# -- all or nothing -------------------------------------------------------------------------------


def _failing_stages(web: Netns) -> list[tuple[list[Noun], Stage]]:
    """What is there, and a stage whose last step must fail."""
    good = Address(device="nl-1", address=ip_interface("203.0.113.1/24"))
    fine = Sysctl(device="nl-1", path="net/ipv4/conf/nl-1/arp_notify", value="1")
    bad = replace(fine, path="net/ipv4/conf/none/arp_notify", device="none")
    unreachable = replace(ROUTE, via=ip_address("192.0.2.254"))
    absent, smaller = replace(BRIDGE, name="nl-9"), replace(BRIDGE, mtu=1400)
    return [
        ([BRIDGE], stage(Create(veth(web, 2)), Create(veth(web, 3)))),  # both want eth0
        ([BRIDGE], stage(Create(veth(web, 2)), Create(veth(web, 3, peer="x", bridge="no")))),
        ([BRIDGE], stage(Create(good), Create(unreachable))),
        ([BRIDGE], stage(Create(Up(device="nl-1")), Create(good), Create(unreachable))),
        ([BRIDGE, ADDRESS], stage(Delete(ADDRESS), Create(unreachable))),
        ([BRIDGE], stage(Create(fine), Create(bad))),
        ([BRIDGE], stage(Change(BRIDGE, smaller), Create(veth(web, 2, bridge="no")))),
        ([BRIDGE], stage(Delete(BRIDGE), Delete(absent))),
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(8))
def test_a_stage_that_fails_leaves_the_host_as_it_was(world: World, case: int) -> None:
    """All steps of a stage, or none."""
    web = world.sandbox()
    before, failing = _failing_stages(web)[case]
    world.make(*before)
    touched = Wiring({n.key(): n for n in [*before, *map(subject, failing.steps)]}.values())
    was = world.kernel.observe(touched)

    with pytest.raises((KernelError, InterfaceTaken)):
        world.kernel.do(failing)

    assert was == world.kernel.observe(touched)
    assert {"lo"} == world.kernel.interfaces(web)


@pytest.mark.parametrize("number", range(4))
def test_a_plan_that_fails_anywhere_is_undone(world: World, number: int) -> None:
    """Whichever stage fails, what was there before is there, and nothing else."""
    web = world.sandbox()
    base = network()
    apply(diff(NOTHING, base), world.kernel)
    plan = diff(base, base | endpoint(web))
    assert len(plan.stages) == 4

    with pytest.raises(StageFailed) as caught:
        apply(plan, _FailsAt(world.kernel, number))  # type: ignore[arg-type]

    assert caught.value.undone
    assert base == world.kernel.observe(base)
    left = [n for n in world.kernel.observe(endpoint(web)) if not n.shared]
    assert not left


class _FailsAt:
    """A kernel whose do() fails once, after so many calls."""

    def __init__(self, kernel: Kernel, number: int) -> None:
        self._kernel = kernel
        self._left = number

    def session(self, effects: Sequence[Effect] = ()) -> AbstractContextManager[None]:
        return self._kernel.session(effects)

    def do(self, stage: Stage) -> None:
        self._left -= 1
        if self._left == -1:
            raise KernelError("a failure that was asked for")
        self._kernel.do(stage)


# -- changes --------------------------------------------------------------------------------------


def test_links_change_in_place(world: World) -> None:
    """MTU, MAC, mark, port flags and bridge change, and what rides on the device stays."""
    web = world.sandbox()
    second = replace(BRIDGE, name="nl-2", mac="02:00:00:00:00:02")
    world.make(BRIDGE, second, ADDRESS, veth(web, 2), *endpoint(web))
    bridge = replace(
        BRIDGE, mtu=1400, mac="02:00:00:00:00:0a", owner="netlib:2", ageing_seconds=0,
        multicast_snooping=False,
    )  # fmt: skip
    pair = veth(
        web, 2, mtu=1400, mac="02:00:00:00:01:0a", owner="netlib:2/2", bridge="nl-2",
        isolated=True, hairpin=True, locked=True,
    )  # fmt: skip

    world.kernel.do(stage(Change(BRIDGE, bridge), Change(veth(web, 2), pair)))

    assert Wiring([bridge, pair, ADDRESS]) == world.there(bridge, pair, ADDRESS)
    free = replace(pair, bridge="", isolated=False, hairpin=False, locked=False)
    world.kernel.do(stage(Change(pair, free)))
    assert Wiring([free]) == world.there(free)
    riders = [n for n in endpoint(web) if isinstance(n, Address | Route | Sysctl)]
    assert Wiring(riders) == world.there(*riders)


def test_riders_change_in_place(world: World) -> None:
    """Routes lead elsewhere, neighbours get another MAC, sysctls another value."""
    world.make(BRIDGE, ADDRESS)
    sysctl = Sysctl(device="nl-1", path="net/ipv4/conf/nl-1/arp_notify", value="1")
    old: list[Noun] = [replace(ROUTE, via=ip_address("198.51.100.8")), NEIGHBOUR, sysctl]
    new: list[Noun] = [
        replace(ROUTE, via=ip_address("198.51.100.7")),
        replace(NEIGHBOUR, mac="02:00:00:00:00:0b"),
        replace(sysctl, value="0", default="5"),
    ]
    world.make(*old)

    apply(diff(Wiring(old), Wiring(new)), world.kernel)

    assert Wiring(new) == world.there(*new)


def test_a_published_port_changes_its_target(world: World) -> None:
    """The new endpoint takes over the port."""
    world.make(FirewallBase(), PUBLISH)
    moved = replace(PUBLISH, target=ip_address("198.51.100.3"))

    apply(diff(Wiring([PUBLISH]), Wiring([moved])), world.kernel)

    assert Wiring([moved]) == world.there(PUBLISH)


def test_a_port_that_is_taken_in_part_is_refused(world: World) -> None:
    """Overlapping ranges of host ports have one owner."""
    world.make(FirewallBase(), replace(PUBLISH, port=8000, count=10))
    with pytest.raises(AlreadyThere):
        world.kernel.do(stage(Create(replace(PUBLISH, port=8005))))


# -- overlays -------------------------------------------------------------------------------------

VTEPS = ip_address("192.0.2.2"), ip_address("192.0.2.3")
FLOODED = "00:00:00:00:00:00"
GUARD = SourceGuard(
    device="nv-2",
    mac="02:00:00:00:01:02",
    addresses=(ip_address("198.51.100.2"), ip_address("2001:db8:1::2")),
    prefixes=(ip_network("198.51.100.0/24"), ip_network("2001:db8:1::/64")),
)


def peers() -> list[Noun]:
    """Four endpoints on each of two hosts, and those hosts for what is flooded."""
    nouns: list[Noun] = []
    for number in range(8):
        mac = f"02:00:00:00:09:{number:02x}"
        nouns += [
            FdbEntry(device="nx-1", mac=mac, remote=VTEPS[number % 2]),
            Neighbour(device="nl-1", address=ip_address(f"198.51.100.{number + 10}"), mac=mac),
            Neighbour(device="nl-1", address=ip_address(f"2001:db8:1::{number + 10}"), mac=mac),
        ]
    return [*nouns, *(FdbEntry(device="nx-1", mac=FLOODED, remote=vtep) for vtep in VTEPS)]


def test_peers_are_found_as_they_were_entered_and_can_be_listed(world: World) -> None:
    """Also by who does not know which there are."""
    want = Wiring(peers())
    world.make(BRIDGE, ADDRESS, ADDRESS6, VXLAN, *want)

    assert want == world.kernel.observe(want)
    assert not diff(world.kernel.observe(want), want)
    listed = world.kernel.entries("nx-1") | world.kernel.entries("nl-1")
    assert {noun.key(): noun for noun in listed} == {noun.key(): noun for noun in want}
    assert not world.kernel.entries("no")


def test_a_vtep_is_silenced_at_once(world: World) -> None:
    """Its entries count as gone, the other's stay, and all can be removed or made again."""
    want = Wiring(peers())
    world.make(BRIDGE, ADDRESS, ADDRESS6, VXLAN, *want)
    gone = [n for n in want if isinstance(n, FdbEntry) and n.remote == VTEPS[0]]
    left = [n for n in want if n not in gone]

    for _ in range(2):
        world.kernel.forget_vtep("nx-1", VTEPS[0])
        assert Wiring(left) == world.there(*want)
    world.kernel.forget_vtep("no", VTEPS[0])
    apply(diff(world.there(*want), want), world.kernel)
    assert want == world.there(*want)

    world.kernel.forget_vtep("nx-1", VTEPS[0])
    tear_down(diff(Wiring(gone), NOTHING), world.kernel, "what is gone")
    assert Wiring(left) == world.there(*want)


def test_a_peer_moves_to_another_host(world: World) -> None:
    """One entry changes; it never was on both."""
    (entry, *_) = peers()
    assert isinstance(entry, FdbEntry)
    world.make(BRIDGE, VXLAN, entry)
    moved = replace(entry, remote=VTEPS[1])

    apply(diff(Wiring([entry]), Wiring([moved])), world.kernel)

    assert Wiring([moved]) == world.there(entry)
    assert list(world.kernel.entries("nx-1")) == [moved]


def test_a_route_tells_what_the_host_calls_itself_there(world: World) -> None:
    """It comes, changes and goes with its source address."""
    own = [Address(device="nl-1", address=ip_interface(f"198.51.100.{n}/32")) for n in (1, 254)]
    route = Route(device="nl-1", destination=ip_network("198.51.100.0/24"), src=own[1].address.ip)
    six = Address(device="nl-1", address=ip_interface("2001:db8:1::fe/128"))
    route6 = Route(device="nl-1", destination=ip_network("2001:db8:1::/64"), src=six.address.ip)
    want = Wiring([BRIDGE, *own, six, route, route6])
    apply(diff(NOTHING, want), world.kernel)
    assert want == world.kernel.observe(want)

    other = replace(route, src=own[0].address.ip)
    apply(diff(Wiring([route]), Wiring([other])), world.kernel)
    assert Wiring([other]) == world.there(route)

    tear_down(diff(want, NOTHING), world.kernel, "all")
    assert not world.kernel.observe(want)


def test_guards_and_members_come_change_and_go(world: World) -> None:
    """The bridge's own table is made with the first guard, and after it was lost."""
    nouns = [GUARD, VxlanPort(port=4789), VxlanMember(address=VTEPS[0], port=4789)]
    world.make(FirewallBase(), *nouns)
    assert Wiring(nouns) == world.there(*nouns)
    assert {n.key() for n in nouns} == {n.key() for n in world.kernel.marked()}

    moved = replace(GUARD, addresses=(ip_address("198.51.100.3"),))
    apply(diff(Wiring([GUARD]), Wiring([moved])), world.kernel)
    assert Wiring([moved]) == world.there(GUARD)
    other = replace(GUARD, device="nv-3", mac="02:00:00:00:01:03")
    world.make(other)
    world.kernel.do(stage(Delete(moved)))
    assert Wiring([other]) == world.there(GUARD, other)
    with pytest.raises(NotThere):
        world.kernel.do(stage(Delete(moved)))
    world.kernel.remove(stage(Delete(moved)))
    tear_down(diff(Wiring([other, *nouns[1:]]), NOTHING), world.kernel, "all")
    assert not world.kernel.marked()


@pytest.mark.kernel
def test_a_guards_table_that_somebody_broke_is_made_anew(host: Host) -> None:
    """Whether all of it was lost, or only rules: what is made next guards again."""
    kernel = LinuxKernel(Nftables())
    other = replace(GUARD, device="nv-3", mac="02:00:00:00:01:03")
    for broken in ("delete table bridge netlib", "flush chain bridge netlib checked"):
        apply(diff(NOTHING, Wiring([GUARD])), kernel)
        host.run("nft", broken)
        if broken.startswith("flush"):
            assert not kernel.observe(Wiring([GUARD]))
        apply(diff(NOTHING, Wiring([other])), kernel)
        apply(diff(kernel.observe(Wiring([GUARD])), Wiring([GUARD])), kernel)
        assert Wiring([GUARD, other]) == kernel.observe(Wiring([GUARD, other]))
        tear_down(diff(Wiring([GUARD, other]), NOTHING), kernel, "guards")
    kernel.close()


# -- shared things and questions ------------------------------------------------------------------


def test_shared_things_can_be_ensured_again(world: World) -> None:
    """Forwarding, the base and lo are no one's own."""
    web = world.sandbox()
    shared = Wiring([n for n in (network() | endpoint(web)) if n.shared] + [FirewallBase()])

    for _ in range(2):
        apply(diff(NOTHING, shared), world.kernel)

    assert shared == world.kernel.observe(shared)
    assert 4 in world.kernel.facts().forwarding
    assert not diff(shared, NOTHING)


def test_facts_tell_of_the_devices_that_exist(world: World) -> None:
    """What is not there is left out."""
    world.make(BRIDGE)

    facts = world.kernel.facts(["nl-1", "no"])

    assert list(facts.devices) == ["nl-1"]
    device = facts.devices["nl-1"]
    assert (device.kind, device.mtu, device.mac, device.ours) == ("bridge", 1500, BRIDGE.mac, True)
    assert facts.boot_id
    assert facts.netns
    assert 6 not in facts.forwarding


def test_prefixes_are_those_that_the_host_reaches(world: World) -> None:
    """A pool may not overlap these; a default route overlaps everything and says nothing."""
    world.make(BRIDGE, ADDRESS, replace(ROUTE, via=ip_address("198.51.100.9")))
    world.make(
        Route(device="nl-1", destination=ip_network("0.0.0.0/0"), via=ip_address("198.51.100.8"))
    )
    found = world.kernel.prefixes()

    assert {ip_network("198.51.100.0/24"), ip_network("203.0.113.0/24")} <= set(found)
    assert ip_network("0.0.0.0/0") not in found


def test_the_device_that_has_an_address_is_found(world: World) -> None:
    """None where the host does not have it."""
    world.make(BRIDGE, ADDRESS)

    device = world.kernel.device_of(ADDRESS.address.ip)

    assert device is not None
    assert (device.name, device.mtu) == ("nl-1", 1500)
    assert world.kernel.device_of(ip_address("203.0.113.77")) is None


def test_entering_finds_the_namespace_or_says_that_there_is_none(world: World) -> None:
    """A path is checked when it is entered."""
    web = world.sandbox()

    assert web == world.kernel.enter(web.path, "web")
    with pytest.raises(NamespaceGone):
        world.kernel.enter("/run/netns/nobody", "nobody")


def test_namespaces_have_unique_names(world: World) -> None:
    """A second one of the same name is refused, and so is the host's own name."""
    web = world.sandbox()
    with pytest.raises(AlreadyThere):
        world.kernel.make_namespace("web")
    with pytest.raises(InvalidName):
        world.kernel.make_namespace("host")

    world.kernel.drop_namespace(web)
    world.kernel.drop_namespace(web)


def test_effects_are_performed(world: World) -> None:
    """An announcement needs its device; forgetting flows needs nothing."""
    world.make(BRIDGE, ADDRESS, ADDRESS6)

    for address in (ADDRESS, ADDRESS6):
        world.kernel.perform([Announce(netns=HOST, device="nl-1", address=address.address)])
    world.kernel.perform([ForgetFlows(family=4, protocol="udp", host=None, port=53)])
    with pytest.raises(NotThere):
        world.kernel.perform([Announce(netns=HOST, device="no", address=ADDRESS.address)])


# -- properties -----------------------------------------------------------------------------------

_QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


def _astray(kernel: Kernel, wanted: Wiring) -> list[str]:
    """What is not as it was wanted, and what it is instead."""
    seen = kernel.observe(wanted)
    found: list[str] = []
    for noun in wanted:
        there = seen.get(noun.key())
        if there is None:
            found.append(f"not there: {noun}")
        elif there != noun:
            names = (field.name for field in fields(noun))
            found += [
                f"{noun.key()}: {name} is {getattr(there, name)} and not {getattr(noun, name)}"
                for name in names
                if getattr(there, name) != getattr(noun, name)
            ]
    return found


def _turns(kernel: Kernel, a: Wiring, b: Wiring) -> None:
    """`apply(diff(a, b))` on `a` gives `b`, and nothing of `a` besides."""
    try:
        apply(diff(NOTHING, a), kernel)
        assert _astray(kernel, a) == []
        apply(diff(a, b), kernel)
        assert _astray(kernel, b) == []
        gone = [n for n in kernel.observe(a) if b.get(n.key()) is None and not n.shared]
        assert not [n for n in gone if not isinstance(n, Up)]
    finally:
        tear_down(diff(a | NOTHING, NOTHING), kernel, "a")
        tear_down(diff(b, NOTHING), kernel, "b")
    assert not kernel.marked()


WEB, DB = (Netns(name=n, path=f"/run/netns/{n}") for n in ("web", "db"))


@settings(max_examples=300, deadline=None, suppress_health_check=_QUIET)
@given(a=wirings((WEB, DB)), b=wirings((WEB, DB)))
def test_any_wiring_turns_into_any_other_in_memory(a: Wiring, b: Wiring) -> None:
    """The plan between two wirings leads from the one to the other."""
    kernel = FakeKernel()
    for netns in (WEB, DB):
        kernel.add_namespace(netns.name)
    _turns(kernel, a, b)


@pytest.mark.kernel
@settings(max_examples=12, deadline=None, suppress_health_check=_QUIET, derandomize=True)
@given(a=wirings((WEB, DB)), b=wirings((WEB, DB)))
def test_any_wiring_turns_into_any_other_on_linux(host: Host, a: Wiring, b: Wiring) -> None:
    """The plan between two wirings leads from the one to the other, also where it counts."""
    kernel = LinuxKernel(Nftables())
    try:
        made = [kernel.make_namespace(netns.name) for netns in (WEB, DB)]
        try:
            _turns(kernel, a, b)
        finally:
            for netns in made:
                kernel.drop_namespace(netns)
    finally:
        kernel.close()


@settings(max_examples=200, deadline=None)
@given(a=wirings((WEB, DB)), b=wirings((WEB, DB)), data=st.data())
def test_any_plan_that_fails_is_undone_in_memory(a: Wiring, b: Wiring, data: st.DataObject) -> None:
    """At whichever step it fails, all is as it was."""
    kernel = FakeKernel()
    for netns in (WEB, DB):
        kernel.add_namespace(netns.name)
    apply(diff(NOTHING, a), kernel)
    before = kernel.wiring()
    plan: Plan = diff(a, b)
    steps = len(list(plan.steps()))
    if not steps:
        return
    kernel.fail_at(data.draw(st.integers(1, steps)))

    with pytest.raises(StageFailed) as caught:
        apply(plan, kernel)

    assert caught.value.undone
    assert before == kernel.wiring()


def test_forwarding_is_by_family(world: World) -> None:
    """IPv6 forwarding leaves IPv4's alone."""
    apply(diff(NOTHING, Wiring([Forwarding(family=6)])), world.kernel)
    assert world.kernel.facts().forwarding == (6,)
