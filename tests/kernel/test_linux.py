"""What only Linux itself can show: flags, frames, flows, threads and descriptors."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from support.host import Host
from support.patience import eventually
from support.wirings import BRIDGE, endpoint, network, veth

from netlib.apply import apply, tear_down
from netlib.errors import KernelError, NetError, NotThere, StageFailed, Unsupported
from netlib.kernel.linux import LinuxKernel
from netlib.kernel.netfilter.none import NoFirewall
from netlib.kernel.netlink import NoAnswer, Socket
from netlib.kernel.rtnl_entries import new_address
from netlib.model import HOST
from netlib.plan import Change, Create, Delete, Stage, diff
from netlib.wiring import (
    Address,
    Announce,
    FdbEntry,
    ForgetFlows,
    Forwarding,
    Ipvlan,
    Layer,
    Link,
    Macvlan,
    Neighbour,
    Noun,
    Route,
    Sysctl,
    Up,
    Vlan,
    Vxlan,
    Wiring,
)

pytestmark = pytest.mark.kernel

NOTHING = Wiring()


@pytest.fixture
def kernel(host: Host) -> Iterator[LinuxKernel]:
    """Linux, with the test's host as the host."""
    kernel = LinuxKernel(NoFirewall())
    yield kernel
    kernel.close()


@pytest.mark.parametrize(
    "wrong", [set(), set(range(250)), {0}, {99}, {100}, {249}, {57, 58, 101}, set(range(0, 250, 2))]
)
def test_of_many_requests_at_once_each_has_its_own_answer(host: Host, wrong: set[int]) -> None:
    """Wherever among them the refused ones are: the last of a message, too."""
    requests = [
        new_address(9999 if number in wrong else 1, ip_interface(f"127.1.0.{number + 1}/32"))
        for number in range(250)
    ]
    with closing(Socket()) as netlink:
        answers = netlink.transact(requests)
    assert {number for number, answer in enumerate(answers) if answer is not None} == wrong


def test_refusals_that_find_no_room_are_not_taken_for_success(host: Host) -> None:
    """The kernel drops what the receive buffer does not hold, and says so (netlink(7))."""
    requests = [new_address(9999, ip_interface("127.1.0.1/32"))] * 99
    requests.append(new_address(1, ip_interface("127.1.0.1/32")))
    with closing(Socket()) as netlink:
        netlink._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with pytest.raises(NoAnswer):
            netlink.transact(requests)


def make(kernel: LinuxKernel, *nouns: Noun) -> None:
    """Make things, in one plan."""
    apply(diff(NOTHING, Wiring(nouns)), kernel)


def link(host: Host, name: str, netns: str = "") -> dict[str, object]:
    """What `ip` says of a device."""
    inside = ("-n", netns) if netns else ()
    (found,) = json.loads(host.run("ip", *inside, "-d", "-j", "link", "show", name).stdout)
    return found  # type: ignore[no-any-return]


# -- what ip says of it ---------------------------------------------------------------------------


def test_a_bridge_forwards_at_once_and_keeps_its_mtu(host: Host, kernel: LinuxKernel) -> None:
    """No spanning tree, no delay; a port with a smaller MTU does not shrink it."""
    web = kernel.enter(host.sandbox("web").netns.path, "web")
    make(kernel, BRIDGE, veth(web, 2, mtu=1300))

    found = link(host, "nl-1")

    data = found["linkinfo"]["info_data"]  # type: ignore[index]
    assert (data["stp_state"], data["forward_delay"]) == (0, 0)
    assert found["mtu"] == 1500
    assert found["ifalias"] == "netlib:1"


@pytest.mark.parametrize("mtu", [68, 69, 65535])
def test_a_bridge_has_the_least_mtu_and_the_most(host: Host, kernel: LinuxKernel, mtu: int) -> None:
    """68 bytes is what IPv4 needs (RFC 791 section 3.2)."""
    bridge = replace(BRIDGE, mtu=mtu)
    make(kernel, bridge)
    assert Wiring([bridge]) == kernel.observe(Wiring([bridge]))


