"""Frozen dataclasses to JSON values and back, by their annotations.

Addresses, prefixes and interfaces become their text; a noun gets its class's name under
"noun", so that a Wiring can be read back. Encoders and decoders are made once for each class.
"""

from __future__ import annotations

import ipaddress
import types
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from netlib.model import IPAddress, IPInterface, IPNetwork
from netlib.values import fields, is_dataclass
from netlib.wiring import Noun, Wiring

T = TypeVar("T")
Encode = Callable[[Any], Any]
Decode = Callable[[Any], Any]

_PLAIN = (str, int, float, bool, type(None))
_AS_IS = frozenset(_PLAIN)
_TEXTUAL: dict[frozenset[Any], Decode] = {
    frozenset(get_args(IPAddress)): ipaddress.ip_address,
    frozenset(get_args(IPNetwork)): ipaddress.ip_network,
    frozenset(get_args(IPInterface)): ipaddress.ip_interface,
}


def to_json(value: object) -> Any:
    """A value of dataclasses, addresses, tuples and mappings as plain JSON values."""
    encode: Encode = _encoder(value.__class__)  # type: ignore[arg-type]  # classes are hashable
    return encode(value)


def from_json(shape: type[T], document: Any) -> T:
    """The value of class `shape` that `to_json` made `document` of.

    Keys that are absent take their defaults, so documents of an older version can be read;
    keys that are unknown are left out. Raises KeyError, TypeError or ValueError.
    """
    decode: Decode = _decoder(shape)  # type: ignore[arg-type]  # classes are hashable
    result: T = decode(document)
    return result


@cache
def _names(shape: Any) -> tuple[str, ...]:
    return tuple(field.name for field in fields(shape))


@cache
def _nouns() -> dict[str, type[Noun]]:
    def below(shape: type[Noun]) -> list[type[Noun]]:
        return [shape, *(leaf for child in shape.__subclasses__() for leaf in below(child))]

    # slots=True makes a second class of each dataclass; the later one is the one in use.
    return {shape.__name__: shape for shape in below(Noun)}


@cache
def _encoder(shape: type) -> Encode:
    if issubclass(shape, _PLAIN):
        return lambda value: value
    if issubclass(shape, Wiring | tuple | list | frozenset):
        return lambda items: [_encoder(item.__class__)(item) for item in items]
    if issubclass(shape, Mapping):
        return lambda items: {str(key): to_json(item) for key, item in items.items()}
    if is_dataclass(shape):
        return _dataclass_encoder(shape)
    return str


def _parts(names: tuple[str, ...]) -> Callable[[object], tuple[Any, ...]]:
    return lambda value: tuple(getattr(value, name) for name in names)


def _dataclass_encoder(shape: type) -> Encode:
    names = _names(shape)
    kind = {"noun": shape.__name__} if issubclass(shape, Noun) else {}
    get = attrgetter(*names) if len(names) > 1 else _parts(names)

    def encode(value: object) -> dict[str, Any]:
        found: dict[str, Any] = dict(kind)
        for name, part in zip(names, get(value), strict=True):
            part_shape = part.__class__
            # Most parts are plain: a call for each would take longer than all the rest.
            found[name] = part if part_shape in _AS_IS else _encoder(part_shape)(part)
        return found

    return encode


@cache
def _decoder(shape: Any) -> Decode:
    if shape is Wiring:
        return lambda items: Wiring(_noun_decoder(item["noun"])(item) for item in items)
    if isinstance(shape, type) and is_dataclass(shape):
        return _dataclass_decoder(shape)
    origin, arguments = get_origin(shape), get_args(shape)
    if origin in (Union, types.UnionType):
        return _union_decoder(arguments)
    if origin is tuple:
        item = _decoder(arguments[0])
        return lambda values: tuple(item(value) for value in values)
    if origin is frozenset:
        member = _decoder(arguments[0])
        return lambda values: frozenset(member(value) for value in values)
    if origin is Mapping:
        entry = _decoder(arguments[1])
        return lambda values: {key: entry(value) for key, value in values.items()}
    if origin is Literal or shape in _PLAIN:
        return lambda value: value
    raise TypeError(f"no JSON form for {shape}")


def _noun_decoder(name: str) -> Decode:
    shape: Any = _nouns()[name]
    decode: Decode = _decoder(shape)
    return decode


def _union_decoder(arguments: tuple[Any, ...]) -> Decode:
    """An address of either family, or a value that may be None."""
    some = frozenset(arguments) - {type(None)}
    decode = _TEXTUAL.get(some)
    if decode is None:
        (only,) = some
        decode = _decoder(only)
    if type(None) not in arguments:
        return decode
    present = decode
    return lambda value: None if value is None else present(value)


def _dataclass_decoder(shape: Any) -> Decode:
    hints = get_type_hints(shape)
    decoders = {name: _decoder(hints[name]) for name in _names(shape)}

    def decode(document: Any) -> Any:
        return shape(
            **{name: part(document[name]) for name, part in decoders.items() if name in document}
        )

    return decode
