"""macvlan: a sandbox with a MAC address of its own, and a neighbour on the LAN."""

from __future__ import annotations

from netlib.labs.packets import either, kind
from netlib.labs.stage import FETCH, OUTSIDE4, SERVE, TRY, UPLINK4
from netlib.labs.story import Story

MAC, TV = "02:00:00:00:00:07", "192.0.2.7"


def tell(story: Story) -> None:
    """One more machine on the LAN."""
    neighbour = story.stage.outside()
    story.stage.is_set()

    story.say("""The host's eth0 is on the LAN 192.0.2.0/24, and so is a neighbour, whose name
        in this lab is outside. A network of that LAN: its gateway is the LAN's, and addresses
        are given out of a part that nobody else gives out.""")
    story.run(f"net create -d macvlan -o parent=eth0 --subnet 192.0.2.0/24 --gateway {OUTSIDE4} "
              "--ip-range 192.0.2.4/30 lan")  # fmt: skip
    story.run(f"net run -d --name tv --network lan:ip={TV},mac={MAC} -- {SERVE} 80")
    story.sandbox("tv", port=80)
    story.run("net exec tv -- ip -br link show eth0", says=MAC)

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

    story.say("""A second sandbox on the same parent has another MAC. In mode bridge, which is
        the default, the two reach each other, too, without leaving the host.""")
    story.run(f"net run -d --name radio --network lan -- {SERVE} 80")
    story.run(f"net exec radio -- {FETCH} http://{TV}/", says="I am tv, you are 192.0.2.4")
    story.run(f"{FETCH} http://192.0.2.4/", at=neighbour, says="I am radio")
    story.draw()
    story.pause("tv and radio are on the LAN, beside the neighbour")

    story.say("""Ports are not published here: whoever is on the LAN reaches all of them. And
        the host does not reach tv: what a macvlan's parent sends goes out to the wire, never up
        to its children.""")
    story.fails("net publish tv 8080:80")
    with story.capture(story.stage.host.at("eth0")) as wire:
        story.fails(f"{TRY} http://{TV}/")
        asks, answers = kind("ARP", f"who has {TV}"), kind("ARP", f"{TV} is at")
        story.show(wire, lambda packet: asks(packet) and packet.source == UPLINK4)
        story.silence(wire, lambda packet: answers(packet) and packet.target == UPLINK4)

    story.say("""The option host_shim helps: the host gets a macvlan of its own, and routes to
        the sandboxes by it.""")
    story.run("net stop tv radio")
    story.run("net rm lan")
    story.run(f"net create -d macvlan -o parent=eth0 -o host_shim=true --subnet 192.0.2.0/24 "
              f"--gateway {OUTSIDE4} --ip-range 192.0.2.4/30 lan")  # fmt: skip
    story.run(f"net run -d --name tv --network lan:ip={TV} -- {SERVE} 80")
    story.sandbox("tv", port=80)
    story.run(f"{FETCH} http://{TV}/", says=f"I am tv, you are {UPLINK4}")

    story.run("net check")
    story.run("net stop tv")
    story.run("net rm lan")
