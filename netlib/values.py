"""Dataclasses as in the standard library, at a tenth of its price when a module is loaded.

`dataclasses.dataclass` compiles seven functions for each frozen class where it is defined, which
takes half a millisecond: for the hundred classes that one call of the plugin loads, a third of all
that the call takes. Here most functions are shared by all classes, and the one that has to be
compiled is when the first value is made, which most classes never see in one process.

To a type checker these are the standard library's own, and to a program they are as good:
`dataclasses.fields`, `replace`, `asdict` and `is_dataclass`, `inspect.signature`, `copy`, `pickle`
and `match` work with them. Left out is what nobody here needs: order, InitVar, fields that are
not given to `__init__`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

_ABSENT: Any = object()
_CLASS_VARIABLES = ("ClassVar", "typing.ClassVar")


class _Default:
    """What `field` says of a field's default."""

    __slots__ = ("factory", "repr", "value")

    def __init__(
        self,
        value: Any = _ABSENT,
        factory: Callable[[], Any] | None = None,
        repr: bool = True,  # noqa: A002 - as the standard library calls it
    ) -> None:
        self.value = value
        self.factory = factory
        self.repr = repr


class _Field:
    __slots__ = ("default", "kw_only", "name", "type")

    def __init__(self, name: str, kind: str, default: _Default, kw_only: bool) -> None:
        self.name = name
        self.type = kind
        self.default = default
        self.kw_only = kw_only


class _Shape:
    """All that is known of a class; `get` gives the values of all fields, in order."""

    __slots__ = ("fields", "frozen", "get", "names")

    def __init__(
        self, fields: tuple[_Field, ...], frozen: bool, get: Callable[[Any], tuple[Any, ...]]
    ) -> None:
        self.fields = fields
        self.names = tuple(one.name for one in fields)
        self.frozen = frozen
        self.get = get


def _dataclass(
    cls: Any = None, /, *, frozen: bool = False, slots: bool = False, kw_only: bool = False
) -> Any:
    """The class as a dataclass, or the decorator that makes it one."""

    def decorate(cls: Any) -> Any:
        return _made(cls, frozen=frozen, slots=slots, kw_only=kw_only)

    return decorate if cls is None else decorate(cls)


def _field(*, default: Any = _ABSENT, default_factory: Any = None, repr: bool = True) -> Any:  # noqa: A002 - likewise
    """What a field's value is where none is given."""
    return _Default(default, default_factory, repr)


def _fields(of: Any) -> tuple[_Field, ...]:
    """The fields of a class or value, in order; of these, `name` is good for everybody."""
    shape: _Shape = of.__shape__
    return shape.fields


def _is_dataclass(thing: Any) -> bool:
    return hasattr(thing, "__shape__")


def _replace(value: Any, /, **changes: Any) -> Any:
    """A value with some fields changed."""
    shape: _Shape = value.__shape__
    return value.__class__(**{**dict(zip(shape.names, shape.get(value), strict=True)), **changes})


if TYPE_CHECKING:
    from dataclasses import dataclass, field, fields, is_dataclass, replace
else:
    dataclass, field, fields = _dataclass, _field, _fields
    is_dataclass, replace = _is_dataclass, _replace


def _made(cls: Any, *, frozen: bool, slots: bool, kw_only: bool) -> Any:
    fields = {one.name: one for base in cls.__mro__[:0:-1] for one in _own_fields(base)}
    namespace = dict(vars(cls))
    own: dict[str, _Field] = {}
    for name, kind in namespace.get("__annotations__", {}).items():
        if not str(kind).startswith(_CLASS_VARIABLES):
            given = namespace.get(name, _ABSENT)
            default = given if isinstance(given, _Default) else _Default(given)
            own[name] = _Field(name, kind, default, kw_only)
    fields |= own
    names = tuple(fields)
    get: Callable[[Any], tuple[Any, ...]] = (
        attrgetter(*names)
        if len(names) > 1  # of one, attrgetter gives the value itself
        else lambda value: tuple(getattr(value, name) for name in names)
    )
    added: dict[str, Any] = {
        "__shape__": _Shape(tuple(fields.values()), frozen, get),
        "__match_args__": tuple(one.name for one in fields.values() if not one.kw_only),
        "__init__": _first_init,
        **_SHARED,
    }
    for name in ("__eq__", "__repr__"):
        if name in namespace:
            del added[name]
    if namespace.get("__hash__") is None:
        added["__hash__"] = _hash if frozen else None
    if frozen:
        added |= _FROZEN_SLOTS if slots else _FROZEN
    if slots:
        return _with_slots(cls, namespace, own, added)
    for name, one in own.items():
        if one.default.value is not _ABSENT:
            setattr(cls, name, one.default.value)
        elif name in namespace:
            delattr(cls, name)
    for name, value in added.items():
        setattr(cls, name, value)
    return cls


def _own_fields(base: Any) -> tuple[_Field, ...]:
    shape: _Shape | None = base.__dict__.get("__shape__")
    return () if shape is None else shape.fields


