"""What the keeper knows of names, as its source tells it."""

from __future__ import annotations

import threading
import time

import pytest
from support.names import endpoint
from support.patience import eventually

from netlib.dns.facts import NetworkNames, Update
from netlib.dns.feed import Feed
from netlib.dns.loop import Loop

NET = NetworkNames(id="n1", name="my-net")
OLD = Update(revision=3, since=9, full=True, networks=(NET,))


@pytest.fixture
def passed() -> list[Update]:
    """What was passed on."""
    return []


@pytest.fixture
def feed(passed: list[Update]) -> Feed:
    """At revision 9."""
    feed = Feed(None, passed.append)
    everything = Update(
        revision=9, full=True, networks=(NET,), endpoints=(endpoint("web", "192.0.2.2"),)
    )
    feed.take(everything)
    passed.clear()
    return feed


def test_what_is_late_is_known_already(feed: Feed, passed: list[Update]) -> None:
    """It was read by two at the same time."""
    feed.take(Update(revision=8, full=True, networks=(NET,)))
    feed.take(Update(revision=9, since=8, gone=("n1",)))
    assert (feed.revision, passed) == (9, [])


def test_an_older_state_that_was_put_back_counts(feed: Feed, passed: list[Update]) -> None:
    """Its revision is lower than the one that was asked for changes since."""
    feed.take(OLD)
    assert (feed.revision, passed) == (3, [OLD])
    assert feed.everything() == Update(revision=3, full=True, networks=(NET,))


def test_an_older_state_is_gone_back_to_once(feed: Feed, passed: list[Update]) -> None:
    """Two may have read it, and one of them heard already how it went on."""
    feed.take(OLD)
    feed.take(Update(revision=4, since=3))
    feed.take(OLD)
    assert [update.revision for update in passed] == [3, 4]


def test_what_was_read_meanwhile_is_asked_for_changes_since(passed: list[Update]) -> None:
    """Of a state that is put back nothing would be noticed where it goes on from what was seen."""
    asked: list[int] = []

    def source(since: int, timeout_seconds: float) -> None:
        asked.append(since)

    feed, loop, ended = Feed(source, passed.append), Loop(), threading.Event()
    feed.take(Update(revision=7, full=True))
    feed.follow(loop, ended)
    eventually(lambda: asked and asked[-1] == 7)
    feed.take(Update(revision=9, since=7))
    eventually(lambda: asked[-1] == 9)
    ended.set()
    loop.close()


def test_an_empty_state_is_not_read_without_a_pause(passed: list[Update]) -> None:
    """There is nothing after revision 0 that could be waited for."""
    asked: list[int] = []

    def source(since: int, timeout_seconds: float) -> Update:
        asked.append(since)
        return Update(revision=0, since=since, full=True)

    feed, loop, ended = Feed(source, passed.append), Loop(), threading.Event()
    feed.follow(loop, ended)
    eventually(lambda: asked)
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        loop.turn(0.01)
    ended.set()
    loop.close()
    assert asked == [0]
