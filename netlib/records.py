"""What is kept at the store's keys: values, the texts they are written as, and read of."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import Lock
from typing import Any, Generic, TypeVar

from netlib.codec import from_json, to_json
from netlib.errors import StoreError
from netlib.keys import endpoint_key, network_key
from netlib.memo import of_same
from netlib.model import Endpoint, Network, Sandbox
from netlib.store import Unchanged
from netlib.values import dataclass
from netlib.wiring import Wiring

T = TypeVar("T")
# json.dumps makes one for each value. What `to_json` makes is new, and never in itself.
_ENCODER = json.JSONEncoder(separators=(",", ":"), check_circular=False)
_SHOWN = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRecord:
    """A network, the wiring it was given, and the revision this was written at."""

    network: Network
    wiring: Wiring
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRecord:
    """An endpoint, the wiring it was given, and the revision this was written at."""

    endpoint: Endpoint
    wiring: Wiring
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who holds an address. `since` is in seconds since the epoch."""

    endpoint: str
    sandbox: str
    boot_id: str
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The network namespace and the boot that a state speaks of."""

    netns: int
    boot_id: str


def unchanged(record: NetworkRecord | EndpointRecord) -> Unchanged:
    """The condition that nobody wrote a record since it was read."""
    if isinstance(record, NetworkRecord):
        return Unchanged(network_key(record.network.id), record.revision)
    endpoint = record.endpoint
    return Unchanged(endpoint_key(endpoint.network, endpoint.id), record.revision)


def dump(value: object) -> str:
    """A value's JSON text, as records hold it."""
    return _ENCODER.encode(to_json(value))


def load(text: str) -> Any:
    """A record's JSON value."""
    with reading(text):
        return json.loads(text)


def load_as(shape: type[T], text: str) -> T:
    """A record's value of a class."""
    with reading(text):
        return from_json(shape, json.loads(text))


@contextmanager
def reading(text: str) -> Iterator[None]:
    """StoreError for a record that is not what was written."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"a record of the state can't be read ({error!r}): {text[:_SHOWN]}",
            "put back a copy of the state's folder, or move it away and make the networks anew",
        ) from error


class Memo(Generic[T]):
    """The values of the texts that were written or read last.

    A record is read several times in one operation and again in the next, and decoding it
    takes longer than finding it. Values are frozen, so all may have the same one.
    """

    def __init__(self, decode: Callable[[str], T], size: int) -> None:
        self._decode = decode
        self._size = size
        self._known: dict[str, T] = {}
        self._texts: dict[int, str] = {}  # a value that is known keeps its id
        self._lock = Lock()

    def keep(self, text: str, value: T) -> str:
        """The text, whose value will be found again."""
        with self._lock:
            self._forget(text)
            self._known[text] = value
            self._texts[id(value)] = text
            if len(self._known) > self._size:
                self._forget(next(iter(self._known)))
        return text

    def _forget(self, text: str) -> None:
        value = self._known.pop(text, None)
        if value is not None:
            self._texts.pop(id(value), None)

    def of(self, text: str) -> T:
        """The value of a text."""
        value = self._known.get(text)
        if value is None:
            with reading(text):
                value = self._decode(text)
            self.keep(text, value)
        return value

    def text_of(self, value: T) -> str | None:
        """The text that this very value was read of, or was written as, if it is known still."""
        with self._lock:
            return self._texts.get(id(value))


def _sandbox(text: str) -> Sandbox:
    return from_json(Sandbox, json.loads(text))


def _endpoint(text: str) -> tuple[Endpoint, Wiring]:
    document = json.loads(text)
    return from_json(Endpoint, document["endpoint"]), from_json(Wiring, document["wiring"])


def _network(text: str) -> tuple[Network, Wiring]:
    document = json.loads(text)
    return from_json(Network, document["network"]), from_json(Wiring, document["wiring"])


_ENDPOINTS = Memo(_endpoint, 512)
_NETWORKS = Memo(_network, 64)
_SANDBOXES = Memo(_sandbox, 512)


def dump_network(network: Network, wiring: Wiring) -> str:
    """The record of a network."""
    return _NETWORKS.keep(_record("network", network, wiring), (network, wiring))


def dump_sandbox(box: Sandbox) -> str:
    """The record of a sandbox."""
    return _SANDBOXES.keep(dump(box), box)


def dump_endpoint(endpoint: Endpoint, wiring: Wiring) -> str:
    """The record of an endpoint."""
    return _ENDPOINTS.keep(_record("endpoint", endpoint, wiring), (endpoint, wiring))


def _record(kind: str, value: object, wiring: Wiring) -> str:
    return f'{{"{kind}":{dump(value)},"wiring":{_dump_wiring(wiring)}}}'


@of_same
def _dump_wiring(wiring: Wiring) -> str:
    """A wiring's text: an endpoint has the same one before and when it is ready."""
    return dump(wiring)


def load_sandbox(value: str) -> Sandbox:
    """A sandbox from its text."""
    return _SANDBOXES.of(value)


def load_endpoint(value: str, revision: int) -> EndpointRecord:
    """An endpoint's record from its text."""
    endpoint, wiring = _ENDPOINTS.of(value)
    return EndpointRecord(endpoint=endpoint, wiring=wiring, revision=revision)


@lru_cache(maxsize=64)
def load_network(value: str, revision: int) -> NetworkRecord:
    """A network's record from its text."""
    network, wiring = _NETWORKS.of(value)
    return NetworkRecord(network=network, wiring=wiring, revision=revision)
