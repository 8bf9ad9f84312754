"""The networks host and none, and container:NAME."""

from __future__ import annotations

from netlib.labs.packets import either, tcp
from netlib.labs.stage import FETCH, SERVE, TRY, UPLINK4
from netlib.labs.story import Story

NAMESPACE = "readlink /proc/self/ns/net"


def tell(story: Story) -> None:
    """The host's stack, no network, another one's stack."""
    outside = story.stage.outside()
    story.stage.is_set()

    story.say("""On `host` a sandbox is not set apart: it is in the host's network namespace,
        and its port is the host's. To publish it would change nothing, and net says so.""")
    host = story.run(NAMESPACE)
    story.run(f"net run --network host -- {NAMESPACE}", says=host)
    story.run(f"net run -d --name front-door --network host -p 8080:80 -- {SERVE} 80",
              says="warning: nothing is published on host")  # fmt: skip
    story.stage.listening(story.stage.host, 80)
    story.run(f"{FETCH} http://{UPLINK4}/", at=outside, says="you are 192.0.2.100")
    story.fails(f"{TRY} http://{UPLINK4}:8080/", at=outside)

    story.say("On `none` it has `lo`, which is up, and nothing else: it reaches itself.")
    story.run("net run -d --name hermit --network none -- sleep 1000")
    story.run("net exec hermit -- ip -br link", says="lo", never="eth0")
    story.run("net exec hermit -- ping -c 1 -W 1 127.0.0.1", says="1 received")
    story.fails(f"net exec hermit -- {TRY} http://{UPLINK4}/")
    story.say("It may get a network later.")
    story.run("net create my-net --subnet 198.51.100.0/24")
    story.run("net connect my-net hermit")
    story.run("net exec hermit -- ip -br -4 addr", says="198.51.100.2")

    story.say("""A sidecar shares the stack of another sandbox. No address is given out for it,
        and what it listens at is that one's port, published ports included.""")
    story.run(f"net run -d --name app --network my-net -p 8081:81 -- {SERVE} 80")
    app = story.sandbox("app", port=80)
    story.run(f"net run -d --name sidecar --network container:app -- {SERVE} 81")
    story.stage.listening(app, 81)
    stack = story.run(f"net exec app -- {NAMESPACE}")
    story.expect(stack != host, "app is on the host")
    story.run(f"net exec sidecar -- {NAMESPACE}", says=stack)
    story.run("net ps", says="sidecar")
    with story.capture(app.at("eth0"), app.at("lo")) as inside:
        story.say("""Within the stack they meet at 127.0.0.1, over lo; from outside the sidecar
            is found at app's address, over the one eth0 that both have.""")
        story.run(f"net exec sidecar -- {FETCH} http://127.0.0.1:80/", says="you are 127.0.0.1")
        story.run(f"{FETCH} http://{UPLINK4}:8081/", at=outside, says="you are 192.0.2.100")
        seen = story.show(inside, either(tcp("SYN")), least=3)
    devices = [one.point.device for one in seen]
    story.expect(devices == ["lo", "lo", "eth0"], f"they were seen at {devices}")
    story.expect(seen[-1].packet.target == "198.51.100.3", "the sidecar has app's address")
    story.draw()
    story.pause("front-door is on host, hermit on my-net by now, and sidecar shares app's stack")
    story.run("net check")
    story.run("net stop sidecar app hermit front-door")
    story.run("net rm my-net")
