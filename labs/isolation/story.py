"""Isolation between networks, within a network, and from the world."""

from __future__ import annotations

from netlib.labs.packets import Packet, kind
from netlib.labs.stage import FETCH, OUTSIDE4, SERVE, TRY, Place
from netlib.labs.story import Story

UDP = "python3 -m netlib.labs.ask"
A4, A6 = "198.51.100.2", "2001:db8:1::2"
C4, C6 = "203.0.113.2", "2001:db8:2:2::2"


def tell(story: Story) -> None:
    """Same network, other network, no way out, not even each other."""
    outside = story.stage.outside(www_example_com=OUTSIDE4)
    story.stage.answers(outside, 80)
    story.stage.is_set()
    _between(story)
    _internal(story, outside)
    _within(story)
    story.run("net check")
    story.say("Away with it all.")
    story.run("net stop a b c d e f")
    story.run("net rm n1 n2 vault quiet")


def _between(story: Story) -> None:
    story.say("Two networks of both families: a and b are on n1, c is on n2.")
    story.run("net create n1 --subnet 198.51.100.0/25 --subnet 2001:db8:1::/64")
    story.run("net create n2 --subnet 203.0.113.0/25 --subnet 2001:db8:2:2::/64")
    story.run(f"net run -d --name a --network n1 -- {SERVE} 80 9999")
    story.run("net run -d --name b --network n1 -- sleep 1000")
    story.run("net run -d --name c --network n2 -- sleep 1000")
    a = story.sandbox("a", port=80)
    c = story.sandbox("c")

    story.say("b reaches a, by every protocol and at every port, though nothing is published.")
    story.run("net exec b -- ping -c 1 -W 2 a", says="1 received")
    story.run(f"net exec b -- {FETCH} http://{A4}:9999/", says="I am a")
    story.run(f"net exec b -- {FETCH} 'http://[{A6}]/'", says="I am a")
    story.run(f"net exec b -- {UDP} {A6} 80", says="I am a")

    story.say("c does not, whatever it tries. Its packets leave it, and never come to a.")
    with story.capture(c.at("eth0"), a.at("eth0")) as road:
        for line in (
            f"ping -c 1 -W 0.3 {A4}",
            f"ping -c 1 -W 0.3 {A6}",
            f"{TRY} http://{A4}/",
            f"{TRY} 'http://[{A6}]/'",
            f"{UDP} {A4} 80 0.5",
        ):
            story.fails(f"net exec c -- {line}")
        seen = story.show(road, _from_c_to_a, least=5)
    kinds = {one.packet.kind for one in seen}
    story.expect(kinds == {"ICMP", "ICMPv6", "TCP", "UDP"}, f"it was not tried by all: {kinds}")
    story.expect({one.point.name for one in seen} == {"c"}, "something came to a")
    if story.stage.has_nft:
        story.say("""On the host, in between, they meet a rule. We send one more ping, and have
            the kernel tell which rules it meets:""")
        with story.trace(f"ip saddr {C4} ip daddr {A4}") as followed:
            story.fails(f"net exec c -- ping -c 1 -W 0.3 {A4}")
            hits = story.show_rules(followed)
        story.expect(hits[-1].verdict == "drop", "no rule dropped it")


def _from_c_to_a(packet: Packet) -> bool:
    return packet.source in {C4, C6} and packet.target in {A4, A6}


def _internal(story: Story, outside: Place) -> None:
    story.say("""An internal network has no way out. d is on it, with e beside it: they find
        each other, by name too; but nothing leads outside, and questions for names of the world
        outside are not passed on.""")
    story.run("net create vault --internal --subnet 198.51.100.128/25")
    story.run(f"net run -d --name d --network vault -- {SERVE} 80")
    story.run("net run -d --name e --network vault -- sleep 1000")
    story.sandbox("d", port=80)
    with story.capture(story.stage.host.at("eth0")) as uplink:
        story.run(f"net exec e -- {FETCH} http://d/", says="I am d")
        story.run("net exec e -- ip route", never="default")
        story.fails(f"net exec e -- {TRY} http://{OUTSIDE4}/")
        story.fails("net dns query www.example.com --from e")
        story.say("At the host's way out there was silence. From n1 the same question gets there:")
        # The host itself may look for neighbours and routers at any time.
        story.silence(uplink, lambda packet: packet.kind not in {"ARP", "ICMPv6"})
        story.run(f"net exec b -- {FETCH} http://{OUTSIDE4}/", says="you are 192.0.2.1")
        story.show(uplink, kind("TCP", "SYN"), least=2)


def _within(story: Story) -> None:
    story.say("""And with `icc` (inter-container communication) off, even members of one network
        do not reach each other: each is alone with the way out.""")
    story.run("net create quiet -o icc=false --subnet 203.0.113.128/25")
    story.run(f"net run -d --name f --network quiet -- {SERVE} 80")
    story.sandbox("f", port=80)
    story.fails(f"net run --network quiet -- {TRY} http://203.0.113.130/")
    story.run(f"net run --network quiet -- {FETCH} http://{OUTSIDE4}/", says="you are 192.0.2.1")
    story.draw()
    story.pause("a and b are on n1, c on n2, d and e on vault, f on quiet")
