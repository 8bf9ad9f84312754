"""The verbs of `Net` that a daemon does for others: arguments and results as JSON and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from netlib.codec import from_json, to_json
from netlib.model import Endpoint, Network, PublishedPort, Sandbox
from netlib.ports import PortRequest

_SHAPES: Mapping[str, type] = {"PortRequest": PortRequest, "Sandbox": Sandbox}


def _ports(document: Any) -> tuple[PublishedPort, ...]:
    return tuple(from_json(PublishedPort, one) for one in document)


def _nothing(_: Any) -> None:
    return None


# Each with what reads its result.
VERBS: Mapping[str, Callable[[Any], Any]] = {
    "create": lambda document: from_json(Network, document),
    "update": lambda document: from_json(Network, document),
    "connect": lambda document: from_json(Endpoint, document),
    "disconnect": _nothing,
    "publish": _ports,
    "unpublish": _ports,
    "remove": _nothing,
}


def pack(value: object) -> Any:
    """An argument as JSON."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, IPv4Address | IPv6Address):
        return str(value)
    shape = type(value).__name__
    if shape in _SHAPES:
        return {"shape": shape, "value": to_json(value)}
    if isinstance(value, Mapping):
        return {"mapping": {str(key): pack(item) for key, item in value.items()}}
    if isinstance(value, Iterable):
        return [pack(item) for item in value]
    raise TypeError(f"{value!r} can't be sent")


def unpack(document: Any) -> Any:
    """The argument that was packed. Raises KeyError, TypeError, ValueError for what is none."""
    if isinstance(document, list):
        return [unpack(item) for item in document]
    if not isinstance(document, dict):
        return document
    if "mapping" in document:
        return {key: unpack(item) for key, item in document["mapping"].items()}
    return from_json(_SHAPES[document["shape"]], document["value"])
