"""What all commands are handed: the library, who asks, and what for."""

from __future__ import annotations

from typing import NamedTuple

from netlib.frontends.cni.config import Config
from netlib.frontends.cni.request import Request
from netlib.net import Net


class Call(NamedTuple):
    """One call of a runtime's."""

    net: Net
    request: Request
    config: Config

    @property
    def ifname(self) -> str:
        """The interface in the container: the configuration's own name for it, else CNI_IFNAME."""
        return self.config.ifname or self.request.ifname