def test_a_port_has_its_flags_and_no_address_of_its_own(host: Host, kernel: LinuxKernel) -> None:
    """The host's end of a pair is a plain port: isolated, hairpin, locked, no IPv6 address."""
    web = kernel.enter(host.sandbox("web").netns.path, "web")
    make(kernel, BRIDGE, veth(web, 2, isolated=True, hairpin=True, locked=True))

    port = link(host, "nv-2")["linkinfo"]["info_slave_data"]  # type: ignore[index]

    assert (port["isolated"], port["hairpin"], port["locked"], port["learning"]) == (
        True,
        True,
        True,
        False,
    )
    assert host.run("ip", "-o", "addr", "show", "dev", "nv-2").stdout == ""
    entries = host.run("bridge", "fdb", "show", "br", "nl-1").stdout
    assert "02:00:00:00:01:02 dev nv-2 master nl-1 static" in entries


def test_an_mtu_below_ipv6s_least_is_no_obstacle(host: Host, kernel: LinuxKernel) -> None:
    """A device that is too small for IPv6 has none, and takes no setting of it."""
    web = kernel.enter(host.sandbox("web").netns.path, "web")
    small = veth(web, 2, mtu=1000)
    make(kernel, replace(BRIDGE, mtu=1000), small)
    assert Wiring([small]) == kernel.observe(Wiring([small]))

    large = veth(web, 2, mtu=1500)
    apply(diff(Wiring([small]), Wiring([large])), kernel)
    assert Wiring([large]) == kernel.observe(Wiring([large]))


def test_a_macvlan_gets_a_name_that_its_parents_namespace_uses(
    host: Host, kernel: LinuxKernel
) -> None:
    """eth0 on eth0: the name need only be free where the device ends up."""
    host.outsider()  # gives the host an eth0
    web = kernel.enter(host.sandbox("web").netns.path, "web")
    noun = Macvlan(
        netns=web, name="eth0", owner="netlib:1/2", mtu=1400, parent="eth0",
        mac="02:00:00:00:00:05", mode="private", broadcast_queue=2000,
    )  # fmt: skip
    rider = Address(netns=web, device="eth0", address=ip_interface("192.0.2.9/24"))

    make(kernel, noun, rider)

    assert Wiring([noun, rider]) == kernel.observe(Wiring([noun, rider]))
    assert link(host, "eth0")["linkinfo"]["info_kind"] == "veth"  # type: ignore[index]
    host.run("ip", "netns", "exec", "web", "ping", "-c", "1", "-W", "2", "192.0.2.100")
    apply(diff(Wiring([noun]), Wiring([replace(noun, mtu=1300)])), kernel)
    assert link(host, "eth0", "web")["mtu"] == 1300


def test_a_parent_in_other_use_is_told(host: Host, kernel: LinuxKernel) -> None:
    """A bridge's port can be no parent; the hint says so."""
    host.outsider()
    make(kernel, BRIDGE)
    host.run("ip", "link", "set", "eth0", "master", "nl-1")
    noun = Macvlan(name="nh-1", owner="netlib:1", mtu=1500, parent="eth0", mac="02:00:00:00:00:05")

    with pytest.raises(KernelError, match="port of a bridge"):
        kernel.do(Stage(Layer.LINK, HOST, (Create(noun),)))


@pytest.mark.parametrize(
    "noun",
    [
        Ipvlan(name="iv", owner="netlib:1", mtu=1500, parent="eth0"),
        Vlan(name="eth0.7", owner="netlib:1", mtu=1500, parent="eth0", vlan_id=7),
    ],
    ids=lambda noun: type(noun).__name__,
)
def test_a_kind_is_made_or_the_kernel_said_to_lack_it(
    host: Host, kernel: LinuxKernel, noun: Link
) -> None:
    """A missing module is no riddle of an errno."""
    host.outsider()
    kind = type(noun).__name__.lower()
    probe = ("ip", "link", "add", "link", "eth0", "name", "probe", "type", kind)
    if host.run(*probe, *(["id", "9"] if kind == "vlan" else []), check=False).returncode:
        with pytest.raises(StageFailed) as caught:
            make(kernel, noun)
        assert isinstance(caught.value.cause, Unsupported)
        assert caught.value.undone
    else:
        make(kernel, noun)
        assert kernel.observe(Wiring([noun])) == Wiring([noun])


