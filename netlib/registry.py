"""Drivers by name, from the entry-point group `netlib.drivers`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from netlib.driver import Driver
from netlib.errors import DriverError, NetError, UnknownDriver
from netlib.model import Endpoint, HostFacts, Network, Peer
from netlib.wiring import Wiring

GROUP = "netlib.drivers"
# Entry points are read from files of every installed distribution (some 10 ms): not for our own.
BUILT_IN: Mapping[str, str] = {
    "bridge": "netlib.drivers.bridge:BridgeDriver",
    "host": "netlib.drivers.host:HostDriver",
    "ipvlan": "netlib.drivers.ipvlan:IpvlanDriver",
    "macvlan": "netlib.drivers.macvlan:MacvlanDriver",
    "none": "netlib.drivers.none:NoneDriver",
    "overlay": "netlib.drivers.overlay:OverlayDriver",
    "ptp": "netlib.drivers.ptp:PtpDriver",
}


class Registry:
    """Loads a driver when it is first asked for, and keeps it."""

    def __init__(self, drivers: Mapping[str, Driver] | None = None) -> None:
        self._loaded: dict[str, Driver] = dict(drivers or {})

    def get(self, name: str) -> Driver:
        """The driver of this name. UnknownDriver lists the known ones."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def names(self) -> list[str]:
        """All drivers that are installed, loadable or not."""
        return sorted({*BUILT_IN, *_installed(), *self._loaded})

    def unused(self) -> list[tuple[str, str]]:
        """Drivers of others that are called like one of netlib's own: their names, and why."""
        return [
            (name, f"driver {name!r} ({place}) is not used: netlib itself has one of that name")
            for name, places in sorted(_installed().items())
            for place in places
            if BUILT_IN.get(name, place) != place
        ]

    def _load(self, name: str) -> Driver:
        places = [BUILT_IN[name]] if name in BUILT_IN else _installed().get(name, [])
        if not places:
            raise UnknownDriver(
                f"there is no driver {name!r}", f"known are: {', '.join(self.names())}"
            )
        if len(places) > 1:
            raise DriverError(
                f"{len(places)} packages bring a driver {name!r}: {', '.join(places)}",
                "remove all but one of them",
            )
        (place,) = places
        module, _, attribute = place.partition(":")
        try:
            driver: Driver = getattr(import_module(module), attribute)()
            missing = [part for part in _PARTS if not hasattr(driver, part)]
        except (Exception, SystemExit) as error:
            raise DriverError(
                f"driver {name!r} ({place}) could not be loaded: {error!r}",
                "repair or remove the package that it comes from",
            ) from error
        if missing:
            raise DriverError(
                f"driver {name!r} ({place}) lacks {', '.join(missing)}",
                "see netlib.driver.Driver for what a driver has",
            )
        # A cast, because what is a class's in the protocol is the object's here.
        return driver if name in BUILT_IN else cast("Driver", Guarded(name, driver))


class Guarded:
    """A driver of somebody else's: whatever goes wrong in it is told as an error of its own."""

    def __init__(self, name: str, driver: Driver) -> None:
        self.name = name
        self.driver = driver
        self.capabilities = driver.capabilities
        self.options = driver.options
        self.endpoint_options = driver.endpoint_options
        self.__doc__ = driver.__doc__

    def check_options(self, network: Network) -> None:
        """As the driver does."""
        self._ask("check_options", network)

    def settle(self, network: Network, host: HostFacts) -> Mapping[str, str]:
        """As the driver does."""
        return dict(self._ask("settle", network, host) or {})

    def network_wiring(self, network: Network, host: HostFacts) -> Wiring:
        """As the driver does."""
        return self._describe("network_wiring", network, host)

    def endpoint_wiring(self, network: Network, endpoint: Endpoint, host: HostFacts) -> Wiring:
        """As the driver does."""
        return self._describe("endpoint_wiring", network, endpoint, host)

    def peer_wiring(self, network: Network, peer: Peer, host: HostFacts) -> Wiring:
        """As the driver does."""
        return self._describe("peer_wiring", network, peer, host)

    def _describe(self, method: str, *arguments: object) -> Wiring:
        wiring = self._ask(method, *arguments)
        if not isinstance(wiring, Wiring):
            raise DriverError(
                f"driver {self.name!r} returned {type(wiring).__name__} from {method}, not Wiring",
                _TELL_ITS_AUTHOR,
            )
        return wiring

    def _ask(self, method: str, *arguments: object) -> Any:
        try:
            answer: Any = getattr(self.driver, method)(*arguments)
        except NetError:
            raise
        except (Exception, SystemExit) as error:
            raise DriverError(
                f"driver {self.name!r} failed in {method}: {error!r}", _TELL_ITS_AUTHOR
            ) from error
        return answer


_TELL_ITS_AUTHOR = "nothing was changed; tell its author, and run it with --debug for them"
_PARTS = (
    "capabilities",
    "options",
    "endpoint_options",
    "check_options",
    "settle",
    "network_wiring",
    "endpoint_wiring",
    "peer_wiring",
)


def _installed() -> dict[str, list[str]]:
    """Where the drivers of each name are; a package that is found twice counts once."""
    from importlib.metadata import entry_points  # 15 ms, and only for drivers of others

    found: dict[str, list[str]] = {}
    for point in entry_points(group=GROUP):
        places = found.setdefault(point.name, [])
        if point.value not in places:
            places.append(point.value)
    return found
