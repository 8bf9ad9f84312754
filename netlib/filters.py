"""Filters of lists: `key=value` as a person types them, and what they let through. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from netlib.built_in import NAMES
from netlib.errors import InvalidRequest
from netlib.model import Network
from netlib.values import dataclass

BUILT_IN = frozenset(NAMES)
_TRUE = frozenset({"true", "1"})
_FALSE = frozenset({"false", "0"})
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a filter may ask of a network."""

    network: Network
    scope: str
    in_use: bool


T = TypeVar("T")
Test = Callable[[Seen], bool]
# From a filter's value, and the time in seconds since the epoch.
Maker = Callable[[str, float], Callable[[T], bool]]


def matcher(
    filters: Iterable[str], makers: Mapping[str, Maker[T]], now: float
) -> Callable[[T], bool]:
    """The test that a thing passes if, for every key, one of its values fits.

    `makers` has the keys that may be used here. Raises InvalidRequest for a key that is not among
    them or a value that makes no sense.
    """
    groups: dict[str, list[Callable[[T], bool]]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if key not in makers or not equals:
            raise InvalidRequest(
                f"{text!r} is no filter",
                f"write KEY=VALUE with one of the keys: {', '.join(sorted(makers))}",
            )
        # Several labels are several conditions, as everywhere where things have labels.
        group = text if key in ("label", "label!") else key
        groups.setdefault(group, []).append(makers[key](value, now))
    return lambda seen: all(any(test(seen) for test in group) for group in groups.values())


def _driver(value: str, _now: float) -> Test:
    return lambda seen: seen.network.driver == value


def _id(value: str, _now: float) -> Test:
    return lambda seen: seen.network.id.startswith(value.lower())


def _name(value: str, _now: float) -> Test:
    return lambda seen: value in seen.network.name


def _scope(value: str, _now: float) -> Test:
    if value not in ("local", "global"):
        raise InvalidRequest(f"there is no scope {value!r}", "use local or global")
    return lambda seen: seen.scope == value


def _type(value: str, _now: float) -> Test:
    if value not in ("custom", "builtin"):
        raise InvalidRequest(f"there is no type {value!r}", "use custom or builtin")
    return lambda seen: (seen.network.name in BUILT_IN) == (value == "builtin")


def _dangling(value: str, _now: float) -> Test:
    if value.lower() not in _TRUE | _FALSE:
        raise InvalidRequest(f"dangling can not be {value!r}", "use true or false")
    wanted = value.lower() in _TRUE
    return lambda seen: (not seen.in_use and seen.network.name not in BUILT_IN) == wanted


def _label(value: str, _now: float) -> Test:
    fits = label_test(value)
    return lambda seen: fits(seen.network.labels)


def _no_label(value: str, now: float) -> Test:
    has = _label(value, now)
    return lambda seen: not has(seen)


def _until(value: str, now: float) -> Test:
    moment = _moment(value, now)
    return lambda seen: seen.network.created < moment


def label_test(value: str) -> Callable[[Mapping[str, str]], bool]:
    """Whether labels have `KEY`, or `KEY=VALUE`."""
    key, equals, wanted = value.partition("=")
    return lambda labels: key in labels and (not equals or labels[key] == wanted)


def duration_seconds(text: str) -> int | None:
    """A duration like `90s`, `1h30m` or `7d`; None: it is none."""
    if not re.fullmatch(r"(\d+[smhd])+", text):
        return None
    return sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([smhd])", text))


def _moment(text: str, now: float) -> float:
    """A time in seconds since the epoch: given as such, as an age (`1h30m`), or as a date."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if (age := duration_seconds(text)) is not None:
        return now - age
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise InvalidRequest(
            f"{text!r} is no time", "write an age like 1h30m, or a date like 2026-01-31T12:00:00"
        ) from None


LISTED: Mapping[str, Maker[Seen]] = {
    "driver": _driver,
    "id": _id,
    "label": _label,
    "name": _name,
    "scope": _scope,
    "type": _type,
    "dangling": _dangling,
}
PRUNED: Mapping[str, Maker[Seen]] = {"label": _label, "label!": _no_label, "until": _until}
