"""The verbs of `Net` that a daemon does for others: arguments and results as JSON and back.

What changes something on the host or judges whether a sandbox has ended: a daemon sees the host,
a client may see other mounts and processes. Lists are read from the state by who wants them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from netlib.codec import from_json, to_json
from netlib.frontends.daemon import findings
from netlib.model import Endpoint, Network, PublishedPort, Sandbox
from netlib.ports import PortRequest

_SHAPES: Mapping[str, type] = {"PortRequest": PortRequest, "Sandbox": Sandbox}


class Verb(NamedTuple):
    """How a result is read and written; `repeats`: to do it again does no harm."""

    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = to_json
    repeats: bool = False


def _ports(document: Any) -> tuple[PublishedPort, ...]:
    return tuple(from_json(PublishedPort, one) for one in document)


def _sandboxes(document: Any) -> tuple[Sandbox, ...]:
    return tuple(from_json(Sandbox, one) for one in document)


def _nothing(_: Any) -> None:
    return None


VERBS: Mapping[str, Verb] = {
    "create": Verb(lambda document: from_json(Network, document)),
    "update": Verb(lambda document: from_json(Network, document)),
    "connect": Verb(lambda document: from_json(Endpoint, document)),
    "disconnect": Verb(_nothing),
    "publish": Verb(_ports),
    "unpublish": Verb(_ports),
    "remove": Verb(_nothing),
    "prune": Verb(tuple, repeats=True),
    "check": Verb(findings.read, findings.write, repeats=True),
    "repair": Verb(findings.read_repair, findings.write_repair, repeats=True),
    "collect_garbage": Verb(_sandboxes, repeats=True),
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
