"""What strangers and sandboxes may try on an overlay network, and what comes of it."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.frames import SILENCE, listening, says, send
from support.host import Host, Place
from support.overlay import (
    SECOND,
    STRANGER,
    VNI,
    Cluster,
    Member,
    cluster,
    is_up,
    lan_address,
    lan_mac,
)
from support.overlay_table import address, all_differences, populate
from support.patience import eventually
from support.reach import Probe, Servers, ask

from netlib import names
from netlib.cluster.members import membership
from netlib.errors import Unsupported
from netlib.kernel.netfilter.source_guard import SourceGuards
from netlib.model import Family, Network, Subnet
from netlib.plan import Create
from netlib.wiring import SourceGuard, Wiring

if TYPE_CHECKING:
    from scapy.packet import Packet

pytestmark = pytest.mark.kernel

PORT = 4789
FAMILIES: tuple[Family, Family] = (4, 6)


def inner(made: Cluster, target: str, text: str, source: str = "b1") -> Packet:
    """A frame within the network, from one sandbox to another, which says something."""
    from scapy.all import IP, UDP, Ether

    macs = {n: m.endpoints[n].mac for m in made.members for n in m.endpoints}
    frame = Ether(src=macs[source], dst=macs[target])
    frame /= IP(src=address(made, source, 4), dst=address(made, target, 4))
    return frame / UDP(sport=9, dport=9) / text.encode()


def tunnelled(frame: Packet) -> bytes:
    """A frame as it is in a VXLAN datagram."""
    from scapy.all import VXLAN

    return bytes(VXLAN(flags=8, vni=VNI) / frame)


def outer(source: str, target: str, payload: bytes, *, me: str, to: str) -> Packet:
    """A VXLAN datagram as a frame of one MAC for another."""
    from scapy.all import IP, UDP, Ether, IPv6, Raw

    layer = IPv6 if ":" in source else IP
    return Ether(src=me, dst=to) / layer(src=source, dst=target) / UDP(dport=PORT) / Raw(payload)


def talk(place: Place, target: str, payload: bytes, port: int = PORT) -> None:
    """Send a datagram to a VXLAN port, by a socket."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET

    def work() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.sendto(payload, (target, port))

    place.call(work)


