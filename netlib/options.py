"""Options as drivers declare them: canonical keys, known values, errors that name the way out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

from netlib.driver import Option
from netlib.errors import InvalidOption
from netlib.model import Family, IPAddress

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
BOOLEAN = ("true", "false")


def canonical(given: Mapping[str, str], known: Iterable[Option], whose: str) -> dict[str, str]:
    """The options under their canonical keys, with values that they take.

    Raises InvalidOption that names the option and what is valid.
    """
    known = tuple(known)
    result: dict[str, str] = {}
    for key, text in given.items():
        option = find(key, known, whose)
        if not isinstance(text, str):  # Python's True, or a number
            raise InvalidOption(
                f"option {option.key} of {whose} is no text: {text!r}",
                f"give it as text: {str(text).lower()!r}",
            )
        value = _value(option, text.strip(), whose)
        if result.setdefault(option.key, value) != value:
            raise InvalidOption(
                f"option {option.key} of {whose} is given twice with different values",
                f"give {option.key} once",
            )
    return result


def find(key: str, known: Iterable[Option], whose: str) -> Option:
    """The option of a key, which may be an alias of another tool's; `-` counts as `_`.

    Raises InvalidOption.
    """
    known = tuple(known)
    for name in (key, key.replace("-", "_")):
        for option in known:
            if name in (option.key, *option.aliases):
                return option
    raise unknown(key, known, whose)


def unknown(key: str, known: Iterable[Option], whose: str) -> InvalidOption:
    """The error for an option that `whose` does not have."""
    keys = sorted(option.key for option in known)
    import difflib  # only what is wrong needs it

    near = difflib.get_close_matches(key, keys, n=1)
    listing = f"valid are: {', '.join(keys)}" if keys else "it has no options at all"
    return InvalidOption(
        f"{whose} has no option {key!r}", f"did you mean {near[0]}? {listing}" if near else listing
    )


def _value(option: Option, value: str, whose: str) -> str:
    low = value.lower()
    if set(BOOLEAN) <= set(option.choices) and (low in _TRUE or low in _FALSE):
        return "true" if low in _TRUE else "false"
    if not option.choices or value in option.choices:
        return value
    raise InvalidOption(
        f"option {option.key} of {whose} can not be {value!r}",
        f"use one of: {', '.join(option.choices)}",
    )


def is_on(options: Mapping[str, str], key: str, *, default: bool) -> bool:
    """A boolean option's value."""
    value = options.get(key)
    return default if value is None else value == "true"


def number(options: Mapping[str, str], key: str, least: int, most: int) -> int | None:
    """An integer option's value, None where it is not given. InvalidOption outside the bounds."""
    text = options.get(key)
    if text is None:
        return None
    # The length first: int() refuses thousands of digits with an error of its own.
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not (is_number and least <= int(text) <= most):
        raise InvalidOption(
            f"option {key} can not be {text!r}", f"use a number from {least} to {most}"
        )
    return int(text)


def address(options: Mapping[str, str], key: str, family: Family) -> IPAddress | None:
    """An option's address of a family, None where it is not given. InvalidOption for another."""
    text = options.get(key)
    if text is None:
        return None
    try:
        return IPv4Address(text) if family == 4 else IPv6Address(text)
    except ValueError as error:
        raise InvalidOption(
            f"option {key} can not be {text!r}", f"use an IPv{family} address"
        ) from error
