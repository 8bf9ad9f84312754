"""Plays one lab: the program that runs inside the throw-away host."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netlib import throwaway
from netlib.labs.catalogue import Lab, load
from netlib.labs.stage import FOLDER, Stage
from netlib.labs.story import Story, Teller, Untrue
from netlib.labs.teller import Aloud, Written


def main(argv: list[str]) -> int:
    """Play what `launch.play` asks for; the exit status."""
    if not throwaway.inside():
        raise RuntimeError("labs play in throw-away hosts only: use `net lab run`")
    asked: dict[str, Any] = json.loads(argv[0])
    outer_pid = _outer_pid(asked.pop("door"))
    teller: Teller = (
        Written()
        if asked["json"]
        else Aloud(
            pauses=asked["pause"],
            outer_pid=outer_pid,
            has_user_namespace=asked["user"] != os.readlink("/proc/self/ns/user"),
        )
    )
    try:
        return perform(load(*asked["lab"]), asked["options"], teller)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:  # who listened has heard enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        if asked["debug"]:
            raise
        text = f"the scenery broke: {type(error).__name__}: {error}"
        teller.event("untrue", text=text)
        return 1


def perform(lab: Lab, settings: Mapping[str, Any], teller: Teller) -> int:
    """Play a lab in the throw-away host that we are in; the exit status."""
    _furnish()
    stage = Stage()
    story = Story(stage, teller)
    teller.event("title", name=lab.name, title=lab.title)
    story.say(lab.introduction)
    started = time.monotonic()
    try:
        lab.tell(story, **settings)
        left = stage.leftovers()
        story.expect(not left, f"something is left: {', '.join(left)}")
    except Untrue as untrue:
        teller.event("untrue", text=str(untrue))
        story.pause("the story went wrong here")
        return 1
    teller.event("end", seconds=round(time.monotonic() - started, 2))
    return 0


def _outer_pid(descriptor: int) -> int:
    """Our process id as the world outside knows it: who started us is told by the kernel."""
    with socket.socket(fileno=descriptor) as line:
        line.send(b"?")
        return int(line.recv(16))


def _furnish() -> None:
    """A folder with the programs that a story types, and a way in for who looks around."""
    programs = FOLDER / "bin"
    programs.mkdir(parents=True)
    python = shlex.quote(sys.executable)
    _program(programs / "net", f'exec {python} -m netlib "$@"')
    _program(programs / "python3", f'exec {python} "$@"')
    os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
    os.chdir(FOLDER)
    socket.sethostname("host")


def _program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