@pytest.fixture(params=["nftables", "iptables-nft", "iptables-legacy"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend."""
    return str(request.param)


# -- who is heard ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "port"), [(4, PORT), (6, PORT), (4, 8472)])
def test_who_is_no_member_is_not_heard(host: Host, backend: str, family: Family, port: int) -> None:
    """Whichever of the host's addresses he sends to; a member who says the same is."""
    with cluster(host, 2, underlay=family, backend=backend, port=port) as made:
        a1 = made.connect(1, "a1", 11)
        made.connect(2, "b1", 21)
        with listening(a1) as ear:
            for number, other in enumerate((family, 4, 6)):
                frame = tunnelled(inner(made, "a1", f"stranger {number}"))
                talk(made.stranger, lan_address(1, other), frame, port)  # type: ignore[arg-type]
            told = tunnelled(inner(made, "a1", "member"))
            talk(made[2].place, lan_address(1, family), told, port)
            assert ear.hears(says("member"))
            assert not ear.hears(says("stranger"), SILENCE)


def test_who_leaves_the_cluster_is_not_heard_any_more(host: Host, backend: str) -> None:
    """From the moment that he is no member."""
    with cluster(host, 2, backend=backend) as made:
        a1 = made.connect(1, "a1", 11)
        made.connect(2, "b1", 21)
        one = made[1]
        gone = [n for n in one.wiring if getattr(n, "address", None) == made[2].address]
        one.turn(Wiring(gone), Wiring())
        with listening(a1) as ear:
            talk(made[2].place, lan_address(1, 4), tunnelled(inner(made, "a1", "member")))
            assert not ear.hears(says("member"), SILENCE)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_sandbox_speaks_vxlan_to_a_member(host: Host, backend: str, family: Family) -> None:
    """Not masqueraded as its host, nor in a member's name to its own host; other ports it may."""
    with cluster(host, 2, underlay=family, backend=backend) as made, Servers() as servers:
        a1, a2 = made.connect(1, "a1", 11), made.connect(1, "a2", 12)
        b1 = made.connect(2, "b1", 21)
        servers.add(made[2].place, PORT + 1)
        home, away = (lan_address(number, family) for number in (1, 2))
        mine, bridge = made[1].peer_of("a1").mac, made[1].peer_of("").mac

        def attempts() -> set[str]:
            """Which of them are heard."""
            far, near = inner(made, "b1", "[far]", "a2"), inner(made, "a2", "[near]")
            talk(a1, away, tunnelled(far))
            talk(a1, home, tunnelled(near))
            forged = tunnelled(inner(made, "a2", "[forged]"))
            send(a1, outer(away, home, forged, me=mine, to=bridge))
            heard = b""
            for ear in (at_b1, at_a2):
                heard += b"".join(map(bytes, ear.frames(lambda _: False, SILENCE)))
            return {text for text in ("[far]", "[near]", "[forged]") if text.encode() in heard}

        with listening(b1) as at_b1, listening(a2) as at_a2:
            assert attempts() == set()
            assert ask([Probe("another port", a1, "udp", away, PORT + 1, "heard")]) != [""]
            for member in made.members:
                member.turn(membership(member.node, [m.node for m in made.members]), Wiring())
            # It is the firewall that keeps them out: without it they come, as any source would.
            assert attempts() == {"[far]", "[near]", "[forged]"}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_sent_to_everybody_is_heard_from_members_only(
    host: Host, backend: str, family: Family
) -> None:
    """A VXLAN port takes broadcast, multicast and anycast, too: from neighbours and sandboxes."""
    with cluster(host, 2, underlay=family, backend=backend) as made:
        a1, a2 = made.connect(1, "a1", 11), made.connect(1, "a2", 12)
        made.connect(2, "b1", 21)
        mine, bridge = made[1].peer_of("a1").mac, made[1].peer_of("").mac
        a2_mac, to_all = made[1].endpoints["a2"].mac, _to_all(family)

        def come() -> set[str]:
            """Of what is sent to everybody, from the LAN and by a sandbox, what comes to a2."""
            source = lan_address(STRANGER, family)
            own = address(made, "a1", family)
            for target, mac in to_all.items():
                lan = tunnelled(inner(made, "a2", f"[stranger {target}]"))
                send(made.stranger, outer(source, target, lan, me=lan_mac(STRANGER), to=mac))
                box = tunnelled(inner(made, "a2", f"[sandbox {target}]"))
                to = bridge if mac == lan_mac(1) else mac
                send(a1, outer(own, target, box, me=mine, to=to))
            # By the bridge it comes to a2 as well, but as it was sent.
            heard = [f for f in ear.frames(lambda _: False, SILENCE) if f.dst == a2_mac]
            frames = b"".join(map(bytes, heard))
            words = (f"[{who} {target}]" for who in ("stranger", "sandbox") for target in to_all)
            return {text for text in words if text.encode() in frames}

        with listening(a2) as ear:
            assert come() == set()
            one = made[1]
            one.turn(membership(one.node, [member.node for member in made.members]), Wiring())
            words = {f"[{who} {target}]" for who in ("stranger", "sandbox") for target in to_all}
            assert come() == words  # without the firewall, that is


def _to_all(family: Family) -> dict[str, str]:
    """Addresses that a host takes as its own though they are not, each with a MAC to send it to."""
    if family == 4:
        everybody = "ff:ff:ff:ff:ff:ff"
        return {
            "255.255.255.255": everybody,
            "192.0.2.255": everybody,
            "224.0.0.1": "01:00:5e:00:00:01",
        }
    return {"ff02::1": "33:33:00:00:00:01", "2001:db8:2::": lan_mac(1)}  # RFC 4291 section 2.6.1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_member_s_other_addresses_are_no_way_in(host: Host, backend: str, family: Family) -> None:
    """For a sandbox of another member, masqueraded as it: its host can not know them all."""
    other = "192.0.2.52" if family == 4 else "2001:db8:2::52"
    with cluster(host, 2, underlay=family, backend=backend) as made, Servers() as servers:
        a1, b1 = made.connect(1, "a1", 11), made.connect(2, "b1", 21)
        length, nodad = ("24", ()) if family == 4 else ("64", ("nodad",))
        made[2].place.run("ip", "addr", "add", f"{other}/{length}", "dev", "eth0", *nodad)
        servers.add(made[2].place, PORT + 1)
        assert ask([Probe("the way is open", a1, "udp", other, PORT + 1, "heard")]) != [""]
        with listening(b1) as ear:
            talk(a1, other, tunnelled(inner(made, "b1", "[by another way]", "a1")))
            assert not ear.hears(says("[by another way]"), SILENCE)
            two = made[2]
            two.turn(membership(two.node, [member.node for member in made.members]), Wiring())
            talk(a1, other, tunnelled(inner(made, "b1", "[by another way]", "a1")))
            assert ear.hears(says("[by another way]"))


@pytest.mark.parametrize("family", FAMILIES)
def test_no_datagram_in_pieces_or_with_options_gets_by(
    host: Host, backend: str, family: Family
) -> None:
    """From a sandbox to a member; whatever is between the IP header and the port."""
    from scapy.all import IP, Ether, IPOption_NOP, IPv6, fragment
    from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6

    with cluster(host, 2, underlay=family, backend=backend) as made:
        a1, a2 = made.connect(1, "a1", 11), made.connect(1, "a2", 12)
        b1 = made.connect(2, "b1", 21)
        own, away = address(made, "a1", family), lan_address(2, family)
        link = Ether(src=made[1].peer_of("a1").mac, dst=made[1].peer_of("").mac)

        def datagram(text: str) -> Packet:
            frame = inner(made, "b1", text + "." * 600, "a1")
            return outer(own, away, tunnelled(frame), me="", to="").payload

        if family == 4:
            pieces = fragment(datagram("[pieces]"), fragsize=400)
            odd = datagram("[options]")
            odd[IP].options = [IPOption_NOP()] * 4
        else:
            whole = datagram("[pieces]")
            head = IPv6(src=own, dst=away) / IPv6ExtHdrFragment(id=7)
            pieces = fragment6(head / whole[IPv6].payload, 500)
            whole = datagram("[options]")
            odd = IPv6(src=own, dst=away) / IPv6ExtHdrDestOpt() / whole[IPv6].payload
        assert len(pieces) > 1

        def heard() -> set[str]:
            for packet in (*pieces, odd):
                send(a1, link / packet)
            frames = b"".join(map(bytes, ear.frames(lambda _: False, SILENCE)))
            return {text for text in ("[pieces]", "[options]") if text.encode() in frames}

        with listening(b1) as ear:
            assert heard() == set()
            for member in made.members:
                member.turn(membership(member.node, [m.node for m in made.members]), Wiring())
            assert heard() == {"[pieces]", "[options]"}
        assert a2


def test_a_member_is_heard_in_the_network_it_names_and_in_no_other(host: Host) -> None:
    """By its VNI: neither in one that is not here, nor without one, nor in another network."""
    with cluster(host, 2) as made:
        a1 = made.connect(1, "a1", 11)
        made.connect(2, "b1", 21)
        one, other = made[1], second_network(made)
        box = host.empty("other")
        there = replace(one, network=other).endpoint("other", 12, box)
        one.add(one.driver.network_wiring(other, one.kernel.facts()))
        one.add(one.driver.endpoint_wiring(other, there, one.kernel.facts()))
        eventually(lambda: is_up(one.place, names.veth(there.id)) and is_up(box, "eth0"))

        def say(text: str, vni: int, flags: int = 8) -> None:
            from scapy.all import VXLAN, Ether

            for target in (made[1].endpoints["a1"].mac, there.mac):
                frame = inner(made, "a1", text)
                frame[Ether].dst = target
                datagram = bytes(VXLAN(flags=flags, vni=vni) / frame)
                talk(made[2].place, lan_address(1, 4), datagram)

        with listening(a1) as at_a1, listening(box) as at_other:
            say("[none]", VNI, flags=0)  # RFC 7348 section 5: then its VNI is not valid
            say("[unknown]", VNI + 2)
            say("[other]", VNI + 1)
            say("[app]", VNI)
            heard = [
                {text for text in ("none", "unknown", "other", "app") if f"[{text}]" in said}
                for said in (
                    "".join(bytes(f).decode("latin1") for f in ear.frames(lambda _: False, SILENCE))
                    for ear in (at_a1, at_other)
                )
            ]
        assert heard == [{"app"}, {"other"}]


def second_network(made: Cluster) -> Network:
    """Another overlay on the first host, with the next VNI."""
    subnets = tuple(
        Subnet(prefix=prefix, gateway=prefix[1], own=prefix[200]) for prefix in SECOND.values()
    )
    return replace(made[1].network, id="0b" * 32, name="other", vni=VNI + 1, subnets=subnets)


def test_a_bridge_of_somebody_elses_is_no_way_round(host: Host, backend: str) -> None:
    """Whose packets its host forwards, and masquerades by rules of his own."""
    with cluster(host, 2, backend=backend) as made, Servers() as servers:
        made.connect(1, "a1", 11)
        b1 = made.connect(2, "b1", 21)
        guest = _behind_a_foreign_bridge(host, made[1])
        servers.add(made[2].place, PORT + 1)
        away = lan_address(2, 4)
        assert ask([Probe("the way is open", guest, "udp", away, PORT + 1, "heard")]) != [""]
        with listening(b1) as ear:
            talk(guest, away, tunnelled(inner(made, "b1", "from a guest", "a1")))
            assert not ear.hears(says("from a guest"), SILENCE)


def _behind_a_foreign_bridge(host: Host, member: Member) -> Place:
    guest = host.empty("guest")
    member.place.run("ip", "-batch", "-", stdin="\n".join([
        "link add br-x type bridge",
        "addr add 203.0.113.1/24 dev br-x",
        f"link add vx0 type veth peer name eth0 netns {guest.netns.path}",
        "link set vx0 master br-x up",
        "link set br-x up",
    ]))  # fmt: skip
    guest.run("ip", "-batch", "-", stdin="\n".join([
        "addr add 203.0.113.2/24 dev eth0",
        "link set eth0 up",
        "route add default via 203.0.113.1",
    ]))  # fmt: skip
    rule = "type nat hook postrouting priority srcnat; ip saddr 203.0.113.0/24 masquerade"
    member.place.run("nft", "-f", "-", stdin=f"table ip x {{ chain c {{ {rule}; }}\n}}")
    return guest


def test_tunnelled_packets_are_not_tracked(host: Host, backend: str) -> None:
    """Each flow inside would be an entry outside, and a table of them can be full."""
    with cluster(host, 2, backend=backend) as made, Servers() as servers:
        a1, b1 = made.connect(1, "a1", 11), made.connect(2, "b1", 21)
        servers.add(b1, 80)
        there = address(made, "b1", 4)
        assert ask([Probe("b1", a1, "udp", there, 80, "x") for _ in range(5)]).count("") == 0
        assert [tracked(member) for member in made.members] == [0, 0]
        assert ask([Probe("b1", made[1].place, "udp", there, 80, "x")]) != [""]
        assert [tracked(member) for member in made.members] == [1, 0]  # the host's own flow


def tracked(member: Member) -> int:
    """How many connections a host tracks."""
    return int(member.place.run("sysctl", "-n", "net.netfilter.nf_conntrack_count").stdout)


# -- marks ----------------------------------------------------------------------------------------


def test_no_mark_of_ours_or_a_sandbox_s_is_on_what_crosses(host: Host) -> None:
    """A mark goes along from the inner packet to the outer one, and would route that, too.

    So a sandbox could choose its host's routes if its marks came that far; the host itself can.
    """
    with cluster(host) as made, Servers() as servers:
        populate(made, servers)
        for member in made.members:
            member.place.run("nft", "-f", "-", stdin=_COUNT_MARKED)
        assert not all_differences(made)
        assert [marked_outside(member) for member in made.members] == [0, 0, 0]

        one, to = made[1], address(made, "b1", 4)
        one.place.run("ip", "rule", "add", "fwmark", "0x77", "unreachable")
        with listening(made.place("b1")) as ear:
            whisper(made.place("a1"), to, "[sandbox]", mark=0x77)
            assert ear.hears(says("[sandbox]"))
            assert marked_outside(one) == 0
        # As docs/overlay.md tells of a user's own marks.
        one.place.run("nft", "add", "table", "inet", "user")
        one.place.run("nft", "-f", "-", stdin=_MARK_INSIDE.format(bridge=one.bridge))
        with listening(made.place("b1")) as ear:
            whisper(one.place, to, "[host]")
            assert not ear.hears(says("[host]"), SILENCE)
            one.place.run("ip", "rule", "del", "fwmark", "0x77", "unreachable")
            whisper(one.place, to, "[host again]")
            assert ear.hears(says("[host again]"))
        assert marked_outside(one) > 0


_COUNT_MARKED = f"""table inet watch {{
  counter marked {{ }}
  chain c {{
    type filter hook output priority 300
    udp dport {PORT} meta mark != 0 counter name marked
  }}
}}
"""
# After routing, as what marks for the sake of queueing does.
_MARK_INSIDE = """table inet user {{
  chain c {{
    type filter hook postrouting priority 0
    oifname {bridge} meta mark set 0x77
  }}
}}
"""


def marked_outside(member: Member) -> int:
    """How many VXLAN datagrams left the host with a mark."""
    said = member.place.run("nft", "-j", "list", "counter", "inet", "watch", "marked").stdout
    return int(json.loads(said)["nftables"][-1]["counter"]["packets"])


def whisper(place: Place, target: str, text: str, mark: int = 0) -> None:
    """Send a datagram, with a mark."""

    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            client.sendto(text.encode(), (target, 9))

    place.call(work)


# -- who is who -----------------------------------------------------------------------------------


def forged(made: Cluster) -> dict[str, tuple[Packet, bool]]:
    """Frames that a1 sends, each with a name in it, and whether it may."""
    from scapy.all import ARP, IP, UDP, Dot1Q, Ether, IPv6, Raw
    from scapy.layers.inet6 import (
        ICMPv6ND_NA,
        ICMPv6ND_NS,
        ICMPv6ND_RA,
        ICMPv6NDOptDstLLAddr,
        IPv6ExtHdrDestOpt,
    )

    one = made[1]
    mine, other = one.endpoints["a1"].mac, one.endpoints["a2"].mac
    b1 = made[2].endpoints["b1"].mac
    own4, own6 = (address(made, "a1", family) for family in FAMILIES)
    a2_4, a2_6 = (address(made, "a2", family) for family in FAMILIES)
    b1_4, b1_6 = (address(made, "b1", family) for family in FAMILIES)
    gateway4, gateway6 = (str(g.ip) for g in one.network.gateways())
    local = "fe80::a1"
    cases: dict[str, tuple[Packet, bool]] = {}

    def case(name: str, frame: Packet, *, passes: bool = False) -> None:
        cases[name] = (frame / Raw(f"<{name}>".encode()), passes)

    def says4(source: str, to: str = b1, target: str = b1_4, me: str = mine) -> Packet:
        return Ether(src=me, dst=to) / IP(src=source, dst=target) / UDP(sport=9, dport=9)

    def says6(source: str, to: str = b1, target: str = b1_6, me: str = mine) -> Packet:
        return Ether(src=me, dst=to) / IPv6(src=source, dst=target) / UDP(sport=9, dport=9)

    def claims(source: str, me: str = mine, hardware: str = mine) -> Packet:
        # An answer that nobody asked for, to the one to be misled; padded to a whole frame.
        answer = ARP(op=2, hwsrc=hardware, psrc=source, hwdst=b1, pdst=b1_4)
        return Ether(src=me, dst=b1) / answer

    def advertises(target: str, source: str = own6) -> Packet:
        return (
            Ether(src=mine, dst=b1)
            / IPv6(src=source, dst=b1_6, hlim=255)
            / ICMPv6ND_NA(tgt=target, S=0, O=1)
            / ICMPv6NDOptDstLLAddr(lladdr=mine)
        )

    case("honest 4", says4(own4), passes=True)
    case("honest 6", says6(own6), passes=True)
    case("honest link-local", says6(local), passes=True)
    case("honest ARP", claims(own4), passes=True)
    case("honest advertisement", advertises(own6), passes=True)
    case("advertises link-local", advertises(local, local), passes=True)
    case("source elsewhere", says4("203.0.113.77"), passes=True)
    case("another MAC", says4(own4, me=other))
    case("a MAC of nobody", says6(own6, me="02:00:00:00:0f:0f"))
    for who, four, six in (("a2", a2_4, a2_6), ("b1", b1_4, b1_6), ("gateway", gateway4, gateway6),
                           ("nobody", "198.51.100.99", "2001:db8:a::99")):  # fmt: skip
        case(f"as {who} by 4", says4(four))
        case(f"as {who} by 6", says6(six))
        case(f"as {who} by ARP", claims(four))
        case(f"as {who} by advertisement", advertises(six))
        case(f"as {who} by link-local advertisement", advertises(six, local))
    hidden = advertises(a2_6)
    hidden[IPv6].payload = IPv6ExtHdrDestOpt() / hidden[IPv6].payload
    case("as a2 by advertisement behind options", hidden)
    case("own address, another's hardware", claims(own4, hardware=other))
    router = Ether(src=mine, dst=b1) / IPv6(src=local, dst=b1_6, hlim=255) / ICMPv6ND_RA()
    case("a router", router)
    solicits = Ether(src=mine, dst=b1) / IPv6(src=a2_6, dst=b1_6, hlim=255) / ICMPv6ND_NS(tgt=b1_6)
    case("solicits as a2", solicits)
    case("with a VLAN tag", Ether(src=mine, dst=b1) / Dot1Q(vlan=5) / IP(src=a2_4, dst=b1_4))
    case("another protocol", Ether(src=mine, dst=b1, type=0x88B5))
    return cases


@pytest.mark.parametrize("backend", ["nftables", "iptables-legacy"], indirect=True)
def test_no_sandbox_is_taken_for_another(host: Host, backend: str) -> None:
    """Not by MAC, IP, ARP or neighbour advertisement; nor is one a router."""
    with cluster(host, 2, backend=backend) as made:
        a1 = made.connect(1, "a1", 11)
        made.connect(1, "a2", 12)
        b1 = made.connect(2, "b1", 21)
        cases = forged(made)
        with listening(b1) as ear:
            for frame, _ in cases.values():
                send(a1, frame)
            send(a1, inner(made, "b1", "<the end>", "a1"))
            heard = [bytes(frame) for frame in ear.frames(says("<the end>"), 5)]
        passed = {name for name in cases if any(f"<{name}>".encode() in one for one in heard)}
        assert passed == {name for name, (_, passes) in cases.items() if passes}


def test_a_sandbox_that_may_be_others_is_asked_for(host: Host) -> None:
    """`source_guard=false` leaves addresses alone; the MAC is still its own."""

    def open_(network: Network) -> Network:
        return replace(network, options={"source_guard": "false"})

    with cluster(host, 2, further=open_) as made:
        a1 = made.connect(1, "a1", 11)
        made.connect(1, "a2", 12)
        b1 = made.connect(2, "b1", 21)
        cases = forged(made)
        with listening(b1) as ear:
            for name in ("another MAC", "as a2 by 4", "honest 4"):
                send(a1, cases[name][0])
            heard = [bytes(frame) for frame in ear.frames(says("honest 4"), 5)]
        assert any(b"as a2 by 4" in one for one in heard)
        assert not any(b"another MAC" in one for one in heard)


def test_a_remote_endpoints_frames_can_not_be_drawn_away(host: Host) -> None:
    """By who sends from its MAC on another host."""
    with cluster(host, 2) as made, Servers() as servers:
        a1, a2 = made.connect(1, "a1", 11), made.connect(1, "a2", 12)
        servers.add(made.connect(2, "b1", 21), 80)
        for _ in range(3):
            send(a1, inner(made, "a2", "from me", "b1"))
        there = address(made, "b1", 4)
        assert ask([Probe("b1", a2, "tcp", there, 80, "x")])[0].startswith("b1:80")
        assert made[1].wiring == made[1].kernel.observe(made[1].wiring)


def test_without_nftables_a_guard_is_refused_with_a_way_out(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never silently left out."""

    def missing(place: object) -> None:
        from netlib.errors import KernelError

        raise KernelError("nft is not installed")

    monkeypatch.setattr("netlib.kernel.netfilter.source_guard.open_nft", missing)
    guards = SourceGuards()
    guard = SourceGuard(device="nv-1", mac=names.mac_of("aa" * 32), addresses=(), prefixes=())
    with pytest.raises(Unsupported, match="nft is not installed") as caught:
        guards.do([Create(guard)])
    assert "source_guard=false" in caught.value.hint
    assert guards.observe([guard]) == []
    assert guards.marked() == []
    guards.close()
