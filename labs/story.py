"""A story: what is said, what is typed and comes back, what passes, and that it is true.

`tell(story)` of a lab reads like prose. Every command that is shown is run as it is shown, by a
shell; a story in which something does not come out as told ends with `Untrue`.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from netlib.labs.capture import Capture, Point, Sighting
from netlib.labs.packets import Which
from netlib.labs.stage import TIMEOUT, Place, Stage, ask_net
from netlib.labs.tracing import Hit, Trace, trace


class Untrue(Exception):
    """The story tells something that is not so."""


class Teller(Protocol):
    """Who passes the story on: to a terminal, or as JSON."""

    def event(self, kind: str, **facts: Any) -> None:
        """Something was said (`say`), typed (`type`), seen (`packets`), drawn (`picture`)."""

    def pause(self, why: str, places: Sequence[Place]) -> None:
        """The story stands still, if it was asked to."""


class Story:
    """Tells, runs and insists."""

    def __init__(self, stage: Stage, teller: Teller) -> None:
        self.stage = stage
        self._teller = teller

    def say(self, text: str) -> None:
        """A paragraph."""
        self._teller.event("say", text=" ".join(text.split()))

    # -- commands -----------------------------------------------------------------------------

    def run(
        self,
        line: str,
        *,
        at: Place | None = None,
        says: str | Iterable[str] = (),
        never: str | Iterable[str] = (),
        fails: bool = False,
    ) -> str:
        """Run a command line, on the host or `at` a place, and show what it prints.

        It must print all that it `says` and nothing that it `never` says, and fail if it `fails`.
        """
        status, printed = _shell(line, at)
        self._typed(line, at, status, printed)
        if fails != (status != 0):
            should = "should have failed" if fails else "should have worked"
            raise Untrue(f"this {should}, but its exit status is {status}: {line}")
        for text in _texts(says):
            self.expect(text in printed, f"{line!r} does not say {text!r}: {printed.strip()!r}")
        for text in _texts(never):
            self.expect(text not in printed, f"{line!r} says {text!r}")
        return printed

    def fails(self, line: str, *, at: Place | None = None, says: str | Iterable[str] = ()) -> str:
        """Run a command line that must not work."""
        return self.run(line, at=at, says=says, fails=True)

    @contextlib.contextmanager
    def session(self, line: str, *, at: Place | None = None) -> Iterator[Session]:
        """Run a command line that goes on while the story does, and talk to it."""
        self._typed(line, at, None, "")
        argv = [*(at.enter if at else ()), "sh", "-c", f"exec {line}"]
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            yield Session(self, process)
        finally:
            process.kill()
            process.communicate(timeout=TIMEOUT)

    def sandbox(self, name: str, *, port: int | None = None, on: Place | None = None) -> Place:
        """A sandbox of a host as a place, once it listens at a port of its own."""
        place = self.stage.sandbox(name, on=on)
        if port is not None:
            self.stage.listening(place, port)
        return place

    # -- packets ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def capture(self, *points: Point) -> Iterator[Capture]:
        """Listen at these points for the length of a `with`; `show` tells what came by."""
        capture = Capture(points)
        try:
            yield capture
        finally:
            capture.seen()
            capture.close()

    def show(
        self, capture: Capture, which: Which, *, least: int = 1, most: int | None = None
    ) -> list[Sighting]:
        """Show the packets that `which` picks, at most the first so many, and return them."""
        found = capture.wait(which, least)[:most]
        if found:
            self._teller.event("packets", lines=[list(one.columns()) for one in found])
        self.expect(len(found) >= least, f"of {least} packets {len(found)} came by")
        return found

    def silence(self, capture: Capture, which: Which) -> None:
        """Insist that no packet came by that `which` picks."""
        found = [one for one in capture.seen() if which(one.packet)]
        if found:
            self._teller.event("packets", lines=[list(one.columns()) for one in found])
        self.expect(not found, "there should be no such packets")

    def trace(self, match: str) -> contextlib.AbstractContextManager[Trace]:
        """Follow packets through the rules for the length of a `with`; `show_rules` tells."""
        return trace(match)

    def show_rules(self, followed: Trace) -> list[Hit]:
        """Show the rules that the first packet met, and return them."""
        hits = followed.hits()
        self._teller.event("rules", lines=[[hit.chain, hit.rule, hit.verdict] for hit in hits])
        return hits

    # -- the rest -----------------------------------------------------------------------------

    def draw(self, *networks: str) -> None:
        """Draw the networks that there are now, as `net graph` does."""
        line = " ".join(["net graph", *networks])
        picture = self.run(line)
        drawn = ask_net(self.stage.host, "graph", "--format", "mermaid", *networks)
        self._teller.event("picture", text=picture, mermaid=drawn["graph"]["picture"])

    def expect(self, fact: object, otherwise: str) -> None:
        """End the story where it is not true."""
        if not fact:
            raise Untrue(otherwise)

    def pause(self, why: str) -> None:
        """Where to look inside: with `--pause` the story waits here."""
        self._teller.pause(why, [self.stage.host, *self.stage.places])

    def _typed(self, line: str, at: Place | None, status: int | None, printed: str) -> None:
        place = at.name if at else ""
        self._teller.event("type", at=place, line=line, status=status, output=printed)


class Session:
    """A command that goes on: a line in, a line out."""

    def __init__(self, story: Story, process: subprocess.Popen[str]) -> None:
        self._story = story
        self._process = process

    def exchange(self, line: str, *, says: str) -> None:
        """Type a line into it; it must answer with one that has `says` in it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._read()
        self._story._teller.event("exchange", line=line, answer=answer)
        self._story.expect(says in answer, f"the session does not say {says!r}: {answer!r}")

    def _read(self) -> str:
        # A session that says nothing more must not hold up the story for ever.
        timer = threading.Timer(TIMEOUT, self._process.kill)
        timer.start()
        try:
            assert self._process.stdout is not None
            return self._process.stdout.readline().rstrip("\n")
        finally:
            timer.cancel()


def _shell(line: str, at: Place | None) -> tuple[int, str]:
    try:
        done = subprocess.run(
            [*(at.enter if at else ()), "sh", "-c", line],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            errors="replace", timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Untrue(f"this does not end: {line}") from error
    return done.returncode, done.stdout.rstrip()


def _texts(given: str | Iterable[str]) -> Iterable[str]:
    return [given] if isinstance(given, str) else given
