"""What who wants to join and a manager say to each other: a line of JSON each way, over TLS."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from typing import Any

VERSION = 1
MOST_BYTES = 64 << 10


class Silent(Exception):
    """The other side says nothing, too much, or no JSON."""


def send(sock: socket.socket, document: Mapping[str, Any], deadline: float) -> None:
    """Send a message before a moment of the monotonic clock. Raises OSError, Silent."""
    sock.settimeout(_left(deadline))
    sock.sendall(json.dumps({"version": VERSION, **document}).encode() + b"\n")


def receive(sock: socket.socket, deadline: float) -> dict[str, Any]:
    """The other side's message. Raises OSError, Silent."""
    read = bytearray()
    while b"\n" not in read:
        sock.settimeout(_left(deadline))
        part = sock.recv(MOST_BYTES)
        if not part:
            raise Silent("the connection ended before there was a message")
        read += part
        if len(read) > MOST_BYTES:
            raise Silent("the message is too long")
    try:
        document = json.loads(bytes(read).partition(b"\n")[0])
    except (ValueError, RecursionError) as error:
        raise Silent("the message is no JSON") from error
    if not isinstance(document, dict):
        raise Silent("the message is no JSON object")
    return document


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise Silent("it took too long")
    return left
