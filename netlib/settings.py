"""Where the state is and which firewall is used, from an argument, the environment, or as usual."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, get_args

from netlib.errors import InvalidRequest

Backend = Literal["auto", "nftables", "iptables", "none"]
STATE_DIR = Path("/var/lib/netlib")
STATE_FILE = "state.db"
FIREWALL = "NETLIB_FIREWALL"


def state_folder(given: str | Path | None) -> Path:
    """The folder of the state: `given`, else NETLIB_STATE_DIR, else /var/lib/netlib."""
    return Path(given or os.environ.get("NETLIB_STATE_DIR") or STATE_DIR)


def firewall_backend(given: str | None) -> Backend:
    """The firewall's backend: `given`, else NETLIB_FIREWALL, else auto."""
    name = given or os.environ.get(FIREWALL) or "auto"
    for backend in get_args(Backend):
        if name == backend:
            chosen: Backend = backend
            return chosen
    raise InvalidRequest(
        f"there is no firewall backend {name!r}", f"use one of: {', '.join(get_args(Backend))}"
    )
