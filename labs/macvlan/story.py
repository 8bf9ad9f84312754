"""macvlan: a sandbox with a MAC address of its own, and a neighbour on the LAN."""

from __future__ import annotations

from netlib.labs.packets import either, kind
from netlib.labs.stage import FETCH, OUTSIDE4, SERVE, TRY, UPLINK4, Place
from netlib.labs.story import Story

MAC, TV, RADIO = "02:00:00:00:00:07", "192.0.2.7", "192.0.2.4"
CREATE = "net create -d macvlan -o parent=eth0 --subnet 192.0.2.0/24 --ip-range 192.0.2.4/30"


def tell(story: Story) -> None:
    """One more machine on the LAN, then one that is apart, then one that the host reaches."""
    neighbour = story.stage.outside("neighbour")
    story.stage.is_set()
    _on_the_lan(story, neighbour)
    _beside_each_other(story, neighbour)
    _apart_from_the_host(story)
    _private(story, neighbour)
    _shim(story)
    story.run("net check")
    story.run("net stop tv")
    story.run("net rm lan")


def _on_the_lan(story: Story, neighbour: Place) -> None:
    story.say("""The host's eth0 is on the LAN 192.0.2.0/24, and so is a neighbour, which is the
        router there as well. We make a network of that LAN. Its addresses are given out of a
        part that nobody else on the LAN gives out, and its gateway is the LAN's router.""")
    story.run(f"{CREATE} lan")
    story.run(f"net run -d --name tv --network lan:ip={TV},mac={MAC} -- {SERVE} 80")
    story.sandbox("tv", port=80)
    story.run("net exec tv -- ip -br link show eth0", says=MAC)
    story.run("net exec tv -- ip route", says=f"default via {OUTSIDE4}")

    story.say("""The neighbour looks for 192.0.2.7, and gets an answer from a MAC address that
        is not the host's. Then it asks tv itself: nothing is published or translated on the
        way.""")
    story.run("ip -br link show eth0", never=MAC)
    with story.capture(neighbour.at("eth0")) as wire:
        story.run(f"{FETCH} http://{TV}/", at=neighbour, says=f"I am tv, you are {OUTSIDE4}")
        arp = story.show(
            wire, either(kind("ARP", f"who has {TV}"), kind("ARP", f"{TV} is at")), least=2
        )
        opening = story.show(wire, kind("TCP", "SYN"), least=2, most=2)
    story.expect(f"{TV} is at {MAC}" in arp[-1].packet.what, "the answer names another MAC")
    story.expect(opening[1].packet.source_mac == MAC, "another machine answered for it")


def _beside_each_other(story: Story, neighbour: Place) -> None:
    story.say("""A second sandbox on the same parent has another MAC. In mode bridge, which is
        the default, the two reach each other, too, without leaving the host: by address and by
        name, as a resolver listens inside each of them.""")
    story.run(f"net run -d --name radio --network lan -- {SERVE} 80")
    story.sandbox("radio", port=80)
    story.run("net exec radio -- cat /etc/resolv.conf", says="nameserver 127.0.0.11")
    story.run(f"net exec radio -- {FETCH} http://tv/", says=f"I am tv, you are {RADIO}")
    story.run(f"{FETCH} http://{RADIO}/", at=neighbour, says="I am radio")
    story.draw()
    story.pause("tv and radio are on the LAN, beside the neighbour")


def _apart_from_the_host(story: Story) -> None:
    story.say("""Ports are not published here: whoever is on the LAN reaches all of them. And
        the host does not reach tv: what a macvlan's parent sends goes out to the wire, never up
        to its children.""")
    story.fails("net publish tv 8080:80", says="its sandboxes are on the LAN")
    with story.capture(story.stage.host.at("eth0")) as wire:
        story.fails(f"{TRY} http://{TV}/")
        asks, answers = kind("ARP", f"who has {TV}"), kind("ARP", f"{TV} is at")
        story.show(wire, lambda packet: asks(packet) and packet.source == UPLINK4)
        story.silence(wire, lambda packet: answers(packet) and packet.target == UPLINK4)
    story.run("net stop tv radio")
    story.run("net rm lan")


def _private(story: Story, neighbour: Place) -> None:
    story.say("""Options change who reaches whom. In mode private, sandboxes of one parent do
        not reach each other; the LAN reaches each of them as before.""")
    story.run(f"{CREATE} -o mode=private lan")
    story.run(f"net run -d --name tv --network lan:ip={TV} -- {SERVE} 80")
    story.sandbox("tv", port=80)
    story.fails(f"net run --network lan -- {TRY} http://{TV}/")
    story.run(f"{FETCH} http://{TV}/", at=neighbour, says=f"I am tv, you are {OUTSIDE4}")
    story.run("net stop tv")
    story.run("net rm lan")


def _shim(story: Story) -> None:
    story.say("""With host_shim, the host gets a macvlan of its own beside them, and a route by
        it to each sandbox: now it reaches them.""")
    story.run(f"{CREATE} -o host_shim=true lan")
    story.run(f"net run -d --name tv --network lan:ip={TV} -- {SERVE} 80")
    story.sandbox("tv", port=80)
    story.run(f"ip route get {TV}", says=f"{TV} dev nh-")
    story.run(f"{FETCH} http://{TV}/", says=f"I am tv, you are {UPLINK4}")
