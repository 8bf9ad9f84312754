"""Container networking for Linux: networks, sandboxes, endpoints, published ports.

>>> import netlib
>>> net = netlib.Net(state_dir="/tmp/example")  # doctest: +SKIP

Names are loaded when they are first used, so importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from netlib.driver import Capabilities, Driver, Option
    from netlib.errors import NetError
    from netlib.model import Endpoint, Network, PublishedPort, Sandbox, Subnet
    from netlib.net import Net
    from netlib.plan import Plan
    from netlib.ports import PortRequest

__all__ = [
    "Capabilities",
    "Driver",
    "Endpoint",
    "Net",
    "NetError",
    "Network",
    "Option",
    "Plan",
    "PortRequest",
    "PublishedPort",
    "Sandbox",
    "Subnet",
]

_HOME = {
    "Capabilities": "driver",
    "Driver": "driver",
    "Endpoint": "model",
    "Net": "net",
    "NetError": "errors",
    "Network": "model",
    "Option": "driver",
    "Plan": "plan",
    "PortRequest": "ports",
    "PublishedPort": "model",
    "Sandbox": "model",
    "Subnet": "model",
}


def __getattr__(name: str) -> object:
    """A public name, from the module that has it (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"netlib.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
