"""What is there of a wiring, below the firewall."""

from __future__ import annotations

from netlib.errors import NotThere
from netlib.kernel import links, riders, settings
from netlib.kernel.session import Session
from netlib.wiring import (
    Bridge,
    Forwarding,
    Layer,
    Link,
    Loopback,
    Noun,
    Sysctl,
    VethPair,
    Vlan,
    Vxlan,
    Wiring,
)


class Observer:
    """Reads nouns back, each table of each network namespace once."""

    def __init__(self, nouns: Wiring, session: Session) -> None:
        self._session = session
        self._riders: dict[str, riders.Observer] = {}
        self._kept_up: dict[str, set[str]] = {}
        for noun in nouns:
            if isinstance(noun, Bridge | VethPair | Vlan | Vxlan):
                self._kept_up.setdefault(noun.netns.path, set()).add(noun.name)

    def observe(self, noun: Noun) -> Noun | None:
        """The thing of a noun as it is now; None if it is gone, or its namespace is."""
        try:
            return self._observe(noun)
        except NotThere:  # NamespaceGone, or what it hangs off is gone since
            return None

    def _observe(self, noun: Noun) -> Noun | None:
        session = self._session
        if isinstance(noun, Link):
            return links.read(noun, session)
        if isinstance(noun, Sysctl):
            return settings.observe_sysctl(noun, session)
        if isinstance(noun, Forwarding):
            return settings.observe_forwarding(noun, session)
        if isinstance(noun, Loopback):
            return settings.observe_loopback(noun, session)
        return self._observe_rider(noun) if noun.layer is Layer.ADDRESS else None

    def _observe_rider(self, noun: Noun) -> Noun | None:
        path = noun.netns.path
        if path not in self._riders:
            socket = self._session.rtnl(noun.netns)
            self._riders[path] = riders.Observer(socket, self._kept_up.get(path, ()))
        return self._riders[path].observe(noun)  # type: ignore[arg-type]  # the riders' layer
