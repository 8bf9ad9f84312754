"""Asks the server of `answer.py` by UDP: `python3 -m netlib.labs.ask ADDRESS PORT [SECONDS]`."""

from __future__ import annotations

import socket
import sys

_PATIENCE = 5.0  # seconds


def main(address: str, port: int, patience: float = _PATIENCE) -> int:
    """Print the answer; the exit status is 1 when none comes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(patience)
        try:
            client.connect((address, port))
            client.send(b"hello")
            print(client.recv(65535).decode(), end="")
        except OSError as error:
            print(f"no answer: {error}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:])))
