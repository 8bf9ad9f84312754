"""Every keeper of relays: strict, all or nothing, and honest about what is there."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from support.host import Host
from support.relay import relay

from netlib.errors import AlreadyThere, KernelError, NotThere, PortHeld
from netlib.kernel.netfilter import Steps
from netlib.plan import Change, Create, Delete
from netlib.relay.door import RelayDoor
from netlib.wiring import Relay

pytestmark = pytest.mark.kernel

ONE = relay("::1", 8080, "2001:db8:1::2")
OTHER = relay("::1", 8081, "2001:db8:1::3", protocol="udp", sources=("2001:db8::/32",))


@pytest.fixture(params=["process"])
def relays(host: Host, request: pytest.FixtureRequest) -> Iterator[Steps]:
    """An empty keeper of relays."""
    door = RelayDoor(host.state_dir)
    yield door
    door.remove([Delete(noun) for noun in door.marked()])


def test_nothing_is_there_at_first(relays: Steps) -> None:
    """A fresh keeper has nothing to show, and nothing needs to run for that."""
    assert relays.observe([ONE]) == []
    assert relays.marked() == []


def test_what_is_created_is_observed_as_it_was_given(relays: Steps) -> None:
    """All attributes come back, and only what is there."""
    relays.do([Create(ONE), Create(OTHER)])

    assert relays.observe([OTHER, ONE]) == [OTHER, ONE]
    assert relays.observe([relay("::1", 9999, "2001:db8:1::2")]) == []
    assert sorted(relays.marked(), key=str) == sorted([ONE, OTHER], key=str)


def test_a_relay_is_made_once(relays: Steps) -> None:
    """A second Create is refused and takes nothing away."""
    relays.do([Create(ONE)])

    with pytest.raises(AlreadyThere, match="8080/tcp of ::1"):
        relays.do([Create(ONE)])
    assert relays.observe([ONE]) == [ONE]


@pytest.mark.parametrize("others", [(), (OTHER,)], ids=["none at all", "others"])
def test_what_is_absent_can_not_be_deleted_or_changed(
    relays: Steps, others: tuple[Relay, ...]
) -> None:
    """Strict: NotThere, whether or not anything else is there."""
    relays.do([Create(noun) for noun in others])

    with pytest.raises(NotThere, match="8080/tcp of ::1"):
        relays.do([Delete(ONE)])
    with pytest.raises(NotThere, match="8080/tcp of ::1"):
        relays.do([Change(ONE, relay("::1", 8080, "2001:db8:1::9"))])


def test_steps_that_come_after_a_failure_take_the_earlier_ones_back(relays: Steps) -> None:
    """All or nothing: what was created, deleted or changed before is as it was."""
    relays.do([Create(ONE), Create(OTHER)])
    wider = relay("::1", 8080, "2001:db8:1::2", count=1, sources=("2001:db8::/32",))

    with pytest.raises(KernelError):
        relays.do([
            Delete(OTHER),
            Change(ONE, wider),
            Create(relay("::1", 8090, "2001:db8:1::2")),
            Create(ONE),
        ])  # fmt: skip
    assert relays.observe([ONE, OTHER]) == [ONE, OTHER]
    assert len(relays.marked()) == 2


def test_a_port_that_somebody_listens_on_is_named(relays: Steps) -> None:
    """PortHeld says which port of a range, and none of the range is taken."""
    with socket.create_server(("::1", 8085), family=socket.AF_INET6):
        with pytest.raises(PortHeld, match="8085/tcp of ::1"):
            relays.do([Create(OTHER), Create(relay("::1", 8080, "2001:db8:1::2", count=10))])
        assert relays.marked() == []
    relays.do([Create(relay("::1", 8080, "2001:db8:1::2", count=10))])


def test_two_relays_can_not_have_one_port(relays: Steps) -> None:
    """A range that runs into another relay is refused, though the keys differ."""
    relays.do([Create(ONE)])

    with pytest.raises(PortHeld, match="8080/tcp of ::1"):
        relays.do([Create(relay("::1", 8075, "2001:db8:1::2", count=10))])
    assert relays.marked() == [ONE]


def test_removal_does_what_it_can(relays: Steps) -> None:
    """What is gone already is no failure, and the rest goes."""
    relays.do([Create(ONE)])

    relays.remove([Delete(OTHER), Delete(ONE), Delete(ONE)])

    assert relays.marked() == []


def test_what_was_deleted_can_be_created_again(relays: Steps) -> None:
    """A Delete is undone by a Create of the same noun, also within one transaction."""
    relays.do([Create(ONE)])
    relays.do([Delete(ONE)])
    relays.do([Create(ONE)])
    relays.do([Delete(ONE), Create(ONE)])

    assert relays.marked() == [ONE]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_an_address_follows_a_wildcard_in_one_step(relays: Steps, protocol: str) -> None:
    """The wildcard's socket is in the way of the address's: it goes first, and back on failure."""
    wildcard = relay("::", 8080, "198.51.100.2", protocol=protocol, count=2)
    local = relay("::1", 8080, "2001:db8:1::2", protocol=protocol, count=2)
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    relays.do([Create(wildcard)])
    with socket.socket(socket.AF_INET6, kind) as holder:
        holder.bind(("::1", 9000))
        if protocol == "tcp":
            holder.listen()
        with pytest.raises(PortHeld, match="9000"):
            relays.do([
                Delete(wildcard),
                Create(local),
                Create(relay("::1", 9000, "2001:db8:1::2", protocol=protocol)),
            ])  # fmt: skip
        assert relays.marked() == [wildcard]

    relays.do([Delete(wildcard), Create(local)])

    assert relays.marked() == [local]


def test_a_relay_changes_all_but_its_key(relays: Steps) -> None:
    """More ports, fewer ports, another target."""
    relays.do([Create(ONE)])
    wider = relay("::1", 8080, "2001:db8:1::9", 81, count=4)

    relays.do([Change(ONE, wider)])
    assert relays.observe([ONE]) == [wider]

    relays.do([Change(wider, ONE)])
    assert relays.observe([ONE]) == [ONE]
    with socket.create_server(("::1", 8083), family=socket.AF_INET6):
        pass  # given back
