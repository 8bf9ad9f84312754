"""The host in memory does to tests what a real one does to programs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest
from support.wirings import BRIDGE, endpoint, network, veth

from netlib.apply import apply
from netlib.errors import AlreadyThere, KernelError, NotPermitted, NotThere, StageFailed
from netlib.kernel.fake import FakeKernel
from netlib.model import HOST
from netlib.plan import Create, Delete, Stage, diff
from netlib.wiring import (
    Announce,
    FdbEntry,
    FirewallBase,
    Macvlan,
    Noun,
    Publish,
    Relay,
    Wiring,
)

NOTHING = Wiring()
PUBLISH = Publish(
    family=4, protocol="tcp", port=8080, target=ip_address("198.51.100.2"), target_port=80
)


def make(kernel: FakeKernel, *nouns: Noun) -> None:
    """Make things, in one plan."""
    apply(diff(NOTHING, Wiring(nouns)), kernel)


@pytest.mark.parametrize("number", range(1, 12))
def test_a_failure_can_be_asked_for_at_any_step(number: int) -> None:
    """The n-th step or effect fails, with the error that was given, and only once."""
    kernel = FakeKernel()
    want = network() | endpoint(kernel.add_namespace("web"))
    kernel.fail_at(number, NotPermitted("not today"))

    with pytest.raises(StageFailed, match="not today") as caught:
        apply(diff(NOTHING, want), kernel)

    assert caught.value.undone
    assert not [n for n in kernel.wiring() if not n.shared]
    apply(diff(NOTHING, want), kernel)
    assert set(want) <= set(kernel.wiring())


def test_a_namespace_takes_all_with_it() -> None:
    """Both ends of a pair, addresses and routes; not the bridge, not others' sandboxes."""
    kernel = FakeKernel()
    web, db = kernel.add_namespace("web"), kernel.add_namespace("db")
    apply(diff(NOTHING, network() | endpoint(web, 2) | endpoint(db, 3)), kernel)

    kernel.remove_namespace(web)

    assert kernel.wiring() == network() | endpoint(db, 3)
    assert kernel.interfaces(HOST) == {"lo", "eth0", "nl-1", "nv-3"}


def test_a_namespace_of_two_paths_ends_with_the_last() -> None:
    """As a bind mount keeps one alive."""
    kernel = FakeKernel()
    web = kernel.add_namespace("web")
    kernel._host.add_namespace(replace(web, path="/proc/7/ns/net"))
    make(kernel, BRIDGE, veth(web, 2))

    kernel.remove_namespace(web)
    assert "nv-2" in kernel.interfaces(HOST)
    kernel.remove_namespace(replace(web, path="/proc/7/ns/net"))
    assert "nv-2" not in kernel.interfaces(HOST)


def test_a_reboot_loses_everything_but_foreign_devices() -> None:
    """And the boot id tells."""
    kernel = FakeKernel()
    web = kernel.add_namespace("web")
    apply(diff(NOTHING, network() | endpoint(web) | Wiring([FirewallBase(), PUBLISH])), kernel)
    before = kernel.facts()

    kernel.reboot()

    assert not kernel.wiring()
    assert not kernel.alive(web)
    assert kernel.facts().boot_id != before.boot_id
    assert kernel.facts().uplink == before.uplink
    assert kernel.facts().netns == before.netns


def test_a_flushed_firewall_leaves_the_links() -> None:
    """`nft flush ruleset` by somebody else."""
    kernel = FakeKernel()
    apply(diff(NOTHING, network() | Wiring([FirewallBase(), PUBLISH])), kernel)

    kernel.flush_firewall()

    assert kernel.wiring() == network()


def test_listeners_are_told() -> None:
    """What a test says of the host's processes."""
    kernel = FakeKernel()
    kernel.listening["tcp", 8080] = "nginx (pid 7)"

    assert kernel.port_user("tcp", None, 8079, 2) == "nginx (pid 7)"
    assert kernel.port_user("udp", None, 8080, 1) is None


def test_effects_are_noted_in_order() -> None:
    """A test can look at what was performed, and let it fail."""
    kernel = FakeKernel()
    effect = Announce(netns=HOST, device="eth0", address=ip_network("192.0.2.0/24"))  # type: ignore[arg-type]
    kernel.perform([effect])
    kernel.fail_at(1)
    with pytest.raises(KernelError):
        kernel.perform([effect])
    assert kernel.performed == [effect]


def test_a_parent_takes_its_children_with_it() -> None:
    """As on Linux: a macvlan ends with its parent."""
    kernel = FakeKernel()
    web = kernel.add_namespace("web")
    child = Macvlan(
        netns=web, name="eth0", owner="netlib:1", mtu=1500, parent="nl-1", mac="02:00:00:00:00:05"
    )
    make(kernel, BRIDGE, child, *[n for n in endpoint(web) if n.rides_on() == ("web", "eth0")][:3])

    kernel.do(Stage(BRIDGE.layer, HOST, (Delete(BRIDGE),)))

    assert not [n for n in kernel.wiring() if not n.shared]
    assert kernel.interfaces(web) == {"lo"}


def test_ports_of_one_address_have_one_owner() -> None:
    """All addresses include each one; different addresses and protocols are apart."""
    kernel = FakeKernel()
    one = replace(PUBLISH, host=ip_address("192.0.2.1"))
    make(kernel, FirewallBase(), one, replace(one, host=ip_address("192.0.2.2")))
    make(kernel, replace(PUBLISH, protocol="udp"))
    relay = Relay(protocol="tcp", host=ip_address("::1"), port=1, target=ip_address("192.0.2.9"),
                  target_port=1)  # fmt: skip
    make(kernel, relay)

    for clash in (PUBLISH, replace(one, port=8000, count=100)):
        with pytest.raises(AlreadyThere):
            kernel.do(Stage(clash.layer, HOST, (Create(clash),)))


def test_a_forwarding_entry_needs_a_vxlan_device() -> None:
    """Bridges and veth devices have none."""
    kernel = FakeKernel()
    make(kernel, BRIDGE)
    entry = FdbEntry(device="nl-1", mac="02:00:00:00:09:01", remote=ip_address("192.0.2.2"))
    with pytest.raises(KernelError):
        kernel.do(Stage(entry.layer, HOST, (Create(entry),)))


def test_devices_that_are_not_ours_stay() -> None:
    """They can be asked about, and nothing of ours takes their name."""
    kernel = FakeKernel(uplink="")
    kernel.add_device("eth7", kind="veth", mtu=9000)

    facts = kernel.facts(["eth7", "eth8"])

    assert facts.uplink is None
    assert (facts.devices["eth7"].mtu, facts.devices["eth7"].ours) == (9000, False)
    with pytest.raises(NotThere):
        kernel.perform([Announce(netns=HOST, device="eth8", address=None)])  # type: ignore[arg-type]