def test_an_overlay_answers_from_its_entries(host: Host, kernel: LinuxKernel) -> None:
    """A VXLAN port learns and floods nothing; entries are the tunnel's and the bridge's."""
    tunnel = Vxlan(
        name="nx-1", owner="netlib:1", mtu=1450, bridge="nl-1", vni=4001,
        local=ip_address("192.0.2.1"), mac="02:00:00:00:00:77",
    )  # fmt: skip
    mac = "02:00:00:00:09:01"
    nouns: list[Noun] = [
        BRIDGE,
        tunnel,
        Address(device="nl-1", address=ip_interface("198.51.100.1/24")),
        FdbEntry(device="nx-1", mac=mac, remote=ip_address("192.0.2.2")),
        FdbEntry(device="nx-1", mac="00:00:00:00:00:00", remote=ip_address("192.0.2.2")),
        FdbEntry(device="nx-1", mac="00:00:00:00:00:00", remote=ip_address("192.0.2.3")),
        Neighbour(device="nl-1", address=ip_address("198.51.100.9"), mac=mac),
    ]
    make(kernel, *nouns)

    assert Wiring(nouns) == kernel.observe(Wiring(nouns))
    shown = host.run("bridge", "fdb", "show", "dev", "nx-1").stdout
    assert f"{mac} sticky master nl-1 static" in shown
    assert f"{mac} dst 192.0.2.2 self permanent" in shown
    port = link(host, "nx-1")["linkinfo"]["info_slave_data"]  # type: ignore[index]
    assert port["neigh_suppress"]
    assert not any(port[f] for f in ("learning", "flood", "mcast_flood", "bcast_flood"))

    moved = replace(nouns[3], remote=ip_address("192.0.2.3"))  # type: ignore[type-var]
    opened = replace(tunnel, flood=True, mtu=1400)
    want = Wiring([*nouns[:1], opened, nouns[2], moved, *nouns[4:5], nouns[6]])
    apply(diff(Wiring(nouns), want), kernel)
    assert want == kernel.observe(Wiring(nouns))

    elsewhere = replace(opened, local=ip_address("192.0.2.8"))  # made anew, with its entries
    last = Wiring([elsewhere if n == opened else n for n in want])
    apply(diff(want, last), kernel)
    assert last == kernel.observe(last)


def test_half_an_entry_is_found_and_made_whole(host: Host, kernel: LinuxKernel) -> None:
    """What somebody took away of a forwarding entry is put back."""
    tunnel = Vxlan(
        name="nx-1", owner="netlib:1", mtu=1450, bridge="nl-1", vni=4001,
        local=ip_address("192.0.2.1"), mac="02:00:00:00:00:77",
    )  # fmt: skip
    entry = FdbEntry(device="nx-1", mac="02:00:00:00:09:01", remote=ip_address("192.0.2.2"))
    want = Wiring([BRIDGE, tunnel, entry])
    apply(diff(NOTHING, want), kernel)
    host.run("bridge", "fdb", "del", entry.mac, "dev", "nx-1", "master")

    seen = kernel.observe(want)
    assert seen != want
    apply(diff(seen, want), kernel)

    assert want == kernel.observe(want)
    tear_down(diff(Wiring([entry]), NOTHING), kernel, "entry")
    assert not kernel.observe(Wiring([entry]))


# -- drift ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "ip link set nv-2 down",
        "ip link set nv-2 nomaster",
        "ip link set nl-1 down",
        "ip link set nv-2 alias netlib:9",
        "bridge link set dev nv-2 isolated on",
        "ip link del nv-2",
        "ip link del nl-1",
        "ip addr flush dev nl-1",
        "ip -n web link set eth0 down",
        "ip -n web link set eth0 mtu 1280",
        "ip -n web link set eth0 address 02:00:00:00:0f:0f",
        "ip -n web link set eth0 down name eth9",
        "ip -n web route del default",
        "ip -n web -6 route replace default via 2001:db8:1::99 dev eth0",
        "ip -n web addr flush dev eth0",
        "ip -n web link set lo down",
        "ip netns exec web sysctl -qw net.ipv6.conf.eth0.accept_ra=1",
        "sysctl -qw net.ipv4.ip_forward=0",
    ],
)
def test_what_others_did_is_seen_and_repaired(
    host: Host, kernel: LinuxKernel, command: str
) -> None:
    """Whatever is undone behind our back is observed as such, and a plan puts it right."""
    web = kernel.enter(host.sandbox("web").netns.path, "web")
    want = network() | endpoint(web)
    apply(diff(NOTHING, want), kernel)
    host.run("sh", "-c", command)

    seen = kernel.observe(want)
    assert seen != want
    apply(diff(seen, want), kernel)

    assert want == kernel.observe(want)


