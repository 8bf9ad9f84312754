"""The networks that are always there: `bridge`, the default one, `host` and `none`.

They are made when they are first used, and never removed. Before that they are known by what
is said here.
"""

from __future__ import annotations

from collections.abc import Mapping

from netlib import names
from netlib.model import Network

DEFAULT = "bridge"
# Of the default network: sandboxes do not know each other by name, but by links.
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    DEFAULT: {"bridge.name": "net0", "names": "false"},
    "host": {},
    "none": {},
}
NAMES = tuple(_OPTIONS)


def network(name: str) -> Network:
    """A built-in network that was not made yet: without subnets, its id known already."""
    return Network(
        id=names.built_in_id(name),
        name=name,
        driver=name,
        options=dict(_OPTIONS[name]),
        attachable=True,
        state="ready",
    )


__all__ = ["DEFAULT", "NAMES", "network"]
