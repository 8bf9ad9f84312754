"""Which of the things that carry netlib's mark are this state's: a host may have several states.

A link's mark says of which state it is, or of which cluster: then it is of the state that is a
member of that. The bridge of a built-in network, whose id all states share, is of the state that
has made that network. A fact of the firewall carries none: it goes with the bridge it speaks of,
and is everybody's when that bridge is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from netlib import names
from netlib.engine import Engine
from netlib.model import IPAddress
from netlib.wiring import (
    Allow,
    DnsRedirect,
    Forward,
    Link,
    Masquerade,
    Noun,
    Open,
    Publish,
    Segment,
    SourceGuard,
    Unmasked,
    VxlanMember,
    VxlanPort,
    Wiring,
)


def ours(engine: Engine) -> Iterable[Noun]:
    """What is on the host now and was made by this state, or by one that is gone."""
    marked = engine.kernel.marked()
    segments = [noun for noun in marked if isinstance(noun, Segment)]
    mine = _links(engine, marked)
    there = engine.facts(sorted(_bridges(marked))).devices
    for noun in marked:
        if isinstance(noun, VxlanPort | VxlanMember):
            continue  # they go with the host's membership in a cluster, see strange_members
        if isinstance(noun, Link):
            if noun.name in mine:
                yield noun
        elif all(name in mine or name not in there for name in _speaks_of(noun, segments)):
            yield noun


def strange_members(engine: Engine, known: Callable[[], Wiring]) -> Wiring:
    """Whom the firewall takes for members of the cluster, and ports it takes for theirs.

    But `known`, and nobody where there are links of other states: they may be theirs. It is asked
    on both sides of the look: who is let in or out just then is known before, or after it.
    """
    before = known()
    marked = engine.kernel.marked()
    keys = {noun.key() for noun in (*before, *known())}
    mine = _links(engine, marked)
    if any(isinstance(noun, Link) and noun.name not in mine for noun in marked):
        return Wiring()
    members = (noun for noun in marked if isinstance(noun, VxlanPort | VxlanMember))
    return Wiring(noun for noun in members if noun.key() not in keys)


def _links(engine: Engine, marked: Wiring) -> set[str]:
    """The names of this state's links."""
    state = engine.state
    realms = _realms(engine)
    wirings = [r.wiring for r in state.networks()] + [r.wiring for r in state.endpoints()]
    made = {key for wiring in wirings for key, _ in wiring.items()}
    return {
        noun.name
        for noun in marked
        if isinstance(noun, Link) and (names.realms_of(noun.owner) & realms or noun.key() in made)
    }


def _realms(engine: Engine) -> set[str]:
    """This state's, and that of the cluster whose networks it knows."""
    state = engine.state
    shared = [r.network for r in state.networks() if r.network.underlay is not None]
    shared += [record.network for record in state.offers()]
    found = {state.realm()}.union(*(names.realms_of(names.owner(one.id)) for one in shared))
    return found - {""}


def _bridges(marked: Wiring) -> set[str]:
    return {name for noun in marked for name in _speaks_of(noun, ())}


def _speaks_of(noun: Noun, segments: Iterable[Segment]) -> set[str]:
    """The bridges that a fact of the firewall is about."""
    if isinstance(noun, Forward | Segment | Masquerade | Unmasked | DnsRedirect):
        return {noun.bridge}
    if isinstance(noun, SourceGuard):
        return {noun.device}
    if isinstance(noun, Publish | Open | Allow):
        return _behind(noun.target, segments)
    return set()  # a relay or a resolver is asked for by the folder of its state


def _behind(address: IPAddress, segments: Iterable[Segment]) -> set[str]:
    """The bridges behind which an address is."""
    return {segment.bridge for segment in segments if address in segment.prefix}
