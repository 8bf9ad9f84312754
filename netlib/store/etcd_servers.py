"""The servers of one etcd: which of them is asked, as whom, and for how long."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from netlib.errors import InvalidRequest, StoreError, StoreUnavailable
from netlib.store.etcd_http import Connection, Endpoint, Lost, NotReached, parse_endpoint
from netlib.store.etcd_refusals import refusal
from netlib.values import dataclass, field

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")
Json = dict[str, Any]

_MAX_IDLE = 4  # connections kept for the next question
_PAUSE_SECONDS = 0.05  # between two rounds of all endpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What shows the servers who we are, and us who they are: paths of PEM files, or nothing."""

    ca: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    password: str = field(default="", repr=False)


class Servers:
    """Asks whichever endpoint answers, within `timeout_seconds` for all attempts together."""

    def __init__(
        self, endpoints: Iterable[str], credentials: Credentials, timeout_seconds: float
    ) -> None:
        self.endpoints = tuple(parse_endpoint(url) for url in endpoints)
        if not self.endpoints:
            raise InvalidRequest("etcd needs an endpoint", "write it like https://192.0.2.1:2379")
        self.timeout_seconds = timeout_seconds
        self._credentials = credentials
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._preferred = 0
        self._tls: ssl.SSLContext | None = None
        self._token = ""
        self._pid = os.getpid()
        self.is_closed = False

    @property
    def name(self) -> str:
        """For messages."""
        return f"etcd at {', '.join(endpoint.url for endpoint in self.endpoints)}"

    def deadline(self) -> float:
        """Until when a question that is asked now is answered, or an error."""
        return time.monotonic() + self.timeout_seconds

    def ask(self, path: str, question: Json, deadline: float = 0.0) -> Json:
        """The answer, for a question that may be asked again. Raises Refused, or a NetError."""
        body = json.dumps(question).encode()
        return self._tried(
            lambda endpoint, until: self._ask(endpoint, path, body, until),
            deadline or self.deadline(),
        )

    def ask_once(self, path: str, question: Json, deadline: float) -> Json:
        """The answer. Raises Lost if a server may have heard the question, but did not answer."""
        body = json.dumps(question).encode()
        return self._tried(
            lambda endpoint, until: self._ask(endpoint, path, body, until), deadline, once=True
        )

    def stream(self, path: str, question: Json, deadline: float) -> Connection:
        """A connection on which the answer's lines come. Give it back with `end`."""
        body = json.dumps(question).encode()
        return self._tried(
            lambda endpoint, until: self._start(endpoint, path, body, until), deadline
        )

    def ask_at(self, endpoint: Endpoint, path: str, question: Json) -> Json:
        """The answer of this endpoint and no other. Raises Lost, NotReached or Refused."""
        return self._ask(endpoint, path, json.dumps(question).encode(), self.deadline())

    def end(self, connection: Connection) -> None:
        """The connection is not needed any more."""
        with self._lock:
            self._busy.discard(connection)
        connection.close()

    def renew(self) -> None:
        """Have the next question ask for a new token first."""
        self._token = ""

    def avoid(self, endpoint: Endpoint) -> None:
        """Begin with the next endpoint from now on."""
        if self.endpoints[self._preferred] == endpoint:
            self._preferred = (self._preferred + 1) % len(self.endpoints)

    def close(self) -> None:
        """Hang up, and have whoever waits for an answer told so."""
        with self._lock:
            self.is_closed = True
            idle, self._idle = self._idle, []
            for connection in self._busy:
                connection.interrupt()
        for connection in idle:
            connection.close()

    def check_open(self) -> None:
        """StoreError after close()."""
        if self.is_closed:
            raise StoreError(f"{self.name} was closed already")

    # -- attempts -------------------------------------------------------------------------------

    def _tried(
        self, attempt: Callable[[Endpoint, float], T], deadline: float, *, once: bool = False
    ) -> T:
        """What the first endpoint gives that answers; `once`: raises Lost where one heard it."""
        failures: dict[str, str] = {}  # the first of each: later attempts have less time
        while True:
            for endpoint, until in self._round(deadline):
                try:
                    return attempt(endpoint, until)
                except (NotReached, Lost) as error:
                    if once and isinstance(error, Lost):
                        self.avoid(endpoint)
                        raise
                    failures.setdefault(endpoint.url, str(error))
            self._pause(deadline, failures)

    def _round(self, deadline: float) -> Iterable[tuple[Endpoint, float]]:
        """Each endpoint once, the one that answered last first, with its share of the time."""
        count = len(self.endpoints)
        start = self._preferred
        for number in range(count):
            self.check_open()
            now = time.monotonic()
            index = (start + number) % count
            yield self.endpoints[index], now + (deadline - now) / (count - number)
            # The caller comes back only if this one failed.
            self._preferred = (index + 1) % count

    def _pause(self, deadline: float, failures: dict[str, str]) -> None:
        """Wait a little for another round; StoreUnavailable when there is no time left."""
        self.check_open()
        if time.monotonic() + _PAUSE_SECONDS >= deadline:
            raise self.unavailable(failures)
        time.sleep(_PAUSE_SECONDS)

    def unavailable(self, failures: dict[str, str]) -> StoreUnavailable:
        """None of them answered, and why."""
        tried = ", ".join(f"{url} ({why})" for url, why in failures.items())
        return StoreUnavailable(
            f"etcd does not answer: {tried}",
            "try again; look whether it runs and can be reached from here",
        )

    def _ask(self, endpoint: Endpoint, path: str, body: bytes, deadline: float) -> Json:
        for attempt in (1, 2):
            token = self._authenticate(endpoint, deadline)
            connection = self._take(endpoint, deadline)
            try:
                status, answer = connection.ask(path, body, token, deadline)
            except BaseException:
                self.end(connection)
                self.check_open()
                raise
            self._put_back(connection)
            if status == 200:
                return document(answer)
            refused = refusal(status, answer)
            if attempt == 2 or not (self._credentials.user and refused.is_old_token):
                raise refused
            self.renew()
        raise AssertionError("unreachable")

    def _start(self, endpoint: Endpoint, path: str, body: bytes, deadline: float) -> Connection:
        token = self._authenticate(endpoint, deadline)
        connection = self._take(endpoint, deadline)
        try:
            status, answer = connection.start(path, body, token, deadline)
            if status != 200:
                raise refusal(status, answer)
        except BaseException:
            self.end(connection)
            self.check_open()
            raise
        return connection

    def _authenticate(self, endpoint: Endpoint, deadline: float) -> str:
        """The token that shows who we are; empty where no user is known by name."""
        wanted = self._credentials
        if not wanted.user or self._token:
            return self._token
        body = json.dumps({"name": wanted.user, "password": wanted.password}).encode()
        connection = self._take(endpoint, deadline)
        try:
            status, answer = connection.ask("/v3/auth/authenticate", body, "", deadline)
        except BaseException:
            self.end(connection)
            raise
        self._put_back(connection)
        if status != 200:
            raise refusal(status, answer)
        self._token = str(document(answer)["token"])
        return self._token

    # -- connections ----------------------------------------------------------------------------

    def _take(self, endpoint: Endpoint, deadline: float) -> Connection:
        if self._pid != os.getpid():
            self._forget()
        stale, found = [], None
        with self._lock:
            for connection in reversed(self._idle):
                if connection.endpoint != endpoint:
                    continue
                self._idle.remove(connection)
                if connection.is_usable:
                    found = connection
                    self._busy.add(connection)
                    break
                stale.append(connection)
        for connection in stale:
            connection.close()
        if found is None:
            found = Connection(endpoint, self._context(endpoint), deadline)
            with self._lock:
                self._busy.add(found)
        if self.is_closed:
            self.end(found)
        self.check_open()
        return found

    def _put_back(self, connection: Connection) -> None:
        with self._lock:
            self._busy.discard(connection)
            if not self.is_closed and len(self._idle) < _MAX_IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _forget(self) -> None:
        """In a forked child: the connections, and whoever holds the lock, are the parent's."""
        self._pid, self._lock = os.getpid(), threading.Lock()
        for connection in (*self._idle, *self._busy):
            connection.close()
        self._idle, self._busy = [], set()

    def _context(self, endpoint: Endpoint) -> ssl.SSLContext | None:
        if not endpoint.is_tls:
            return None
        if self._tls is None:
            self._tls = _tls_context(self._credentials)
        return self._tls


def _tls_context(files: Credentials) -> ssl.SSLContext:
    import ssl

    try:
        context = ssl.create_default_context(cafile=files.ca or None)
        if files.certificate:
            context.load_cert_chain(files.certificate, files.key or None)
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(name for name in (files.ca, files.certificate, files.key) if name)
        raise StoreError(
            f"the certificates for etcd can not be read: {error}", f"look at {names}"
        ) from error
    return context


def document(answer: bytes) -> Json:
    """What an answer, or a line of a stream, says. Raises Lost if that is not etcd's."""
    try:
        found: Json = json.loads(answer)
        if found.keys() & {"header", "result", "error"}:
            return found
    except (ValueError, AttributeError):
        pass
    raise Lost("what answers is not etcd")
