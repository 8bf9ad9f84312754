"""Links as `ip` and `bridge` commands (ip-link(8), bridge(8))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from shlex import quote

from netlib.model import Netns
from netlib.plan import Change, Delete, Step, subject
from netlib.wiring import Bridge, Dummy, Ipvlan, Link, Macvlan, VethPair, Vlan, Vxlan

Line = tuple[Netns, str]


def lines(step: Step) -> Iterator[Line]:
    """A step on a link as commands."""
    noun = subject(step)
    assert isinstance(noun, Link)
    if isinstance(step, Delete):
        yield noun.netns, f"ip link del {noun.name}"
    elif isinstance(step, Change):
        assert isinstance(step.old, Link)
        yield from _change(step.old, noun)
    else:
        yield from _create(noun)


def devices_up(step: Step) -> set[tuple[str, str]]:
    """The devices that these commands set up, with their network namespaces' names."""
    noun = subject(step)
    if isinstance(step, Delete) or not isinstance(noun, Bridge | Dummy | VethPair | Vlan | Vxlan):
        return set()
    return {(noun.netns.name, noun.name)}


def _create(noun: Link) -> Iterator[Line]:
    match noun:
        case Bridge():
            data = " ".join(["stp_state 0", "forward_delay 0", *_bridge_data(noun)])
            yield noun.netns, f"ip link add {noun.name} address {noun.mac} type bridge {data}"
            yield noun.netns, f"ip link set {noun.name} mtu {noun.mtu} alias {noun.owner} up"
        case VethPair():
            mac = f" address {noun.host_mac}" if noun.host_mac else ""
            peer = f"name {noun.peer} address {noun.mac} mtu {noun.mtu}"
            where = _destination(noun.peer_netns, noun.netns)
            yield (
                noun.netns,
                f"ip link add {noun.name}{mac} mtu {noun.mtu} type veth peer {peer}{where}",
            )
            yield from _veth_port(noun)
        case Macvlan() | Ipvlan():
            yield from _create_below(noun)
        case Dummy():
            yield noun.netns, f"ip link add {noun.name} mtu {noun.mtu} type dummy"
            yield noun.netns, f"ip link set {noun.name} alias {noun.owner} up"
        case Vlan():
            link = f"link {noun.parent} name {noun.name} mtu {noun.mtu}"
            yield noun.netns, f"ip link add {link} type vlan id {noun.vlan_id}"
            yield noun.netns, f"ip link set {noun.name} alias {noun.owner} up"
        case Vxlan():
            yield from _create_vxlan(noun)


def _destination(netns: Netns, here: Netns) -> str:
    """Where a device is put, if elsewhere: a name of ip-netns(8), or a path."""
    if netns.path == here.path:
        return ""
    folder, name = os.path.split(netns.path)
    where = name if folder in ("/run/netns", "/var/run/netns") else netns.path
    return f" netns {quote(where)}"


def _bridge_data(noun: Bridge) -> list[str]:
    """What differs from Linux's defaults."""
    words = []
    if noun.ageing_seconds != 300:
        words.append(f"ageing_time {noun.ageing_seconds * 100}")
    if not noun.multicast_snooping:
        words.append("mcast_snooping 0")
    return words


def _veth_port(noun: VethPair) -> Iterator[Line]:
    port = f" master {noun.bridge}{_no_address(noun)}" if noun.bridge else ""
    yield noun.netns, f"ip link set {noun.name}{port} alias {noun.owner} up"
    if noun.bridge:
        yield from _port_flags(noun, VethPair)


def _port_flags(noun: VethPair, before: VethPair | type[VethPair]) -> Iterator[Line]:
    flags = [
        f"{flag} {_switch(value)}"
        for flag in ("hairpin", "isolated", "locked")
        if (value := bool(getattr(noun, flag))) != _value(before, flag)
    ]
    if noun.locked != _value(before, "locked"):
        flags.append(f"learning {_switch(not noun.locked)}")
    if flags:
        yield noun.netns, f"bridge link set dev {noun.name} {' '.join(flags)}"
    if noun.locked:
        yield noun.netns, f"bridge fdb replace {noun.mac} dev {noun.name} master static"


def _value(veth: VethPair | type[VethPair], flag: str) -> bool:
    return isinstance(veth, VethPair) and bool(getattr(veth, flag))


