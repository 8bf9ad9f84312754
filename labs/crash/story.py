"""Killed half way, and mended."""

from __future__ import annotations

from netlib.labs.packets import either, tcp
from netlib.labs.stage import FETCH, SERVE, TRY, UPLINK4, Place
from netlib.labs.story import Story

KILLED = "python3 -m netlib.labs.killed"
URL = f"http://{UPLINK4}:8080/"
WEB = "198.51.100.2"


def tell(story: Story) -> None:
    """A connect, a disconnect and a firewall come to grief."""
    outside = story.stage.outside()
    story.stage.is_set()
    story.say("A network, and a server that runs already and is on none.")
    story.run("net create my-net --subnet 198.51.100.0/24")
    story.run(f"net run -d --name web --network none -- {SERVE} 80")
    story.sandbox("web", port=80)
    _connect(story, outside)
    _disconnect(story)
    if story.stage.has_nft:
        _flush(story, outside)
    story.say("Away with it all.")
    story.run("net stop web")
    story.run("net rm my-net")


def _connect(story: Story, outside: Place) -> None:
    story.say("""To connect it takes these steps, in four stages: links, settings, addresses and
        routes, and the firewall, so that the port opens last.""")
    story.run("net connect --dry-run my-net web -p 8080:80", says=["ip link add", "8080"])
    story.say("""We have the process killed with SIGKILL just before the fourth stage: the links
        are there, the port is not.""")
    story.fails(f"{KILLED} 4 connect my-net web -p 8080:80", says="Killed")
    story.run("net exec web -- ip -br -4 addr", says=f"{WEB}/24")
    with story.capture(story.stage.host.at("eth0")) as uplink:
        story.fails(f"{TRY} {URL}", at=outside)
        opening, refusal = story.show(uplink, either(tcp("SYN"), tcp("RST,ACK")), least=2, most=2)
    story.expect(not opening.leaves and refusal.leaves, "the host itself should have refused")
    story.say("""The host itself refuses the connection, as nothing leads from its port 8080 to
        web. But it is known what was meant:""")
    story.fails("net check", says="web on my-net: it is pending")
    story.pause("web is half connected: the links are there, the published port is not")

    story.say("""Who asked for it was never told that it is done; so it is taken back. What
        that means can be seen first, as always.""")
    story.run("net repair --dry-run", says="ip link del")
    story.run("net repair", says="web on my-net: making it was interrupted: removed")
    story.run("net check")
    story.run("net exec web -- ip -br -4 addr", never=WEB)
    story.say("Nothing is in the way of a second try, and now a packet finds its way:")
    story.run("net connect my-net web -p 8080:80")
    with story.capture(story.stage.host.at("eth0")) as uplink:
        story.run(f"{FETCH} {URL}", at=outside, says="I am web")
        story.show(uplink, either(tcp("SYN"), tcp("SYN,ACK")), least=2)
    story.draw()


def _disconnect(story: Story) -> None:
    story.say("""The other way round, a removal that was interrupted is finished. This one is
        killed before its second stage.""")
    story.fails(f"{KILLED} 2 disconnect my-net web", says="Killed")
    story.fails("net check", says="web on my-net: it is removing")
    story.run("net repair", says="removed")
    story.run("net check")
    story.run("net exec web -- ip -br link", never="eth0")
    story.run("net connect my-net web -p 8080:80")


def _flush(story: Story, outside: Place) -> None:
    story.say("""Somebody flushes the firewall, ours and all others. Nothing died, but nothing
        is published any more. It is noticed and put back in the same way.""")
    story.run(f"{FETCH} {URL}", at=outside, says="I am web")
    story.run("nft flush ruleset")
    story.fails(f"{TRY} {URL}", at=outside)
    story.fails("net check", says="8080")
    story.run("net repair", says="mended")
    story.run(f"{FETCH} {URL}", at=outside, says="I am web")
    story.run("net check")
