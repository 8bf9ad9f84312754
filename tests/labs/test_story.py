"""A story runs what it shows, and ends where it is not true."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from typing import Any

import pytest
from support.host import Host

from netlib.labs.capture import Capture, Point, call_in
from netlib.labs.packets import either, kind, tcp
from netlib.labs.stage import Place, Stage
from netlib.labs.story import Story, Untrue

pytestmark = pytest.mark.kernel


class Notes:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def event(self, kind: str, **facts: Any) -> None:
        """Note it."""
        self.events.append({"event": kind, **facts})

    def pause(self, why: str, places: Sequence[Place]) -> None:
        """Note it."""
        self.event("pause", why=why)


@pytest.fixture
def notes() -> Notes:
    """What was told."""
    return Notes()


@pytest.fixture
def story(notes: Notes, host: Host) -> Story:
    """A story on a host of its own."""
    return Story(Stage(), notes)


def test_what_is_shown_is_what_is_run(story: Story, notes: Notes) -> None:
    """The line goes to a shell as it stands."""
    assert story.run("echo one | tr o x; echo two >&2", says=["xne", "two"]) == "xne\ntwo"

    assert notes.events == [
        {"event": "type", "at": "", "line": "echo one | tr o x; echo two >&2", "status": 0,
         "output": "xne\ntwo"}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "claims", "why"),
    [
        ("false", {}, "should have worked"),
        ("true", {"fails": True}, "should have failed"),
        ("echo one", {"says": "two"}, "does not say 'two'"),
        ("echo one", {"never": "one"}, "says 'one'"),
        ("echo one", {"says": ["one", "two"]}, "does not say 'two'"),
    ],
)
def test_a_claim_that_is_not_so_ends_the_story(
    story: Story, line: str, claims: dict[str, Any], why: str
) -> None:
    """What was printed stays told."""
    with pytest.raises(Untrue, match=re.escape(why)):
        story.run(line, **claims)


def test_a_command_that_fails_as_told(story: Story) -> None:
    """Some stories are about what does not work."""
    assert story.fails("echo no; false", says="no") == "no"


def test_a_session_goes_on_while_the_story_does(story: Story, notes: Notes) -> None:
    """A line in, a line out; it ends with its `with`."""
    with story.session("cat") as cat:
        cat.exchange("still there?", says="there")
        story.run("true")
        with pytest.raises(Untrue, match="does not say 'gone'"):
            cat.exchange("still there?", says="gone")

    assert [event["event"] for event in notes.events] == ["type", "exchange", "type", "exchange"]


def test_packets_are_shown_in_the_order_of_their_times(
    story: Story, notes: Notes, host: Host
) -> None:
    """Whatever device and namespace they were seen in."""
    outside = host.outsider()
    points = [story.stage.host.at("eth0"), Point(name="outside", netns=outside.netns.path,
                                                 device="eth0")]  # fmt: skip
    with story.capture(*points) as road:
        assert outside.call(
            lambda: socket.socket().connect_ex(("192.0.2.1", 9))
        )  # nobody listens there
        seen = story.show(road, either(tcp("SYN"), tcp("RST,ACK")), least=4)

    assert [(str(one.point), one.leaves, one.packet.what) for one in seen] == [
        ("outside eth0", True, "SYN"),
        ("host eth0", False, "SYN"),
        ("host eth0", True, "RST,ACK"),
        ("outside eth0", False, "RST,ACK"),
    ]
    assert notes.events[-1]["lines"][0][:2] == ["outside eth0", "out"]


def test_silence_is_a_claim(story: Story, host: Host) -> None:
    """A packet that should not come by ends the story, and so does one that should."""
    with story.capture(Point(name="host", netns="/proc/thread-self/ns/net", device="lo")) as seen:
        story.silence(seen, kind("UDP"))
        with pytest.raises(Untrue, match="of 1 packets 0 came by"):
            story.expect(seen.wait(kind("UDP"), timeout=0), "of 1 packets 0 came by")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"?", ("127.0.0.1", 9))
        with pytest.raises(Untrue, match="no such packets"):
            story.silence(seen, kind("UDP"))


def test_a_device_that_is_not_there(host: Host) -> None:
    """Is an error of the system's, and leaves no socket."""
    with pytest.raises(OSError, match="No such device"):
        Capture([Point(name="host", netns="/proc/thread-self/ns/net", device="nope0")])


def test_what_goes_wrong_in_a_namespace_is_raised_here(host: Host) -> None:
    """As if it had been called by the caller."""
    with pytest.raises(ZeroDivisionError):
        call_in("/proc/thread-self/ns/net", lambda: 1 / 0)  # type: ignore[arg-type, return-value]
