"""The default bridge beside networks of one's own."""

from __future__ import annotations

from netlib.labs.packets import kind
from netlib.labs.stage import FETCH, OUTSIDE4, SERVE, TRY, Place
from netlib.labs.story import Story


def tell(story: Story) -> None:
    """First the default one, then links, then networks of one's own."""
    outside = story.stage.outside(www_example_com=OUTSIDE4)
    story.stage.is_set()
    _default(story, outside)
    _links(story)
    _own(story, outside)
    _apart(story)
    _settings(story)
    story.draw()
    story.pause("web and db are on front, stranger is on back, and old-db is on the default bridge")
    story.say("Away with it all. The default network itself stays, for the next sandbox.")
    story.run("net stop web db stranger old-db")
    story.run("net rm front back")
    story.run("net check")


def _default(story: Story, outside: Place) -> None:
    story.say("Two sandboxes, one that names no network, and one that names `bridge`: the same.")
    story.run("net run -d --name old-app -- sleep 1000")
    story.run(f"net run -d --name old-db --network bridge:expose=5432 -- {SERVE} 5432")
    story.sandbox("old-db", port=5432)
    story.run("net ps", says="bridge")
    db = story.stage.address("old-db", "bridge")
    story.say("They reach each other by address, though nobody said that they belong together ...")
    story.run(f"net exec old-app -- {FETCH} http://{db}:5432/", says="I am old-db")
    story.say(
        """... but not by name. The question goes out to the name server of the host, which
        has never heard of old-db:"""
    )
    with story.capture(story.stage.host.at("eth0")) as uplink:
        story.run("net dns query old-db --from old-app", fails=True, says="NXDOMAIN")
    question, answer = (one.packet for one in story.show(uplink, kind("DNS"), least=2, most=2))
    story.expect(question.target == OUTSIDE4, "the question goes to the machine outside")
    story.expect("NXDOMAIN" in answer.what, "that one does not know the name")


def _links(story: Story) -> None:
    story.say("""The old way around this is a link, made when old-app is started: an entry in its
        hosts file, and variables that tell where the other one is and which ports it exposes.
        It leads one way: old-db learns nothing of old-app.""")
    story.run("net stop old-app")
    story.run("net run -d --name old-app --network bridge:link=old-db:database -- sleep 1000")
    story.run(f"net exec old-app -- {FETCH} http://database:5432/", says="I am old-db")
    story.run(
        "net env old-app", says=["DATABASE_PORT_5432_TCP_ADDR=", "DATABASE_NAME=/old-app/database"]
    )
    story.fails("net exec old-db -- getent hosts old-app")
    story.run("net stop old-app")


def _own(story: Story, outside: Place) -> None:
    story.say("Now networks of our own. Members know each other by name, and by alias.")
    story.run("net create front --subnet 198.51.100.0/24")
    story.run("net create back --subnet 203.0.113.0/24")
    story.run(f"net run -d --name db --network front:alias=sql -- {SERVE} 5432")
    story.run(f"net run -d --name web --network front -- {SERVE} 80")
    story.sandbox("db", port=5432)
    story.run(f"net exec web -- {FETCH} http://db:5432/", says="I am db")
    story.run(f"net exec web -- {FETCH} http://sql:5432/", says="I am db")
    story.say("""This time the question does not leave the host: its own address on the network
        answers. Only what no sandbox is called is passed on to the world outside.""")
    web = story.sandbox("web", port=80)
    with story.capture(web.at("eth0"), story.stage.host.at("eth0")) as road:
        story.run("net dns query db --from web", says="198.51.100.2")
        story.run("net dns query www.example.com --from web", says=OUTSIDE4)
        seen = story.show(road, kind("DNS"), least=6)
    names = [one for one in seen if " db" in one.packet.what]
    story.expect({str(one.point) for one in names} == {"web eth0"}, "db was asked for outside")
    passed_on = [one for one in seen if one.point.device == "eth0" and one.point.name == "host"]
    story.expect(len(passed_on) == 2, "www.example.com was not asked for outside")


def _apart(story: Story) -> None:
    story.say("""Who is on another network is kept out, whatever it asks with: by ping, and by
        TCP. What it sends is dropped on the host, and never arrives.""")
    story.run(f"net run -d --name stranger --network back -- {SERVE} 80")
    db = story.sandbox("db")
    with story.capture(db.at("eth0")) as arriving:
        story.fails("net exec stranger -- ping -c 1 -W 0.3 198.51.100.2")
        story.fails(f"net exec stranger -- {TRY} http://198.51.100.2:5432/")
        story.fails("net dns query db --from stranger", says="NXDOMAIN")
    story.silence(arriving, lambda packet: packet.source == "203.0.113.2")


def _settings(story: Story) -> None:
    story.say(
        """Each network has a bridge of its own, with settings that the others do not
        share; they can be changed while it is in use."""
    )
    story.run("net update -o mtu=1400 back")
    story.run("net exec stranger -- ip link show eth0", says="mtu 1400")
    story.run("net exec web -- ip link show eth0", says="mtu 1500")
