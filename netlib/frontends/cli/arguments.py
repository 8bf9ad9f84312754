"""How arguments are written: KEY=VALUE, SANDBOX[:ALIAS], SPEC with `--from`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from netlib.ports import PortRequest

# Between a SPEC and the sources that may use it, once `--from` was moved there: no SPEC has one.
_FROM = "\0"
FROM_HELP = "Only this CIDR may use the port before; may be repeated."


def pairs(what: str, texts: Iterable[str], *, bare: bool = False) -> dict[str, str]:
    """`KEY=VALUE` texts as a mapping; `bare`: the value may be left out."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not (equals or bare):
            raise click.UsageError(f"{what} {text!r} is not KEY=VALUE.")
        if found.setdefault(key, value) != value:
            raise click.UsageError(f"{what} {key} is given twice with different values.")
    return found


def seconds_of(option: str, text: str) -> float:
    """A time like `90s`, `1h30m` or `7d`."""
    from netlib.filters import duration_seconds

    seconds = duration_seconds(text)
    if seconds is None:
        raise click.UsageError(f"{option}: {text!r} is no time like 1h30m.")
    return float(seconds)


def links(texts: Iterable[str]) -> dict[str, str]:
    """`SANDBOX[:ALIAS]` texts as aliases by sandbox. Raises InvalidRequest."""
    from netlib.links import parse_links

    return parse_links(texts)


def port_requests(texts: Iterable[str]) -> list[PortRequest]:
    """SPECs, each with the `--from` that came after it. Raises InvalidPort."""
    from netlib.ports import parse

    found: list[PortRequest] = []
    for text in texts:
        spec, *sources = text.split(_FROM)
        found.append(parse(spec, sources))
    return found


def attach_sources(arguments: Sequence[str], *, positional: bool) -> list[str]:
    """The arguments with every `--from CIDR` joined to the SPEC before it.

    It belongs to that one port, and click forgets in which order different options came.
    `positional`: SPECs stand by themselves, else each follows `-p` or `--publish`. What comes
    after `--` is somebody else's.
    """
    result: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*result, argument, *rest]
        name, equals, value = argument.partition("=")
        if name != "--from":
            result.append(argument)
            continue
        if not equals:
            if not rest:
                raise click.UsageError("--from needs a CIDR after it.")
            value = rest.pop(0)
        if not _ends_with_spec(result, positional=positional):
            raise click.UsageError("--from stands after the port that it limits.")
        result[-1] += _FROM + value
    return result


def _ends_with_spec(arguments: Sequence[str], *, positional: bool) -> bool:
    if not arguments:
        return False
    last = arguments[-1]
    if positional:
        return len(arguments) > 1 and not last.startswith("-")
    after_option = len(arguments) > 1 and arguments[-2] in ("-p", "--publish")
    joined = last.startswith("--publish=") or (last.startswith("-p") and last != "-p")
    return (after_option and not last.startswith("-")) or joined
