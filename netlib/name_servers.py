"""The door from nouns to the resolver: NameServer nouns in, its sockets handed over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from netlib.dns.client import Resolver
from netlib.errors import AlreadyThere, NotThere
from netlib.plan import Change, Create, Delete, Step
from netlib.values import replace
from netlib.wiring import NameServer, Noun


class NameServers:
    """Lets the resolver of one state listen where NameServer nouns say."""

    name = "resolver"

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def do(self, steps: Sequence[Step]) -> None:
        """Do all steps, or none and raise."""
        there = self._resolver.listening()
        for step in steps:
            if isinstance(step, Create) and _key(step.noun) in there:
                raise AlreadyThere(f"the resolver listens for {_words(step.noun)} already")
            if isinstance(step, Delete) and _key(step.noun) not in there:
                raise NotThere(f"the resolver does not listen for {_words(step.noun)}")
        done: list[Step] = []
        try:
            for step in steps:
                done.append(step)
                self._do(step)
        except BaseException:
            for step in reversed(done):
                self._undo(step)
            raise

    def remove(self, steps: Sequence[Step]) -> None:
        """Do the steps that can be done: a Delete of what is absent is no failure."""
        for step in steps:
            self._do(step)

    def observe(self, nouns: Iterable[Noun]) -> list[Noun]:
        """Of these nouns, those whose addresses the resolver listens at, as it does."""
        there = self._resolver.listening()
        found: list[Noun] = []
        for noun in nouns:
            if isinstance(noun, NameServer) and _key(noun) in there:
                addresses = there[_key(noun)]
                at = {ip_address(text) for text in addresses}
                as_asked = [address for address in noun.addresses if address in at]
                found.append(
                    replace(
                        noun,
                        addresses=(*as_asked, *sorted(at.difference(as_asked), key=str)),
                        port=min(addresses.values(), default=noun.port),
                    )
                )
        return found

    def marked(self) -> list[Noun]:
        """All that the resolver listens for, good for Delete."""
        return [
            NameServer(
                kind="network" if kind == "network" else "sandbox",
                subject=subject,
                addresses=tuple(map(ip_address, addresses)),
                port=min(addresses.values(), default=53),
            )
            for (kind, subject), addresses in self._resolver.listening().items()
        ]

    def _do(self, step: Step) -> None:
        if isinstance(step, Change):
            self._move(step.new)
        elif isinstance(step, Delete):
            self._forget(step.noun)
        else:
            self._listen(step.noun)

    def _undo(self, step: Step) -> None:
        if isinstance(step, Change):
            self._do(Change(step.new, step.old))
        elif isinstance(step, Delete):
            self._listen(step.noun)
        else:
            self._forget(step.noun)

    def _listen(self, noun: Noun) -> None:
        assert isinstance(noun, NameServer)
        if noun.kind == "network":
            self._resolver.listen_at(noun.subject, map(str, noun.addresses), noun.port)
        else:
            self._resolver.listen_sandbox(noun.subject, noun.netns.path, noun.netns.inode)

    def _move(self, noun: Noun) -> None:
        """Addresses that stay keep their sockets: no query is lost."""
        assert isinstance(noun, NameServer)
        if noun.kind == "network":
            self._resolver.move_to(noun.subject, map(str, noun.addresses), noun.port)
        else:
            self._forget(noun)
            self._listen(noun)

    def _forget(self, noun: Noun) -> None:
        assert isinstance(noun, NameServer)
        if noun.kind == "network":
            self._resolver.forget_network(noun.subject)
        else:
            self._resolver.forget_sandbox(noun.subject)


def _key(noun: Noun) -> tuple[str, str]:
    assert isinstance(noun, NameServer)
    return noun.kind, noun.subject


def _words(noun: Noun) -> str:
    assert isinstance(noun, NameServer)
    return f"{noun.kind} {noun.subject[:12]}"
