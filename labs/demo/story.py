"""The main story: two networks, a published port, isolation, and no trace after."""

from __future__ import annotations

from netlib.labs.stage import FETCH, SERVE, TRY, UPLINK4
from netlib.labs.story import Story

URL = f"http://{UPLINK4}:8080/"
PAGE = "I am web"


def tell(story: Story) -> None:
    """The whole day of a network."""
    outside = story.stage.outside()
    story.stage.is_set()

    story.say("Two networks. Who is on the same one can talk; the two are kept apart.")
    story.run("net create front")
    story.run("net create back")
    story.run("net ls", says=["front", "back"])

    story.say("A web server, reached from outside at port 8080, and a client on each network.")
    story.run(f"net run -d --name web --network front -p 8080:80 -- {SERVE} 80")
    story.run("net run -d --name friend --network front -- sleep 1000")
    story.run("net run -d --name stranger --network back -- sleep 1000")
    story.sandbox("web", port=80)
    story.run("net ps", says="8080->80/tcp")
    story.draw()

    web = story.stage.address("web", "front")
    story.say("From a machine outside, by the host's address and the published port:")
    story.run(f"{FETCH} {URL}", at=outside, says=PAGE)
    story.say("From a peer on the same network, by its name:")
    story.run(f"net exec friend -- {FETCH} http://web/", says=PAGE)
    story.say("From the other network the sandbox itself can't be reached ...")
    story.fails(f"net exec stranger -- {TRY} http://{web}/")
    story.say("... but what it publishes can, like from anywhere:")
    story.run(f"net exec stranger -- {FETCH} {URL}", says=PAGE)
    story.pause("two networks, three sandboxes, one published port")

    story.say("Networks come and go under a running sandbox.")
    story.run("net disconnect front web")
    story.fails(f"{TRY} {URL}", at=outside)
    story.run("net connect front web -p 8080:80")
    story.run(f"{FETCH} {URL}", at=outside, says=PAGE)

    story.say("Everything asked for is there, and nothing else:")
    story.run("net check")

    story.say("Away with it all.")
    story.run("net stop web friend stranger")
    story.run("net rm front back")
    story.run("net ps", never=["web", "friend", "stranger"])
    story.say("What is left on the host is what `net host` names, ready for the next network:")
    story.run("net host status", says="IPv4 forwarding  on")
