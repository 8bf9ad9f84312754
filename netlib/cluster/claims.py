"""What an operation takes in the cluster before it begins here, and lets go in the end. Values."""

from __future__ import annotations

from collections.abc import Mapping

from netlib.store import Commit
from netlib.values import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Keys that are to go from the cluster's store, as far as they are `holder`'s still.

    `holder` is the id that the values of its keys contain: after a lease was lost, another
    host's endpoint may have the same address. `network`: where it takes part, if it does.
    """

    keys: tuple[str, ...]
    holder: str
    network: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A commit to the cluster's store, and how it is taken back if what follows it fails.

    `leased`: what it puts goes with the node's lease. `release` is let go, `restore` put back as
    it was: both, or neither where somebody else has written that since.
    """

    commit: Commit
    leased: bool = False
    release: Release | None = None
    restore: Mapping[str, str] = field(default_factory=dict)
