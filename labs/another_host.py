"""A further host in the same throw-away host: what it has of its own stays while this runs."""

from __future__ import annotations

import socket
import sys

from netlib import throwaway


def main(name: str) -> None:
    """Become the host, say so, and wait until the story has ended."""
    throwaway.separate()
    throwaway.unshare(throwaway.NEW_UTS)
    socket.sethostname(name)
    for folder in throwaway.EMPTY:
        throwaway.tmpfs(folder)
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