def test_a_learned_neighbour_becomes_permanent(host: Host, kernel: LinuxKernel) -> None:
    """An entry that ARP made is in nobody's way."""
    make(kernel, BRIDGE, Address(device="nl-1", address=ip_interface("198.51.100.1/24")))
    mac = "02:00:00:00:00:09"
    host.run("ip", "neigh", "add", "198.51.100.9", "lladdr", mac, "nud", "stale", "dev", "nl-1")
    noun = Neighbour(device="nl-1", address=ip_address("198.51.100.9"), mac=mac)
    assert not kernel.observe(Wiring([noun]))

    make(kernel, noun)

    assert Wiring([noun]) == kernel.observe(Wiring([noun]))


# -- effects --------------------------------------------------------------------------------------


def test_an_announcement_reaches_the_neighbours(host: Host, kernel: LinuxKernel) -> None:
    """Who knew the address at another MAC learns the new one, over IPv4 and IPv6."""
    sandbox = host.sandbox("web")
    web = kernel.enter(sandbox.netns.path, "web")
    apply(diff(NOTHING, network() | endpoint(web)), kernel)
    old = "02:00:00:00:0e:0e"
    for address in ("198.51.100.2", "2001:db8:1::2"):
        host.run("ip", "neigh", "replace", address, "lladdr", old, "nud", "stale", "dev", "nl-1")

    for text in ("198.51.100.2/24", "2001:db8:1::2/64"):
        kernel.perform([Announce(netns=web, device="eth0", address=ip_interface(text))])

    def learned() -> bool:
        shown = host.run("ip", "neigh", "show", "dev", "nl-1").stdout
        return old not in shown and shown.count("02:00:00:00:01:02") == 2

    eventually(learned)


def test_an_announcement_waits_for_the_port_that_it_has_to_pass(
    host: Host, kernel: LinuxKernel
) -> None:
    """It is not lost, and nobody waits for it; one whose sandbox ends does no harm."""
    sandbox = host.sandbox("web")
    web = kernel.enter(sandbox.netns.path, "web")
    apply(diff(NOTHING, network() | endpoint(web)), kernel)
    old = "02:00:00:00:0e:0e"
    port = veth(web, 2).name
    # A bridge whose last port goes down loses its carrier, and some time later its neighbours.
    host.run("ip", "-batch", "-", stdin=(
        "link add other0 type veth peer name other1\nlink set other0 master nl-1\n"
        "link set other0 up\nlink set other1 up\n"
    ))  # fmt: skip
    eventually(lambda: "forwarding" in host.run("bridge", "link", "show", "dev", "other0").stdout)
    host.run("ip", "link", "set", port, "down")
    for address in ("198.51.100.2", "2001:db8:1::2"):
        host.run("ip", "neigh", "replace", address, "lladdr", old, "nud", "stale", "dev", "nl-1")

    def shown() -> str:
        return host.run("ip", "neigh", "show", "dev", "nl-1").stdout

    news = [
        Announce(netns=web, device="eth0", address=ip_interface(text), port=port)
        for text in ("198.51.100.2/24", "2001:db8:1::2/64")
    ]
    kernel.perform(news)
    assert shown().count(old) == 2
    host.run("ip", "link", "set", port, "up")
    eventually(lambda: old not in shown() and shown().count("02:00:00:00:01:02") == 2)

    host.run("ip", "link", "set", port, "down")
    kernel.perform(news)
    host.run("ip", "netns", "del", "web")
    kernel.close()


