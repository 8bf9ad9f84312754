"""Fenced examples in Markdown: found, run, and compared with what they claim."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """A line after `$ `, and what the page says it prints; `...` stands for anything."""

    line: str
    expected: str

    def matches(self, printed: str) -> bool:
        """Whether this may be what the page shows. A page that shows nothing claims nothing."""
        if not self.expected:
            return True
        # A line of dots alone stands for any number of lines, also none.
        wanted = re.escape(self.expected.strip()).replace(r"\.\.\.", "...")
        wanted = re.sub(r"(?m)^\.\.\.$(\\?\n)?", r"(?:.*\\n)*?.*?", wanted)
        wanted = wanted.replace("...", ".*?")
        return re.fullmatch(wanted, printed.strip(), re.DOTALL) is not None


def fences(markdown: str, language: str) -> list[str]:
    """The fenced blocks of a language, in order."""
    return [body for name, body in FENCE.findall(markdown) if name == language]


def commands(block: str) -> Iterator[Command]:
    """The commands of a console block. A line that ends in a backslash goes on in the next."""
    for part in re.split(r"(?m)^\$ ", block)[1:]:
        end = re.search(r"(?<!\\)\n", part)
        assert end is not None, part
        yield Command(part[: end.start()], part[end.end() :].strip("\n"))
