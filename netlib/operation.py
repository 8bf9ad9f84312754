"""One change, thought through before anything is touched: what to commit and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from netlib.model import Sandbox
from netlib.plan import Plan
from netlib.store import Commit
from netlib.values import dataclass, field

if TYPE_CHECKING:
    from netlib.cluster.claims import Claim, Release

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[R]):
    """A prepared change; preparing it changed nothing.

    `begin` makes the intent durable and claims what must be unique, before `plan` is done;
    `done` says that it is done; `undo` withdraws the claims if it failed and was taken back.
    `dismantles`: the plan does all it can instead of all or nothing; `insists`: it counts as
    done whatever is left over. `sandboxes`: whose networks change. `subject` is for errors.
    `holds`: what no other operation may change meanwhile, and whether this one changes it.
    `warnings` are told once it began: what was asked for and is not done, as it is needless, or
    is done and may not be what was meant.
    `claims` are made in the cluster before `begin`, and taken back if anything after them fails;
    `releases` are let go there once the plan is done.
    """

    subject: str
    plan: Plan
    result: R
    begin: Commit | None = None
    done: Commit | None = None
    undo: Commit | None = None
    dismantles: bool = False
    insists: bool = False
    warnings: tuple[str, ...] = ()
    sandboxes: tuple[Sandbox, ...] = ()
    holds: Mapping[str, bool] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    releases: tuple[Release, ...] = ()


# Thinks an operation through; it may be asked to do it again.
Prepare = Callable[[], Operation[R]]
