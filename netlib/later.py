"""What a file of verbs has, loaded when one of them is first used."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar, cast

M = TypeVar("M", bound=Callable[..., Any])


class Later:
    """A module that is not loaded yet. What is taken from it is not yet either."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> _Function:
        return _Function(self._name, attribute)


class _Function:
    """A function of such a module, which is loaded when it is called, or wanted itself."""

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def loaded(self) -> Callable[..., Any]:
        """The function itself."""
        found: Callable[..., Any] = getattr(import_module(self._module), self._name)
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.loaded()(*args, **kwargs)


class _Method:
    """Stands in a class for a method that is made when somebody first asks for it."""

    def __init__(self, make: Callable[[Callable[..., Any]], Any], function: _Function) -> None:
        self._make = make
        self._function = function

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner
        self._name = name

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        method = self._make(self._function.loaded())
        setattr(self._owner, self._name, method)
        return method.__get__(instance, owner)


def when_used(make: M) -> M:
    """What makes methods of functions, so that it does it when a method is first used."""

    def later(function: _Function) -> _Method:
        return _Method(make, function)

    return cast(M, later)
