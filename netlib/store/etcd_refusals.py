"""What a server of etcd says instead of an answer, and what it means.

The codes are grpc's status codes, the messages etcd's (etcdserver/api/v3rpc/rpctypes).
"""

from __future__ import annotations

import json
from typing import Any

from netlib.errors import NetError, NotPermitted, StoreError
from netlib.store.etcd_http import Lost

Json = dict[str, Any]

_UNKNOWN, _INVALID, _NOT_FOUND, _DENIED, _EXHAUSTED = 2, 3, 5, 7, 8
_NOT_NOW, _OUT_OF_RANGE, _UNAUTHENTICATED = 9, 11, 16
# With these a server has judged what it was asked. Any other may come when a leader is lost, or
# time is over, after it was passed on.
_JUDGED = (
    *(_INVALID, _NOT_FOUND, _DENIED, _EXHAUSTED),
    *(_NOT_NOW, _OUT_OF_RANGE, _UNAUTHENTICATED),
)
_OLD_TOKEN = ("invalid auth token", "revision of auth store is old", "user name is empty")


class Refused(Exception):
    """A server understood, and did nothing; `code` is grpc's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def is_out_of_range(self) -> bool:
        """The revision was compacted away, or is yet to come."""
        return self.code == _OUT_OF_RANGE

    @property
    def is_old_token(self) -> bool:
        """The token that showed who we are has expired, or the server forgot it."""
        return self.code == _UNAUTHENTICATED or any(text in self.message for text in _OLD_TOKEN)

    @property
    def is_lost_lease(self) -> bool:
        """The lease ended."""
        return "requested lease not found" in self.message

    @property
    def is_out_of_space(self) -> bool:
        """The server's quota is used up."""
        return self.code == _EXHAUSTED and "space exceeded" in self.message


def refusal(status: int, answer: bytes) -> Refused:
    """What a server said instead of an answer. Raises Lost if it did not get so far."""
    try:
        document = json.loads(answer)
        inner = document.get("error")  # of a stream that could not begin
        return refusal_in_stream(inner if isinstance(inner, dict) else document)
    except (ValueError, AttributeError, KeyError, TypeError):
        raise Lost(f"it answers with status {status}") from None


def _judged(code: int, message: str) -> Refused:
    if code not in _JUDGED:
        raise Lost(message)
    return Refused(code, message)


def refusal_in_stream(error: Json) -> Refused:
    """The refusal that came as a line of a stream. Raises Lost if the server can not serve."""
    code = error.get("grpc_code", error.get("code"))
    return _judged(int(code or _UNKNOWN), str(error["message"]))


def explained(name: str, refused: Refused) -> NetError:
    """A refusal for people."""
    what = refused.message.removeprefix("etcdserver: ").removeprefix("mvcc: ")
    if refused.code == _DENIED or "permission denied" in what:
        return NotPermitted(
            f"{name} permits no such thing to this user: {what}",
            "give its role read and write access to the prefix: etcdctl role grant-permission",
        )
    if refused.code == _UNAUTHENTICATED or "authentication failed" in what or "user name" in what:
        return NotPermitted(f"{name} does not let us in: {what}", "check user and password")
    if refused.is_out_of_space:
        return StoreError(
            f"{name} has no space left, so nothing was changed",
            "compact and defragment it, then: etcdctl alarm disarm",
        )
    if "too large" in what or "larger than max" in what:
        return StoreError(
            f"{name} takes no commit of this size: {what}",
            "start it with a larger --max-request-bytes",
        )
    return StoreError(f"{name} refused: {what}", "look at its log")