def _no_address(noun: Link) -> str:
    # A device has no IPv6 below its least MTU (RFC 8200 section 5).
    return " addrgenmode none" if noun.mtu >= 1280 else ""


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _create_below(noun: Macvlan | Ipvlan) -> Iterator[Line]:
    where = _destination(noun.netns, noun.parent_netns)
    # The name must be free where the command runs, too.
    name = f"nm-{noun.name}"[:15] if where and noun.name == noun.parent else noun.name
    if isinstance(noun, Macvlan):
        queue = f" bcqueuelen {noun.broadcast_queue}" if noun.broadcast_queue else ""
        address = f" address {noun.mac}" if noun.mac else ""
        kind = f"macvlan mode {noun.mode}{queue}"
    else:
        address, kind = "", f"ipvlan mode {noun.mode} {noun.flag}"
    link = f"link {noun.parent} name {name}{address} mtu {noun.mtu}{where}"
    yield noun.parent_netns, f"ip link add {link} type {kind}"
    rename = f" name {noun.name}" if name != noun.name else ""
    yield noun.netns, f"ip link set {name}{rename} alias {noun.owner}"


def _create_vxlan(noun: Vxlan) -> Iterator[Line]:
    data = f"id {noun.vni} local {noun.local} dstport {noun.port} ttl 64 {_learns(noun)}"
    link = f"{noun.name} address {noun.mac} mtu {noun.mtu}"
    yield noun.netns, f"ip link add {link} type vxlan {data}"
    port = f"master {noun.bridge}{_no_address(noun)}"
    yield noun.netns, f"ip link set {noun.name} {port} alias {noun.owner} up"
    yield (
        noun.netns,
        f"bridge link set dev {noun.name} learning {_switch(noun.learning)} "
        f"neigh_suppress {_switch(noun.suppress)} {_flood(noun)}"
        + (" isolated on" if noun.isolated else ""),
    )


def _learns(noun: Vxlan) -> str:
    return "learning" if noun.learning else "nolearning"


def _flood(noun: Vxlan) -> str:
    on = _switch(noun.flood)
    return f"flood {on} mcast_flood {on} bcast_flood {on}"


def _change(old: Link, noun: Link) -> Iterator[Line]:
    """One command for what ip-link(8) sets, others for what needs another."""
    master = f"master {_master(noun)}" if _master(noun) else "nomaster"
    words = [
        word
        for differs, word in (
            (old.mtu != noun.mtu, f"mtu {noun.mtu}"),
            (old.owner != noun.owner, f"alias {noun.owner}"),
            (_own_mac(old) != _own_mac(noun), f"address {_own_mac(noun)}"),
            (_master(old) != _master(noun), master),
            (old.up != noun.up, "up" if noun.up else "down"),
        )
        if differs
    ]
    if words:
        yield noun.netns, f"ip link set {noun.name} {' '.join(words)}"
    match old, noun:
        case Bridge(), Bridge():
            yield from _change_bridge(old, noun)
        case VethPair(), VethPair():
            yield from _change_veth(old, noun)
        case Vxlan(), Vxlan():
            yield from _change_vxlan(old, noun)
        case Ipvlan(), Ipvlan() if (old.mode, old.flag) != (noun.mode, noun.flag):
            yield noun.netns, f"ip link set {noun.name} type ipvlan mode {noun.mode} {noun.flag}"


def _own_mac(noun: Link) -> str:
    if isinstance(noun, VethPair):
        return noun.host_mac
    return noun.mac if isinstance(noun, Bridge | Macvlan | Vxlan) else ""


def _master(noun: Link) -> str:
    return noun.bridge if isinstance(noun, VethPair | Vxlan) else ""


def _change_bridge(old: Bridge, noun: Bridge) -> Iterator[Line]:
    words = []
    if old.ageing_seconds != noun.ageing_seconds:
        words.append(f"ageing_time {noun.ageing_seconds * 100}")
    if old.multicast_snooping != noun.multicast_snooping:
        words.append(f"mcast_snooping {int(noun.multicast_snooping)}")
    if words:
        yield noun.netns, f"ip link set {noun.name} type bridge {' '.join(words)}"


def _change_vxlan(old: Vxlan, noun: Vxlan) -> Iterator[Line]:
    if old.learning != noun.learning:
        yield noun.netns, f"ip link set {noun.name} type vxlan {_learns(noun)}"
    words = [
        word
        for differs, word in (
            (old.learning != noun.learning, f"learning {_switch(noun.learning)}"),
            (old.suppress != noun.suppress, f"neigh_suppress {_switch(noun.suppress)}"),
            (old.flood != noun.flood, _flood(noun)),
        )
        if differs
    ]
    if old.isolated != noun.isolated:
        words.append(f"isolated {_switch(noun.isolated)}")
    if words:
        yield noun.netns, f"bridge link set dev {noun.name} {' '.join(words)}"


def _change_veth(old: VethPair, noun: VethPair) -> Iterator[Line]:
    if noun.bridge:
        yield from _port_flags(noun, old if old.bridge == noun.bridge else VethPair)
    peer = []
    if old.mac != noun.mac:
        peer.append(f"address {noun.mac}")
    if old.mtu != noun.mtu:
        peer.append(f"mtu {noun.mtu}")
    if peer:
        yield noun.peer_netns, f"ip link set {noun.peer} {' '.join(peer)}"
