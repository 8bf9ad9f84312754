"""What descriptions depend on: the uplink, devices, settings, and what the host reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netlib.kernel import links, netlink, riders, rtnl, settings
from netlib.kernel import rtnl_entries as entries
from netlib.kernel.errnos import Refusal, is_absence, refused
from netlib.kernel.netns import Namespaces
from netlib.model import Device, Family, HostFacts, IPAddress, IPNetwork
from netlib.values import replace

# Addresses that only a default route leads to: class E (RFC 1112 section 4), and the first
# global unicast address (RFC 4291 section 2.4).
_FAR_AWAY = (IPv4Address("240.0.0.1"), IPv6Address("2000::"))
_UNICAST, _BROADCAST, _MULTICAST = 1, 3, 5  # types of routes (rtnetlink(7))


def facts(
    devices: Iterable[str], socket: netlink.Socket, namespaces: Namespaces, uplink: Uplink
) -> HostFacts:
    """The host as it is now."""
    asked = {name: _asked_device(name, socket) for name in devices}
    forwarding, bridge_netfilter, ipv6, ephemeral = _settings(namespaces.sysctl)
    return HostFacts(
        boot_id=_boot_id(),
        netns=namespaces.host_inode,
        uplink=uplink.device(socket),
        devices={name: device for name, device in asked.items() if device is not None},
        forwarding=forwarding,
        bridge_netfilter=bridge_netfilter,
        ipv6=ipv6,
        ephemeral_ports=ephemeral,
    )


def device_of(address: IPAddress, socket: netlink.Socket) -> Device | None:
    """The device that has an address."""
    for body in socket.ask(entries.addresses_of(0), "the addresses of the host"):
        index, found = entries.read_address(body)
        if found.ip == address:
            return _device(rtnl.get_link_at(index), socket)
    return None


def prefixes(socket: netlink.Socket, besides: Iterable[str] = ()) -> tuple[IPNetwork, ...]:
    """Every prefix of every table, but default routes, those of groups and by some devices."""
    found: dict[IPNetwork, None] = {}
    ignored = {rtnl.read_link(body).ifindex for name in besides for body in _link(name, socket)}
    for version in (4, 6):
        make = IPv4Network if version == 4 else IPv6Network
        for body in socket.ask(entries.routes(version), "the routes of the host"):
            state = entries.read_route(body)
            _, packed, length = state.destination
            if state.ifindex in ignored or state.kind in (_BROADCAST, _MULTICAST):
                continue
            if length:
                found[make((int.from_bytes(packed, "big"), length))] = None
    return tuple(found)


def _link(name: str, socket: netlink.Socket) -> list[bytes]:
    """What the kernel says of a device: nothing where there is none."""
    return _asked(rtnl.get_link(name), socket)


def _asked(request: netlink.Request, socket: netlink.Socket) -> list[bytes]:
    answer = socket.try_to_ask(request)
    if isinstance(answer, Refusal):
        if is_absence(answer):
            return []
        raise refused(answer, "a device of the host can't be read")
    return answer


def _device(request: netlink.Request, socket: netlink.Socket) -> Device | None:
    found = _asked(request, socket)
    if not found:
        return None
    (body,) = found
    state = rtnl.read_link(body)
    return Device(
        name=state.name,
        kind=state.kind,
        mtu=state.mtu,
        mac=state.mac,
        ours=links.is_ours(state),
    )


def _asked_device(name: str, socket: netlink.Socket) -> Device | None:
    """A device by its name; with the host's place on it, if somebody else made it."""
    device = _device(rtnl.get_link(name), socket)
    index = socket.index(name)
    if device is None or device.ours or not index:
        return device
    addresses = riders.addresses(index, socket)
    ways = (_way_out(address, socket) for address in _FAR_AWAY)
    return replace(
        device,
        addresses=tuple(a for a in addresses if not a.is_link_local),
        routers=tuple(w.via for w in ways if w is not None and w.ifindex == index and w.via),
    )


class Uplink:
    """Looks at the device of the default route, and remembers what it keeps.

    Asking rtnetlink would wait for whoever changes links just then, 10 ms and more for one
    that deletes some. So only what a device keeps with its index and name comes from there:
    its kind, and the mark that ours are given as they are made.
    """

    def __init__(self) -> None:
        self._last: tuple[int, Device] | None = None

    def device(self, socket: netlink.Socket) -> Device | None:
        """It as it is now; None where no default route is."""
        index = _uplink_index(socket)
        name = socket.device(index) if index else ""
        if not name:
            return None
        last = self._last
        if last is None or (last[0], last[1].name) != (index, name):
            found = _device(rtnl.get_link_at(index), socket)
            if found is not None:
                self._last = index, found
            return found
        mac = socket.mac(name)
        return replace(
            last[1], mtu=socket.mtu(name), mac=rtnl.mac_text(mac) if mac else last[1].mac
        )


def _uplink_index(socket: netlink.Socket) -> int:
    """The index of the default route's device: of IPv4's, else of IPv6's; 0 if there is none.

    The kernel chooses by metric and policy, at a cost that does not grow with the tables.
    """
    for address in _FAR_AWAY:
        state = _way_out(address, socket)
        if state is not None and state.ifindex:
            return state.ifindex
    return 0


def _way_out(address: IPAddress, socket: netlink.Socket) -> entries.RouteState | None:
    answer = socket.try_to_ask(entries.route_to(address))
    if isinstance(answer, Refusal):
        return None  # unreachable, prohibited, no IPv6: whatever it is called, no way out
    state = entries.read_route(answer[0])
    return state if state.kind == _UNICAST else None


@cache
def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _settings(read: Callable[[str], str]) -> tuple[tuple[Family, ...], bool, bool, tuple[int, int]]:
    first, last = read("net/ipv4/ip_local_port_range").split()
    return (
        tuple(family for family, path in settings.FORWARDING.items() if read(path) == "1"),
        read("net/bridge/bridge-nf-call-iptables") == "1",
        read("net/ipv6/conf/all/disable_ipv6") == "0",
        (int(first), int(last)),
    )
