"""Forwarding off and on, by the sysctl and by the policy of FORWARD."""

from __future__ import annotations

from netlib.labs.packets import tcp
from netlib.labs.stage import FETCH, OUTSIDE4, TRY, UPLINK4, Place, sh
from netlib.labs.story import Story

NEEDS = {"iptables": "iptables", "sysctl": "procps"}
URL = f"http://{OUTSIDE4}/"
WEB = "198.51.100.2"


def tell(story: Story) -> None:
    """Two switches and a mask."""
    # A machine's own setting is inherited by new network namespaces.
    sh("sysctl", "-w", "net.ipv4.conf.all.forwarding=0")
    outside = story.stage.outside()
    story.stage.answers(outside, 80)
    story.stage.is_set()

    story.say("A host as it comes: it forwards nothing.")
    story.run("net host status", says="IPv4 forwarding  off")
    story.say("""A network that leads somewhere needs forwarding, so it is switched on, and who
        did it is noted.""")
    story.run("net create my-net --subnet 198.51.100.0/24")
    story.run("net run -d --name web --network my-net -- sleep 1000")
    story.run("net host status", says="IPv4 forwarding  on (by network my-net")
    web = story.sandbox("web")
    points = web.at("eth0"), story.stage.host.at("eth0")
    with story.capture(*points) as road:
        story.run(f"net exec web -- {FETCH} {URL}", says=f"you are {UPLINK4}")
        seen = story.show(road, tcp("SYN"), least=2)
    story.say("""That is the same packet twice: as it left web, and as it left the host, where
        it got the host's address (masquerading), to which answers find back.""")
    story.expect([one.packet.source for one in seen] == [WEB, UPLINK4], "it was not masqueraded")

    _sysctl(story, web)
    _policy(story, web)
    story.draw()
    story.pause("everything is forwarded again")
    _unmasked(story, outside)
    _back(story)


def _stuck(story: Story, web: Place) -> None:
    with story.capture(web.at("eth0"), story.stage.host.at("eth0")) as road:
        story.fails(f"net exec web -- {TRY} {URL}", says="timed out")
        seen = story.show(road, tcp("SYN"))
    story.expect({one.point.name for one in seen} == {"web"}, "it left the host")


def _sysctl(story: Story, web: Place) -> None:
    story.say("""First the sysctl. Somebody turns it off, as rebooted machines and other
        programs do: packets leave web, and that was that.""")
    story.run("sysctl -w net.ipv4.conf.all.forwarding=0")
    _stuck(story, web)
    story.run("net host status", says="IPv4 forwarding  off")
    story.fails("net check", says="network my-net")
    story.say("`net repair` would mend it. This does as well, and it lasts beyond a boot:")
    story.run("net host forwarding on", says="IPv4 forwarding is on")
    story.run("sysctl net.ipv4.conf.all.forwarding", says="= 1")
    story.run("cat /etc/sysctl.d/*netlib*", says="net.ipv4.ip_forward = 1")
    story.run(f"net exec web -- {FETCH} {URL}", says="I am outside")


def _policy(story: Story, web: Place) -> None:
    story.say("""Then the policy of FORWARD. A program that wants to forward nothing but its
        own sets it to DROP, and that is for everybody's packets.""")
    story.run("iptables -P FORWARD DROP")
    if story.stage.firewall == "iptables":
        story.say("""Our rules stand in iptables, too, and in front of the policy: what they let
            through never gets there.""")
        story.run("iptables -S FORWARD", says=["-P FORWARD DROP", "NETLIB"])
        story.run(f"net exec web -- {FETCH} {URL}", says="I am outside")
        return
    story.say("""A packet must get past every table, so no rule in one of ours can help. The
        status names what is in the way.""")
    _stuck(story, web)
    story.run("net host status", says=["FORWARD policy drop", "in the way"])
    story.say("""One way leaves the policy: what our networks allowed carries a mark, and one
        rule in that chain lets packets with the mark pass, of all our networks.""")
    story.fails("net check", says="is in the way")
    story.run("net repair", says="mended")
    story.run("iptables -S FORWARD", says=["-P FORWARD DROP", "mark"])
    story.run(f"net exec web -- {FETCH} {URL}", says="I am outside")
    story.run("net host status", never="in the way")
    story.say("""The other sets it to ACCEPT, for everybody's packets. That can be taken back, and
        what our networks allowed passes all the same.""")
    story.run("net host forward-policy accept", says="FORWARD accept")
    story.run(f"net exec web -- {FETCH} {URL}", says="I am outside")
    story.run("net host forward-policy leave", says="FORWARD drop")
    story.run(f"net exec web -- {FETCH} {URL}", says="I am outside")


def _unmasked(story: Story, outside: Place) -> None:
    story.say(
        "A network can also go out with its own addresses, where the world knows the way back."
    )
    story.run("net create plain -o masquerade=false --subnet 203.0.113.0/24")
    story.run(f"ip route add 203.0.113.0/24 via {UPLINK4}", at=outside)
    story.run(f"net run --network plain -- {FETCH} {URL}", says="you are 203.0.113.2")
    story.run("net rm plain")


def _back(story: Story) -> None:
    story.say("""Back again. While a network needs forwarding it is not switched off;
        afterwards it is, if it was us who switched it on.""")
    story.fails("net host forwarding off", says="needed by my-net")
    story.run("net stop web")
    story.run("net rm my-net")
    story.run("net host forwarding off", says="IPv4 forwarding is off")
    story.run("sysctl net.ipv4.conf.all.forwarding", says="= 0")
