"""Plans read like a shell script that an administrator would write."""

from __future__ import annotations

import shlex
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest
from support.golden import Golden
from support.wirings import BRIDGE, endpoint, network, veth

from netlib.model import Netns
from netlib.plan import diff
from netlib.wiring import (
    Address,
    FdbEntry,
    FirewallBase,
    Forwarding,
    Ipvlan,
    Loopback,
    Macvlan,
    NameServer,
    Neighbour,
    Noun,
    Publish,
    Relay,
    Route,
    Sysctl,
    Up,
    Vlan,
    Vxlan,
    Wiring,
)

WEB = Netns(name="web", path="/run/netns/web")
PROCESS = Netns(name="pid:7", path="/proc/7/ns/net")
NOTHING = Wiring()

PUBLISH = Publish(
    family=4, protocol="udp", port=5353, target=ip_address("198.51.100.2"), target_port=53
)
RANGE = Publish(
    family=6, protocol="tcp", host=ip_address("2001:db8:2::1"), port=8000, count=3,
    target=ip_address("2001:db8:1::2"), target_port=80,
)  # fmt: skip
TUNNEL = Vxlan(
    name="nx-1", owner="netlib:1", mtu=1450, bridge="nl-1", vni=4001, local=ip_address("192.0.2.1"),
    mac="02:00:00:00:00:77",
)  # fmt: skip
OVERLAY: tuple[Noun, ...] = (
    replace(BRIDGE, mtu=1450, multicast_snooping=False, ageing_seconds=0),
    TUNNEL,
    veth(WEB, 2, locked=True, hairpin=True, mtu=1450),
    FdbEntry(device="nx-1", mac="02:00:00:00:09:01", remote=ip_address("192.0.2.2")),
    FdbEntry(device="nx-1", mac="00:00:00:00:00:00", remote=ip_address("192.0.2.2")),
    Neighbour(device="nl-1", address=ip_address("198.51.100.9"), mac="02:00:00:00:09:01"),
)
BELOW: tuple[Noun, ...] = (
    Vlan(name="eth0.7", owner="netlib:1", mtu=1500, parent="eth0", vlan_id=7),
    Macvlan(netns=WEB, name="eth0", owner="netlib:1/2", mtu=1500, parent="eth0",
            mac="02:00:00:00:00:05", mode="private", broadcast_queue=2000),
    Macvlan(name="nh-1", owner="netlib:1", mtu=1500, parent="eth0.7", mac="02:00:00:00:00:06"),
    Ipvlan(netns=PROCESS, name="eth1", owner="netlib:1/3", mtu=1500, parent="eth0", mode="l3"),
    Sysctl(device="eth0.7", path="net/ipv4/conf/eth0.7/arp_notify", value="1"),
    Address(netns=WEB, device="eth0", address=ip_interface("192.0.2.9/24"), announce=True),
    Address(netns=WEB, device="eth0", address=ip_interface("2001:db8::9/64"), announce=True),
    Up(netns=PROCESS, device="eth1"),
    Route(netns=WEB, device="eth0", destination=ip_network("0.0.0.0/0"),
          via=ip_address("203.0.113.1"), metric=100, on_link=True),
    Route(netns=PROCESS, device="eth1", destination=ip_network("198.51.100.0/24")),
)  # fmt: skip
SERVICES: tuple[Noun, ...] = (
    Relay(protocol="tcp", host=ip_address("::1"), port=8080, count=2,
          target=ip_address("198.51.100.2"), target_port=80),
    Relay(protocol="udp", host=ip_address("::1"), port=5353, target=ip_address("2001:db8:1::2"),
          target_port=53, holds_all=True),
    NameServer(kind="network", subject="my-net", addresses=(ip_address("198.51.100.1"),
               ip_address("2001:db8:1::1"))),
)  # fmt: skip