def _tracked(host: Host, protocol: str) -> str:
    return host.run("conntrack", "-L", "-p", protocol, check=False).stdout


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("count", [1, 4])
def test_flows_to_a_host_port_are_forgotten(
    host: Host, kernel: LinuxKernel, family: int, count: int
) -> None:
    """Only those: other ports, protocols and addresses keep their connections."""
    outsider = host.outsider()
    address = ("192.0.2.1", "2001:db8:2::1")[family == 6]
    kind = (socket.AF_INET, socket.AF_INET6)[family == 6]
    # Rules that need conntrack make the kernel track connections in this namespace.
    host.run("nft", "add table inet t; add chain inet t c { type filter hook input priority 0; };"
                    " add rule inet t c ct state new accept")  # fmt: skip

    def send(port: int) -> None:
        with socket.socket(kind, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"x", (address, port))

    listeners = []
    for port in (7000, 7001, 7009):
        listener = socket.socket(kind, socket.SOCK_DGRAM)
        listener.bind((address, port))
        listeners.append(listener)
        outsider.call(lambda port=port: send(port))
    family_option = ("ipv4", "ipv6")[family == 6]

    def ports() -> set[str]:
        shown = host.run("conntrack", "-L", "-f", family_option, "-p", "udp", check=False).stdout
        words = [w for line in shown.splitlines() for w in line.split()[:8]]
        return {w.removeprefix("dport=") for w in words if w.startswith("dport=70")}

    eventually(lambda: ports() == {"7000", "7001", "7009"})
    family_ = 6 if family == 6 else 4
    other = ip_address("192.0.2.77" if family == 4 else "2001:db8:2::77")
    others = (
        ForgetFlows(family=family_, protocol="udp", host=other, port=7000, count=count),
        ForgetFlows(family=family_, protocol="tcp", host=None, port=7000, count=count),
        ForgetFlows(family=family_, protocol="udp", host=None, port=7005),
    )
    for effect in others:
        kernel.perform([effect])
    kernel.perform(others)
    assert ports() == {"7000", "7001", "7009"}

    host_address = ip_address(address)
    effect = ForgetFlows(family=family_, protocol="udp", host=host_address, port=7000, count=count)
    kernel.perform([effect])

    assert ports() == ({"7001", "7009"} if count == 1 else {"7009"})
    both = [replace(effect, family=version, host=None, port=7000, count=10) for version in (4, 6)]
    kernel.perform(both)
    assert ports() == set()
    for listener in listeners:
        listener.close()


# -- the host -------------------------------------------------------------------------------------


def test_the_uplink_is_where_the_default_route_leads(host: Host, kernel: LinuxKernel) -> None:
    """IPv4's, else IPv6's; none where there is no default route."""
    assert kernel.facts().uplink is None
    host.outsider()
    host.run("ip", "link", "set", "eth0", "mtu", "1400")

    uplink = kernel.facts().uplink
    assert uplink is not None
    assert (uplink.name, uplink.mtu, uplink.ours) == ("eth0", 1400, False)

    host.run("ip", "route", "del", "default")
    assert kernel.facts().uplink == uplink
    host.run("ip", "-6", "route", "del", "default")
    assert kernel.facts().uplink is None
    host.run("ip", "route", "add", "blackhole", "default")
    assert kernel.facts().uplink is None


def test_forwarding_keeps_router_advertisements(host: Host, kernel: LinuxKernel) -> None:
    """A host that learns its IPv6 default route by RA must not lose it when it forwards."""
    host.outsider()
    path = Path("/proc/sys/net/ipv6/conf")
    (path / "eth0/accept_ra").write_text("1")
    make(kernel, BRIDGE)
    (path / "nl-1/accept_ra").write_text("0")

    apply(diff(NOTHING, Wiring([Forwarding(family=6)])), kernel)

    assert (path / "eth0/accept_ra").read_text().strip() == "2"
    assert (path / "nl-1/accept_ra").read_text().strip() == "0"
    assert kernel.facts().forwarding == (6,)


def test_prefixes_are_of_all_tables_and_kinds(host: Host, kernel: LinuxKernel) -> None:
    """Policy routing's tables count, and so do prefixes that lead nowhere."""
    host.outsider()
    for route in (
        "203.0.113.0/25 via 192.0.2.100 table 77",
        "blackhole 10.9.0.0/16",
        "2001:db8:77::/48 via 2001:db8:2::100",
    ):
        host.run("ip", *(["-6"] if "::" in route else []), "route", "add", *route.split())

    found = set(map(str, kernel.prefixes()))

    assert {"203.0.113.0/25", "10.9.0.0/16", "2001:db8:77::/48", "192.0.2.0/24"} <= found
    assert not {"0.0.0.0/0", "::/0"} & found


