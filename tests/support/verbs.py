"""Each verb on the same two networks, and what it may not leave behind when it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from netlib import Net
from support.host import Host

FRONT, BACK = "198.51.100.0/25", "198.51.100.128/25"
PORTS = ("8080:80", "[::1]:7000:70/udp")


def connect(net: Net) -> object:
    """To a second network, which gets the default route."""
    return net.connect("back", "web", publish=PORTS, gateway_priority=5)


VERBS: dict[str, Callable[[Net], object]] = {
    "create": lambda net: net.create("third", subnets=["203.0.113.0/25"]),
    "connect": connect,
    "publish": lambda net: net.publish("web", PORTS),
    "update": lambda net: net.update("back", options={"icc": "false", "mtu": "1300"}),
    "create-sandbox": lambda net: net.create_sandbox("db"),
    "disconnect": lambda net: net.disconnect("front", "web"),
    "unpublish": lambda net: net.unpublish("web", ["8443:443"]),
    "remove": lambda net: net.remove("back"),
}
BUILDING = ["create", "connect", "publish", "update", "create-sandbox"]
# What brings back the host that a verb was tried on.
BACK_AGAIN: dict[str, Callable[[Net], object]] = {
    "create": lambda net: net.remove("third"),
    "connect": lambda net: net.disconnect("back", "web"),
    "publish": lambda net: net.unpublish("web", ["80", "70/udp"]),
    "update": lambda net: net.update("back", options={"icc": "true", "mtu": "1500"}),
    "create-sandbox": lambda net: net.remove_sandbox("db"),
    "disconnect": lambda net: net.connect("front", "web", publish=["8443:443"]),
    "unpublish": lambda net: net.publish("web", ["8443:443"]),
    "remove": lambda net: net.create("back", subnets=[BACK]),
}


@contextmanager
def tried(host: Host) -> Iterator[Net]:
    """Two networks, and a sandbox on the first of them."""
    with Net(host.state_dir) as net:
        net.create("front", subnets=[FRONT], ipv6=True)
        net.create("back", subnets=[BACK])
        net.create_sandbox("web")
        net.connect("front", "web", publish=["8443:443"])
        yield net


def records(net: Net) -> dict[str, str]:
    """All of the state but what only moves forward."""
    every = net.engine.state.store.range(" ", "~")
    return {r.key: r.value for r in every if not r.key.startswith(("cursor/", "host/"))}


def facts(host: Host) -> list[str]:
    """What is on the host but for what follows carriers, which come and go a little later.

    With its carrier a bridge gets an address of its own of the link, and the routes of that.
    """
    return [
        fact.replace(" linkdown", "")
        for fact in host.leftovers()
        if not fact.startswith("route multicast") and "fe80:" not in fact
    ]
