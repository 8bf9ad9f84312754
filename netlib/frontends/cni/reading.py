"""Reading a JSON object key by key: the value is of the kind that is asked for, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from netlib.frontends.cni.refusal import INVALID_CONFIG, Refusal


class Reading:
    """One object of a configuration; `where` is what messages call it."""

    def __init__(self, document: Mapping[str, Any], where: str = "") -> None:
        self._document = document
        self._where = where

    def __contains__(self, key: str) -> bool:
        return self._document.get(key) is not None

    def name(self, key: str) -> str:
        """What messages call a key."""
        return f"{self._where}.{key}" if self._where else key

    def value(self, key: str) -> Any:
        """The value as it stands, of whatever kind; None where it is absent."""
        return self._document.get(key)

    def text(self, key: str, default: str = "") -> str:
        """A string."""
        return str(self._typed(key, str, "a string", default))

    def flag(self, key: str) -> bool | None:
        """True, false, or None where it is absent."""
        value: bool | None = self._typed(key, bool, "true or false", None)
        return value

    def number(self, key: str) -> int | None:
        """A whole number that is not negative, or None where it is absent."""
        value = self._document.get(key)
        if value is None:
            return None
        if type(value) is not int or value < 0:
            raise self.refusal(key, "a number that is not negative")
        return value

    def within(self, key: str) -> Reading:
        """An object, empty where it is absent."""
        return Reading(self.mapping(key), self.name(key))

    def mapping(self, key: str) -> dict[str, Any]:
        """An object as it stands."""
        value: dict[str, Any] = self._typed(key, dict, "an object", {})
        return value

    def items(self, key: str) -> list[Any]:
        """A list."""
        value: list[Any] = self._typed(key, list, "a list", [])
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self.items(key)
        if not all(isinstance(value, str) for value in values):
            raise self.refusal(key, "a list of strings")
        return tuple(values)

    def parts(self, key: str) -> list[Reading]:
        """A list of objects."""
        return [self._part(value, key, n) for n, value in enumerate(self.items(key))]

    def lists_of_parts(self, key: str) -> list[list[Reading]]:
        """A list of lists of objects, each with one at least."""
        found: list[list[Reading]] = []
        for value in self.items(key):
            if not isinstance(value, list) or not value:
                raise self.refusal(key, "a list of lists of objects, none of them empty")
            found.append([self._part(one, key, n) for n, one in enumerate(value)])
        return found

    def refusal(self, key: str, wanted: str) -> Refusal:
        """The error for a value of another kind."""
        return Refusal(
            INVALID_CONFIG, f"{self.name(key)} is not {wanted}: {self._document.get(key)!r}"
        )

    def _part(self, value: Any, key: str, number: int) -> Reading:
        if not isinstance(value, dict):
            raise self.refusal(key, "a list of objects")
        return Reading(value, f"{self.name(key)}[{number}]")

    def _typed(self, key: str, shape: type, wanted: str, default: Any) -> Any:
        value = self._document.get(key)
        if value is None:
            return default
        if not isinstance(value, shape):
            raise self.refusal(key, wanted)
        return value
