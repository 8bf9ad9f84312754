"""The door for source guards: nf_tables' bridge family, whatever backend has the rest."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from netlib.errors import KernelError, NetError, NotPermitted, NotThere, Unsupported
from netlib.firewall import source_guard as text
from netlib.firewall.base import words
from netlib.firewall.facts import healing, observed
from netlib.kernel.netfilter.libnftables import Nft, NftFailed, open_nft
from netlib.kernel.netfilter.program import Place
from netlib.plan import Change, Create, Delete, Step, subject
from netlib.wiring import Noun

_WITHOUT = "install nftables, or create the network with -o source_guard=false"


class SourceGuards:
    """Guards as elements of the table `bridge netlib`.

    Acts in the network namespace it was made in, whatever thread calls; nft is opened when the
    first guard is asked for.
    """

    name = "source guards"

    def __init__(self) -> None:
        self._place = Place()
        self._nft: Nft | None = None
        self._opening = threading.Lock()
        self._is_made = False  # the table: by us, as far as we have looked

    def do(self, steps: Sequence[Step]) -> None:
        """Do all steps in one transaction, or none and raise."""
        commands = text.script(steps, anew=not self._is_made)
        if not commands:
            return
        try:
            self._open().run(commands)
            self._is_made = self._is_made or any(isinstance(step, Create) for step in steps)
        except NftFailed as error:
            if self._is_made and error.number == errno.ENOENT and not error.by_kernel:
                self._is_made = False  # somebody took it away
                self.do(steps)
                return
            if error.by_kernel and any(isinstance(step, Change) for step in steps):
                self._heal(steps)
                return
            raise _translated(error, steps) from error

    def remove(self, steps: Sequence[Step]) -> None:
        """Do the steps that can be done: a Delete of what is absent is no failure."""
        there = text.facts(self._listed())
        gone = [
            element
            for step in steps
            if isinstance(step, Delete)
            for element in text.elements(step.noun)
            if element.place in there
        ]
        self._run(text.delete(gone))

    def observe(self, nouns: Iterable[Noun]) -> list[Noun]:
        """Of these nouns, those whose thing is there, as it is now."""
        listed = self._listed()
        if not text.is_whole(listed):
            self._is_made = False
            return []
        there = text.facts(listed)
        return observed(nouns, there, text.known(there), text.elements)

    def marked(self) -> list[Noun]:
        """All guards that are there, good for Delete."""
        return list(text.known(text.facts(self._listed())))

    def remove_all(self) -> None:
        """Take the table away."""
        if self._listed():
            self._run([f"delete table {text.TABLE}"])
            self._is_made = False

    def close(self) -> None:
        """Give back the socket and the namespace."""
        with self._opening:
            if self._nft is not None:
                self._nft.close()
                self._nft = None
        self._place.close()

    def _open(self) -> Nft:
        with self._opening:
            if self._nft is None:
                try:
                    self._nft = open_nft(self._place)
                except NetError as error:
                    raise Unsupported(
                        f"nothing can check what sandboxes send here: {error.message}", _WITHOUT
                    ) from error
            return self._nft

    def _listed(self) -> list[dict[str, Any]]:
        """All of the table; nothing where it is not there, or can't be."""
        try:
            return self._open().listed(f"list table {text.TABLE}")
        except Unsupported:
            return []
        except NftFailed as error:
            if error.number in (errno.ENOENT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                return []
            raise _translated(error, ()) from error

    def _heal(self, steps: Sequence[Step]) -> None:
        """Change what is there in part only: read, then write the difference."""
        there = text.facts(self._listed())
        gone, come = healing(steps, there, text.elements, text.places)
        self._run([*text.delete(gone), *text.add(come)], steps)

    def _run(self, commands: Iterable[str], steps: Sequence[Step] = ()) -> None:
        wanted = "\n".join(filter(None, commands))
        if not wanted:
            return
        try:
            self._open().run(wanted)
        except NftFailed as error:
            raise _translated(error, steps) from error


def _translated(error: NftFailed, steps: Sequence[Step]) -> NetError:
    if error.number in (errno.EPERM, errno.EACCES):
        return NotPermitted("changing nftables is not permitted", "run as root")
    if error.number in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return Unsupported("this kernel's nf_tables can not check bridged frames", _WITHOUT)
    about = words(subject(steps[0])) if len(steps) == 1 else "a source guard"
    if error.number == errno.ENOENT:
        return NotThere(f"{about} is not there", "run: net repair")
    return KernelError(f"{error.message} ({about})")
