"""What every question needs: fresh hosts, each with a state of its own, and sandboxes."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

from benchmarks.measure import timed
from benchmarks.place import Place
from netlib import Net
from netlib.settings import Backend

P = ParamSpec("P")
T = TypeVar("T")
_NAMES = (f"s{number}" for number in itertools.count())


class Host:
    """A host, and the library as it is used there, in the host's own thread."""

    def __init__(self, place: Place, net: Net) -> None:
        self.place = place
        self.outside = place.uplink()
        self.net = net

    def do(self, verb: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a call of the library gives."""
        return self.place.call(verb, *args, **kwargs)

    def time(self, verb: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> float:
        """How many milliseconds a call of the library takes."""
        return self.place.call(lambda: timed(verb, *args, **kwargs))

    def sandbox(self) -> str:
        """A new sandbox's name."""
        name = next(_NAMES)
        self.do(self.net.create_sandbox, name)
        return name


class Bench:
    """How often each thing is measured, and the hosts that this needs."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self.closing = ExitStack()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exception: object) -> None:
        self.closing.close()

    def host(self, firewall: Backend = "nftables") -> Host:
        """A fresh host with an uplink, and a network with one member and one published port."""
        folder = self.closing.enter_context(tempfile.TemporaryDirectory(dir="/run"))
        place = Place()
        net = place.call(Net, folder, firewall=firewall)
        self.closing.callback(place.call, net.close)
        host = Host(place, net)
        # A host in use: what all networks share is there, and the processes for names and
        # relays run. They start with the first that needs them and end with the last.
        host.do(net.create, "resident")
        host.do(net.connect, "resident", host.sandbox(), publish=["7999:80"])
        return host
