"""Several hosts become a cluster, and a network is on all of them: what crosses, and how."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Annotated, Any

from netlib.labs.packets import Packet
from netlib.labs.stage import FETCH, SERVE, End, Place, batch, sh
from netlib.labs.story import Story

NEEDS = {"etcd": "etcd-server", "bridge": "iproute2"}
MODULES = ("cryptography",)  # by which the cluster makes its certificates
LEASE = 3  # seconds; 10 if nothing is said


def tell(story: Story, *, hosts: Annotated[int, "How many hosts.", range(2, 10)] = 3) -> None:
    """From nothing to packets between hosts, and a host that is lost and comes back."""
    machines, switch = _build(story, hosts)
    story.stage.is_set()
    _found(story, machines)
    vni = _make(story, machines)
    _meet(story, machines)
    _lose(story, machines, switch)
    _look(story, machines, switch, vni)
    _leave(story, machines)


def _build(story: Story, count: int) -> tuple[list[Place], Place]:
    """Hosts on one Ethernet, at 192.0.2.1 and on."""
    stage = story.stage
    machines = [stage.host, *(stage.another_host(f"host{n}") for n in range(2, count + 1))]
    switch = stage.machine("switch")
    batch(switch, ["link add lan type bridge", "link set lan up"])
    for number, machine in enumerate(machines, 1):
        stage.wire(End(machine, "eth0", (f"192.0.2.{number}/24",)), End(switch, f"port{number}"))
        batch(switch, [f"link set port{number} master lan"])
    return machines, switch


def _found(story: Story, machines: list[Place]) -> None:
    first, *others = machines
    story.say(f"""{len(machines)} hosts are on one Ethernet, 192.0.2.0/24. The first one makes a
        cluster: its daemon starts an etcd with certificates of its own. A host that dies is to
        be gone after {LEASE} seconds instead of ten, to make this story shorter.""")
    said = story.run(
        f"net cluster init --advertise-addr 192.0.2.1 --name host1 --lease {LEASE}",
        says="net cluster join --token",
    )
    found = re.search(r"net cluster join --token \S+ \S+", said)
    assert found is not None
    story.say("What it printed is typed on the others.")
    for number, machine in enumerate(others, 2):
        story.run(f"{found[0]} --name host{number}", at=machine)
    _until(story, lambda: sh("net", "node", "ls", at=first).count("Ready") == len(machines),
           "not all nodes are ready")  # fmt: skip
    story.run("net node ls")


def _make(story: Story, machines: list[Place]) -> int:
    last = machines[-1]
    story.say("""A network of the driver overlay is the cluster's: made on one host, it can be used
        on all of them. Attachable: sandboxes may join it by hand. Addresses are chosen from the
        upper half: the lower one is for those who ask for theirs.""")
    story.run(
        "net create -d overlay --attachable --subnet 10.10.0.0/24 --ip-range 10.10.0.128/25 app"
    )
    _until(story, lambda: "app" in sh("net", "ls", at=last), "the last host has no network app")
    story.run("net ls --filter driver=overlay", at=last, says="global")
    return int(_inspect(machines[0])["vni"])


def _meet(story: Story, machines: list[Place]) -> None:
    story.say("""A sandbox on each host joins it; nobody has to know where the others are.
        No address is given twice, chosen or asked for.""")
    for number, machine in enumerate(machines, 1):
        story.run(
            f"net run -d --name box{number} --network app:ip=10.10.0.{10 + number} -- {SERVE} 80",
            at=_typed(story, machine),
        )
        story.sandbox(f"box{number}", port=80, on=machine)
    _until(
        story,
        lambda: all(len(_elsewhere(m)) == len(machines) - 1 for m in machines),
        "not every host knows all sandboxes",
    )
    story.say("They find each other by name, as on one host.")
    for number, machine in enumerate(machines, 1):
        other = number % len(machines) + 1
        story.run(f"net exec box{number} -- {FETCH} http://box{other}/", at=machine,
                  says=f"I am box{other}")  # fmt: skip
    story.draw("app")


def _look(story: Story, machines: list[Place], switch: Place, vni: int) -> None:
    second = machines[1]
    device = next(
        link["ifname"] for link in json.loads(sh("ip", "-json", "link", "show", "type", "vxlan"))
    )
    story.say("""What the first host has for that: for each MAC address elsewhere the host that it
        is behind. Nothing was learned from packets, and nothing is flooded.""")
    story.run(f"bridge fdb show dev {device} | grep dst", says="192.0.2.2")
    story.say(f"""On the wire between the hosts a ping is a datagram for UDP port 4789 (RFC 7348).
        Its header says the network's number, {vni}, and in it is the whole frame that the
        sandbox has sent, with the addresses of the sandboxes.""")
    address = story.stage.address("box2", "app", on=second)
    with story.capture(switch.at("port1")) as wire:
        story.run("net exec box1 -- ping -c 1 -W 2 box2", says="1 received")
        seen = story.show(wire, _carries("ICMP"), least=2, most=2)
    outer, inner = seen[0].packet, seen[0].packet.inner
    assert inner is not None
    story.expect((outer.source, outer.target) == ("192.0.2.1", "192.0.2.2"), "not host to host")
    story.expect((outer.target_port, outer.what) == (4789, f"VNI {vni}"), "not VXLAN's port")
    story.expect(inner.target == address, "it is not for box2")
    story.run("net check")
    story.pause(f"{len(machines)} hosts, a sandbox on each")


def _lose(story: Story, machines: list[Place], switch: Place) -> None:
    number, lost = len(machines), machines[-1]
    story.say(f"""Somebody trips over the cable of host{number}. Its lease ends, and with it all
        that stood in the cluster for it: the others send it nothing more, and its sandbox has no
        name any more.""")
    story.run(f"ip link set port{number} down", at=switch)
    gone = f"box{number}"
    _until(story, lambda: gone not in _elsewhere(machines[0]), f"{gone} is still known")
    story.fails(f"net exec box1 -- {FETCH} --max-time 1 http://{gone}/")
    story.run("net node ls", says="Down")
    story.say("The cable is put back. It takes a moment, and nobody has to do anything.")
    story.run(f"ip link set port{number} up", at=switch)
    _until(story, lambda: gone in _elsewhere(machines[0]), f"{gone} has not come back")
    _until(story, lambda: len(_elsewhere(lost)) == number - 1, "it does not know the others")
    story.run(f"net exec box1 -- {FETCH} http://{gone}/", says=f"I am {gone}")
    story.run("net check", at=lost)


def _leave(story: Story, machines: list[Place]) -> None:
    story.say("Away with it all: removed on one host, the network goes from every one.")
    for number, machine in enumerate(machines, 1):
        story.run(f"net stop box{number}", at=_typed(story, machine))
    story.run("net rm app")
    for machine in reversed(machines[1:]):
        _until(story, lambda m=machine: "app" not in sh("net", "ls", at=m), "app stays")  # type: ignore[misc]
        story.run("net cluster leave", at=machine)
    story.run("net cluster leave --force")


def _typed(story: Story, machine: Place) -> Place | None:
    """Where a line is typed that is shown: on the first host nothing is said of it."""
    return None if machine is story.stage.host else machine


def _carries(kind: str) -> Callable[[Packet], bool]:
    return lambda packet: (
        packet.kind == "VXLAN" and packet.inner is not None and packet.inner.kind == kind
    )


def _inspect(machine: Place) -> dict[str, Any]:
    (found,) = json.loads(sh("net", "inspect", "app", at=machine))
    return dict(found)


def _elsewhere(machine: Place) -> list[str]:
    """The sandboxes on other hosts that a host knows."""
    peers = _inspect(machine)["peers"]
    return [one["sandbox"] for one in peers if one["sandbox"]]


def _until(story: Story, fact: Callable[[], object], otherwise: str) -> None:
    """Wait for what a lease, an etcd and a daemon take together."""
    deadline = time.monotonic() + 30
    while not fact():
        story.expect(time.monotonic() < deadline, otherwise)
        time.sleep(0.1)
