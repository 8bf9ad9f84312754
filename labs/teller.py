"""How a story reaches who asked for it: as prose on a terminal, or as lines of JSON."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from netlib.frontends.cli.output import paint
from netlib.labs.stage import FOLDER, Place

_WIDTH = 92  # columns of prose, where the terminal has as many
# Of the player's environment, so that what is typed there means what it means in the story.
_KEPT = ("PATH", "PYTHONPATH", "NETLIB_FIREWALL", "LC_ALL")


class Aloud:
    """Prose on stdout. `pauses`: stand still where the story says, and tell how to get in."""

    def __init__(self, *, pauses: bool, outer_pid: int, has_user_namespace: bool) -> None:
        self._pauses = pauses
        self._door = door(outer_pid, has_user_namespace=has_user_namespace)

    def event(self, kind: str, **facts: Any) -> None:
        """Print it."""
        for line in _LINES[kind](facts):
            print(line, flush=True)

    def pause(self, why: str, places: Sequence[Place]) -> None:
        """Wait for Enter, or for the end of the input."""
        if not self._pauses:
            return
        _write_door(places)
        print(f"\n{paint('Paused:', 'yellow', bold=True)} {why}")
        print("To look inside, type in another terminal, as the user that you are here:\n")
        for place in places:
            print(f"    {self._door} {place.name}")
        print(
            "\nOn a host all commands of this story work; `net exec NAME -- sh` enters a sandbox."
        )
        print("Press Enter here to go on.", flush=True)
        sys.stdin.readline()


class Written:
    """A JSON document a line on stdout."""

    def event(self, kind: str, **facts: Any) -> None:
        """Print it."""
        print(json.dumps({"event": kind, **facts}), flush=True)

    def pause(self, why: str, places: Sequence[Place]) -> None:
        """Print that one could look around here; a program does not."""
        self.event("pause", why=why, places=[place.name for place in places])


def door(pid: int, *, has_user_namespace: bool) -> str:
    """The command that enters the throw-away host of a process, up to the place's name."""
    user = "-U --preserve-credentials " if has_user_namespace else ""
    return f"nsenter -t {pid} {user}-m -u -i -n -p {shlex.quote(str(FOLDER / 'enter'))}"


def _write_door(places: Sequence[Place]) -> None:
    """The program that `door` names: `enter PLACE [COMMAND...]`."""
    cases = [f'    {shlex.quote(p.name)}) exec {shlex.join(p.enter)} "$@" ;;' for p in places]
    kept = [f"export {k}={shlex.quote(os.environ[k])}" for k in _KEPT if k in os.environ]
    file = FOLDER / "enter"
    file.write_text("\n".join([
        "#!/bin/sh",
        "unset NETLIB_STATE_DIR",
        *kept,
        f"cd {shlex.quote(str(FOLDER))}",
        "place=$1; shift; export PS1=\"$place \\$ \"",
        '[ $# -gt 0 ] || set -- sh',
        'case "$place" in',
        *cases,
        "    *) echo \"there is no place $place\" >&2; exit 3 ;;",
        "esac",
        "",
    ]))  # fmt: skip
    file.chmod(0o755)


def _title(facts: dict[str, Any]) -> list[str]:
    return [paint(f"{facts['name']}: {facts['title']}", None, bold=True)]


def _say(facts: dict[str, Any]) -> list[str]:
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 0)).columns)
    return ["", *textwrap.wrap(facts["text"], width, break_on_hyphens=False)]


def _type(facts: dict[str, Any]) -> list[str]:
    prompt = f"{facts['at']} $" if facts["at"] else "$"
    printed = [f"    {line}".rstrip() for line in facts["output"].splitlines()]
    if facts["status"] and not printed:  # as silent as what worked: nobody would know
        printed = [f"    (exit status {facts['status']})"]
    return [f"  {prompt} {paint(facts['line'], 'green')}", *printed]


def _exchange(facts: dict[str, Any]) -> list[str]:
    return [f"    > {facts['line']}", f"    < {facts['answer']}"]


def _rows(facts: dict[str, Any]) -> list[str]:
    *rest, _last = zip(*facts["lines"], strict=True)
    widths = [max(map(len, column)) for column in rest]
    return [
        "    " + paint("  ".join([*map(str.ljust, line, widths), line[-1]]), "cyan")
        for line in facts["lines"]
    ]


def _nothing(_facts: dict[str, Any]) -> list[str]:
    return []


def _untrue(facts: dict[str, Any]) -> list[str]:
    return ["", f"{paint('Untrue:', 'red', bold=True)} {facts['text']}"]


def _end(facts: dict[str, Any]) -> list[str]:
    return ["", f"Told in {facts['seconds']:.1f} seconds; nothing is left."]


_LINES = {
    "title": _title,
    "say": _say,
    "type": _type,
    "exchange": _exchange,
    "packets": _rows,
    "rules": _rows,
    "picture": _nothing,
    "untrue": _untrue,
    "end": _end,
}
