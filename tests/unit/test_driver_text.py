"""What the drivers' networks are, as commands; and as messages, where a kernel lacks the module."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.golden import Golden
from support.overlay import Placed

from netlib.kernel.fake import FakeKernel
from netlib.net import Net
from netlib.registry import Registry
from netlib.store.memory import MemoryStore

CASES: dict[str, dict[str, object]] = {
    "macvlan": {"driver": "macvlan", "gateways": ["192.0.2.100"]},
    "macvlan-shim": {"driver": "macvlan", "options": {"host_shim": "192.0.2.50"}},
    "macvlan-internal": {"driver": "macvlan", "internal": True},
    "macvlan-passthru": {"driver": "macvlan", "options": {"mode": "passthru"}},
    "macvlan-vlan": {"driver": "macvlan", "options": {"parent": "eth0.30", "bcqueuelen": "2000"}},
    "ipvlan-l2": {"driver": "ipvlan", "gateways": ["192.0.2.100"]},
    "ipvlan-l3": {"driver": "ipvlan", "options": {"mode": "l3", "flag": "vepa"}},
    "ptp": {"driver": "ptp"},
    # Not one that is chosen: that follows from who the machine is.
    "overlay": {"driver": "overlay", "subnets": ["192.0.2.0/24", "2001:db8::/64"]},
    "overlay-flood": {"driver": "overlay", "options": {"flood": "on", "icc": "off"}},
    "overlay-internal": {"driver": "overlay", "internal": True},
}


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    """A host in memory, on which ids follow one another."""
    numbers = iter(range(1, 100))
    monkeypatch.setattr("netlib.names.new_id", lambda realm="": f"{next(numbers):02x}" * 32)
    registry = Registry({"overlay": Placed()})
    with Net(store=MemoryStore(), kernel=FakeKernel(), registry=registry) as net:
        yield net


@pytest.mark.parametrize("case", CASES)
def test_a_network_and_an_endpoint_as_commands(net: Net, case: str, golden: Golden) -> None:
    """What `net create` and `net connect` do."""
    made: dict[str, object] = {"subnets": ["192.0.2.0/24"], **CASES[case]}
    net.create_sandbox("web")
    network = net.plan.create("lan", **made)  # type: ignore[arg-type]
    text = network.text()
    net.create("lan", **made)  # type: ignore[arg-type]
    text += "\n" + net.plan.connect("lan", "web").text()
    golden.check(f"drivers/{case}.txt", text)


class _Socket:
    """Knows which devices there are, as an rtnetlink socket does."""

    def index(self, name: str) -> int:
        return {"eth0": 2, "eth0.30": 3}.get(name, 9)


class _Session:
    """Where requests would go."""

    def rtnl(self, netns: object) -> _Socket:
        return _Socket()

    def fd(self, netns: object) -> int:
        return 7


@pytest.mark.parametrize("case", ["macvlan-vlan", "macvlan-internal", "ipvlan-l2", "ipvlan-l3"])
def test_links_as_messages_that_an_independent_reader_understands(
    net: Net, case: str, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind by kind, with the attributes of linux/if_link.h; pyroute2 takes them apart.

    Those that it does not know are in the bytes that follow.
    """
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    from netlib.kernel import links
    from netlib.wiring import Link

    made: dict[str, object] = {"subnets": ["192.0.2.0/24"], **CASES[case]}
    net.create_sandbox("web")
    net.create("lan", **made)  # type: ignore[arg-type]
    net.connect("lan", "web")
    nouns = [
        *net.inspect("lan").wiring,
        *(n for r in net.engine.state.endpoints_of("web") for n in r.wiring),
    ]
    monkeypatch.setattr("os.urandom", bytes)  # of so many bytes: the names on the way
    rows = []
    for noun in nouns:
        if isinstance(noun, Link):
            for item in links.create(noun, _Session()):  # type: ignore[arg-type]
                if item is not None:
                    message = ifinfmsg(message_of(item[1]))
                    message.decode()
                    rows.append(json.dumps(plain(message), sort_keys=True))
                    rows.append(item[1].body.hex(" ", 4))
    golden.check(f"drivers/{case}.messages", "\n".join([*rows, ""]))


def message_of(request: object) -> bytes:
    """A request with its netlink header."""
    from netlib.kernel.netlink import Request

    assert isinstance(request, Request)
    size = 16 + len(request.body)
    head = size.to_bytes(4, "little") + request.kind.to_bytes(2, "little")
    return head + request.flags.to_bytes(2, "little") + bytes(8) + request.body


def plain(message: object) -> object:
    """What pyroute2 read, without its bookkeeping."""
    if isinstance(message, dict):
        found = {k: plain(v) for k, v in message.items() if k not in ("header", "event", "__align")}
        return {k: v for k, v in found.items() if v not in ([], {}, None, 0)}
    if isinstance(message, list | tuple):
        return [plain(item) for item in message]
    return message if isinstance(message, int | str) else str(message)