CASES: dict[str, tuple[Wiring, Wiring]] = {
    "network": (NOTHING, network()),
    "connect": (network(), network() | endpoint(WEB) | Wiring([PUBLISH])),
    "disconnect": (network() | endpoint(WEB) | Wiring([PUBLISH]), network()),
    "remove-network": (network(), NOTHING),
    "publish-range": (Wiring([FirewallBase()]), Wiring([FirewallBase(), RANGE])),
    "unpublish-range": (Wiring([FirewallBase(), RANGE]), Wiring([FirewallBase()])),
    "overlay": (NOTHING, Wiring(OVERLAY)),
    "overlay-changes": (
        Wiring(OVERLAY),
        Wiring([
            replace(OVERLAY[0], ageing_seconds=300, multicast_snooping=True, mtu=1400),  # type: ignore[call-arg, type-var]
            replace(TUNNEL, flood=True, mtu=1400),
            veth(WEB, 2, isolated=True, mtu=1400, mac="02:00:00:00:01:0a"),
            replace(OVERLAY[3], remote=ip_address("192.0.2.3")),  # type: ignore[call-arg, type-var]
            replace(OVERLAY[5], mac="02:00:00:00:09:02"),  # type: ignore[call-arg, type-var]
        ]),
    ),
    "below-a-parent": (NOTHING, Wiring(BELOW)),
    "gone-below-a-parent": (Wiring(BELOW), Wiring(n for n in BELOW if isinstance(n, Vlan))),
    "shared": (NOTHING, Wiring([Forwarding(family=6), Loopback(netns=WEB)])),
    "services": (NOTHING, Wiring(SERVICES)),
    "services-end": (Wiring(SERVICES), NOTHING),
    "link-changes": (
        Wiring([BRIDGE, veth(WEB, 2), *BELOW[3:4]]),
        Wiring([
            replace(BRIDGE, owner="netlib:2", mac="02:00:00:00:00:02"),
            veth(WEB, 2, bridge="", host_mac="02:00:00:00:00:03", up=False),
            replace(BELOW[3], mode="l2", flag="vepa"),  # type: ignore[call-arg, type-var]
        ]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_plan_as_commands(golden: Golden, case: str) -> None:
    """The commands for a plan are the expected ones, to the letter."""
    have, want = CASES[case]
    golden.check(f"plan/{case}.txt", diff(have, want).text())


@pytest.mark.parametrize("backend", ["nftables", "iptables", "none"])
def test_the_firewalls_commands_are_its_backends(backend: str) -> None:
    """A published port is an element, a rule, or nothing."""
    text = diff(NOTHING, Wiring([PUBLISH])).text(backend)

    program = {"nftables": "nft ", "iptables": "iptables ", "none": ""}[backend]
    lines = [line for line in text.splitlines() if "conntrack" not in line]
    assert all(line.startswith(f"host  {program}") for line in lines)
    assert bool(lines) == bool(program)


@pytest.mark.parametrize("device", ["x;y", "$(id)", "`id`", "a'b", "#x", "eth0.5"])
def test_a_name_is_one_word_to_a_shell(device: str) -> None:
    """Linux takes almost anything for a device's name, and somebody else may have chosen it."""
    there = [
        replace(veth(WEB, 2), name=device, peer=device),
        Up(netns=WEB, device=device),
        Address(netns=WEB, device=device, address=ip_interface("198.51.100.2/24"), announce=True),
        Route(netns=WEB, device=device, destination=ip_network("0.0.0.0/0")),
        Sysctl(
            netns=WEB, device=device, path=f"net/ipv4/conf/{device}/rp_filter", value="$(id) 2",
            default="0",
        ),
    ]  # fmt: skip
    here, gone = diff(NOTHING, Wiring(there)), diff(Wiring(there), NOTHING)

    words = [shlex.split(line, comments=True) for line in (here.text() + gone.text()).splitlines()]
    assert any("arping" in line for line in words)
    for line in words:
        setting = f"net/ipv4/conf/{device}/rp_filter"
        if "." not in device:
            setting = setting.replace("/", ".")
        assert {device, f"{setting}=$(id) 2", f"{setting}=0"} & set(line)


def test_nothing_to_do_is_no_text() -> None:
    """An empty plan prints nothing."""
    assert diff(network(), network()).text() == ""
