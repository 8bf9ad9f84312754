"""The doors behind the kernel's own: a firewall backend, and services that are processes.

A kernel hands each step to the door of its noun's kind, so a backend sees nothing but what
it can do, and another backend, or none, takes its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from netlib.plan import Ensure, Step
from netlib.wiring import Count, FirewallBase, Noun


class Steps(Protocol):
    """Does steps on nouns of one kind, reads them back, and finds them after a crash.

    Failures are KernelErrors: AlreadyThere, NotThere, NotPermitted or KernelError itself.
    """

    name: str

    def do(self, steps: Sequence[Step]) -> None:
        """Do all steps in one transaction, or none and raise. Strict, as Kernel.do is."""

    def remove(self, steps: Sequence[Step]) -> None:
        """Do the steps that can be done: a Delete of what is absent is no failure."""

    def observe(self, nouns: Iterable[Noun]) -> list[Noun]:
        """Of these nouns, those whose thing is there, as it is now."""

    def marked(self) -> list[Noun]:
        """All that is there and ours, good for Delete."""


@runtime_checkable
class Begun(Steps, Protocol):
    """Steps that another process of ours does, while the caller goes on."""

    def begin(self, steps: Sequence[Step]) -> Callable[[], None]:
        """Ask for steps; the call of what is returned ends as `do` does."""


class Firewall(Steps, Protocol):
    """For FirewallBase, Forward, Segment, Masquerade, Publish, Open and DnsRedirect."""

    def strays(self, wanted: Iterable[Noun]) -> list[Noun]:
        """What others put among its facts, as Strays: part of no wanted noun and of none it has."""

    def counted(self, nouns: Iterable[Noun]) -> dict[tuple[object, ...], Count]:
        """What those of the nouns met that are there and count, by their keys."""

    def senders(self) -> frozenset[int]:
        """The netlink ports that most of its own changes come from (netlink(7), nl_pid)."""

    def close(self) -> None:
        """Give back sockets; once more is no failure."""


def ensures_base(steps: Iterable[Step]) -> bool:
    """Whether the firewall's base is ensured by one of the steps."""
    return any(isinstance(s, Ensure) and isinstance(s.noun, FirewallBase) for s in steps)


__all__ = ["Begun", "Firewall", "Steps", "ensures_base"]
