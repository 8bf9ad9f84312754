"""The road of a packet to a published port."""

from __future__ import annotations

from netlib.labs.packets import either, tcp
from netlib.labs.stage import FETCH, OUTSIDE4, SERVE, TRY, UPLINK4, Place
from netlib.labs.story import Story

NEEDS = {"conntrack": "conntrack"}
WEB = "198.51.100.2"


def tell(story: Story) -> None:
    """Publish, follow a packet there and back, limit, take back."""
    outside = story.stage.outside()
    story.stage.is_set()

    story.say("""A network, and a server on it that listens at two ports: 80 and 9999. One of
        them is published, as port 8080 of the host.""")
    story.run("net create my-net --subnet 198.51.100.0/24")
    story.run(f"net run -d --name web --network my-net -p 8080:80 -- {SERVE} 80 9999", says="web")
    web = story.sandbox("web", port=80)
    story.run("net port web", says="80/tcp -> 0.0.0.0:8080")
    story.draw()

    story.say("""A machine outside asks the host. We listen at both ends of the road through
        it: where packets enter the host, and where they enter the sandbox.""")
    with story.capture(story.stage.host.at("eth0"), web.at("eth0")) as road:
        story.run(f"{FETCH} http://{UPLINK4}:8080/", at=outside, says=["I am web", OUTSIDE4])
    story.say("""What opens the connection, and its answer, as both ends saw them. At eth0 of
        the host it goes to the host's port 8080; inside, to the sandbox's port 80. Only the
        target was changed: the source is the client's, which is why the server could tell who
        asks. The answer takes the same road back, and there its source becomes the host's.""")
    seen = story.show(road, either(tcp("SYN"), tcp("SYN,ACK")), least=4, most=4)
    before, after, inside, back = (one.packet for one in seen)
    story.expect((before.target, before.target_port) == (UPLINK4, 8080), "it asks the host")
    story.expect((after.target, after.target_port) == (WEB, 80), "the target is changed")
    story.expect(before.source == after.source == OUTSIDE4, "the source is not changed")
    story.expect((inside.source, inside.source_port) == (WEB, 80), "the sandbox answers")
    story.expect((back.source, back.source_port) == (UPLINK4, 8080), "the host seems to")
    story.pause("the port is published, and the connection was made")

    _rules(story, outside)

    story.say("""Port 9999 listens as well, and nobody published it: it is open to peers on the
        network, and closed to the outside, even for who sends packets straight to the sandbox.""")
    story.run(f"net run --network my-net -- {FETCH} http://{WEB}:9999/", says="I am web")
    story.run(f"ip route add 198.51.100.0/24 via {UPLINK4}", at=outside)
    story.fails(f"{TRY} http://{WEB}:9999/", at=outside)

    story.say("A host port has one holder. Who asks for it again is told whose it is.")
    story.fails("net run --network my-net -p 8080:80 -- true", says=["8080", "web"])

    story.say("""A port can be bound to one address of the host, as here to the loopback: the
        host itself gets an answer, a machine outside finds nobody.""")
    story.run("net publish web 127.0.0.1:5000:80", says="127.0.0.1:5000")
    story.run(f"{FETCH} http://127.0.0.1:5000/", says="I am web")
    story.fails(f"{TRY} http://{UPLINK4}:5000/", at=outside)

    story.say("Ports are published and taken back while the sandbox runs.")
    story.run("net unpublish web 8080:80")
    story.fails(f"{TRY} http://{UPLINK4}:8080/", at=outside)
    story.run("net check")
    story.run("net stop web")
    story.run("net rm my-net")


def _rules(story: Story, outside: Place) -> None:
    story.say("""Which rules did that? `net rules` lists what the firewall is told, in our
        words, and why.""")
    story.run("net rules my-net", says=["publish *:8080/tcp -> 198.51.100.2:80", "present"])
    ask = f"{FETCH} http://{UPLINK4}:8080/"
    if story.stage.has_nft:
        story.say("""And in its own words: the kernel follows the next packet that opens a
            connection to port 8080, and tells each rule that it meets. One map holds all
            published ports, so it takes as long with five thousand of them.""")
        with story.trace("tcp dport 8080 tcp flags syn / syn,ack") as followed:
            story.run(ask, at=outside)
            hits = story.show_rules(followed)
        story.expect([h for h in hits if "map @any4" in h.rule], "the map of ports has it")
        story.expect(hits[-1].chain == "postrouting", "it gets through")
    else:
        story.say("And in its own words, with how often each rule was met:")
        story.run(ask, at=outside)
        story.run("iptables -t nat -nvL NETLIB-PUBLISH", says="NETLIB-PUBLISH")
    story.say("""Only the first packet of a connection is looked up. The kernel notes both
        names of the connection, before and after, and changes all others by that note.""")
    story.run("conntrack -L -p tcp --dport 8080", says=[f"src={OUTSIDE4}", f"src={WEB}"])