def test_who_listens_is_told(host: Host, kernel: LinuxKernel) -> None:
    """A process that has the port is named, by the addresses that it really takes."""
    with socket.socket() as tcp, socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp:
        tcp.bind(("127.0.0.1", 8080))
        tcp.listen()
        udp.bind(("::", 5300))

        user = kernel.port_user("tcp", None, 8075, 10)
        assert user is not None
        assert f"pid {os.getpid()}" in user
        assert kernel.port_user("tcp", ip_address("127.0.0.1"), 8080, 1)
        assert kernel.port_user("tcp", ip_address("127.0.0.2"), 8080, 1) is None
        # 0.0.0.0 and [::] stand for all of their family
        assert kernel.port_user("tcp", ip_address("0.0.0.0"), 8080, 1)
        assert kernel.port_user("tcp", ip_address("::"), 8080, 1) is None
        assert kernel.port_user("udp", None, 8080, 1) is None
        assert kernel.port_user("tcp", None, 8081, 9) is None
        # [::] takes IPv4 too, unless it is told otherwise
        assert kernel.port_user("udp", ip_address("192.0.2.1"), 5300, 1)
        assert kernel.port_user("sctp", None, 8080, 1) is None


# -- threads, descriptors, rights -----------------------------------------------------------------


def test_the_host_is_where_the_kernel_was_made(host: Host, kernel: LinuxKernel) -> None:
    """A thread that calls from another network namespace still acts on the host."""
    elsewhere = host.empty("elsewhere")

    elsewhere.call(lambda: make(kernel, BRIDGE))
    elsewhere.call(lambda: make(kernel, Forwarding(family=4)))

    assert link(host, "nl-1")
    assert "nl-1" not in elsewhere.run("ip", "-br", "link").stdout
    assert elsewhere.call(kernel.facts).netns == os.stat("/proc/thread-self/ns/net").st_ino
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"


def test_an_interrupt_finds_every_caller_at_home(host: Host) -> None:
    """However often a signal's handler raises, and whatever it cuts short.

    In a program of its own, as only its first thread runs handlers, and by itself, so that
    it is the one that enters.
    """
    host.sandbox("web")
    program = """
import os, select, signal, threading
from netlib.kernel.netns import Namespaces, open_netns
here = "/proc/thread-self/ns/net"
namespaces, home = Namespaces(), os.stat(here).st_ino
box = open_netns("/run/netns/web", "web")
elsewhere = interrupted = rounds = 0
class Interrupt(Exception): pass
def handler(*_): raise Interrupt
namespaces.run(box, lambda: None)  # what is loaded late
signal.signal(signal.SIGALRM, handler)
def inside():
    global elsewhere
    elsewhere += os.stat(here).st_ino != home
def once():
    try:
        namespaces.run(box, inside)
    except Interrupt:
        return 1
    return 0
while interrupted < 300 or elsewhere < 300:
    rounds += 1
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.000001 * (2 + rounds % 211))
        found = once()
        interrupted += found
        if not found:
            select.select((), (), (), 0.001)
    except Interrupt:
        pass
    assert os.stat(here).st_ino == home
assert threading.active_count() == 1, "another thread was sent"
print("at home")
"""
    assert host.run(sys.executable, "-c", program).stdout == "at home\n"


def test_callers_stay_in_their_own_namespace(host: Host, kernel: LinuxKernel) -> None:
    """Work inside sandboxes moves no caller for longer than it takes."""
    before = os.stat("/proc/thread-self/ns/net").st_ino
    web = kernel.enter(host.sandbox("web").netns.path, "web")

    apply(diff(NOTHING, network() | endpoint(web)), kernel)

    assert os.stat("/proc/thread-self/ns/net").st_ino == before


