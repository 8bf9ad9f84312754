"""Our own drivers keep the contract that authors of others test theirs by."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from support.overlay import Placed

from netlib.driver import Driver
from netlib.registry import Registry
from netlib.testing import DriverContract


class Contract(DriverContract):
    """With the driver's name instead of the driver."""

    name: str

    @pytest.fixture
    def driver(self) -> Driver:
        """The driver."""
        return Registry().get(self.name)


class TestBridge(Contract):
    """Bridge networks."""

    name = "bridge"


class TestQuietBridge(Contract):
    """Bridge networks whose members may not talk."""

    name = "bridge"

    @pytest.fixture
    def network_options(self) -> Mapping[str, str]:
        """No traffic between containers."""
        return {"icc": "false"}


class TestMacvlan(Contract):
    """Macvlan networks that the host is on, too."""

    name = "macvlan"

    @pytest.fixture
    def network_options(self) -> Mapping[str, str]:
        """With a shim."""
        return {"host_shim": "true"}


class TestVlan(Contract):
    """Macvlan networks on a VLAN."""

    name = "macvlan"

    @pytest.fixture
    def network_options(self) -> Mapping[str, str]:
        """A sub-interface that is made."""
        return {"parent": "eth0.30", "mode": "private"}


class TestIpvlan(Contract):
    """Ipvlan networks."""

    name = "ipvlan"


class TestRoutedIpvlan(Contract):
    """Ipvlan networks without a LAN."""

    name = "ipvlan"

    @pytest.fixture
    def network_options(self) -> Mapping[str, str]:
        """Mode l3."""
        return {"mode": "l3"}


class TestPtp(Contract):
    """Point-to-point networks."""

    name = "ptp"


class TestNone(Contract):
    """No network."""

    name = "none"


class TestHost(Contract):
    """The host's own."""

    name = "host"


class TestOverlay(DriverContract):
    """Overlay networks, of a host that is in a cluster."""

    @pytest.fixture
    def driver(self) -> Driver:
        """The driver."""
        return Placed()


class TestQuietOverlay(TestOverlay):
    """Overlay networks whose members may not talk, and whose frames are flooded."""

    @pytest.fixture
    def network_options(self) -> Mapping[str, str]:
        """No traffic between containers."""
        return {"icc": "false", "flood": "on", "source_guard": "false"}
