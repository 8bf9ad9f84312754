"""Links are made, changed and removed: as few sends as can be, and never what is not ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence

from netlib.errors import AlreadyThere, InterfaceTaken, NetError, NotThere
from netlib.kernel import links, rtnl
from netlib.kernel.deletions import Deletions
from netlib.kernel.errnos import Refusal, is_absence, refused
from netlib.kernel.journal import Journal
from netlib.kernel.kinds import vxlan
from netlib.kernel.netlink import Request, Socket, u32
from netlib.kernel.netns import is_host
from netlib.kernel.refusals import thing, translated
from netlib.kernel.rtnl import LinkState
from netlib.kernel.session import Session
from netlib.model import Netns
from netlib.plan import Change, Create, Delete, Step
from netlib.wiring import Link, Noun, VethPair, Vxlan

_CLASHES = (errno.EEXIST, errno.EADDRINUSE)
# Groups that we use for deletion: random, so that two of us at once do not meet.
_GROUP_PREFIX = 0x6E4C << 16


def do_links(steps: Sequence[Step], session: Session, journal: Journal) -> None:
    """Do all steps; on failure raise, with what was done in the journal."""
    _delete([s for s in steps if isinstance(s, Delete)], session, journal)
    batch = _Batch(session, journal)
    for step in steps:
        if not isinstance(step, Delete):
            batch.add(step)
    batch.flush()


def remove_links(
    nouns: Iterable[Link],
    session: Session,
    deletions: Deletions,
    made: Mapping[Noun, str] | None = None,
) -> None:
    """Remove those that are there and ours: marked, or `made` under these names just now."""
    made = made or {}
    by_netns: dict[str, list[Link]] = {}
    for noun in nouns:
        by_netns.setdefault(noun.netns.path, []).append(noun)
    for group in by_netns.values():
        indexes = set()
        for noun in group:
            if noun in made:
                for name in {noun.name, made[noun]}:
                    state = links.find(session, noun.netns, name)
                    indexes.update([state.ifindex] if state is not None else [])
            elif (state := links.find_own(noun, session)) is not None:
                indexes.add(state.ifindex)
        if indexes:
            socket = session.rtnl(group[0].netns)
            # A bridge is gone only when its routes are: its prefix may be wanted again at once.
            if is_host(group[0].netns) and all(isinstance(noun, VethPair) for noun in group):
                refusal = deletions.delete(sorted(indexes), lambda i, s=socket: not s.device(i))  # type: ignore[misc]
            else:
                refusal = delete_indexes(sorted(indexes), socket)
            if refusal is not None and not is_absence(refusal):
                names = ", ".join(noun.name for noun in group)
                raise refused(refusal, f"{names} in {group[0].netns} can't be removed")


class _Batch:
    """Requests of many steps, sent when one needs what another makes."""

    def __init__(self, session: Session, journal: Journal) -> None:
        self._session = session
        self._journal = journal
        self._pending: list[tuple[Netns, Request, Step]] = []
        self._made: set[tuple[str, str]] = set()

    def add(self, step: Step) -> None:
        noun = step.new if isinstance(step, Change) else step.noun
        assert isinstance(noun, Link)
        needed = links.needs(noun)
        if needed is not None and (needed[0].name, needed[1]) in self._made:
            self.flush()
        if isinstance(step, Create):
            # Checked before, because the kernel executes what follows a refused request in
            # one message: it would rename and re-plug the device that is in the way.
            _check_free(noun, self._session)
            requests = links.create(noun, self._session)
        else:
            state = _ours(noun, self._session)
            requests = links.change(noun, state, self._session)
        for item in requests:
            if item is None:
                self.flush()
            else:
                self._pending.append((*item, step))
        self._made.update(noun.makes())

    def flush(self) -> None:
        pending, self._pending = self._pending, []
        self._made.clear()
        start = 0
        while start < len(pending):
            netns = pending[start][0]
            end = start
            while end < len(pending) and pending[end][0].path == netns.path:
                end += 1
            self._send(netns, pending[start:end])
            start = end

    def _send(self, netns: Netns, part: list[tuple[Netns, Request, Step]]) -> None:
        try:
            answers = self._session.rtnl(netns).transact([request for _, request, _ in part])
        except BaseException:  # an interrupt, say: all of it may have been done
            for _, _, step in part:
                self._journal.note(step)
            raise
        failed: tuple[Refusal, Step] | None = None
        for (_, request, step), refusal in zip(part, answers, strict=True):
            if refusal is None:
                self._journal.note_request(step, request)
            elif failed is None:
                failed = refusal, step
        if failed is not None:
            raise _in_the_way(*failed, self._session)


def _check_free(noun: Link, session: Session) -> None:
    if session.rtnl(noun.netns).index(noun.name):
        raise _taken(noun, session)


def _taken(noun: Link, session: Session) -> NetError:
    state = links.find(session, noun.netns, noun.name)
    if state is not None and links.is_ours(state):
        return AlreadyThere(f"{thing(noun)} is there already")
    return InterfaceTaken(
        f"{noun.netns} has a device {noun.name} that is not ours",
        "choose another name for ours, or remove that device",
    )


def _in_the_way(refusal: Refusal, step: Step, session: Session) -> NetError:
    error = translated(refusal, step)
    noun = step.new if isinstance(step, Change) else step.noun
    if isinstance(error, AlreadyThere) and isinstance(noun, VethPair):
        if session.rtnl(noun.netns).index(noun.name):
            return error
        return InterfaceTaken(
            f"{noun.peer_netns} has a device {noun.peer} already",
            "choose another name with --ifname, or remove that device",
        )
    if isinstance(noun, Vxlan) and refusal.errno in _CLASHES:
        rival = vxlan.rival(noun, session)
        if rival:
            error.hint = f"{rival}: remove that device, or move it to another port"
    return error


def _ours(noun: Link, session: Session) -> LinkState:
    state = links.find(session, noun.netns, noun.name)
    if state is None:
        raise NotThere(f"{thing(noun)} is not there")
    if not links.is_ours(state):
        raise _taken(noun, session)
    return state


def _delete(steps: Sequence[Delete], session: Session, journal: Journal) -> None:
    """All in one go, so they wait for RCU once."""
    if not steps:
        return
    indexes: list[int] = []
    for step in steps:
        noun: Noun = step.noun
        assert isinstance(noun, Link)
        state = links.find_own(noun, session)
        if state is None:
            there = session.rtnl(noun.netns).index(noun.name)
            why = "is not ours any more" if there else "is not there"
            raise NotThere(f"{thing(noun)} {why}")
        indexes.append(state.ifindex)
    socket = session.rtnl(steps[0].noun.netns)
    refusal = delete_indexes(indexes, socket)
    for step, index in zip(steps, indexes, strict=True):
        if refusal is None or not socket.device(index):
            journal.note(step)
    if refusal is not None:
        raise translated(refusal, steps[0])


def delete_indexes(indexes: Sequence[int], socket: Socket) -> Refusal | None:
    """Remove devices by one request where it is safe, else one by one."""
    if len(indexes) > 1:
        group = _GROUP_PREFIX | int.from_bytes(os.urandom(2), "big")
        marked = socket.transact([rtnl.set_link(u32(rtnl.GROUP, group), index=i) for i in indexes])
        # A deletion by group takes whatever has the number, so look who has it.
        states = map(rtnl.read_link, socket.ask(rtnl.all_links(), "devices"))
        members = {state.ifindex for state in states if state.group == group}
        there = {i for i, refusal in zip(indexes, marked, strict=True) if refusal is None}
        if members and members == there:
            (answer,) = socket.transact([rtnl.delete_group(group)])
            if answer is None:
                return None
    answers = socket.transact([rtnl.delete_link(index) for index in indexes])
    failures = [a for a in answers if a is not None and not is_absence(a)]
    return failures[0] if failures else None


__all__ = ["delete_indexes", "do_links", "remove_links"]