def test_many_threads_connect_at_once(host: Host, kernel: LinuxKernel) -> None:
    """Two connects at once do not disturb each other."""
    apply(diff(NOTHING, network()), kernel)
    boxes = [kernel.enter(host.sandbox(f"s{n}").netns.path, f"s{n}") for n in range(8)]
    wirings = [endpoint(box, number) for number, box in enumerate(boxes, 2)]
    failures: list[NetError] = []

    def cycle(wiring: Wiring) -> None:
        try:
            for _ in range(3):
                apply(diff(NOTHING, wiring), kernel)
                assert wiring == kernel.observe(wiring)
                tear_down(diff(wiring, NOTHING), kernel, "it")
        except (NetError, AssertionError) as error:
            failures.append(error)  # type: ignore[arg-type]

    threads = [threading.Thread(target=cycle, args=(wiring,)) for wiring in wirings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    assert [n.name for n in kernel.marked() if isinstance(n, Link)] == ["nl-1"]


def test_nothing_leaks(host: Host, kernel: LinuxKernel) -> None:
    """Fifty attachments, good and failed, leave no descriptor and no thread."""
    web = kernel.enter(host.sandbox("web").netns.path, "web")
    apply(diff(NOTHING, network()), kernel)
    wiring = endpoint(web)
    bad = wiring | Wiring([Route(netns=web, device="eth0",
                                 destination=ip_network("203.0.113.0/24"),
                                 via=ip_address("192.0.2.77"))])  # fmt: skip

    def cycle() -> None:
        apply(diff(NOTHING, wiring), kernel)
        tear_down(diff(wiring, NOTHING), kernel, "web")
        with pytest.raises(StageFailed):
            apply(diff(NOTHING, bad), kernel)

    cycle()
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(25):
        cycle()

    # Fewer is fine: what tests before this one left ends when it likes.
    # One more: after some sysctls it has a procfs of its own.
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= descriptors + 1)
    eventually(lambda: threading.active_count() <= threads)


def test_closing_gives_everything_back(host: Host) -> None:
    """A closed kernel holds no descriptor and no thread, and says so when it is called."""
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    kernel = LinuxKernel(NoFirewall())
    kernel.facts()
    kernel.close()
    kernel.close()

    # Fewer is fine: what tests before this one left ends when it likes.
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
    eventually(lambda: threading.active_count() <= threads)
    with pytest.raises(NetError, match="closed"):
        kernel.facts()


def test_too_many_open_files_is_not_a_namespace_that_is_gone(
    host: Host, kernel: LinuxKernel
) -> None:
    """Nothing may be cleaned up because a descriptor was lacking."""
    web = kernel.enter(host.sandbox("web").netns.path, "web")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(KernelError, match="Too many open files") as caught:
            kernel.alive(web)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not isinstance(caught.value, NotThere)
    assert kernel.alive(web)


def test_a_forked_child_can_go_on(host: Host, kernel: LinuxKernel) -> None:
    """The thread that enters namespaces is started again where a fork lost it."""
    kernel.facts()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            kernel.interfaces(HOST)
            status = int(kernel.facts().netns == 0)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_missing_right_is_told(host: Host, kernel: LinuxKernel) -> None:
    """Without CAP_NET_ADMIN a link can't be made; the message says what is missing."""
    script = (
        "import sys\n"
        "from netlib.kernel.linux import LinuxKernel\n"
        "from netlib.kernel.netfilter.none import NoFirewall\n"
        "from netlib.errors import NotPermitted\n"
        "from netlib.plan import *\n"
        "from netlib.wiring import *\n"
        "b = Bridge(name='nl-1', owner='netlib:1', mtu=1500, mac='02:00:00:00:00:01')\n"
        "try:\n"
        "    LinuxKernel(NoFirewall()).do(Stage(b.layer, b.netns, (Create(b),)))\n"
        "except NotPermitted as error:\n"
        "    print(error)\n"
    )
    import sys

    done = host.run(
        "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", sys.executable,
        "-c", script, check=False,
    )  # fmt: skip
    assert "run it as root" in done.stdout, done.stderr


def test_a_thousand_entries_are_a_handful_of_sends(host: Host, kernel: LinuxKernel) -> None:
    """More requests than a receive buffer holds answers to are sent in parts."""
    make(kernel, BRIDGE, Address(device="nl-1", address=ip_interface("10.0.0.1/16")))
    nouns = [
        Neighbour(
            device="nl-1",
            address=ip_address(f"10.0.{n // 250}.{n % 250 + 2}"),
            mac=f"02:00:00:01:{n // 256:02x}:{n % 256:02x}",
        )
        for n in range(1000)
    ]
    make(kernel, *nouns)
    assert len(kernel.observe(Wiring(nouns))) == 1000


