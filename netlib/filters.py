"""Filters of lists: `key=value` as a person types them, and what they let through. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

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


Test = Callable[[Seen], bool]


def matcher(filters: Iterable[str], *, keys: Iterable[str], now: float) -> Test:
    """The test that a network passes if, for every key, one of its values fits.

    `keys` are those that may be used here; `now` is in seconds since the epoch. Raises
    InvalidRequest for a key that is not among them or a value that makes no sense.
    """
    groups: dict[str, list[Test]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if key not in tuple(keys) or not equals:
            raise InvalidRequest(
                f"{text!r} is no filter",
                f"write KEY=VALUE with one of the keys: {', '.join(sorted(keys))}",
            )
        # Several labels are several conditions, as everywhere where things have labels.
        group = text if key in ("label", "label!") else key
        groups.setdefault(group, []).append(_TESTS[key](value, now))
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
    key, equals, wanted = value.partition("=")
    return lambda seen: _has_label(seen.network.labels, key, wanted if equals else None)


def _no_label(value: str, now: float) -> Test:
    has = _label(value, now)
    return lambda seen: not has(seen)


def _until(value: str, now: float) -> Test:
    moment = _moment(value, now)
    return lambda seen: seen.network.created < moment


def _has_label(labels: Mapping[str, str], key: str, wanted: str | None) -> bool:
    return key in labels and wanted in (None, labels[key])


def _moment(text: str, now: float) -> float:
    """A time in seconds since the epoch: given as such, as an age (`1h30m`), or as a date."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if re.fullmatch(r"(\d+[smhd])+", text):
        return now - sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([smhd])", text))
    from datetime import datetime

    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise InvalidRequest(
            f"{text!r} is no time", "write an age like 1h30m, or a date like 2026-01-31T12:00:00"
        ) from None


_TESTS: Mapping[str, Callable[[str, float], Test]] = {
    "driver": _driver,
    "id": _id,
    "name": _name,
    "scope": _scope,
    "type": _type,
    "dangling": _dangling,
    "label": _label,
    "label!": _no_label,
    "until": _until,
}
LIST_KEYS = ("driver", "id", "label", "name", "scope", "type", "dangling")
PRUNE_KEYS = ("label", "label!", "until")