def _with_slots(
    cls: Any, namespace: dict[str, Any], own: Mapping[str, _Field], added: Mapping[str, Any]
) -> Any:
    """The class anew: slots can't be given to one that is there."""
    inherited = {slot for base in cls.__mro__[1:-1] for slot in base.__dict__.get("__slots__", ())}
    for name in ("__dict__", "__weakref__", *own):
        namespace.pop(name, None)
    namespace |= added
    namespace["__slots__"] = tuple(name for name in own if name not in inherited)
    made = type(cls)(cls.__name__, cls.__bases__, namespace)
    made.__qualname__ = cls.__qualname__
    return made


# -- what all classes share -----------------------------------------------------------------------


def _eq(self: Any, other: Any) -> Any:
    if other.__class__ is not self.__class__:
        return NotImplemented
    get = self.__shape__.get
    return get(self) == get(other)


def _hash(self: Any) -> int:
    return hash(self.__shape__.get(self))


def _repr(self: Any) -> str:
    shown = (one for one in self.__shape__.fields if one.default.repr)
    inside = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in shown)
    return f"{self.__class__.__qualname__}({inside})"


def _refuse(self: Any, name: str, *_value: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"{self.__class__.__name__} is frozen: {name!r} can't be changed")


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, one.name) for one in self.__shape__.fields]


def _setstate(self: Any, state: list[Any]) -> None:
    for one, value in zip(self.__shape__.fields, state, strict=True):
        object.__setattr__(self, one.name, value)


# -- what is made for each class, when it is needed -----------------------------------------------


def _first_init(self: Any, *positional: Any, **named: Any) -> None:
    """The `__init__` of all classes until their first value: it puts the real one in its place."""
    _init(_owner(self.__class__))(self, *positional, **named)


def _owner(cls: Any) -> Any:
    """The class itself, or the one of its bases whose fields it has."""
    return next(base for base in cls.__mro__ if "__shape__" in base.__dict__)


def _init(cls: Any) -> Callable[..., None]:
    """Compile the `__init__` of a class, and give it to it."""
    shape: _Shape = cls.__shape__
    names: dict[str, Any] = {"absent": _ABSENT}
    positional: list[str] = []
    named: list[str] = []
    body: list[str] = []
    for number, one in enumerate(shape.fields):
        parameter, value = one.name, one.name
        if one.default.factory is not None:
            names[f"factory_{number}"] = one.default.factory
            parameter = f"{one.name}=absent"
            value = f"factory_{number}() if {one.name} is absent else {one.name}"
        elif one.default.value is not _ABSENT:
            names[f"default_{number}"] = one.default.value
            parameter = f"{one.name}=default_{number}"
        (named if one.kw_only else positional).append(parameter)
        # A slot's own setter is what object.__setattr__ would look for.
        slot = getattr(cls, one.name, None) if shape.frozen else None
        if shape.frozen and type(slot).__name__ == "member_descriptor":
            names[f"set_{number}"] = slot.__set__  # type: ignore[union-attr]
            body.append(f"set_{number}(self, {value})")
        elif shape.frozen:
            names["set_any"] = object.__setattr__
            body.append(f"set_any(self, {one.name!r}, {value})")
        else:
            body.append(f"self.{one.name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *positional, *(["*", *named] if named else [])])
    source = f"def __init__({parameters}):\n " + "\n ".join(body or ["pass"])
    found: dict[str, Any] = {}
    exec(source, names, found)  # noqa: S102 - made of the class's own fields, as dataclasses does
    init: Callable[..., None] = found["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {one.name: one.type for one in shape.fields} | {"return": None}
    init.__module__ = cls.__module__
    cls.__init__ = init
    return init


class _Late:
    """An attribute of a class that is made when somebody asks for it: few do."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, value: object, cls: Any) -> Any:
        owner = _owner(cls)
        if self._name == "__signature__":
            from inspect import signature

            whole = signature(_init(owner))
            parameters = list(whole.parameters.values())[1:]
            found: Any = whole.replace(parameters=parameters)
        else:
            found = getattr(_twin(owner), self._name)
        setattr(owner, self._name, found)
        return found


def _twin(cls: Any) -> Any:
    """A dataclass of the standard library with the same fields."""
    import dataclasses

    shape: _Shape = cls.__shape__
    namespace: dict[str, Any] = {"__annotations__": {one.name: one.type for one in shape.fields}}
    for one in shape.fields:
        options: dict[str, Any] = {"repr": one.default.repr, "kw_only": one.kw_only}
        if one.default.factory is not None:
            options["default_factory"] = one.default.factory
        elif one.default.value is not _ABSENT:
            options["default"] = one.default.value
        namespace[one.name] = dataclasses.field(**options)
    twin = type(cls.__name__, (), {"__module__": cls.__module__, **namespace})
    return dataclasses.dataclass(frozen=shape.frozen)(twin)


_SHARED: Mapping[str, Any] = {
    "__eq__": _eq,
    "__repr__": _repr,
    "__replace__": _replace,
    **{name: _Late(name) for name in ("__dataclass_fields__", "__dataclass_params__")},
    "__signature__": _Late("__signature__"),
}
_FROZEN: Mapping[str, Any] = {"__setattr__": _refuse, "__delattr__": _refuse}
_FROZEN_SLOTS: Mapping[str, Any] = {
    **_FROZEN,
    "__getstate__": _getstate,
    "__setstate__": _setstate,
}

__all__ = ["dataclass", "field", "fields", "is_dataclass", "replace"]