def test_a_group_deletion_spares_who_is_not_meant(host: Host, kernel: LinuxKernel) -> None:
    """Foreign devices stay, whatever group they are in."""
    web = kernel.enter(host.sandbox("web").netns.path, "web")
    pairs = [veth(web, n, peer=f"eth{n}") for n in range(2, 12)]
    make(kernel, BRIDGE, *pairs)
    host.run("ip", "link", "add", "br0", "group", "1852571648", "type", "bridge")

    kernel.remove(Stage(Layer.LINK, HOST, tuple(Delete(p) for p in [*pairs, BRIDGE])))

    assert not kernel.marked()
    assert kernel.interfaces(HOST) == {"lo", "br0"}
    assert kernel.interfaces(web) == {"lo"}


def test_named_namespaces_are_those_of_ip(host: Host, kernel: LinuxKernel) -> None:
    """`ip netns` lists, enters and removes what was made, and we what it made."""
    web = kernel.make_namespace("web")
    assert "web" in host.run("ip", "netns").stdout.split()
    assert "lo" in host.run("ip", "-n", "web", "-br", "link").stdout

    host.run("ip", "netns", "del", "web")
    assert not kernel.alive(web)
    kernel.drop_namespace(web)

    host.run("ip", "netns", "add", "db")
    db = kernel.enter("/run/netns/db", "db")
    kernel.drop_namespace(db)
    assert "db" not in host.run("ip", "netns").stdout.split()


def test_strictness_is_not_fooled_by_what_comes_between(host: Host, kernel: LinuxKernel) -> None:
    """A device of ours that lost its mark is somebody else's."""
    make(kernel, BRIDGE)
    host.run("ip", "link", "set", "nl-1", "alias", "mine now")
    with pytest.raises(NotThere):
        kernel.do(Stage(Layer.LINK, HOST, (Delete(BRIDGE),)))
    with pytest.raises(NetError, match="not ours"):
        kernel.do(Stage(Layer.LINK, HOST, (Change(BRIDGE, replace(BRIDGE, mtu=1400)),)))
    assert link(host, "nl-1")["mtu"] == 1500


def test_a_failed_batch_sets_a_device_down_again(host: Host, kernel: LinuxKernel) -> None:
    """What the stage had set up before it failed is down again."""
    web = kernel.enter(host.sandbox("web").netns.path, "web")
    make(kernel, BRIDGE, veth(web, 2))
    address = Address(netns=web, device="eth0", address=ip_interface("198.51.100.2/24"))
    route = Route(netns=web, device="eth0", destination=ip_network("203.0.113.0/24"),
                  via=ip_address("192.0.2.1"))  # fmt: skip

    with pytest.raises(NetError):
        kernel.do(Stage(Layer.ADDRESS, web, (Create(address), Create(route))))

    assert "UP" not in link(host, "eth0", "web")["flags"]  # type: ignore[operator]
    assert not kernel.observe(Wiring([address, Up(netns=web, device="eth0")]))


def test_a_sysctl_goes_back_to_its_default(host: Host, kernel: LinuxKernel) -> None:
    """A setting of a device that stays is put back when its noun goes."""
    make(kernel, BRIDGE)
    noun = Sysctl(device="nl-1", path="net/ipv4/conf/nl-1/rp_filter", value="2", default="1")
    make(kernel, noun)
    tear_down(diff(Wiring([noun]), NOTHING), kernel, "setting")
    assert Path("/proc/sys/net/ipv4/conf/nl-1/rp_filter").read_text().strip() == "1"


def test_one_refused_sysctl_keeps_no_other_from_its_default(
    host: Host, kernel: LinuxKernel
) -> None:
    """A removal does all that it can, and names all that it could not."""
    make(kernel, BRIDGE)
    conf = "net/ipv4/conf/nl-1"
    refused = [
        Sysctl(device="nl-1", path=f"{conf}/{name}", value="1", default="no number")
        for name in ("arp_ignore", "arp_announce")
    ]
    other = Sysctl(device="nl-1", path=f"{conf}/rp_filter", value="2", default="1")
    make(kernel, *refused, other)
    with pytest.raises(KernelError, match=r"arp_ignore.*arp_announce"):
        kernel.remove(Stage(Layer.SETTING, HOST, tuple(map(Delete, (*refused, other)))))
    assert Path("/proc/sys", other.path).read_text().strip() == "1"
