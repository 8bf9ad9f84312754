"""Connect and disconnect while a TCP session on another network lives on."""

from __future__ import annotations

from netlib.labs.packets import Packet, either, tcp
from netlib.labs.stage import FETCH, SERVE, TRY, UPLINK4
from netlib.labs.story import Story


def mine(packet: Packet) -> bool:
    """Whether it is between my-nginx and db, on back."""
    return {packet.source, packet.target} == {"203.0.113.2", "203.0.113.3"}


def tell(story: Story) -> None:
    """A session on back, while front comes and goes."""
    outside = story.stage.outside()
    story.stage.is_set()

    story.say("Two networks. my-nginx and db are on back; nobody is on front yet but a friend.")
    story.run("net create back --subnet 203.0.113.0/24")
    story.run("net create front --subnet 198.51.100.0/24")
    story.run(f"net run -d --name my-nginx --network back -- {SERVE} 80")
    story.run("net run -d --name db --network back -- sleep 1000")
    story.run("net run -d --name friend --network front -- sleep 1000")
    nginx = story.sandbox("my-nginx", port=80)

    story.say("db opens a connection to my-nginx, by name, and keeps it open.")
    with (
        story.capture(nginx.at("eth0")) as wire,
        story.session("net exec db -- curl -sN telnet://my-nginx:80") as session,
    ):
        session.exchange("one", says="you said: one")

        story.say("""my-nginx is brought to front while it runs. A second interface appears, a
            name that friend can ask for, and a port that the world outside can reach.""")
        story.fails("net dns query my-nginx --from friend", says="NXDOMAIN")
        with story.capture(story.stage.host.at("eth0")) as uplink:
            story.run("net connect front my-nginx -p 8080:80")
            story.run("net exec my-nginx -- ip -br -4 addr", says=["eth0", "eth1", "198.51.100.3"])
            story.run("net dns query my-nginx --from friend", says="198.51.100.3")
            story.run(f"{FETCH} http://{UPLINK4}:8080/", at=outside, says="I am my-nginx")
            story.show(uplink, either(tcp("SYN"), tcp("SYN,ACK")), least=2)
        session.exchange("two", says="you said: two")
        story.draw()
        story.pause("my-nginx is on both networks, and db is connected to it")

        story.say("""And away again: the interface, the name and the port are gone at once. The
            process is the same, and so is its connection.""")
        story.run("net disconnect front my-nginx")
        story.run("net exec my-nginx -- ip -br -4 addr", says="eth0", never="eth1")
        story.fails("net dns query my-nginx --from friend", says="NXDOMAIN")
        story.fails(f"{TRY} http://{UPLINK4}:8080/", at=outside)
        session.exchange("three", says="you said: three")

        story.say("""On back we saw one connection that was opened, then three questions with
            their answers; no reset, and nobody who had to connect again.""")
        told = either(tcp("SYN"), tcp("PSH,ACK"), tcp("RST"), tcp("RST,ACK"), tcp("FIN,ACK"))
        seen = story.show(wire, lambda packet: mine(packet) and told(packet), least=7)
    flags = [one.packet.what.partition(" ")[0] for one in seen]
    story.expect(flags == ["SYN", *["PSH,ACK"] * 6], f"it was not one connection: {flags}")

    story.say("""The address that front gave is free again, and goes to somebody else only when
        all others have had their turn.""")
    story.run("net run --network front -- ip -br -4 addr show eth0", says="198.51.100.4")
    story.run("net check")
    story.run("net stop my-nginx db friend")
    story.run("net rm front back")
